"""Each command is killed at random moments and started again until it ends: as if it had not been."""

import os
import random
import shutil
import time

from tests.faults import compare
from tests.faults import processes
from tests.faults import world as worlds

MOST_KILLS, MOST_SIGNALS = 3, 2
EARLIEST = 0.1  # of a job's time; before that it has written nothing


def trial(world, name, number):
    """Kills a job up to MOST_KILLS times.

    Args:
      world: World.
      name: of the job.
      number: of the trial, from which the moments are drawn.

    Returns:
      how often it was killed before it had ended.

    Raises:
      Failed.
    """
    job, random_ = worlds.JOBS[name], random.Random("%s %d" % (name, number))
    seconds = unbroken(world, name)
    folder = world.at(os.path.join("killed", name))
    shutil.rmtree(folder, ignore_errors=True)
    command, log, kills, began = job.command(world, folder), folder + ".log", 0, time.time()
    running = processes.Running(command, log)
    for _ in range(random_.randint(1, MOST_KILLS)):
        if running.ends_within(seconds * random_.uniform(EARLIEST, 1.0)):
            if not kills:
                _remember(world, name, time.time() - began)
            break
        running.kill(group=number % 2 == 0)
        kills += 1
        running = processes.Running(command, log)
    running.succeed()
    same(world, name, folder)
    return kills


def unbroken(world, name):
    """Seconds of a job by itself, whose result stands in `world.done`."""
    if not os.path.exists(_took(world, name)):
        worlds.prepare(world, name, processes.succeed)
        shutil.rmtree(world.done(name))
        _remember(world, name, processes.succeed(worlds.JOBS[name].command(world, world.done(name))))
    with open(_took(world, name)) as stream:
        return float(stream.read())


def _took(world, name):
    return world.done(name) + ".seconds"


def _remember(world, name, seconds):
    """How long a job takes by itself: the first one may have compiled our ops too, and later ones be over too early."""
    with open(_took(world, name), "w") as stream:
        stream.write("%.2f" % seconds)


def same(world, name, folder):
    """Raises Failed unless a job's result in `folder` is that of the unbroken one."""
    output = worlds.JOBS[name].output
    found = compare.difference(os.path.join(world.done(name), output), os.path.join(folder, output))
    if found:
        raise processes.Failed(found)


def again(world, name, number):
    """Does a job once more, with nothing in its way: the same comes out; returns 1."""
    del number
    unbroken(world, name)
    folder = world.at(os.path.join("again", name))
    shutil.rmtree(folder, ignore_errors=True)
    processes.succeed(worlds.JOBS[name].command(world, folder), folder + ".log")
    same(world, name, folder)
    return 1


def signalled(world, name, number):
    """Asks a job to end at random moments: it does, says how to go on, and goes on to the same end.

    Returns:
      how often it had not ended before.
    """
    job, random_ = worlds.JOBS[name], random.Random("signal %s %d" % (name, number))
    seconds = unbroken(world, name)
    folder = world.at(os.path.join("signalled", name))
    shutil.rmtree(folder, ignore_errors=True)
    signal_, code = [(15, 143), (2, 130)][number % 2]
    command, log, asked, began = job.command(world, folder), folder + ".log", 0, time.time()
    running = processes.Running(command, log)
    for _ in range(MOST_SIGNALS):
        if running.ends_within(seconds * random_.uniform(EARLIEST, 1.0)):
            if not asked:
                _remember(world, name, time.time() - began)
            break
        running.ask(signal_)
        found = running.end()
        # Before it could listen, or after all was done.
        if found == -signal_ and running.said():
            same(world, name, folder)
        elif found not in (0, code, -signal_):
            raise processes.Failed("code %d: %s" % (found, running.last_line()))
        if found == code:
            asked += 1
            if "the same command goes on" not in running.last_line():
                raise processes.Failed("does not say how to go on: " + running.last_line())
        running = processes.Running(command, log)
    running.succeed()
    same(world, name, folder)
    return asked
