"""The op of recurrence.cc, with its gradient."""

import functools
import os

import tensorflow.compat.v1 as tf

from training import native

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recurrence.cc")


@functools.lru_cache(maxsize=None)
def ops():
    """The module with `lstm_recurrence` and `lstm_recurrence_grad`; the first has its gradient.

    Raises:
      UserError: there is no compiler, or it fails.
    """
    loaded = native.load(SOURCE)

    @tf.RegisterGradient("LstmRecurrence")
    def _gradient(op, of_hidden, *_):
        return _recurrence_gradient(loaded, op, of_hidden)

    return loaded


def _recurrence_gradient(loaded, op, of_hidden):
    """Of the gates [B, S, 4 U] and of the kernel [U, 4 U]."""
    _, kernel, lengths = op.inputs
    hidden, activations, cells = op.outputs
    reverse = op.get_attr("reverse")
    of_gates = loaded.lstm_recurrence_grad(of_hidden, kernel, lengths, activations, cells, reverse=reverse)
    units, width = kernel.shape.as_list()
    first = tf.zeros_like(hidden[:, :1])
    before = tf.concat([hidden[:, 1:], first] if reverse else [first, hidden[:, :-1]], axis=1)
    of_kernel = tf.matmul(tf.reshape(before, [-1, units]), tf.reshape(of_gates, [-1, width]), transpose_a=True)
    return of_gates, of_kernel, None
