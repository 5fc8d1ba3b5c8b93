"""Random numbers in a graph that depend on names and steps, not on the process.

Initial values are keyed by (seed, variable name), so they do not change with the order in which a graph
is built or the number of replicas. Every other draw is keyed by (seed, step, part, replica, site), so a
run that was stopped and goes on draws what it would have drawn, and two replicas, two parts of an update
or two places never draw the same.
The seed is the graph's (`RunConfig.tf_random_seed`), the step is the global step.
"""

import contextlib
import functools
import os
import zlib

import tensorflow.compat.v1 as tf

from training import cluster
from training import graph_mode  # noqa: F401
from training import native

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "randomness.cc")


@contextlib.contextmanager
def root_variable_scope():
    """A scope in which `get_variable` names are absolute, wherever it is entered."""
    scope = tf.VariableScope(reuse=tf.AUTO_REUSE, name="")
    with tf.variable_scope(scope, auxiliary_name_scope=False):
        yield


def update_part():
    """The local variable that counts the accumulated parts of the update under way, from 0.

    Local, so never in a checkpoint: an update that was cut short begins again at part 0.
    """
    with root_variable_scope():
        return tf.get_variable(
            "update_part", shape=[], dtype=tf.int64, initializer=tf.zeros_initializer(), trainable=False,
            use_resource=True, collections=[tf.GraphKeys.LOCAL_VARIABLES],
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)


def new_variable(name, shape, draw):
    """A trainable float32 variable whose initial value depends on the seed and its full name alone.

    Args:
      name: within the current variable scope.
      shape: list of int.
      draw: function of (shape, int64 [2] key), e.g. `normal(0.02)`.
    """
    key = [_hash(""), _hash("%s/%s" % (tf.get_variable_scope().name, name))]

    # TF 1.15 hands `partition_info` to a function that could take it.
    def initializer(shape, dtype=None, partition_info=None):
        del dtype, partition_info
        return draw(shape, tf.constant(key, tf.int64))

    return tf.get_variable(name, shape, tf.float32, initializer=initializer)


def normal(stddev):
    """Draws from a normal distribution, none further out than two standard deviations."""
    return lambda shape, key: tf.random.stateless_truncated_normal(shape, key, stddev=stddev)


def glorot(shape, key):
    """Draws evenly from +-sqrt(6 / (rows + columns)) (Glorot and Bengio 2010, eq. 16)."""
    limit = (6.0 / sum(shape)) ** 0.5
    return tf.random.stateless_uniform(shape, key, minval=-limit, maxval=limit)


def _hash(text):
    return zlib.crc32(("%d/%s" % (tf.get_default_graph().seed or 0, text)).encode("utf-8"))


def stateless_seed(site):
    """The key of one site in the running step.

    Args:
      site: string, unique in the graph.

    Returns:
      int64 [2], for `tf.random.stateless_*`.
    """
    step = tf.train.get_global_step()
    if step is None:
        step = tf.constant(0, tf.int64)
    # The worker is named beside the replica: on TF 1.15 replicas are counted within their worker.
    place = "%d/%s" % (cluster.worker_number(), site)
    replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)
    # 2^20 parts and 2^12 replicas fit beside the step without meeting.
    moment = (tf.cast(step, tf.int64) * 2 ** 20 + tf.cast(update_part(), tf.int64)) * 2 ** 12 + replica
    return tf.stack([tf.constant(_hash(place), tf.int64), moment])


def dropout(tensor, rate, site="dropout"):
    """Zeroes each value with probability `rate` and scales the others by 1 / (1 - rate).

    The probability is rounded to a multiple of 2^-16.

    Args:
      tensor: float, any shape.
      rate: probability in [0, 1); 0 returns the tensor itself.
      site: unique within the current variable scope.
    """
    if rate == 0.0:
        return tensor
    draws, least, scale = dropout_draws(tf.size(tensor), rate, site)
    keep = tf.reshape(draws >= least, tf.shape(tensor))
    return tensor * tf.cast(keep, tensor.dtype) * scale


def dropout_draws(count, rate, site="dropout"):
    """What decides a dropout.

    Args:
      count: int32 scalar, how many values the tensor has.
      rate, site: as of `dropout`, the rate above 0.

    Returns:
      int16 [count], a draw for each value; the least draw that keeps its value; what kept ones are multiplied by.
    """
    seed = stateless_seed("%s/%s" % (tf.get_variable_scope().name, site))
    dropped = min(round(rate * 2 ** 16), 2 ** 16 - 1)
    return _draw_16_bits(count, seed), dropped - 2 ** 15, 2 ** 16 / (2 ** 16 - dropped)


def _draw_16_bits(count, seed):
    """int16 [count], drawn evenly from all its values; by our op where that runs, which gives the same."""
    if native.available():
        return _ops().bert_draws(seed, count)
    # Two from each number: drawing takes a good part of a training step.
    pairs = tf.random.stateless_uniform(
        [(count + 1) // 2], seed, minval=tf.int32.min, maxval=tf.int32.max, dtype=tf.int32)
    return tf.reshape(tf.bitcast(pairs, tf.int16), [-1])[:count]


@functools.lru_cache(maxsize=None)
def _ops():
    return native.load(SOURCE)
