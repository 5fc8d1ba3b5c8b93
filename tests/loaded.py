"""What a process has loaded that forks commands, see `tests.forks`: TensorFlow and most of the project."""

import os

from tests import commands

for name in commands.OF_SHELLS:  # before TensorFlow reads them
    os.environ.pop(name, None)

import run_classifier  # noqa: E402, F401
import run_distill  # noqa: E402, F401
import run_pretraining  # noqa: E402, F401
