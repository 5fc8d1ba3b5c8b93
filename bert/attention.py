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


def scores(query, key, mask, heads):
    """Q K^T / sqrt(D), float32 [B, A, S, S]; arguments as of `attend`, the mask is not added."""
    query, key = fused.bias_add(*query), fused.bias_add(*key)
    # Scaled before the product: a query is S / D times smaller than its scores.
    scaled = query * (1.0 / math.sqrt(query.shape.as_list()[-1] // heads))
    return tf.matmul(_split(scaled, mask, heads), _split(key, mask, heads), transpose_b=True)


def attend(query, key, value, mask, heads, rate, site):
    """dropout(softmax(scores + mask)) V.

    Args:
      query, key, value: (float32 [M, H], float32 [H]) each, a product and the bias that is added to its rows.
      mask: float32 [B, 1, 1, S], without gradient.
      heads: A.
      rate, site: of dropout, see `bert.randomness.dropout`.

    Returns:
      float32 [M, H].
    """
    if native.available():
        draws, least, scale = fused.kept_draws(lambda: tf.size(mask) * heads * tf.shape(mask)[-1], rate, site)
        return _ops().bert_attention(*query, *key, *value, mask[:, 0, 0], draws, heads=heads, least=least, scale=scale)
    probabilities = dropout(tf.nn.softmax(scores(query, key, mask, heads) + mask), rate, site)
    value = tf.nn.bias_add(*value)
    context = tf.matmul(probabilities, _split(value, mask, heads))  # [B, A, S, D]
    return tf.reshape(tf.transpose(context, [0, 2, 1, 3]), tf.shape(value))


def _split(projected, mask, heads):
    """[M, H] -> [B, A, S, D], B and S as in the mask."""
    batch_size, _, _, length = tf.unstack(tf.shape(mask))
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
        of_inputs = []
        for one in (of.query_gradient, of.key_gradient, of.value_gradient):
            of_inputs += [one, fused.sum_of_rows(one)]
        return (*of_inputs, None, None)

    return ops
