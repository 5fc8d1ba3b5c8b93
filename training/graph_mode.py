"""Importing this makes TensorFlow, 1.15 or 2.15, build TF 1.x graphs over resource variables.

Reference variables may change under a tensor already read from them, and fused updates refuse them.
"""

import warnings

import tensorflow.compat.v1 as tf

# Before the next line, which warns. Not ERROR: exporting, TF 1.15 logs one about an op of its own; what matters
# to us is raised.
tf.logging.set_verbosity(tf.logging.FATAL)
tf.disable_v2_behavior()
tf.enable_resource_variables()
# TF 2.15's own distribution strategies ask for what this warns of; the user can do nothing about it.
warnings.filterwarnings("ignore", "To make it possible to preserve tf.data options", UserWarning)
