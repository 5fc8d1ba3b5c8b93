"""Lets the graphs of this process start sooner: those of tests are small, and preparing them takes most of the time.

Imported by conftest.py and by the commands that `forks.run` runs. A command in a new Python has TensorFlow as users
have it.
"""

import training.command  # noqa: F401, I001  before TensorFlow, as in every command
import tensorflow.compat.v1 as tf
from tensorflow.python.util import deprecation

init = tf.Session.__init__  # for tests of what the optimizer does


def _without_optimizer(session, target="", graph=None, config=None):
    """`tf.Session(...)` that runs its graph as it was built."""
    quick = tf.ConfigProto()
    quick.MergeFrom(config or tf.ConfigProto())
    quick.graph_options.rewrite_options.disable_meta_optimizer = True
    init(session, target, graph, quick)


tf.Session.__init__ = _without_optimizer
deprecation._PRINT_DEPRECATION_WARNINGS = False  # else each call of a renamed argument's function is inspected
