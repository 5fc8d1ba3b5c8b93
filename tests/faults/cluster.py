"""Two workers of a cluster: one is killed, the job is started again, and ends as if it had not been."""

import os
import random
import shutil
import signal
import time

from tests import commands
from tests.faults import compare
from tests.faults import kill
from tests.faults import processes
from tests.faults import world as worlds

JOB = "pretraining"
STEPS = "--num_train_steps=400"  # so that what is killed is training


def trial(world, _, number):
    """Kills one of two workers at a random moment; returns 1."""
    random_ = random.Random("cluster %d" % number)
    worlds.prepare(world, JOB, processes.succeed)
    unbroken, folder = world.at("cluster_unbroken"), world.at("cluster")
    took = unbroken + ".seconds"
    if not os.path.exists(took):
        shutil.rmtree(unbroken, ignore_errors=True)
        began = time.time()
        _end(_start(world, unbroken))
        with open(took, "w") as stream:
            stream.write("%.2f" % (time.time() - began))
    with open(took) as stream:
        seconds = float(stream.read())
    shutil.rmtree(folder, ignore_errors=True)
    workers = _start(world, folder)
    time.sleep(seconds * random_.uniform(kill.EARLIEST, 0.9))
    workers[number % 2].kill(group=True)
    time.sleep(1.0)
    for worker in workers:  # whoever runs the job ends the rest of it
        worker.kill(group=True)
    _end(_start(world, folder))
    found = compare.difference(unbroken, folder)
    if found:
        raise processes.Failed(found)
    return 1


def waiting(world, _, number):
    """One worker alone says for whom it waits, and ends when it is asked to; returns 1."""
    worlds.prepare(world, JOB, processes.succeed)
    folder = world.at("cluster_alone")
    shutil.rmtree(folder, ignore_errors=True)
    worker, = _start(world, folder, number % 2)
    until = time.time() + 120
    while "waiting for" not in worker.said() and time.time() < until:
        time.sleep(0.5)
    if "waiting for" not in worker.said():
        worker.kill(group=True)
        raise processes.Failed("silence: " + worker.last_line())
    worker.ask(signal.SIGTERM)
    code = worker.end()
    if code != 143:
        raise processes.Failed("code %d: %s" % (code, worker.last_line()))
    return 1


def _start(world, folder, alone=None):
    """The two workers, or one of them."""
    command = worlds.JOBS[JOB].command(world, folder) + [STEPS]
    return [processes.Running(command, "%s.%d.log" % (folder, index), **environment)
            for index, environment in enumerate(commands.cluster()) if alone in (None, index)]


def _end(workers):
    for worker in workers:
        worker.succeed()
