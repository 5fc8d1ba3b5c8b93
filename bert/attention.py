"""Scaled dot-product attention of all heads (Vaswani et al. 2017, eq. 1).

Letters: B batch, S sequence, H width, A heads, D width of a head, M = B S.
"""

import functools
import math
import os

import tensorflow.compat.v1 as tf

from bert import fused
from bert.randomness import dropout
from training import native

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "attention.cc")


def scores(query, key, bias, heads):
    """Q K^T / sqrt(D), float32 [B, A, S, S]; arguments as of `attend`, the bias is not added."""
    # Scaled before the product: a query is S / D times smaller than its scores.
    scaled = query * (1.0 / math.sqrt(query.shape.as_list()[-1] // heads))
    return tf.matmul(_split(scaled, bias, heads), _split(key, bias, heads), transpose_b=True)


def attend(query, key, value, bias, heads, rate, site):
    """dropout(softmax(scores + bias)) V.

    Args:
      query, key, value: float32 [M, H].
      bias: float32 [B, 1, 1, S], without gradient.
      heads: A.
      rate, site: of dropout, see `bert.randomness.dropout`.

    Returns:
      float32 [M, H].
    """
    if native.available():
        draws, least, scale = fused.kept_draws(lambda: tf.size(bias) * heads * tf.shape(bias)[-1], rate, site)
        return _ops().bert_attention(query, key, value, bias[:, 0, 0], draws, heads=heads, least=least, scale=scale)
    probabilities = dropout(tf.nn.softmax(scores(query, key, bias, heads) + bias), rate, site)
    context = tf.matmul(probabilities, _split(value, bias, heads))  # [B, A, S, D]
    return tf.reshape(tf.transpose(context, [0, 2, 1, 3]), tf.shape(query))


def _split(projected, bias, heads):
    """[M, H] -> [B, A, S, D], B and S as in the bias."""
    batch_size, _, _, length = tf.unstack(tf.shape(bias))
    width = projected.shape.as_list()[-1]
    return tf.transpose(tf.reshape(projected, [batch_size, length, heads, width // heads]), [0, 2, 1, 3])


@functools.lru_cache(maxsize=None)
def _ops():
    """The module with the op, its gradient registered."""
    ops = native.load(SOURCE)

    @tf.RegisterGradient("BertAttention")
    def _of_attention(op, gradient):
        of = ops.bert_attention_grad(*op.inputs, gradient,
                                     **{name: op.get_attr(name) for name in ("heads", "least", "scale")})
        return of.query_gradient, of.key_gradient, of.value_gradient, None, None

    return ops
