"""What a student is compared with its teacher by: pure functions of tensors.

Every term is (sum, count) or a value a row; the division is made once, by the count of the whole update.

Letters: B batch, S sequence, D width, N rows of logits, C classes or words.
"""

import tensorflow.compat.v1 as tf


def masked_mse(student, teacher, mask):
    """Squared error, averaged over features, summed over real tokens.

    Args:
      student: float32 [B, S, D], already projected to the teacher's width.
      teacher: float32 [B, S, D].
      mask: int or float [B, S], 1 for a real token, 0 for padding.

    Returns:
      (sum, count), two scalars; the mean is taken once, over all replicas and parts.
    """
    real = mask > 0
    # Selected, not multiplied, and before the square: at padding a state need not be finite, and the gradient
    # of a square there would be 0 times infinity.
    difference = tf.where_v2(real[:, :, None], student - tf.stop_gradient(teacher), 0.0)
    return (tf.reduce_sum(tf.reduce_mean(tf.square(difference), axis=-1)),
            tf.reduce_sum(tf.cast(real, tf.float32)))


def soft_cross_entropy(student_logits, teacher_logits, temperature=1.0):
    """-softmax(z_t / T) . log softmax(z_s / T), times T^2, for each row (Hinton et al. 2015, eq. 1).

    The factor T^2 keeps the size of its gradients when T changes.

    Args:
      student_logits, teacher_logits: float32 [N, C].

    Returns:
      float32 [N], summed over classes; the caller averages over the rows that count.
    """
    targets = tf.stop_gradient(tf.nn.softmax(teacher_logits / temperature))
    log_probs = tf.nn.log_softmax(student_logits / temperature)
    return -tf.reduce_sum(targets * log_probs, axis=-1) * temperature ** 2


def soft_binary_cross_entropy(student_logits, teacher_logits, temperature=1.0):
    """The same for classes that are independent of each other, averaged over them.

    Mean over c of -p_t log p_s - (1 - p_t) log (1 - p_s), p = 1 / (1 + exp(-z / T)), times T^2.

    Args:
      student_logits, teacher_logits: float32 [N, C].

    Returns:
      float32 [N].
    """
    targets = tf.stop_gradient(tf.nn.sigmoid(teacher_logits / temperature))
    per_class = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=student_logits / temperature)
    return tf.reduce_mean(per_class, axis=-1) * temperature ** 2
