"""Whole processes as contenders of `turns.race`, with their start."""

import os
import subprocess
import sys
import tempfile

from benchmarks import turns


def process(arguments, output_flag=""):
    """A command of this project, from its start to its end.

    Args:
      arguments: list of str, for Python.
      output_flag: flag for the file it writes, a new one each time; "": it writes none.
    """
    def work():
        with tempfile.TemporaryDirectory() as folder:
            more = [output_flag + "=" + os.path.join(folder, "out")] if output_flag else []
            subprocess.run([sys.executable, *arguments, *more], cwd=turns.CHECKOUT, check=True, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)

    return work, {}


if __name__ == "__main__":
    turns.serve({"process": process}, warm_up=1)  # files come into memory, and nothing else stays warm
