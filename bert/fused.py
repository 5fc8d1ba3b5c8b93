"""What stands between a Transformer's matrix products and behind the last of them: in one pass over memory, by the ops
of fused.cc, where they run, else by TensorFlow's own. The same numbers but for rounding, and the same draws of dropout.

Letters: M rows, H width, V classes.
"""

import functools
import math
import os

import tensorflow.compat.v1 as tf

from bert.randomness import dropout
from bert.randomness import dropout_draws
from training import native

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fused.cc")
LAYER_NORM_EPSILON = 1e-12


def gelu(tensor, bias):
    """Gaussian error linear unit of a sum, in its tanh form (Hendrycks and Gimpel 2016).

    0.5 x (1 + tanh(u)) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3): the right side needs fewer
    passes.

    Args:
      tensor: float32 [M, H].
      bias: float32 [H], added to each row first.
    """
    if native.available():
        return _ops().bert_gelu(tensor, bias)
    tensor = tf.nn.bias_add(tensor, bias)
    twice = 2.0 * math.sqrt(2.0 / math.pi)
    return tensor * tf.sigmoid(tensor * (twice + twice * 0.044715 * tf.square(tensor)))


def layer_norm(tensor, gamma, beta):
    """Normalises the last axis (Ba et al. 2016, eq. 4)."""
    mean, variance = tf.nn.moments(tensor, axes=[-1], keep_dims=True)
    return tf.nn.batch_normalization(tensor, mean, variance, beta, gamma, LAYER_NORM_EPSILON)


def add_norm(inputs, bias, residual, gamma, beta, rate, site):
    """layer_norm(dropout(inputs + bias) + residual).

    Args:
      inputs, residual: float32 [M, H].
      bias, gamma, beta: float32 [H].
      rate, site: of dropout, see `bert.randomness.dropout`.
    """
    if not native.available():
        return layer_norm(dropout(tf.nn.bias_add(inputs, bias), rate, site) + residual, gamma, beta)
    draws, least, scale = kept_draws(lambda: tf.size(inputs), rate, site)
    return _ops().bert_add_norm(inputs, bias, residual, draws, gamma, beta, least=least, scale=scale,
                                epsilon=LAYER_NORM_EPSILON)


def bias_add(tensor, bias):
    """float32 [M, H] + [H]; the gradient of the bias is the sum of rows."""
    if not native.available():
        return tf.nn.bias_add(tensor, bias)
    _ops()
    # TensorFlow's own op forward: it computes it together with the product in front of it.
    with tf.get_default_graph().gradient_override_map({"BiasAdd": "BertBiasAdd"}):
        return tf.nn.bias_add(tensor, bias)


def sum_of_rows(rows):
    """float32 [M, H] -> [H]; where a bias was added to each row, its gradient."""
    return _ops().bert_sum_of_rows(rows) if native.available() else tf.reduce_sum(rows, axis=0)


def cross_entropy(logits, labels):
    """-log softmax(logits) of the label, for each row.

    Args:
      logits: float32 [M, V].
      labels: int32 [M].

    Returns:
      float32 [M].
    """
    if native.available():
        return _ops().bert_cross_entropy(logits, labels).losses
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def kept_draws(count_of, rate, site):
    """What an op of ours is told of dropout: as `bert.randomness.dropout_draws`, and of rate 0 too.

    Args:
      count_of: function without arguments; the count, asked for where something is dropped.
      rate, site: of dropout, see `bert.randomness.dropout`.
    """
    return dropout_draws(count_of(), rate, site) if rate else (tf.zeros([0], tf.int16), 0, 1.0)


@functools.lru_cache(maxsize=None)
def _ops():
    """The module with the ops, their gradients registered."""
    ops = native.load(SOURCE)

    def attributes(op, *names):
        return {name: op.get_attr(name) for name in names}

    @tf.RegisterGradient("BertGelu")
    def _of_gelu(op, gradient):
        of_sum = ops.bert_gelu_grad(gradient, *op.inputs)
        return of_sum, ops.bert_sum_of_rows(of_sum)

    @tf.RegisterGradient("BertAddNorm")
    def _of_add_norm(op, gradient):
        *inputs, _ = op.inputs
        of = ops.bert_add_norm_grad(gradient, *inputs, **attributes(op, "least", "scale", "epsilon"))
        return (of.inputs_gradient, ops.bert_sum_of_rows(of.inputs_gradient), of.residual_gradient, None,
                of.gamma_gradient, of.beta_gradient)

    @tf.RegisterGradient("BertBiasAdd")
    def _of_bias_add(op, gradient):
        del op
        return gradient, sum_of_rows(gradient)

    @tf.RegisterGradient("BertCrossEntropy")
    def _of_cross_entropy(op, gradient, *_):
        return ops.bert_cross_entropy_grad(gradient, *op.inputs, *op.outputs[1:]), None

    return ops
