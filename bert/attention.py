"""Scaled dot-product attention of all heads (Vaswani et al. 2017, eq. 1).

Letters: B batch, S sequence, H width, A heads, D width of a head, M = B S.
"""

import functools
import math
import os

import tensorflow.compat.v1 as tf

from bert import fused
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
    if rate == 0.0 and native.available():
        return _ops().bert_attention(query, key, value, bias[:, 0, 0], heads=heads)
    return _attend_by_products(query, key, value, bias, heads, rate, site)


def _attend_by_products(query, key, value, bias, heads, rate, site):
    probabilities = fused.softmax(scores(query, key, bias, heads), bias, rate, site)
    context = tf.matmul(probabilities, _split(value, bias, heads))  # [B, A, S, D]
    return tf.reshape(tf.transpose(context, [0, 2, 1, 3]), tf.shape(query))


def _split(projected, bias, heads):
    """[M, H] -> [B, A, S, D], B and S as in the bias."""
    batch_size, _, _, length = tf.unstack(tf.shape(bias))
    width = projected.shape.as_list()[-1]
    return tf.transpose(tf.reshape(projected, [batch_size, length, heads, width // heads]), [0, 2, 1, 3])


@functools.lru_cache(maxsize=None)
def _ops():
    """The module with the op, its gradient registered: it makes the scores once more, and keeps none until then."""
    ops = native.load(SOURCE)

    @tf.RegisterGradient("BertAttention")
    def _of_attention(op, gradient):
        *given, bias = op.inputs
        given = [tf.identity(tensor) for tensor in given]  # one may be given twice, and has a gradient for each
        context = _attend_by_products(*given, bias[:, None, None], op.get_attr("heads"), 0.0, "")
        return (*tf.gradients(context, given, gradient), None)

    return ops
