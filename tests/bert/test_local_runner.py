import errno
import glob
import os

import pytest

from bert import corpus
from bert import encoding
from bert import local_runner
from tests import graphs
from tests.bert.creation import contents, create, documents
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2


# ---- the same bytes

def test_the_seed_decides_every_byte_whatever_the_number_of_workers(folder, monkeypatch):
    monkeypatch.setattr(corpus, "CELL_BYTES", 2000)
    monkeypatch.setattr(corpus, "WINDOW_BYTES", 500)
    monkeypatch.setattr(local_runner, "BATCH_BYTES", 300)
    monkeypatch.setattr(local_runner, "BUCKET_BYTES", 2000)
    found = []
    for workers, seed in ((1, 1), (3, 1), (1, 2)):
        _, shards = create(folder, documents(30), 2, workers, random_seed=seed)
        found.append([open(name, "rb").read() for name in shards])
        for name in glob.glob(str(folder / "out" / "*")):
            os.remove(name)
    assert found[0] == found[1]
    assert found[0][0] != found[2][0] and found[0][1] != found[2][1]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_the_work(folder, monkeypatch, num_workers):
    log, encode = folder / "log", encoding.Encoder.encode
    monkeypatch.setattr(encoding.Encoder, "encode", lambda self, sentences: (
        log.open("a").write("%d\n" % os.getpid()), encode(self, sentences))[1])
    create(folder, documents(30), num_workers=num_workers)
    processes = set(log.read_text().split())
    assert str(os.getpid()) not in processes and 1 <= len(processes) <= num_workers


class Died(BaseException):
    """In place of a kill."""


def dying_at(call, function):
    """`function`, dying at its call number `call`."""
    calls = []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise Died()
        return function(*arguments)

    return dying


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_run_killed_between_two_shards_redoes_only_the_others(folder, monkeypatch, num_workers):
    monkeypatch.setattr(local_runner, "BUCKET_BYTES", 2000)
    _, shards = create(folder, documents(30), num_shards=3)
    expected = contents(folder / "out")
    create(folder, documents(30), num_shards=3, random_seed=2)
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(local_runner, "_join", dying_at(2, local_runner._join))
        create(folder, documents(30), num_shards=3, num_workers=num_workers)
    done, = contents(folder / "out")
    assert contents(folder / "out")[done] == expected[done]
    written = os.stat(done).st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(local_runner, "_spill", None)  # the text is not read again
        assert create(folder, documents(30), num_shards=3)[0]["predictions"] == 2400
    assert contents(folder / "out") == expected and os.stat(done).st_mtime_ns == written
    assert len(os.listdir(str(folder / "out"))) == 4


def test_a_run_killed_while_it_reads_begins_again(folder, monkeypatch):
    create(folder, documents(30))
    expected = contents(folder / "out")
    create(folder, documents(5))
    before = contents(folder / "out")
    left = folder / "out" / ".a.tfrecord.making"
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(local_runner.shutil, "rmtree", lambda *_, **__: None)  # a kill clears nothing away
        patch.setattr(local_runner, "_over_ranges", dying_at(1, None))
        create(folder, documents(30))
    (left / "00000-1").write_bytes(b"half of what was to be written")
    assert contents(folder / "out") == before
    create(folder, documents(30))
    assert contents(folder / "out") == expected and not left.exists()


def test_what_another_job_left_is_not_taken_up(folder, monkeypatch):
    create(folder, documents(30))
    expected = contents(folder / "out")
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(local_runner, "_join", dying_at(1, None))
        create(folder, documents(5), num_shards=2)
    create(folder, documents(30))
    assert contents(folder / "out") == expected
    assert len(os.listdir(str(folder / "out"))) == len(expected)


def test_shards_of_a_job_that_was_not_finished_do_not_stand_beside_those_of_another(folder, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(local_runner, "_join", dying_at(3, local_runner._join))
        create(folder, documents(30), num_shards=4)
    assert len(contents(folder / "out")) == 2
    _, shards = create(folder, documents(30), num_shards=3)
    assert sorted(contents(folder / "out")) == sorted(shards + [str(folder / "out" / "a.tfrecord.json")])


def test_a_full_disk_is_told_and_what_is_done_stays(folder, monkeypatch):
    create(folder, documents(30), num_shards=2)
    expected = contents(folder / "out")
    create(folder, documents(5), num_shards=2)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(local_runner.shutil, "copyfileobj", full)
        with pytest.raises(UserError, match="out: the disk is full; make room and run the same command again"):
            create(folder, documents(30), num_shards=2)
    assert contents(folder / "out") == {}
    with monkeypatch.context() as patch:
        patch.setattr(local_runner, "_spill", None)
        create(folder, documents(30), num_shards=2)
    assert contents(folder / "out") == expected
