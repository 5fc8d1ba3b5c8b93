"""Commands that are started, see `tests.forks`, and may be killed."""

import os
import signal
import time

from tests import forks

TIME_LIMIT = 900  # seconds


class Failed(Exception):
    """Something did not end as it must; the text says what."""


class Running:
    """A command in a group of processes of its own, whose words go to a file.

    Attributes:
      process: multiprocessing's Process.
    """

    def __init__(self, command, log, **environment):
        self._log = log
        os.makedirs(os.path.dirname(log), exist_ok=True)
        open(log, "wb").close()
        self.process = forks.start(command, [os.devnull, log, log], **environment)

    def end(self):
        """Waits; returns the exit code.

        Raises:
          Failed: it hangs.
        """
        if not self.ends_within(TIME_LIMIT):
            self.kill(group=True)
            raise Failed("hangs; " + self.last_line())
        return self.process.exitcode

    def ends_within(self, seconds):
        """Waits, but not for longer; returns whether it has ended."""
        self.process.join(seconds)
        return not self.process.is_alive()

    def succeed(self):
        """Waits.

        Raises:
          Failed: its code is not 0.
        """
        code = self.end()
        if code:
            raise Failed("code %d: %s" % (code, self.last_line()))

    def ask(self, signal_):
        """Sends a signal that the command may answer."""
        if self.process.is_alive():
            os.kill(self.process.pid, signal_)

    def kill(self, group):
        """SIGKILL, for the process alone or with those that it has started."""
        if self.process.is_alive():
            (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.join()

    def said(self):
        with open(self._log, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def last_line(self):
        return (self.said().strip().splitlines() or [""])[-1]


def succeed(command, log=os.devnull, **environment):
    """Runs a command to its end; returns the seconds it took.

    Raises:
      Failed: its code is not 0.
    """
    began = time.time()
    Running(command, log, **environment).succeed()
    return time.time() - began


def refuse(command, log, *told):
    """Runs a command that must fail in one line, with one of the words in it.

    Raises:
      Failed: it succeeds, or fails in another way.
    """
    running = Running(command, log)
    code = running.end()
    line = running.last_line()
    if code != 1 or "error: " not in line or "Traceback" in running.said() or not any(word in line for word in told):
        raise Failed("code %d, and not refused for %s: %s" % (code, " or ".join(told), line))
    return line
