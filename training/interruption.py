"""SIGTERM and Ctrl-C: a command ends in order, says how to go on, and its exit code says why."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time

SIGNALS = (signal.SIGTERM, signal.SIGINT)

SAME_REQUEST = 1.0  # seconds: Ctrl-C reaches a whole group, and a parent may ask its child once more

_pending = None  # number of the signal that came
_came = 0.0
_deferred = False


class Interrupted(BaseException):
    """A signal asked this process to end.

    Attributes:
      code: what the process is to end with, 128 and the signal's number.
    """

    def __init__(self, number):
        super().__init__("stopped by %s; the same command goes on from what is done" % signal.Signals(number).name)
        self.code = 128 + number


def install():
    """Lets both signals raise Interrupted; one that is ignored, as in jobs of a shell without a terminal, stays so."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _come)


def leave_to_parent():
    """For a worker process: Ctrl-C, which the whole group gets, is its parent's to answer, and SIGTERM ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_if_stuck(answer_seconds, end_seconds):
    """Lets a signal end this process when the main thread waits for another machine inside TensorFlow.

    Python hears of a signal there only when TensorFlow comes back, which may be never.

    Args:
      answer_seconds: that Python has to hear of the signal.
      end_seconds: that it then has to end in order.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno())  # written to at once, whatever the main thread does
    threading.Thread(target=_end_if_stuck, args=(heard, told, answer_seconds, end_seconds), daemon=True).start()


def _end_if_stuck(heard, _told, answer_seconds, end_seconds):
    number = None
    while number not in SIGNALS:
        number = ord(heard.recv(1))
    time.sleep(answer_seconds)
    if pending():
        time.sleep(end_seconds)
    stop = Interrupted(number)
    sys.stderr.write("%s: %s\n" % (os.path.basename(sys.argv[0]), stop))
    sys.stderr.flush()
    os._exit(stop.code)


def _come(number, _):
    global _pending, _came
    again = pending() and time.time() - _came > SAME_REQUEST
    _pending, _came = number, time.time()
    if again or not _deferred:
        raise Interrupted(number)


@contextlib.contextmanager
def deferred():
    """Within, a signal only makes `pending` true, and is raised at the end; a later one is raised at once."""
    with _deferring(True):
        yield
    check()


@contextlib.contextmanager
def at_once():
    """Within `deferred`: what may be broken off at any place."""
    with _deferring(False):
        check()
        yield


@contextlib.contextmanager
def _deferring(value):
    global _deferred
    before, _deferred = _deferred, value
    try:
        yield
    finally:
        _deferred = before


def pending():
    """Whether a signal has come."""
    return _pending is not None


def check():
    """Raises Interrupted when a signal has come."""
    if pending():
        raise Interrupted(_pending)


@contextlib.contextmanager
def undisguised():
    """Within, an error that came on the way out of what was broken off gives place to the Interrupted behind it.

    TensorFlow's scopes, left in a moment they do not expect, raise errors of their own.
    """
    try:
        yield
    except Exception as error:
        behind = error
        while behind and not isinstance(behind, Interrupted):
            behind = behind.__cause__ or behind.__context__
        raise behind or error
