"""What a student is compared with its teacher by in pairs, of tokens or of texts: pure functions of tensors.

A relation has no width, so no projection stands between the two models.

Letters: B batch, S sequence, D and F widths of student and teacher, A heads.
"""

import tensorflow.compat.v1 as tf

from bert import padding
from distill.losses import unit_vectors


def token_similarity(student, teacher, mask):
    """Squared error of cos(h_i, h_j), averaged over the pairs (i, j) of a text's real tokens, for each text.

    A token is paired with itself too, as in a mean over the whole matrix.

    Args:
      student: float32 [B, S, D].
      teacher: float32 [B, S, F].
      mask: int or float [B, S], 1 for a real token, 0 for padding.

    Returns:
      float32 [B].
    """
    ours, theirs = _cosines(unit_vectors(student, mask)), _cosines(unit_vectors(teacher, mask))
    return _pair_mse(ours[:, None], theirs[:, None], mask)


def attention(student, teacher, mask):
    """Squared error of attention scores, averaged over heads and pairs of real tokens, for each text.

    Jiao et al. 2020 (TinyBERT), eq. 7: the scores are those before the softmax.

    Args:
      student, teacher: float32 [B, A, S, S].
      mask: as in `token_similarity`.

    Returns:
      float32 [B].
    """
    return _pair_mse(student, teacher, mask)


def text_similarity(student, teacher, mask):
    """Squared error of cos(v_i, v_j), averaged over the texts j of the batch, for each text i.

    v is the mean of a text's real states. Only texts of one batch are paired: an update that is cut into parts,
    on replicas or one after the other, has fewer pairs, and another loss, than one in one piece.

    Args:
      student, mask: as in `token_similarity`.
      teacher: float32 [B, S, F], or [B, F], the mean of its real states.

    Returns:
      float32 [B].
    """
    ours, theirs = _cosines(_directions(student, mask)), _cosines(_directions(teacher, mask))
    return tf.reduce_mean(tf.math.squared_difference(ours, tf.stop_gradient(theirs)), axis=-1)


def contrast(student, teacher, mask):
    """How near each text's direction is to the teacher's of it, and how far from the teacher's of the other texts.

        g(s_i, t_i) + mean over k of (2 - (g(s_i, t_k) - g(s_i, t_i))) / 2,    g(x, y) = 1 - cos(x, y)

    COS-NCE of Fu et al. 2021 (LRC-BERT, arXiv 2012.07335), the other texts of the batch being the negatives. The
    formula is as remembered: the paper's print could not be had to check it. Batches must not be cut, as in
    `text_similarity`.

    Args:
      student: float32 [B, S, D], already projected to the teacher's width.
      teacher: float32 [B, S, D], or [B, D], the mean of its real states.
      mask: as in `token_similarity`.

    Returns:
      float32 [B], in [0, 4]; of a text that is alone g(s_i, t_i).
    """
    distances = 1.0 - tf.matmul(_directions(student, mask), tf.stop_gradient(_directions(teacher, mask)),
                                transpose_b=True)  # [B, B]
    own = tf.linalg.diag_part(distances)
    others = tf.reduce_sum(distances, axis=1) - own
    count = tf.cast(tf.shape(mask)[0] - 1, tf.float32)
    away = (2.0 * count - (others - count * own)) / 2.0
    return own + tf.math.divide_no_nan(away, count)


def _cosines(units):
    """[..., N, D] of length 1 -> [..., N, N]."""
    return tf.matmul(units, units, transpose_b=True)


def _pair_mse(student, teacher, mask):
    """[B, A, S, S] -> [B]: squared error, averaged over A and over pairs of real tokens; 0 where there are none."""
    real = mask > 0
    pairs = tf.logical_and(real[:, None, :, None], real[:, None, None, :])  # [B, 1, S, S]
    # Selected before the square, see `losses.masked_mse`; for the condition written out see `padding.zeroed`.
    difference = student - tf.stop_gradient(teacher)
    everywhere = tf.broadcast_to(pairs, tf.shape(difference))
    squares = tf.square(tf.where(everywhere, difference, tf.zeros_like(difference)))
    count = tf.reduce_sum(tf.cast(pairs, tf.float32), axis=[1, 2, 3])
    return tf.reduce_sum(tf.reduce_mean(squares, axis=1), axis=[1, 2]) / tf.maximum(count, 1.0)


def _directions(states, mask):
    """The mean of each text's real states, [B, S, D] or itself [B, D] -> [B, D], of length 1."""
    if states.shape.ndims == 3:
        states = sum_of_real(states, mask)  # points where the mean points
    return unit_vectors(states, tf.reduce_max(mask, axis=1))


def sum_of_real(states, mask):
    """[B, S, D] -> [B, D], over real tokens."""
    return tf.reduce_sum(padding.zeroed(states, mask), axis=1)
