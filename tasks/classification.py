"""Text classification: one class for each text, or any number of them.

Letters: B batch, F width of a text's vector, C classes, N texts of a set.
"""

import copy

import numpy as np
import tensorflow.compat.v1 as tf

from bert import records
from bert.randomness import dropout, new_variable, normal
from tasks import heads
from training import metrics
from training.command import UserError

CLASS_WEIGHTS = ("none", "balanced")


class Classification:
    """The task as `tasks.model_fn`, `distill.model_fn` and `training.loop` use it."""

    name = "classification"
    feature_names = records.CLASSIFICATION_FEATURES
    row_total = "total_examples"  # the total that counts rows of logits
    label_variables = ("output_weights", "output_bias", "head/")  # names begin so; fit one head and its classes
    figures_to_select = {"accuracy": max, "macro_f1": max, "loss": min}

    def __init__(self, labels, class_weights=None, label_smoothing=0.0, head="pooled"):
        """Args:
          labels: `text_files.Labels`; with a separator, a text may have any number of classes.
          class_weights: C floats, see `balanced_weights`; None: all 1.
          label_smoothing: share of the target that is spread evenly over the classes (Szegedy et al.
            2016, eq. 4), in [0, 1); of several independent classes, over yes and no.
          head: what makes one vector of a text, one of `heads.HEADS`.
        """
        self.label_names = labels.names
        self.independent_classes = labels.separator is not None
        self._class_weights = [1.0] * len(labels.names) if class_weights is None else class_weights
        self._label_smoothing = label_smoothing
        self.head = head

    def with_head(self, head):
        """The same task for a model with another head, as a teacher may have one."""
        other = copy.copy(self)
        other.head = head
        return other

    def logits(self, encoder, config, features, is_training=False):
        """float32 [B, C], a row for each text; the class layer is named as in Google's run_classifier."""
        vector = dropout(heads.text_vector(self.head, encoder, features["input_mask"]),
                         config.classifier_dropout_prob if is_training else 0.0, "classifier")
        width = vector.shape.as_list()[-1]
        kernel = new_variable("output_weights", [len(self.label_names), width], normal(0.02))
        bias = tf.get_variable("output_bias", [len(self.label_names)], initializer=tf.zeros_initializer())
        return tf.nn.bias_add(tf.matmul(vector, kernel, transpose_b=True), bias)

    def loss(self, logits, features):
        """Weighted cross-entropy with the labels; texts without a label do not count.

        Returns:
          (sum over labelled texts, how many there are in the whole update).
        """
        label_ids = features["label_ids"]
        per_text = (self._independent_loss if self.independent_classes else self._one_class_loss)(logits, label_ids)
        has_label = tf.cast(tf.not_equal(label_ids[:, 0], records.NO_LABEL), tf.float32)
        return tf.reduce_sum(per_text * has_label), features["total_labels"]

    def _one_class_loss(self, logits, label_ids):
        """[B]: -w_y sum_c q_c log softmax(z)_c; q is one-hot, smoothed."""
        classes = len(self.label_names)
        one_hot = tf.one_hot(label_ids[:, 0], classes)  # zeros where there is no label
        targets = one_hot * (1.0 - self._label_smoothing) + self._label_smoothing / classes
        weights = tf.linalg.matvec(one_hot, tf.constant(self._class_weights, tf.float32))
        return -weights * tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)

    def _independent_loss(self, logits, label_ids):
        """[B]: mean over the classes of -w_c q log s(z) - (1 - q) log(1 - s(z)), s the logistic function."""
        targets = tf.cast(label_ids, tf.float32) * (1.0 - self._label_smoothing) + self._label_smoothing / 2
        return tf.reduce_mean(tf.nn.weighted_cross_entropy_with_logits(
            targets, logits, tf.constant(self._class_weights, tf.float32)), axis=-1)

    def probabilities(self, logits):
        """float32 [B, C]: softmax over the classes, or of each class by itself."""
        return tf.nn.sigmoid(logits) if self.independent_classes else tf.nn.softmax(logits)

    def outputs(self, logits, features):
        """What `figures` and predictions need of a batch: dict of tensors [B, ...]."""
        found = {"logits": logits, "probabilities": self.probabilities(logits)}
        found.update({name: features[name] for name in ("label_ids", "record") if name in features})
        return found

    def figures(self, outputs, thresholds=None):
        """The figures of `metrics.classification_report`, and "loss", the plain cross-entropy.

        Args:
          outputs: dict of arrays [N, ...], as `outputs` gave them.
          thresholds: several classes a text only: C probabilities from which on a class is predicted;
            None: those with the highest F1 on these very texts, to be used on others.
        """
        labels, probabilities = outputs["label_ids"], outputs["probabilities"]
        if self.independent_classes and thresholds is None:
            thresholds = metrics.best_thresholds(labels, probabilities)
        report = metrics.classification_report(
            labels, probabilities, self.label_names, thresholds if self.independent_classes else None)
        return dict(loss=self._plain_loss(labels, probabilities), **report)

    def _plain_loss(self, labels, probabilities):
        sure = np.clip(probabilities.astype(np.float64), 1e-12, 1.0)
        if self.independent_classes:
            unsure = np.clip(1.0 - probabilities.astype(np.float64), 1e-12, 1.0)
            return float(-np.mean(np.where(labels > 0, np.log(sure), np.log(unsure))))
        return float(-np.mean(np.log(np.take_along_axis(sure, labels, axis=1))))

    def format_figures(self, figures):
        """The figures as text for people."""
        return "loss %.4f  %s" % (figures["loss"], metrics.format_report(figures))


def balanced_weights(counts, num_texts, independent_classes, source):
    """Class weights that make up for unequal numbers of texts.

    One class a text: N / (C n_c), so that every class counts alike and the mean over the texts is 1.
    Several: (N - n_c) / n_c, so that the texts with the class weigh as much as those without.

    Args:
      counts: C ints n_c, training texts with each class.
      num_texts: N, labelled training texts.
      independent_classes: whether a text may have several classes.
      source: what was counted, for messages.

    Raises:
      UserError: a class has no text.
    """
    if min(counts) == 0:
        raise UserError("--class_weights=balanced: %s has no text of class %d (counted from 0, in the order of "
                        "labels.txt)" % (source, counts.index(0)))
    if independent_classes:
        return [(num_texts - count) / count for count in counts]
    return [num_texts / (len(counts) * count) for count in counts]
