import signal
import subprocess
import sys

import pytest

from tests import commands

BOTH = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


def run(code):
    """What a process prints that runs `code`, which may call `tell(number)` to signal itself; Result."""
    begin = ("import os, signal, time\nfrom training import command, interruption\n"
             "def tell(number):\n    os.kill(os.getpid(), number)\n    time.sleep(0.01)\n"
             "def main():\n    %s\n"
             "command.run(main, lambda: None)\n")
    done = subprocess.run([sys.executable, "-c", begin % code.replace("\n", "\n    ")], cwd=commands.CHECKOUT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                          timeout=60,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # even behind a shell
    return commands.Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("number, code", BOTH)
def test_a_command_that_is_asked_to_end_says_how_to_go_on_and_its_code_says_why(number, code):
    found = run("try:\n    tell(%d)\n    print('not here')\nfinally:\n    print('in order')" % number)
    assert (found.code, found.out) == (code, "in order\n")
    assert found.err == "-c: stopped by %s; the same command goes on from what is done\n" % signal.Signals(number).name


@pytest.mark.parametrize("error", ["RuntimeError", "command.UserError"])
def test_an_error_on_the_way_out_does_not_hide_that_it_was_stopped(error):
    # As of tf.variable_scope, when a graph is broken off while it is built.
    found = run("try:\n    tell(15)\nfinally:\n    raise %s('Improper nesting')" % error)
    assert found.code == 143 and found.err.startswith("-c: stopped by SIGTERM; ") and len(found.err.splitlines()) == 1


def test_an_error_after_another_is_not_taken_for_a_request_to_stop():
    found = run("try:\n    raise ValueError\nfinally:\n    raise RuntimeError('Improper nesting')")
    assert found.code == 1 and found.err.endswith("RuntimeError: Improper nesting\n")


def test_where_it_is_deferred_the_work_is_done_first():
    found = run("with interruption.deferred():\n    tell(15)\n    print(interruption.pending())\nprint('not here')")
    assert (found.code, found.out) == (143, "True\n")


def test_what_may_be_broken_off_is_left_out_when_a_signal_has_come_before():
    found = run("with interruption.deferred():\n    tell(15)\n"
                "    with interruption.at_once():\n        print('not here')")
    assert (found.code, found.out) == (143, "")


def test_what_may_be_broken_off_is_broken_off():
    found = run("with interruption.deferred():\n"
                "    with interruption.at_once():\n        print('here')\n        tell(15)\n        print('not here')")
    assert (found.code, found.out) == (143, "here\n")


def test_a_signal_that_comes_twice_at_once_is_one_request_and_later_it_is_another():
    code = ("with interruption.deferred():\n    tell(2)\n    tell(15)\n    print('here')\n%s    tell(2)\n"
            "    print('and here')")
    assert run(code % "").out == "here\nand here\n"
    assert run(code % "    time.sleep(1.1)\n").out == "here\n"


# Waits for a lock of C's that it holds itself: no signal brings it back to Python.
STUCK = ("import ctypes\n"
         "lock = ctypes.create_string_buffer(64)\n"
         "for _ in range(2):\n    ctypes.CDLL(None).pthread_mutex_lock(lock)")


@pytest.mark.parametrize("number, code", BOTH)
def test_who_waits_outside_of_python_is_ended_by_a_signal_all_the_same(number, code):
    found = run("import threading\ninterruption.end_if_stuck(0.3, 60.0)\n"
                "threading.Timer(0.2, os.kill, [os.getpid(), %d]).start()\n%s" % (number, STUCK))
    assert found.code == code and found.err.startswith("-c: stopped by %s; the same" % signal.Signals(number).name)


def test_who_has_begun_to_answer_a_signal_and_then_waits_outside_of_python_is_ended():
    found = run("interruption.end_if_stuck(0.1, 0.3)\nwith interruption.deferred():\n    tell(15)\n    print('heard')\n"
                "    %s" % STUCK.replace("\n", "\n    "))
    assert found.code == 143 and found.err.startswith("-c: stopped by SIGTERM; ")


def test_who_answers_a_signal_has_time_to_end_in_order():
    found = run("interruption.end_if_stuck(0.1, 60.0)\nwith interruption.deferred():\n    tell(15)\n"
                "    time.sleep(0.5)\n    print('in order')")
    assert (found.code, found.out) == (143, "in order\n")


def test_a_signal_that_was_ignored_stays_ignored():
    # As by nohup, and in what a shell without a terminal runs behind.
    script = ("import os, signal\nfrom training import command\n"
              "command.run(lambda: [os.kill(os.getpid(), signal.SIGINT), print('here')], lambda: None)")
    done = subprocess.run([sys.executable, "-c", script], cwd=commands.CHECKOUT, stdout=subprocess.PIPE,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert (done.returncode, done.stdout) == (0, b"here\n")


def test_workers_end_by_a_signal_and_leave_ctrl_c_to_their_parent():
    code = ("child = os.fork()\n"
            "if not child:\n    interruption.leave_to_parent()\n    tell(2)\n    tell(15)\n    os._exit(0)\n"
            "print(os.WTERMSIG(os.waitpid(child, 0)[1]))")
    assert run(code).out == "15\n"
