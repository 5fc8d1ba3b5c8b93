"""Runs a command and measures it from outside."""

import collections
import glob
import os
import subprocess
import sys
import time

# seconds; peak_bytes: of all its processes together, shared pages counted once. out: what it printed.
Measured = collections.namedtuple("Measured", "seconds peak_bytes out")
INTERVAL = 0.05  # seconds between two looks at the memory; a look costs some milliseconds


def measure(command, **more):
    """Runs a command (list of str) to its end.

    Args:
      command: list of str.
      more: as of `subprocess.Popen`.

    Raises:
      subprocess.CalledProcessError: it failed.
    """
    start, peak = time.time(), 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **more)
    while process.poll() is None:
        peak = max(peak, sum(map(_proportional_bytes, _family(process.pid))))
        time.sleep(INTERVAL)
    seconds = time.time() - start
    out = process.stdout.read().decode("utf-8")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out)
    return Measured(seconds, peak, out)


def _family(process):
    """A process and all below it."""
    found = [process]
    for path in glob.glob("/proc/%d/task/*/children" % process):
        found += [pid for child in _read(path).split() for pid in _family(int(child))]
    return found


def _proportional_bytes(process):
    """A process's resident memory, of a page that n processes share an n-th."""
    for line in _read("/proc/%d/smaps_rollup" % process).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def _read(path):
    try:
        with open(path) as stream:
            return stream.read()
    except OSError:  # it has ended
        return ""


def this_python(name, *arguments):
    """The command line of a module of this project or of a script."""
    return [sys.executable] + ([name] if os.path.exists(name) else ["-m", name]) + list(arguments)
