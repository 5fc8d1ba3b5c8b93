"""How classifiers are judged: figures, thresholds, and what a difference between two of them is worth.

Letters: N texts, C classes.
"""

import math
import unicodedata

import numpy as np
from sklearn import metrics

DEFAULT_THRESHOLD = 0.5
NORMAL_95 = 1.959964  # two-sided 5 % of the normal distribution


def classification_report(labels, probabilities, names, thresholds=None):
    """The figures of one classifier on one set.

    Args:
      labels: int [N] or [N, 1], class ids; multi-label: [N, C], zeros and ones.
      probabilities: float [N, C].
      names: C names of classes.
      thresholds: multi-label only: C probabilities from which on a class counts as predicted, 0.5 by
        default.

    Returns:
      dict, ready for JSON: "texts", "accuracy" (multi-label: of texts with every class right), "macro_f1"
      (mean over the classes that occur in labels or predictions, multi-label over all), "classes" (list of
      "name", "precision", "recall", "f1", "support") and "confusion" (C lists of C counts; row: true class,
      column: predicted). Multi-label has "micro_f1" and "thresholds" too, and "confusion" holds
      [[true negative, false positive], [false negative, true positive]] of each class.

    Raises:
      ValueError: a shape does not fit, or a text has no label.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    multi_label = labels.shape == probabilities.shape
    if not multi_label:
        labels = labels.reshape(-1)
    if probabilities.shape != (len(labels), len(names)) or not len(labels):
        raise ValueError("labels %s, probabilities %s and %d names do not fit together"
                         % (labels.shape, probabilities.shape, len(names)))
    if labels.min() < 0:
        raise ValueError("a text without a label cannot be judged")
    if multi_label:
        thresholds = [DEFAULT_THRESHOLD] * len(names) if thresholds is None else thresholds
        predictions = (probabilities >= np.asarray(thresholds, np.float64)).astype(np.int64)
        confusion = metrics.multilabel_confusion_matrix(labels, predictions)
        averaged = range(len(names))
    else:
        predictions = probabilities.argmax(axis=1)
        confusion = metrics.confusion_matrix(labels, predictions, labels=range(len(names)))
        averaged = sorted(set(labels) | set(predictions))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(len(names)), zero_division=0)
    report = {"texts": len(labels),
              "accuracy": float(metrics.accuracy_score(labels, predictions)),
              "macro_f1": float(np.mean(f1[averaged]))}
    if multi_label:
        report["micro_f1"] = float(metrics.f1_score(labels, predictions, average="micro", zero_division=0))
        report["thresholds"] = [float(value) for value in thresholds]
    report["classes"] = [
        {"name": name, "precision": float(precision[number]), "recall": float(recall[number]),
         "f1": float(f1[number]), "support": int(support[number])} for number, name in enumerate(names)]
    report["confusion"] = confusion.tolist()
    return report


def best_thresholds(labels, probabilities):
    """For each class, the threshold with the highest F1; to be chosen on the set that selects.

    It lies midway between two probabilities that occur (or the lowest and 0), and is the highest where
    several are equally good. A class without a positive text keeps 0.5.

    Args:
      labels: [N, C], zeros and ones.
      probabilities: float [N, C].

    Returns:
      list of C floats, for `classification_report`.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    return [_best_threshold(labels[:, number], probabilities[:, number]) for number in range(labels.shape[1])]


def _best_threshold(labels, probabilities):
    positives = labels.sum()
    if not positives:
        return DEFAULT_THRESHOLD
    order = np.argsort(-probabilities, kind="stable")
    ranked = np.append(probabilities[order], 0.0)
    # F1 when the k texts of highest probability are predicted: 2 hits / (predicted + positive).
    f1 = 2.0 * np.cumsum(labels[order]) / (np.arange(1, len(labels) + 1) + positives)
    f1[ranked[:-1] == ranked[1:]] = -1.0  # equal probabilities cannot be told apart
    best = int(np.argmax(f1))
    return float((ranked[best] + ranked[best + 1]) / 2)


def chosen_classes(probabilities, thresholds=None):
    """The classes predicted for one text: its most probable one, or all that reach their thresholds.

    Args:
      probabilities: float [C].
      thresholds: C floats, several classes a text; None: one class.

    Returns:
      list of int, ascending.
    """
    if thresholds is None:
        return [int(np.argmax(probabilities))]
    return np.nonzero(np.asarray(probabilities) >= np.asarray(thresholds))[0].tolist()


def paired_bootstrap(correct_a, correct_b, seed, samples=10000):
    """Whether two classifiers differ in accuracy, the same texts given to both.

    Texts are drawn with replacement; the interval is that of the percentiles. The p value is the share of
    draws that lie at least as far from the difference as 0 does, the observed draw counted in.

    Args:
      correct_a, correct_b: [N], truth values: whether the text was classified rightly.
      seed: int.
      samples: draws.

    Returns:
      dict of "difference" (accuracy of a minus that of b), "low" and "high" (95 %), "p_value" (two-sided)
      and "discordant_share" (of texts that only one of them has right).
    """
    correct_a, correct_b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if correct_a.shape != correct_b.shape or correct_a.ndim != 1 or not len(correct_a):
        raise ValueError("%s and %s: not the same texts" % (correct_a.shape, correct_b.shape))
    size = len(correct_a)
    only_a, only_b = int(np.sum(correct_a & ~correct_b)), int(np.sum(correct_b & ~correct_a))
    # Texts differ only in which of the two is right, so a draw of texts is a draw of three counts.
    drawn = np.random.RandomState(seed).multinomial(
        size, [only_a / size, only_b / size, (size - only_a - only_b) / size], size=samples)
    surplus = drawn[:, 0] - drawn[:, 1]
    low, high = np.percentile(surplus / size, [2.5, 97.5])
    observed = only_a - only_b
    extreme = int(np.sum(np.abs(surplus - observed) >= abs(observed)))
    return {"difference": observed / size, "low": float(low), "high": float(high),
            "p_value": (extreme + 1) / (samples + 1), "discordant_share": (only_a + only_b) / size}


def smallest_difference(num_texts, discordant_share=0.09):
    """The smallest difference in accuracy that a test set could show, two-sided at 5 %.

    1.96 sqrt(discordant_share / num_texts): the difference of two classifiers on the same texts is the
    mean of values of which a discordant_share is 1 or -1 and the rest 0.

    Args:
      num_texts: int.
      discordant_share: of texts that only one of the two has right, as `paired_bootstrap` measures it.
        Before that, 0.09 = 2 x 0.9 x 0.1 x (1 - 0.5): two classifiers of accuracy 0.9 whose errors
        correlate by 0.5. It gives 0.017 on 1,200 texts and 0.037 on 247.
    """
    return NORMAL_95 * math.sqrt(discordant_share / num_texts)


def gap_closed(distilled, undistilled, teacher):
    """(distilled - undistilled) / (teacher - undistilled); None where the teacher is no better."""
    if teacher <= undistilled:
        return None
    return (distilled - undistilled) / (teacher - undistilled)


def format_report(report):
    """A report of `classification_report` as lines for people; Chinese names keep the columns straight."""
    headline = ["texts {:,}".format(report["texts"])] + [
        "%s %.4f" % (name.replace("_", "-"), report[name])
        for name in ("accuracy", "macro_f1", "micro_f1") if name in report]
    thresholds = report.get("thresholds")
    header = ["class", "precision", "recall", "f1", "texts"] + (["threshold"] if thresholds else [])
    rows = [header]
    for number, found in enumerate(report["classes"]):
        rows.append([found["name"]] + ["%.4f" % found[name] for name in ("precision", "recall", "f1")]
                    + ["{:,}".format(found["support"])]
                    + (["%.4f" % thresholds[number]] if thresholds else []))
    parts = ["  ".join(headline), table(rows)]
    if not thresholds:
        parts.append("true class (row), predicted as (column)\n" + table(_confusion_rows(report)))
    return "\n\n".join(parts)


def _confusion_rows(report):
    # Columns are numbered: with their names a matrix of six classes would not fit a terminal.
    numbers = range(1, len(report["classes"]) + 1)
    rows = [[""] + ["%d" % number for number in numbers]]
    for number, found, counts in zip(numbers, report["classes"], report["confusion"]):
        rows.append(["%d %s" % (number, found["name"])] + ["%d" % count for count in counts])
    return rows


def table(rows):
    """Rows of strings as aligned lines: the first column to the left, the others to the right."""
    widths = [max(map(_width, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = [" " * (width - _width(cell)) + cell for width, cell in zip(widths[1:], row[1:])]
        lines.append("  ".join([row[0] + " " * (widths[0] - _width(row[0]))] + cells))
    return "\n".join(lines)


def _width(text):
    """Columns of a terminal; East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
