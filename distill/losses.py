"""What a student is compared with its teacher by, state by state and row by row: pure functions of tensors.

`relations` compares them by pairs of tokens and of texts. Every term is (sum, count) or a value a row; the division
is made once, by the count of the whole update.

Letters: B batch, S sequence, D width, N rows of logits, C classes or words.
"""

import tensorflow.compat.v1 as tf

from bert import padding


def masked_mse(student, teacher, mask):
    """Squared error, averaged over features, summed over real tokens.

    Args:
      student: float32 [B, S, D], already projected to the teacher's width.
      teacher: float32 [B, S, D].
      mask: int or float [B, S], 1 for a real token, 0 for padding.

    Returns:
      (sum, count), two scalars; the mean is taken once, over all replicas and parts.
    """
    # Before the square, whose gradient at padding could be 0 times infinity.
    difference = padding.zeroed(student - tf.stop_gradient(teacher), mask)
    width = teacher.shape.as_list()[-1]
    return 2.0 / width * tf.nn.l2_loss(difference), tf.reduce_sum(tf.cast(mask > 0, tf.float32))


def masked_cosine_distance(student, teacher, mask):
    """1 - cos of the angle between two states, summed over real tokens (Sanh et al. 2019).

    Args:
      student, teacher, mask: as in `masked_mse`.

    Returns:
      (sum, count), two scalars; 0 to 2 a token.
    """
    cosines = tf.reduce_sum(unit_vectors(student, mask) * unit_vectors(tf.stop_gradient(teacher), mask), axis=-1)
    real = tf.cast(mask > 0, tf.float32)
    return tf.reduce_sum(real * (1.0 - cosines)), tf.reduce_sum(real)


def patience(student, teacher, mask):
    """Squared error of the two first states ([CLS]), each of length 1, averaged over features (Sun et al. 2019, eq. 7).

    The paper sums over features: its beta is D times smaller than the weight of this.

    Args:
      student, teacher, mask: as in `masked_mse`; states after the first need not be there.

    Returns:
      (sum, count), two scalars, over the texts that have a first token.
    """
    first = mask[:, :1]
    return masked_mse(unit_vectors(student[:, :1], first), unit_vectors(teacher[:, :1], first), first)


def unit_vectors(vectors, mask):
    """Each vector of the last axis divided by its length; 0 at padding, and where it is 0.

    Args:
      vectors: float32 [..., D].
      mask: int or float [...], 1 for a vector that counts.
    """
    return tf.math.l2_normalize(padding.zeroed(vectors, mask), axis=-1)


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


def hard_cross_entropy(student_logits, teacher_logits):
    """-log softmax(z_s) of the class that the teacher finds likeliest, for each row.

    Args:
      student_logits, teacher_logits: float32 [N, C].

    Returns:
      float32 [N].
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.argmax(teacher_logits, axis=-1), logits=student_logits)


def hard_binary_cross_entropy(student_logits, teacher_logits):
    """The same for classes that are independent of each other, averaged over them.

    A class is the teacher's where its logit is above 0, its probability above a half.

    Args:
      student_logits, teacher_logits: float32 [N, C].

    Returns:
      float32 [N].
    """
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.cast(teacher_logits > 0, tf.float32), logits=student_logits), axis=-1)


def logit_mse(student_logits, teacher_logits):
    """Squared error, averaged over classes, for each row (Tang et al. 2019, arXiv 1903.12136).

    Args:
      student_logits, teacher_logits: float32 [N, C].

    Returns:
      float32 [N].
    """
    return tf.reduce_mean(tf.math.squared_difference(student_logits, tf.stop_gradient(teacher_logits)), axis=-1)
