"""The cells of the tables: one row, seed and fold each, trained by the commands, once."""

import collections
import ctypes
import os
import signal
import subprocess
import sys
import time

from training import files
from training import interruption
from training import run_folder
from training.command import UserError
from training.hooks import duration

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CELL = "cell.json"
PR_SET_PDEATHSIG = 1  # of Linux: prctl(2)

# row: name; seed: int; fold: its place in the data folders, from 0.
Cell = collections.namedtuple("Cell", "row seed fold")


def folder_of(cell, output_dir):
    return os.path.join(output_dir, "cells", cell.row, "seed_%d" % cell.seed, "fold_%d" % (cell.fold + 1))


def run_all(cells, output_dir, train):
    """Trains what is not trained yet; says before each which it is and what time is left.

    Args:
      cells: list of Cell.
      output_dir: of the table.
      train: function of a Cell -> dict for its cell.json.

    Returns:
      list of what is in the cells' files, in their order.
    """
    found, seconds = [], []
    for number, cell in enumerate(cells, start=1):
        path = os.path.join(folder_of(cell, output_dir), CELL)
        if not os.path.exists(path):
            left = duration(sum(seconds) / len(seconds) * (len(cells) - number + 1)) if seconds else "unknown"
            print("\n== cell %d/%d  %s, seed %d, fold %d  left: %s"
                  % (number, len(cells), cell.row, cell.seed, cell.fold + 1, left), flush=True)
            files.write_json(path, train(cell))
        found.append(files.read_json(path))
        seconds.append(found[-1]["seconds"])
    return found


def train_cell(cell, output_dir, steps, trials, select_by):
    """Runs a row's commands in each setting that is tried; the best on dev is the cell's.

    Args:
      cell: Cell.
      output_dir: of the table.
      steps: as of a rows.Row.
      trials: dict of name -> rows.Setting.
      select_by: figure that chooses, as the flag of that name.

    Returns:
      dict of "folder" (the run), "trial" (its name), "tried" (figure on dev of each), "seconds" (of all), "commands".
    """
    started, tried, commands, folder = time.time(), {}, {}, folder_of(cell, output_dir)
    for name, setting in trials.items():
        commands[name] = _run_steps(steps(setting), os.path.join(folder, name), cell.seed)
        tried[name] = run_folder.best_figures(os.path.join(folder, name, "run"))[select_by]
    best = (min if select_by == "loss" else max)(trials, key=tried.get)
    return {"folder": os.path.join(folder, best, "run"), "trial": best, "tried": tried,
            "seconds": round(time.time() - started, 1), "commands": commands[best]}


def _run_steps(steps, folder, seed):
    """Runs the commands of a row in its folder; returns them as they were run."""
    done = []
    for name, arguments in steps:
        target = os.path.join(folder, name)
        if callable(arguments):
            arguments = arguments(folder)
        arguments = [argument.replace("{cell}", folder).replace("{seed}", str(seed)) for argument in arguments]
        arguments.append("--output_%s=%s" % ("file" if "." in name else "dir", target))
        done.append(arguments)
        if "--do_train" in arguments or not os.path.exists(target):  # training goes on by itself
            run(arguments)
    return done


def run(arguments):
    """Runs a command of this project, which ends with this process: whoever goes on would find it still writing.

    Raises:
      UserError: it failed; what it said stands above.
    """
    with subprocess.Popen([sys.executable] + arguments, cwd=CHECKOUT, preexec_fn=_end_with_parent) as child:
        try:
            code = child.wait()
        except interruption.Interrupted:
            child.terminate()  # and it saves where it is
            raise
    if code:
        raise UserError("%s: failed, see above; the same command goes on when it is put right"
                        % " ".join(arguments[:3]))


def _end_with_parent():
    """Asks Linux to kill this process when its parent is gone; elsewhere the lock of its output says what goes on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
