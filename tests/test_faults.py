"""A short version of `python -m tests.faults`; what the suite's other tests kill, cut and flip stands beside theirs."""

import json
import os
import random

import pytest

from tests import graphs
from tests.faults import compare
from tests.faults import damage
from tests.faults import disk
from tests.faults import fuzz
from tests.faults import kill
from tests.faults import processes
from tests.faults import tally as tallies
from tests.faults import world as worlds


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.World(str(tmp_path_factory.mktemp("faults")))


def happens(trial, world, name, numbers):
    """Makes trials until the fault has met its job; it may come before the job is ready, or after its end, which
    depends on how busy the machine is."""
    return any(trial(world, name, number) for number in numbers)


@graphs.ON_TENSORFLOW_2
def test_a_corpus_job_that_is_killed_ends_with_the_same_bytes(world):
    assert happens(kill.trial, world, "create_pretraining_data", (9, 7, 0))


@graphs.ON_TENSORFLOW_2
def test_a_training_that_is_killed_or_asked_to_end_goes_on_to_the_same_end(world):
    # The first trials' moments lie in the middle, so that something is there to go on with and something left to do;
    # those after it earlier, for a machine that has become faster since the unbroken job was timed.
    assert happens(kill.trial, world, "pretraining", (4, 2, 15))
    assert happens(kill.signalled, world, "pretraining", (22, 15, 4, 8))


@graphs.ON_TENSORFLOW_2
def test_a_training_on_a_full_disk_says_so_and_goes_on_when_there_is_room(world):
    try:
        assert disk.trial(world, "pretraining", 3) == 1
    except processes.Failed as error:
        if "mount" in str(error):
            pytest.skip(str(error))
        raise


@graphs.ON_TENSORFLOW_2
@pytest.mark.parametrize("name", fuzz.READERS)
def test_rubbish_is_refused_or_read(name, world):
    fuzz.run(world, name, 1, cases=1500)


@pytest.fixture
def folders(tmp_path):
    for name in ("one", "two"):
        os.mkdir(str(tmp_path / name))
        tmp_path.joinpath(name, "x.json").write_text(json.dumps({"loss": 0.5, "seconds": 3, "labels": ["a"]}))
        tmp_path.joinpath(name, "y.bin").write_bytes(b"123")
    return tmp_path


@pytest.mark.parametrize("name, content, found", [
    ("x.json", b'{"loss": 0.5000001, "seconds": 9, "labels": ["a"]}', ""),
    ("x.json", b'{"loss": 0.51, "seconds": 3, "labels": ["a"]}', "x.json: /loss: 0.5 and 0.51"),
    ("x.json", b'{"loss": 0.5, "seconds": 3, "labels": ["b"]}', "x.json: /labels/0: 'a' and 'b'"),
    ("x.json", b'{"loss": 0.5}', "x.json: : other keys"), ("y.bin", b"124", "y.bin: other bytes"),
    ("z.bin", b"", "z.bin: in one of the two only"), ("events.out.tfevents.1", b"", "")])
def test_what_differs_is_told(name, content, found, folders):
    folders.joinpath("two", name).write_bytes(content)
    assert compare.difference(str(folders / "one"), str(folders / "two")) == found


def test_of_a_runs_checkpoints_the_last_is_compared(folders):
    for folder, step in (("one", 150), ("one", 200), ("two", 163), ("two", 200)):
        folders.joinpath(folder, "model.ckpt-%d.data-00000-of-00001" % step).write_bytes(b"")
    assert compare.difference(str(folders / "one"), str(folders / "two")) == ""
    folders.joinpath("two", "model.ckpt-200.data-00000-of-00001").unlink()
    assert compare.difference(str(folders / "one"), str(folders / "two")).startswith("model.ckpt-163")


def test_a_tally_goes_on_and_makes_again_what_failed(tmp_path, capsys):
    def fail():
        raise processes.Failed("it did not end")

    folder, made = str(tmp_path), []
    tallies.Tally(folder, "2.15.1").do("damage", 0, fail)

    def succeed():
        made.append(len(made))
        return {"count": 2, "unit": "files damaged"}

    for number in (0, 1, 0, 1):
        tallies.Tally(folder, "2.15.1").do("damage", number, succeed)
    assert made == [0, 1]
    table = tallies.table(folder, ["kill_export", "damage"])
    assert table.splitlines()[2:] == ["| damage | 2.15.1 | 2 | 4 files damaged | 0 |"]
    assert capsys.readouterr().out.startswith("damage 0: it did not end\ndamage 0: as it must be, 0 s\n")


def test_trials_are_made_until_the_fault_has_happened_often_enough(tmp_path):
    tally = tallies.Tally(str(tmp_path), "2.15.1")

    def fail():
        raise processes.Failed("it did not end")

    assert tally.lacks("kill_export", 0, enough=3)
    tally.do("kill_export", 0, lambda: {"count": 0, "unit": "kills"})  # it had ended before
    tally.do("kill_export", 1, fail)
    tally.do("kill_export", 2, lambda: {"count": 2, "unit": "kills"})
    assert tally.lacks("kill_export", 3, enough=3)
    tally.do("kill_export", 3, lambda: {"count": 1, "unit": "kills"})
    assert not tally.lacks("kill_export", 4, enough=3)
    assert tally.lacks("kill_export", 1, enough=3)  # which failed


@pytest.mark.parametrize("kind", damage.KINDS)
def test_harm_changes_a_file(kind, tmp_path):
    path = tmp_path / "x"
    for seed in range(20):
        path.write_bytes(b"12345678")
        damage.harm(str(path), kind, random.Random(seed))
        assert path.read_bytes() != b"12345678"
