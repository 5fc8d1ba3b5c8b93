import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests import commands
from training import lock
from training.command import UserError


def hold(path, more=""):
    """A process that holds the lock until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import os, sys\nfrom training import lock\n"
         "with lock.held(%r, 'output_dir'):\n    %s\n    print('held', flush=True)\n    sys.stdin.read()" % (
             str(path), more or "pass")],
        cwd=commands.CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


def end(process):
    process.stdin.close()
    process.stdout.close()
    return process.wait()


def take(path):
    with lock.held(str(path), "output_dir"):
        return True


def test_a_second_process_is_refused_and_told_who_the_first_is(tmp_path):
    holder = hold(tmp_path / "run")
    with pytest.raises(UserError) as error:
        take(tmp_path / "run")
    assert str(error.value).startswith("--output_dir=%s: process %d on %s has been writing there since 20" % (
        tmp_path / "run", holder.pid, socket.gethostname()))
    assert not end(holder)
    assert take(tmp_path / "run")


def test_another_output_is_free(tmp_path):
    holder = hold(tmp_path / "run")
    assert take(tmp_path / "other")
    end(holder)


def test_a_slash_at_the_end_names_the_same_output(tmp_path):
    holder = hold("%s/run/" % tmp_path)
    with pytest.raises(UserError):
        take(tmp_path / "run")
    end(holder)


def test_nothing_is_left_and_no_folder_is_made(tmp_path):
    assert take(tmp_path / "run") and not os.listdir(str(tmp_path))
    with pytest.raises(KeyError), lock.held(str(tmp_path / "run"), "output_dir"):
        raise KeyError
    assert not os.listdir(str(tmp_path))


def test_folders_above_are_made_and_stay_if_something_stands_there(tmp_path):
    with lock.held(str(tmp_path / "a" / "b" / "run"), "output_dir"):
        assert os.listdir(str(tmp_path / "a" / "b")) == ["run.lock"]
    assert not os.listdir(str(tmp_path))
    with lock.held(str(tmp_path / "a" / "run"), "output_dir"):
        os.mkdir(str(tmp_path / "a" / "run"))
    assert os.listdir(str(tmp_path / "a")) == ["run"]


def test_the_lock_of_a_process_that_was_killed_is_taken_over_at_once(tmp_path):
    holder = hold(tmp_path / "run")
    holder.send_signal(signal.SIGKILL)
    end(holder)
    assert os.path.exists(str(tmp_path / "run.lock"))
    began = time.time()
    assert take(tmp_path / "run") and time.time() - began < lock.PATIENCE / 2
    assert not os.path.exists(str(tmp_path / "run.lock"))


def test_workers_that_outlive_a_killed_process_are_waited_for(tmp_path):
    holder = hold(tmp_path / "run", "child = os.fork()\n    if not child:\n        import time; time.sleep(1)\n"
                                    "        os._exit(0)")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    began = time.time()
    assert take(tmp_path / "run") and time.time() - began > 0.2
    end(holder)


def test_one_that_is_removed_while_another_process_waits_is_not_held_by_both(tmp_path):
    # Who opened the file before it was removed holds the lock of a file that nobody else will find.
    holder = hold(tmp_path / "run")
    os.remove(str(tmp_path / "run.lock"))
    first = lock.held(str(tmp_path / "run"), "output_dir")
    with first, pytest.raises(UserError):
        take(tmp_path / "run")
    holder.kill()
    end(holder)


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    assert take(tmp_path / "run")
    assert "this file system has no locks (No locks available)" in capsys.readouterr().err


def test_the_lock_is_not_taken_through_a_link(tmp_path):
    tmp_path.joinpath("theirs").write_text("old")
    os.symlink(str(tmp_path / "theirs"), str(tmp_path / "run.lock"))
    with pytest.raises(OSError):
        take(tmp_path / "run")
    assert tmp_path.joinpath("theirs").read_text() == "old"
