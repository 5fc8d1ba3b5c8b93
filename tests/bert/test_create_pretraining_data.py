import glob
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from bert import create_pretraining_data as creation
from bert import tfrecord
from tests import graphs
from tests import peer
from tests.bert.creation import SETTINGS, contents, create, documents, sentence
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2


# ---- whole files

def test_all_records_are_in_the_shards_once(folder):
    counts, shards = create(folder, documents(20), num_shards=3)
    assert [os.path.basename(name) for name in shards] == ["a.tfrecord-0000%d-of-00003" % n for n in range(3)]
    assert sum(map(tfrecord.count_records, shards)) == counts["instances"] == 800
    assert min(map(tfrecord.count_records, shards)) > 200
    assert sorted(os.listdir(str(folder / "out"))) == sorted(
        [os.path.basename(name) for name in shards] + ["a.tfrecord.json"])


def test_more_shards_than_records_leave_some_empty(folder):
    counts, shards = create(folder, sentence(0, 3), num_shards=5, dupe_factor=1)
    assert sorted(map(tfrecord.count_records, shards)) == [0, 0, 0, 0, 1]


def test_named_shards_may_stand_anywhere(folder):
    names = creation.shard_names("%s/x/1,%s/y/2" % (folder, folder), 1)
    (folder / "a.txt").write_text(documents(20), encoding="utf-8")
    settings = creation.Settings(vocab_file=str(folder / "vocab.txt"), **SETTINGS)
    arguments = [str(folder / "a.txt")], names, creation.manifest_name(names[0]), settings
    assert creation.create(*arguments)["instances"] == sum(map(tfrecord.count_records, names)) == 800
    assert creation.create(*arguments) is None


@pytest.mark.parametrize("output_file, num_shards, message", [
    ("a,,b", 1, "--output_file=a,,b: an empty name, or one name twice"),
    ("a,a", 1, "--output_file=a,a: an empty name, or one name twice"),
    ("a,b", 3, "--num_shards=3: --output_file names 2 shards; give one of the two flags"),
    (",".join(map(str, range(513))), 1, "--output_file: 513 names; at most 512 shards can be made"),
])
def test_shards_that_cannot_be_are_refused(output_file, num_shards, message):
    with pytest.raises(UserError) as caught:
        creation.shard_names(output_file, num_shards)
    assert str(caught.value) == message


def test_finished_shards_are_left_alone(folder):
    create(folder, documents(5), num_shards=2)
    before = {name: os.stat(name).st_mtime_ns for name in glob.glob(str(folder / "out" / "*"))}
    assert create(folder, documents(5), num_shards=2)[0] is None
    assert {name: os.stat(name).st_mtime_ns for name in glob.glob(str(folder / "out" / "*"))} == before


@pytest.mark.parametrize("change", [
    {"num_shards": 3}, {"random_seed": 2}, {"dupe_factor": 9}, {"max_seq_length": 17}, {"samples": "packed"},
    {"max_predictions_per_seq": 5}, {"masked_lm_prob": 0.2}, {"do_lower_case": False}, {"text": documents(6)},
], ids=lambda change: next(iter(change)))
def test_shards_are_made_anew_when_anything_changes(folder, change):
    create(folder, documents(5), num_shards=2)
    counts, shards = create(folder, **dict({"text": documents(5), "num_shards": 2}, **change))
    assert counts is not None
    # Shards of the earlier run would be read together with these.
    expected = [os.path.basename(name) for name in shards] + ["a.tfrecord.json"]
    assert sorted(os.listdir(str(folder / "out"))) == sorted(expected)


def test_shards_of_an_earlier_format_are_made_anew(folder, monkeypatch):
    monkeypatch.setattr(creation, "FORMAT", creation.FORMAT - 1)
    create(folder, documents(5))
    monkeypatch.undo()
    assert create(folder, documents(5))[0] is not None


def test_shards_are_made_anew_when_one_is_gone_or_cut(folder):
    _, shards = create(folder, documents(5), num_shards=2)
    first = contents(folder / "out")
    os.remove(shards[1])
    assert create(folder, documents(5), num_shards=2)[0] is not None
    with open(shards[0], "ab") as stream:
        stream.truncate(100)
    assert create(folder, documents(5), num_shards=2)[0] is not None
    assert contents(folder / "out") == first


@pytest.mark.parametrize("text", [documents(3).encode("utf-8") + b"\xcb\xe1", "\n\n\u200b\n"],
                         ids=["encoding", "empty"])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_leaves_what_was_there(folder, text, num_workers):
    with pytest.raises(UserError):
        create(folder, text, num_workers=num_workers)
    assert os.listdir(str(folder / "out")) == []
    create(folder, documents(5))
    before = contents(folder / "out")
    with pytest.raises(UserError):
        create(folder, text, num_workers=num_workers)
    assert contents(folder / "out") == before


def test_nothing_that_is_read_is_overwritten(folder):
    (folder / "a.txt").write_text(documents(2), encoding="utf-8")
    settings = creation.Settings(vocab_file=str(folder / "vocab.txt"), **SETTINGS)
    for name in ("a.txt", "vocab.txt"):
        before = (folder / name).read_bytes()
        with pytest.raises(UserError, match="is read as input too"):
            creation.create([str(folder / "a.txt")], [str(folder / name)], str(folder / "a.json"), settings)
        assert (folder / name).read_bytes() == before


@pytest.mark.parametrize("content", ["{}", "[]", '{"made_from": 1, "shards": {}, "mine": 1}', "text"])
def test_a_file_that_only_has_the_manifests_name_is_not_lost(folder, content):
    (folder / "out").mkdir()
    (folder / "out" / "a.tfrecord.json").write_text(content)
    with pytest.raises(UserError, match="a.tfrecord.json"):
        create(folder, documents(2))
    assert (folder / "out" / "a.tfrecord.json").read_text() == content


# ---- the command

def command(folder, *arguments, output="out/a.tfrecord"):
    environment = dict(os.environ, PYTHONPATH=peer.CHECKOUT, PYTHONIOENCODING="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "bert.create_pretraining_data", "--input_file=a.txt",
         "--vocab_file=vocab.txt", "--output_file=" + output] + list(arguments), cwd=str(folder),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


def finish(process):
    out, err = process.communicate()
    return process.returncode, out, err


ERRORS = {
    "missing": (["--input_file=b.txt,c*.txt"], "--input_file=b.txt: no such file"),
    "vocabulary": (["--vocab_file=none.txt"], "none.txt: No such file or directory"),
    "encoding": (["--input_file=bad.txt"],
                 "bad.txt:1: not UTF-8 at byte 1 of the line, 1 of the text; convert the file (iconv -f GB18030 -t "
                 "UTF-8 when it is in a Chinese encoding); --errors=skip leaves such lines out"),
    "folder": (["--input_file=."], ".: Is a directory"),
    "words": (["--user_dict=a.txt"], "--user_dict: has no effect without --do_whole_word_mask; add it"),
    "dynamic": (["--masking=dynamic", "--max_ngram=2"],
                "--max_ngram: masks are drawn when the records are read; give it to run_pretraining.py"),
    "forms": (["--text_key=t", "--document_per_line"],
              "--document_per_line: not needed with --text_key, a row is a document; leave it out"),
    "empty": (["--input_file=empty.txt"], "empty.txt: no text to make samples of"),
    "value": (["--samples=pairs"],
              "flag --samples=pairs: value should be one of <sentence|packed>; --help lists the flags"),
    "range": (["--dupe_factor=0"],
              "flag --dupe_factor=0: 0 is not a positive integer; --help lists the flags"),
    "flag": (["--dupe_facter=2"],
             "Unknown command line flag 'dupe_facter'. Did you mean: dupe_factor ?; --help lists the flags"),
    "shards": (["--output_file=out/1,out/2", "--num_shards=3"],
               "--num_shards=3: --output_file names 2 shards; give one of the two flags"),
}


def test_errors_are_told_in_one_line_and_leave_nothing(folder):
    (folder / "a.txt").write_text(documents(2), encoding="utf-8")
    (folder / "bad.txt").write_bytes(b"\xcb\xe1\n")
    (folder / "empty.txt").write_text("\n\n")
    # Together: most of a command's time is its start.
    running = {name: command(folder, *arguments, output="out/%d/a.tfrecord" % number)
               for number, (name, (arguments, _)) in enumerate(ERRORS.items())}
    for name, process in running.items():
        code, out, err = finish(process)
        *before, last = err.splitlines()
        assert (code, out, last) == (1, "", "create_pretraining_data.py: error: " + ERRORS[name][1])
        assert all(line.startswith("samples:") for line in before if line), name
    assert glob.glob(str(folder / "out" / "*")) + glob.glob(str(folder / "out" / ".*")) == []


def test_help_is_worth_reading_and_no_error(folder):
    code, out, err = finish(command(folder, "--help"))
    assert (code, err) == (0, "")
    assert "--samples=packed:" in out and "--dupe_factor:" in out


def test_the_command_says_what_it_did_and_then_that_it_is_finished(folder):
    (folder / "a.txt").write_text(documents(20) + "\n油" + sentence(0, 3), encoding="utf-8")
    code, out, _ = finish(command(folder, "--num_shards=2", "--max_seq_length=16", "--num_workers=2"))
    assert (code, out.splitlines()) == (0, [
        "documents 21, sentences 81, tokens 644", "[UNK] 0.16 % of the tokens",
        "instances 810, of 10.0 tokens on average, predictions 1610",
        # A document of 32 tokens would be packed to 14, 14 and 4.
        "padding 37.8 % of the positions: a sentence has 8.0 tokens; --samples=packed would leave 21.5 %, "
        "--pad=false none",
        "shards 2: out/a.tfrecord-00000-of-00002 ... out/a.tfrecord-00001-of-00002"])
    before = contents(folder / "out")
    code, out, err = finish(command(folder, "--num_shards=2", "--max_seq_length=16", "--num_workers=1"))
    assert (code, err, out) == (
        0, "", "out/a.tfrecord: finished, 2 of 2 shards are there; nothing to do (delete out/a.tfrecord.json "
               "to make them again)\n")
    assert contents(folder / "out") == before
    manifest = json.loads((folder / "out" / "a.tfrecord.json").read_text())
    assert manifest["counts"]["instances"] == 810


def test_a_killed_run_leaves_neither_records_nor_workers_and_can_be_repeated(folder):
    (folder / "a.txt").write_text(documents(30000), encoding="utf-8")
    process = command(folder, "--num_workers=2", "--max_seq_length=16")
    wait_for(lambda: len(children(process.pid)) == 2 or process.poll() is not None)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    process.stderr.close()
    assert len(workers) == 2
    wait_for(lambda: not any(is_running(worker) for worker in workers))
    lock = str(folder / "out" / "a.tfrecord.lock")  # which nobody holds
    assert glob.glob(str(folder / "out" / "*")) == [lock]
    assert finish(command(folder, "--num_workers=2", "--dupe_factor=1"))[0] == 0
    assert sorted(os.listdir(str(folder / "out"))) == ["a.tfrecord", "a.tfrecord.json"]


def test_the_command_does_without_tensorflow(folder):
    (folder / "a.txt").write_text(documents(2), encoding="utf-8")
    (folder / "tensorflow.py").write_text("raise ImportError('TensorFlow is not to be loaded')")
    assert finish(command(folder, "--do_whole_word_mask", "--dedup=near"))[0] == 0


def wait_for(condition, seconds=30):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end
        time.sleep(0.02)


def stat_fields(process):
    """(state, parent, ...) of a process; empty when there is none."""
    try:
        with open("/proc/%s/stat" % process) as stream:
            return stream.read().rpartition(")")[2].split()
    except OSError:
        return []


def children(parent):
    return [int(process) for process in os.listdir("/proc")
            if process.isdigit() and stat_fields(process)[1:2] == [str(parent)]]


def is_running(process):
    return stat_fields(process)[:1] not in ([], ["Z"])
