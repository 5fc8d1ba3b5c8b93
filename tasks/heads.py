"""From an encoder's outputs to one vector for each text, which the class layer looks at.

Letters: B batch, S sequence, H width of the encoder's states, F width of the vector.
"""

import tensorflow.compat.v1 as tf

from bert import padding
from bert.modeling import dense, shape_list
from bert.randomness import glorot, new_variable, normal

WIDTHS, FILTERS = (3, 4, 5), 100  # of `cnn`; filters: of each width


def text_vector(head, encoder, input_mask):
    """The vector of each text; what stands at padding does not count.

    Args:
      head: one of `HEADS`; "pooled" is the encoder's own vector.
      encoder: BertModel, BiLstmModel or another with their outputs.
      input_mask: int32 [B, S], ones and then zeros.

    Returns:
      float32 [B, F].
    """
    if head == "pooled":
        return encoder.get_pooled_output()
    states = encoder.get_sequence_output()
    return OVER_STATES[head](padding.zeroed(states, input_mask), input_mask)


def cnn(states, input_mask):
    """Filters over windows of several widths, ReLU, maximum over time (Kim 2014, eq. 2-4).

    A window stands within a text's real tokens; a text shorter than the window has one, filled up with zeros.

    Args:
      states: float32 [B, S, H], zero at padding.
      input_mask: int32 [B, S], ones and then zeros.

    Returns:
      float32 [B, F], F = len(WIDTHS) * FILTERS.
    """
    length, features = shape_list(states)[1:]
    lengths = tf.reduce_sum(input_mask, axis=1)
    strongest = []
    for width in WIDTHS:
        with tf.variable_scope("head/cnn/width_%d" % width):
            kernel = new_variable("kernel", [width * features, FILTERS], glorot)
            bias = tf.get_variable("bias", [FILTERS], initializer=tf.zeros_initializer())
        # So many zeros that a window begins at every token.  [B, S, FILTERS]
        windows = tf.nn.conv1d(tf.pad(states, [[0, 0], [0, width - 1], [0, 0]]),
                               tf.reshape(kernel, [width, features, FILTERS]), stride=1, padding="VALID")
        found = tf.nn.relu(tf.nn.bias_add(windows, bias))
        within = tf.sequence_mask(tf.maximum(lengths - width + 1, 1), length, dtype=tf.float32)
        # None is below 0, so 0 in place of the other windows never is the maximum alone.
        strongest.append(tf.reduce_max(found * within[:, :, None], axis=1))
    return tf.concat(strongest, axis=-1)


def attention(states, input_mask):
    """Mean of the states, weighted by additive attention over the real tokens (Yang et al. 2016, eq. 5-7).

    u_s = tanh(W h_s + b), a = softmax(v . u_s), sum of a_s h_s. A text without any token gives zeros.

    Args:
      states: float32 [B, S, H], zero at padding.
      input_mask: int32 [B, S], 1 for a real token, 0 for padding.

    Returns:
      float32 [B, F], F = H.
    """
    batch, length, features = shape_list(states)
    with tf.variable_scope("head/attention"):
        mapped = tf.tanh(dense(tf.reshape(states, [-1, features]), features, "dense", glorot))
        context = new_variable("context", [features], normal(0.02))
    scores = tf.reshape(tf.linalg.matvec(mapped, context), [batch, length])
    weights = tf.nn.softmax(scores + (tf.cast(input_mask, tf.float32) - 1.0) * 1e9)  # [B, S]
    return tf.reduce_sum(weights[:, :, None] * states, axis=1)


OVER_STATES = {"cnn": cnn, "attention": attention}
HEADS = ("pooled", *OVER_STATES)
