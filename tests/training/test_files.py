import collections
import ctypes
import hashlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from training import files
from training.command import UserError

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def tree(folder):
    """dict of relative path -> content of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8")
            for path in sorted(folder.rglob("*")) if path.is_file()}


def fill(folder, **contents):
    for name, content in contents.items():
        files.write_text(os.path.join(str(folder), name), content)


def test_a_file_does_not_appear_before_it_is_whole(tmp_path):
    path = tmp_path / "a" / "b.txt"
    with files.whole_file(str(path)) as temporary:
        with open(temporary, "w") as stream:
            stream.write("half")
        assert not path.exists()
    assert tree(tmp_path) == {"a/b.txt": "half"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_file_that_failed_leaves_the_old_one_and_nothing_else(error, tmp_path):
    fill(tmp_path, kept="old")
    with pytest.raises(error):
        with files.whole_file(str(tmp_path / "kept")) as temporary:
            with open(temporary, "w") as stream:
                stream.write("new")
            raise error
    assert tree(tmp_path) == {"kept": "old"}


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path):
    fill(tmp_path, kept="old")
    script = ("import os, signal, sys\nfrom training import files\n"
              "with files.whole_file(sys.argv[1]) as name:\n"
              "    open(name, 'w').write('new')\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "kept")], cwd=CHECKOUT)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "kept").read_text() == "old"


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path):
    fill(tmp_path, **{"a.txt": "1", "a.txt.tmp-123": "half", "b.tmp.txt": "2", "c.tmp-x": "3"})
    files.sweep(str(tmp_path))
    assert tree(tmp_path) == {"a.txt": "1", "b.tmp.txt": "2", "c.tmp-x": "3"}


def test_nothing_is_written_through_a_link_in_a_folder_of_many(tmp_path):
    # Its name can be known before; the folder of a shared machine lets anybody put a link there.
    fill(tmp_path, theirs="old")
    for name in ("new.txt", "new.txt.tmp-%d" % os.getpid()):
        os.symlink(str(tmp_path / "theirs"), str(tmp_path / name))
    files.write_text(str(tmp_path / "new.txt"), "new")
    assert tree(tmp_path) == {"theirs": "old", "new.txt": "new"}
    assert not os.path.islink(str(tmp_path / "new.txt"))


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_are_for_whom_the_users_umask_says(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        files.write_text(str(tmp_path / "new.txt"), "new")
    finally:
        os.umask(before)
    assert os.stat(str(tmp_path / "new.txt")).st_mode & 0o777 == mode


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_takes_the_place_of_the_old_one_as_a_whole(slash, tmp_path):
    fill(tmp_path / "best", old="1", both="1")
    with files.whole_folder(str(tmp_path / "best") + slash) as temporary:
        fill(temporary, new="2", both="2")
        assert tree(tmp_path / "best") == {"old": "1", "both": "1"}
    assert tree(tmp_path) == {"best/new": "2", "best/both": "2"}


def test_who_reads_while_a_folder_is_replaced_always_finds_one(tmp_path):
    best, found, stop = str(tmp_path / "best"), collections.Counter(), threading.Event()
    fill(best, figures="0")

    def read():
        while not stop.is_set():
            found[os.path.isdir(best)] += 1

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(300):
        with files.whole_folder(best) as temporary:
            fill(temporary, figures=str(number))
    stop.set()
    reader.join()
    assert found[True] and (not found[False] or not hasattr(ctypes.CDLL(None), "renameat2"))
    assert tree(tmp_path) == {"best/figures": "299"}


def test_where_folders_cannot_be_exchanged_the_old_one_is_set_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    for number in range(2):
        with files.whole_folder(str(tmp_path / "best")) as temporary:
            fill(temporary, figures=str(number))
    assert tree(tmp_path) == {"best/figures": "1"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_folder_that_failed_leaves_the_old_one_and_nothing_else(error, tmp_path):
    fill(tmp_path / "best", old="1")
    with pytest.raises(error):
        with files.whole_folder(str(tmp_path / "best")) as temporary:
            fill(temporary, new="2")
            raise error
    assert tree(tmp_path) == {"best/old": "1"}
    assert os.listdir(str(tmp_path)) == ["best"]


def test_a_folder_that_was_set_aside_is_put_back(tmp_path):
    fill(tmp_path / "best.old", old="1")
    files.recover_folder(str(tmp_path / "best"))
    assert tree(tmp_path) == {"best/old": "1"}


def test_a_folder_that_was_replaced_loses_the_one_set_aside(tmp_path):
    fill(tmp_path / "best.old", old="1")
    fill(tmp_path / "best", new="2")
    files.recover_folder(str(tmp_path / "best") + "/")
    assert tree(tmp_path) == {"best/new": "2"}
    assert os.listdir(str(tmp_path)) == ["best"]


def test_nothing_to_recover_changes_nothing(tmp_path):
    fill(tmp_path / "best", new="2")
    files.recover_folder(str(tmp_path / "best"))
    files.recover_folder(str(tmp_path / "other"))
    assert tree(tmp_path) == {"best/new": "2"}


def test_what_a_killed_process_left_of_a_folder_does_not_reach_the_next(tmp_path):
    fill(tmp_path / "best.tmp", stale="0")
    with files.whole_folder(str(tmp_path / "best")) as temporary:
        fill(temporary, new="2")
    assert tree(tmp_path) == {"best/new": "2"}


def test_json_comes_back_and_is_readable_chinese(tmp_path):
    path = str(tmp_path / "a.json")
    files.write_json(path, {"标签": [1, "危险"]})
    assert files.read_json(path) == {"标签": [1, "危险"]}
    assert "危险" in tree(tmp_path)["a.json"]


def test_broken_json_is_told_with_file_line_and_column(tmp_path):
    fill(tmp_path, broken='{\n  "a": 1,\n}')
    with pytest.raises(UserError) as error:
        files.read_json(str(tmp_path / "broken"))
    assert str(error.value).startswith("%s:3:1: not JSON: " % (tmp_path / "broken"))


@pytest.mark.parametrize("read", [files.read_json, files.read_lines])
def test_a_file_that_is_not_utf8_is_told(read, tmp_path):
    path = tmp_path / "broken"
    path.write_bytes(b'"ab\xff"')
    with pytest.raises(UserError) as error:
        read(str(path))
    assert str(error.value).startswith("%s: not UTF-8: " % path)
    assert str(error.value).endswith("at byte 3")


@pytest.mark.parametrize("content, lines", [
    (b"", []), (b"a", ["a"]), (b"a\n", ["a"]), (b"a\r\nb\r\n", ["a", "b"]),
    (b"a\n\nb\n\n", ["a", "", "b", ""]),
    ("a\u2028b\x0cc\x85\n".encode("utf-8"), ["a\u2028b\x0cc\x85"])])
def test_lines_end_at_line_ends_alone(content, lines, tmp_path):
    (tmp_path / "lines").write_bytes(content)
    assert files.read_lines(str(tmp_path / "lines")) == lines


def test_the_digest_is_sha256(tmp_path):
    content = b"abc" * 700000  # more than one block
    (tmp_path / "big").write_bytes(content)
    assert files.digest(str(tmp_path / "big")) == hashlib.sha256(content).hexdigest()


def test_files_are_found_once_and_sorted(tmp_path):
    fill(tmp_path, **{"b.txt": "", "a.txt": "", "c.tsv": ""})
    found = files.matching_files("%s/*.txt,%s/a.*,%s/c.tsv" % ((tmp_path,) * 3), "input_file")
    assert found == [str(tmp_path / name) for name in ("a.txt", "b.txt", "c.tsv")]


def test_a_pattern_that_fits_nothing_is_told_with_its_flag(tmp_path):
    fill(tmp_path, **{"a.txt": ""})
    with pytest.raises(UserError) as error:
        files.matching_files("%s/a.txt,%s/*.tsv" % (tmp_path, tmp_path), "input_file")
    assert str(error.value) == "--input_file=%s/*.tsv: no such file" % tmp_path
