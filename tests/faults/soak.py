"""Long work at constant memory: distillation, and prediction by one Predictor."""

import os
import shutil
import sys
import time

import numpy as np

from tests.faults import processes
from tests.faults import world as worlds

EVERY = 5.0       # seconds between two looks
WARM = 0.2        # of the time, that is not counted
MOST = 20.0       # megabytes an hour

PREDICTING = """
import sys
from training import command
from serving.predictor import Predictor, find_export
from tests import tiny
predictor = Predictor(find_export(sys.argv[1]))
seed = 0
while True:
    predictor.predict([text for _, text in tiny.texts(200, seed % 50)])
    seed += 1
"""


def run(world, what, minutes):
    """Watches the memory of a process; returns (megabytes at the end, megabytes an hour).

    Args:
      what: "distillation" or "prediction".

    Raises:
      Failed: it ended, or its memory grew.
    """
    worlds.prepare(world, "classifier", processes.succeed)
    folder = world.at("soak")
    shutil.rmtree(folder, ignore_errors=True)
    if what == "distillation":
        command = worlds.JOBS["distill_joint"].command(world, folder) + ["--num_train_steps=100000000",
                                                                         "--save_checkpoints_steps=2000"]
    else:
        script = world.at("predicting.py")
        with open(script, "w") as stream:
            stream.write(PREDICTING)
        command = [script, os.path.join(world.done("classifier"), "export")]
    running = processes.Running(command, world.at("soak.log"))
    try:
        times, sizes, began = [], [], time.time()
        while time.time() < began + 60 * minutes:
            time.sleep(EVERY)
            if not running.process.is_alive():
                raise processes.Failed("ended: " + running.last_line())
            if time.time() > began + 60 * minutes * WARM:
                times.append(time.time() - began)
                sizes.append(_megabytes(running.process.pid))
    finally:
        running.kill(group=True)
    slope = np.polyfit(times, sizes, 1)[0] * 3600
    sys.stderr.write("%s: %.0f MB, %+.1f MB an hour\n" % (what, sizes[-1], slope))
    if slope > MOST:
        raise processes.Failed("%.1f MB an hour" % slope)
    return sizes[-1], slope


def _megabytes(process):
    """Resident memory."""
    with open("/proc/%d/statm" % process) as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
