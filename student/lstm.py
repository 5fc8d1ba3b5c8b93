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
from student import lstm_layer
from training import native
from training.choice import Choice
from training.command import UserError

FORGET_BIAS = 1.0  # added to f when used, not stored in the bias: LSTMCell and BlockLSTM both do so

# What computes an LSTM whose kernel is not named: a name in `KERNELS`, or "auto".
_chosen = Choice("auto")
using = _chosen.using


def use(kernel, num_gpus=0):
    """Computes every LSTM of this process, whose kernel is not named, as a flag says.

    Args:
      kernel: a name in `KERNELS`, or "auto": "native" where our ops run and may be used, "block" else.
      num_gpus: GPUs that are trained on.

    Raises:
      UserError: "native" on GPUs, "cudnn" on a CPU.
    """
    if kernel == "native" and num_gpus:
        raise UserError("--lstm_kernel=native: for CPUs, and --num_gpus=%d asks for GPUs; choose block" % num_gpus)
    if kernel == "cudnn" and not num_gpus:
        raise UserError("--lstm_kernel=cudnn: for GPUs, and --num_gpus=0 asks for none; choose auto")
    _chosen.use(kernel)


def chosen(kernel=None):
    """The name in `KERNELS` of what computes an LSTM: `kernel`, "auto" decided; None: as `use` and `using` say."""
    kernel = kernel or _chosen.get()
    if kernel == "auto":
        kernel = "native" if native.available() else "block"
    return kernel


def lstm(inputs, units, lengths, kernel=None, reverse=False, is_training=True):
    """Runs one LSTM over each sequence from its first token to its last, or the other way.

    Args:
      inputs: float32 [B, S, F].
      units: U.
      lengths: int32 [B], real tokens of each sequence.
      kernel: as of `chosen`.
      reverse: bool; True begins with the last real token.
      is_training: bool; False: "native" keeps nothing for a gradient, which makes it faster, and its gradient slower.

    Returns:
      float32 [B, S, U], each state at its token; what stands at padding reaches no other place, and is undefined but
      for kernels `ZERO_AT_PADDING`.

    Raises:
      UserError: "native", and there is no compiler.
    """
    features = inputs.shape.as_list()[-1]
    weights = new_variable("kernel", [features + units, 4 * units], glorot)
    bias = tf.get_variable("bias", [4 * units], initializer=tf.zeros_initializer())
    return KERNELS[chosen(kernel)](inputs, lengths, weights, bias, reverse, is_training)


def _native_lstm(inputs, lengths, weights, bias, reverse, is_training):
    """Our op (lstm_layer.cc); the fastest on CPUs, and for them alone."""
    return lstm_layer.ops().lstm_layer(
        inputs, weights, bias, lengths, reverse=reverse, forget_bias=FORGET_BIAS, is_training=is_training).hidden


def _turning(run_forward):
    """A kernel out of a function of (inputs, lengths, weights, bias) that knows one direction."""
    def run(inputs, lengths, weights, bias, reverse, is_training):
        del is_training  # what a gradient needs is kept in any case

        def turned(sequence):  # each within its own length
            return tf.reverse_sequence(sequence, lengths, seq_axis=1, batch_axis=0) if reverse else sequence

        return turned(run_forward(turned(inputs), lengths, weights, bias))

    return run


def _block_lstm(inputs, lengths, weights, bias):
    """The fused CPU and GPU op; has a gradient; no converter for phones takes it."""
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


def _cudnn_lstm(inputs, lengths, weights, bias):
    """NVIDIA's kernel, for GPUs alone."""
    batch, units = tf.shape(inputs)[0], bias.shape.as_list()[0] // 4
    zeros = tf.zeros([1, batch, units])
    outputs = tf.raw_ops.CudnnRNNV3(
        input=tf.transpose(inputs, [1, 0, 2]), input_h=zeros, input_c=zeros, params=cudnn_parameters(weights, bias),
        sequence_lengths=tf.maximum(lengths, 1), is_training=True)  # no length may be 0; what is there is padding
    return tf.transpose(outputs.output, [1, 0, 2])


def cudnn_parameters(weights, bias):
    """The variables of an LSTM as cuDNN wants them: float32 [4 U (F + U + 2)].

    Gates in the order i, f, g, o; of each the matrix of the inputs, transposed, then those of the states, then a bias
    for the inputs and one for the states, here zeros.

    Args:
      weights: float32 [F + U, 4 U].
      bias: float32 [4 U].
    """
    features = weights.shape.as_list()[0] - bias.shape.as_list()[0] // 4

    def ordered(values):
        i, g, f, o = tf.split(values, 4, axis=-1)
        return i, f, g, o

    of_gates = [tf.transpose(gate) for gate in ordered(weights)]
    i, f, g, o = ordered(bias)
    parts = [gate[:, :features] for gate in of_gates] + [gate[:, features:] for gate in of_gates]
    parts += [i, f + FORGET_BIAS, g, o, tf.zeros_like(bias)]
    return tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)


KERNELS = {"native": _native_lstm, "block": _turning(_block_lstm), "cell": _turning(_cell_lstm),
           "cudnn": _turning(_cudnn_lstm)}
ZERO_AT_PADDING = ("native",)
