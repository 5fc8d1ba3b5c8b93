"""The op of lstm_layer.cc, with its gradient."""

import functools
import os

import tensorflow.compat.v1 as tf

from bert import fused
from training import native

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lstm_layer.cc")


@functools.lru_cache(maxsize=None)
def ops():
    """The module with `lstm_layer` and `lstm_layer_grad`; the first has its gradient.

    Raises:
      UserError: there is no compiler, or it fails.
    """
    loaded = native.load(SOURCE)

    @tf.RegisterGradient("LstmLayer")
    def _gradient(op, of_hidden, *_):
        return _layer_gradient(loaded, op, of_hidden)

    return loaded


def _layer_gradient(loaded, op, of_hidden):
    """Of the inputs [B, S, F], the kernel [F + U, 4 U] and the bias [4 U]."""
    inputs, kernel, _, lengths = op.inputs
    reverse = op.get_attr("reverse")
    if op.get_attr("is_training"):
        hidden, activations, cells = op.outputs
    else:  # nothing was kept: once more, then
        hidden, activations, cells = loaded.lstm_layer(
            *op.inputs, reverse=reverse, forget_bias=op.get_attr("forget_bias"), is_training=True)
    of_gates = loaded.lstm_layer_grad(of_hidden, kernel, lengths, activations, cells, reverse=reverse)
    width = kernel.shape.as_list()[1]
    of_gates = tf.reshape(of_gates, [-1, width])
    features = kernel.shape.as_list()[0] - width // 4
    of_inputs = tf.reshape(tf.matmul(of_gates, kernel[:features], transpose_b=True), tf.shape(inputs))
    first = tf.zeros_like(hidden[:, :1])
    before = tf.concat([hidden[:, 1:], first] if reverse else [first, hidden[:, :-1]], axis=1)
    of_kernel = tf.concat([tf.matmul(tf.reshape(given, [-1, given.shape.as_list()[-1]]), of_gates, transpose_a=True)
                           for given in (inputs, before)], axis=0)
    return of_inputs, of_kernel, fused.sum_of_rows(of_gates), None
