"""What a process has loaded that forks commands, see `tests.forks`: TensorFlow and most of the project."""

import run_classifier  # noqa: F401
import run_distill  # noqa: F401
import run_pretraining  # noqa: F401
