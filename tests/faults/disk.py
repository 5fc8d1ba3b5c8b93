"""Each command meets a disk that is full at some point: it says so, and goes on when there is room."""

import os
import random
import subprocess

from tests.faults import kill
from tests.faults import processes
from tests.faults import world as worlds

ROOM = 512 << 20  # bytes


def trial(world, name, number):
    """Runs a job on a file system too small for it, then makes that larger.

    Returns:
      how often the disk was full.

    Raises:
      Failed.
    """
    random_ = random.Random("disk %s %d" % (name, number))
    kill.unbroken(world, name)
    needed = size_of(world.done(name))
    place = world.at("small_disk")
    os.makedirs(place, exist_ok=True)
    room = int(needed * random_.uniform(0.05, 0.95))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%d" % max(room, 1 << 12), "none", place]).returncode:
        raise processes.Failed("this machine lets nobody mount a tmpfs")
    try:
        folder, log, full = os.path.join(place, "out"), world.at("disk.log"), 0
        command = worlds.JOBS[name].command(world, folder)
        running = processes.Running(command, log)
        if running.end():
            full = 1
            if "Traceback" in running.said() or not any(word in running.last_line() for word in (
                    "No space left on device", "the disk is full", "make room", "MB are free")):
                raise processes.Failed("a full disk is not told: " + running.last_line())
        subprocess.run(["mount", "-o", "remount,size=%d" % ROOM, place], check=True)
        processes.succeed(command, log)
        kill.same(world, name, folder)
        return full
    finally:
        subprocess.run(["umount", "-l", place])


def size_of(folder):
    """Bytes of all files below."""
    return sum(os.path.getsize(os.path.join(where, name)) for where, _, names in os.walk(folder) for name in names)
