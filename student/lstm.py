"""One LSTM layer in one direction: one weight layout, several kernels.

Every kernel computes (Hochreiter and Schmidhuber 1997; Gers et al. 2000, without peepholes)

    i, g, f, o = split([x_t, h_(t-1)] W + b)
    c_t = sigmoid(f + 1) c_(t-1) + sigmoid(i) tanh(g)
    h_t = sigmoid(o) tanh(c_t)

from the variables `kernel` [F + U, 4 U] and `bias` [4 U], gates in the order i, g, f, o.

Letters: B batch, S sequence, F features, U units.
"""

import tensorflow.compat.v1 as tf

from bert.randomness import glorot
from bert.randomness import new_variable

FORGET_BIAS = 1.0  # added to f when used, not stored in the bias: LSTMCell and BlockLSTM both do so


def lstm(inputs, units, lengths, kernel="block"):
    """Runs one LSTM over each sequence from its first token to its last.

    Args:
      inputs: float32 [B, S, F].
      units: U.
      lengths: int32 [B], real tokens of each sequence.
      kernel: a name in `KERNELS`.

    Returns:
      float32 [B, S, U]; what stands at padding is undefined and reaches no other place.
    """
    features = inputs.shape.as_list()[-1]
    weights = new_variable("kernel", [features + units, 4 * units], glorot)
    bias = tf.get_variable("bias", [4 * units], initializer=tf.zeros_initializer())
    return KERNELS[kernel](inputs, lengths, weights, bias)


def _block_lstm(inputs, lengths, weights, bias):
    """The fused CPU and GPU op; fast, has a gradient; no converter for phones takes it."""
    batch = tf.shape(inputs)[0]
    units = bias.shape.as_list()[0] // 4
    zeros = tf.zeros([batch, units])
    peephole = tf.zeros([units])
    outputs = tf.raw_ops.BlockLSTM(
        seq_len_max=tf.cast(tf.reduce_max(lengths), tf.int64), x=tf.transpose(inputs, [1, 0, 2]),
        cs_prev=zeros, h_prev=zeros, w=weights, wci=peephole, wcf=peephole, wco=peephole, b=bias,
        # Any other value than -1 clips the cell; its default is 3.
        forget_bias=FORGET_BIAS, cell_clip=-1.0, use_peephole=False)
    return tf.transpose(outputs.h, [1, 0, 2])


def _cell_lstm(inputs, lengths, weights, bias):
    """LSTMCell in dynamic_rnn, a loop of elementary ops: slow, and runs wherever TensorFlow does."""
    cell = _GivenCell(weights, bias)
    outputs, _ = tf.nn.dynamic_rnn(cell, inputs, sequence_length=lengths, dtype=tf.float32)
    return outputs


class _GivenCell(tf.nn.rnn_cell.LSTMCell):
    """TensorFlow's LSTMCell over variables that exist already."""

    def __init__(self, weights, bias):
        super().__init__(bias.shape.as_list()[0] // 4, forget_bias=FORGET_BIAS)
        self._given = weights, bias

    def build(self, _):
        self._kernel, self._bias = self._given
        self.built = True


KERNELS = {"block": _block_lstm, "cell": _cell_lstm}
