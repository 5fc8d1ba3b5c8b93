"""Files of a run that was stopped are damaged: what is damaged is named, and nothing else comes of it."""

import glob
import os
import random
import shutil
import time

from tests.faults import kill
from tests.faults import processes
from tests.faults import world as worlds
from training import saved

JOB = "classifier"
KINDS = ("flip", "cut", "empty")


def trial(world, _, number):
    """Damages one file and gives the command again.

    The last checkpoint: refused, repaired, and the end is that of an unbroken run. Records, vocabulary, JSON: named.

    Returns:
      1.

    Raises:
      Failed.
    """
    random_ = random.Random("damage %d" % number)
    kill.unbroken(world, JOB)
    whole, folder, log = world.at("half"), world.at("damaged"), world.at("damaged.log")
    _stop_half_way(world, whole)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    command = worlds.JOBS[JOB].command(world, folder)
    victim = random_.choice(["checkpoint", "checkpoint", "records", "json", "vocabulary"])
    if victim == "checkpoint":
        last = saved.last(folder)
        path = last + random_.choice([".index", ".data-00000-of-00001"])
        kind = random_.choice(KINDS)
        harm(path, kind, random_)
        try:
            line = processes.refuse(command, log, "damaged")
        except processes.Failed:
            if kind != "flip" or not path.endswith(".index"):
                raise
            kill.same(world, JOB, folder)  # a bit of no meaning, between the index's blocks
            return 1
        if os.path.basename(last) not in line or "repair" not in line:
            raise processes.Failed("names neither the checkpoint nor the remedy: " + line)
        processes.succeed(["bert.checkpoints", "repair", "--output_dir=" + folder], log)
        processes.succeed(command, log)
        kill.same(world, JOB, folder)
    elif victim == "records":
        path = random_.choice(sorted(glob.glob(os.path.join(folder, "records", "*.tfrecord"))))
        harm(path, random_.choice(KINDS), random_)
        processes.refuse(command, log, path)
    elif victim == "vocabulary":
        path = os.path.join(folder, "vocab.txt")
        harm(path, random_.choice(KINDS), random_)
        processes.refuse(command, log, path)
    else:
        name = random_.choice(["run.json", "evaluations.json", "text.json", "config.json"])
        harm(os.path.join(folder, name), "cut", random_)
        try:
            processes.refuse(command, log, name)
        except processes.Failed:
            if name in ("run.json", "evaluations.json"):
                raise
            processes.succeed(command, log)  # what the run does not read any more
            kill.same(world, JOB, _without(folder, name, whole))
    return 1


def _stop_half_way(world, folder):
    """A run that was killed after some checkpoints."""
    if os.path.exists(folder):
        return
    running = processes.Running(worlds.JOBS[JOB].command(world, folder), folder + ".log")
    while running.process.is_alive() and not os.path.exists(os.path.join(folder, "model.ckpt-140.index")):
        time.sleep(0.01)
    running.kill(group=True)
    if os.path.exists(os.path.join(folder, "finished.json")):
        shutil.rmtree(folder)
        raise processes.Failed("it had ended before it was killed")


def _without(folder, name, whole):
    shutil.copyfile(os.path.join(whole, name), os.path.join(folder, name))
    return folder


def harm(path, kind, random_):
    """Flips a bit, cuts off the end, or empties a file."""
    with open(path, "rb") as stream:
        content = bytearray(stream.read())
    if kind == "flip":
        content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
    else:
        del content[0 if kind == "empty" else random_.randrange(1, len(content)):]
    with open(path, "wb") as stream:
        stream.write(content)
