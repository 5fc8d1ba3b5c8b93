"""Masked-LM: the word at each masked position is predicted from the encoder's output there.

Letters: B batch, S sequence, H width, E embedding, V vocabulary, P predictions stored a text,
R real predictions of the batch.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from bert import fused
from bert import records
from bert.modeling import activation, layer_norm, product
from bert.randomness import normal


class MaskedLm:
    """The task as `tasks.model_fn`, `distill.model_fn` and `training.loop` use it."""

    name = "masked_lm"
    feature_names = records.MASKED_LM_FEATURES
    row_total = "total_predictions"  # the total that counts rows of logits
    independent_classes = False      # one word is right at each position
    label_variables = ()
    figures_to_select = {"masked_lm_loss": min, "masked_lm_accuracy": max}

    def logits(self, encoder, config, features, is_training=False):
        """float32 [R, V], a row for each real prediction, in the order of the texts.

        The head transforms H to the width of the word table, then multiplies by that table.
        """
        del is_training
        vectors = tf.gather_nd(encoder.get_sequence_output(), _places(features))  # [R, H]
        table = encoder.get_embedding_table()
        with tf.variable_scope("cls/predictions"):
            with tf.variable_scope("transform"):
                mapped = product(vectors, config.embedding_size, "dense", normal(config.initializer_range))
                vectors = layer_norm(activation(config.hidden_act)(*mapped))
            bias = tf.get_variable("output_bias", [config.vocab_size], initializer=tf.zeros_initializer())
        return fused.bias_add(tf.matmul(vectors, table, transpose_b=True), bias)

    def loss(self, logits, features):
        """Cross-entropy with the words that stood there.

        Returns:
          (sum over the real predictions, how many there are in the whole update).
        """
        return tf.reduce_sum(_cross_entropy(logits, features)), features[self.row_total]

    def outputs(self, logits, features):
        """What `figures` needs of a batch: dict of tensors [R]."""
        correct = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), _label_ids(features))
        return {"cross_entropy": _cross_entropy(logits, features), "correct": correct}

    def figures(self, outputs):
        """Mean cross-entropy and accuracy over all masked positions of a set.

        Args:
          outputs: dict of arrays [N], as `outputs` gave them.
        """
        return {"masked_lm_loss": float(np.mean(outputs["cross_entropy"], dtype=np.float64)),
                "masked_lm_accuracy": float(np.mean(outputs["correct"], dtype=np.float64)),
                "predictions": len(outputs["correct"])}

    def format_figures(self, figures):
        """The figures as text for people."""
        return "masked-LM loss {masked_lm_loss:.4f}  accuracy {masked_lm_accuracy:.4f}  " \
               "positions {predictions:,}".format(**figures)


def _is_real(features):
    return features["masked_lm_weights"] > 0  # [B, P]


def _places(features):
    """int32 [R, 2]: text and position of each real prediction."""
    real = tf.cast(tf.where(_is_real(features)), tf.int32)
    return tf.stack([real[:, 0], tf.gather_nd(features["masked_lm_positions"], real)], axis=1)


def _label_ids(features):
    return tf.boolean_mask(features["masked_lm_ids"], _is_real(features))  # [R]


def _cross_entropy(logits, features):
    return fused.cross_entropy(logits, _label_ids(features))
