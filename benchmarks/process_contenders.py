"""Whole processes as contenders of `turns.race`, with their start."""

import itertools
import os
import subprocess
import sys
import tempfile

from benchmarks import turns
from training import files


def process(arguments, output_flag="", seeded=False, figures=()):
    """A command of this project, from its start to its end.

    Args:
      arguments: list of str, for Python.
      output_flag: flag for the file or folder it writes, a new one each time; "": it writes none.
      seeded: whether each repetition has a --random_seed of its own.
      figures: (JSON file in the folder that it writes, names of figures in it); (): none are told.
    """
    seeds = itertools.count()

    def work():
        with tempfile.TemporaryDirectory() as folder:
            output = os.path.join(folder, "out")
            more = [output_flag + "=" + output] if output_flag else []
            more += ["--random_seed=%d" % next(seeds)] if seeded else []
            subprocess.run([sys.executable, *arguments, *more], cwd=turns.CHECKOUT, check=True, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
            if not figures:
                return {}
            found = files.read_json(os.path.join(output, figures[0]))
            return {name: found[name] for name in figures[1]}

    return work, {}


if __name__ == "__main__":
    turns.serve({"process": process}, warm_up=1)  # files come into memory, and nothing else stays warm
