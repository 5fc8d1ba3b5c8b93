"""Commands that are started, and may be killed."""

import os
import signal
import subprocess
import sys
import time

from tests import commands

TIME_LIMIT = 900  # seconds


class Failed(Exception):
    """Something did not end as it must; the text says what."""


class Running:
    """A command in a group of processes of its own, whose words go to a file.

    Attributes:
      process: Popen.
    """

    def __init__(self, command, log, **environment):
        self._log = log
        os.makedirs(os.path.dirname(log), exist_ok=True)
        with open(log, "wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable] + commands.words(command), cwd=commands.CHECKOUT, stdin=subprocess.DEVNULL,
                stdout=stream, stderr=subprocess.STDOUT, env=commands.environment(**environment),
                start_new_session=True, preexec_fn=_listen)

    def end(self):
        """Waits; returns the exit code.

        Raises:
          Failed: it hangs.
        """
        try:
            return self.process.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill(group=True)
            raise Failed("hangs; " + self.last_line())

    def ends_within(self, seconds):
        """Waits, but not for longer; returns whether it has ended."""
        try:
            self.process.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            return False

    def succeed(self):
        """Waits.

        Raises:
          Failed: its code is not 0.
        """
        code = self.end()
        if code:
            raise Failed("code %d: %s" % (code, self.last_line()))

    def kill(self, group):
        """SIGKILL, for the process alone or with those that it has started."""
        if self.process.poll() is None:
            (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def said(self):
        with open(self._log, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def last_line(self):
        return (self.said().strip().splitlines() or [""])[-1]


def _listen():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # what runs behind a shell ignores it


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
