"""What stands at padding, which need not be finite, taken out."""

import tensorflow.compat.v1 as tf


def zeroed(vectors, mask):
    """Zeros in the place of the vectors that do not count, in the gradient too.

    Selected, not multiplied, for 0 times infinity is no number. By rows: a condition of the vectors' own shape would
    have to be written out, and one that is broadcast (`tf.where_v2`) takes TensorFlow 1.15 many times as long.

    Args:
      vectors: float32 [..., D].
      mask: int or float [...], above 0 for a vector that counts.

    Returns:
      float32 [..., D].
    """
    rows = tf.reshape(vectors, [-1, vectors.shape.as_list()[-1]])
    kept = tf.where(tf.reshape(mask > 0, [-1]), rows, tf.zeros_like(rows))
    return tf.reshape(kept, tf.shape(vectors))
