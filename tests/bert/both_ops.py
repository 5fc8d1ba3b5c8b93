"""The same computed by our ops and by TensorFlow's own."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tests import graphs
from tests.graphs import run
from training import native

EACH_OP = pytest.mark.parametrize("native_ops", [pytest.param(True, marks=graphs.COMPILED), False],
                                  ids=["our_op", "tensorflows"])


def both(build, *inputs):
    """What `build` of tensors gives and its gradient for each input, by our ops and by TensorFlow's.

    The gradient is that of a sum in which each value has another weight.
    """
    found = []

    def with_gradients():
        given = [tf.constant(values, tf.float32) for values in inputs]
        output = build(*given)
        places = tf.cast(tf.range(tf.size(output)), tf.float32)
        weights = tf.reshape(tf.cos(places), tf.shape(output))
        return [output, *tf.gradients(output * weights, given)]

    for allowed in (True, False):
        with native.using(allowed):
            found.append(run(with_gradients))
    return found


def same(build, *inputs, **tolerance):
    ours, theirs = both(build, *inputs)
    for one, other in zip(ours, theirs):
        np.testing.assert_allclose(one, other, **dict(dict(rtol=2e-5, atol=2e-6), **tolerance))
    return ours


def values(*shape, scale=1.0, seed=0):
    return np.random.RandomState(seed).normal(size=shape, scale=scale).astype(np.float32)
