"""What models are judged by, in the demo and in comparisons: a line of figures for each model."""

import numpy as np
import tensorflow.compat.v1 as tf

from bert import checkpoints
from tasks.text_files import labels_from_data
from training import metrics


def read_labelled(*splits):
    """For each `tasks.classification_data.Split` its (label, text) pairs; the first knows all labels."""
    labels = labels_from_data(splits[0].path)
    return [[(row.labels[0], row.text_a) for row in split.rows(labels)] for split in splits]


def of_model(name, labels, predicted, parameters, **more):
    """One model's line of results.json.

    Args:
      name: of the model.
      labels: list of the texts' labels.
      predicted: list of the labels the model gave; one that no text has is wrong, and a class of its own.
      parameters: int.
      more: further figures of the line.

    Returns:
      dict of "name", "accuracy", "macro_f1", "parameters" and those of `more`.
    """
    names = sorted(set(labels) | set(predicted))
    one_hot = np.eye(len(names))[[names.index(label) for label in predicted]]
    found = metrics.classification_report([names.index(label) for label in labels], one_hot, names)
    return dict({"name": name, "accuracy": found["accuracy"], "macro_f1": found["macro_f1"],
                 "parameters": parameters}, **more)


def distilled_over_plain(labels, predicted):
    """`metrics.paired_bootstrap` of the two students.

    Args:
      labels: list of the texts' labels.
      predicted: dict of model name -> list of the labels it gave.
    """
    labels = np.array(labels)
    return metrics.paired_bootstrap(np.array(predicted["student_distilled"]) == labels,
                                    np.array(predicted["student_plain"]) == labels, seed=1)


def count_parameters(run_folder):
    """Values in the variables that an export of the run's best checkpoint holds."""
    shapes = tf.train.list_variables(checkpoints.find_model(run_folder, "folder").checkpoint)
    return int(sum(np.prod(shape) for name, shape in shapes
                   if name != "global_step" and not name.startswith("distill/")))
