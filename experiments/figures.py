"""What models are judged by, in the demo and in comparisons: a line of figures for each model."""

import os
import time

import numpy as np
import tensorflow.compat.v1 as tf

from bert import checkpoints
from tasks.text_files import labels_from_data
from training import files
from training import metrics
from training.command import UserError

PREDICTIONS = "predictions.tsv"

NUM_TIMED = 300  # texts whose speed is measured


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
    found = report_of(labels, predicted)
    return dict({"name": name, "accuracy": found["accuracy"], "macro_f1": found["macro_f1"],
                 "parameters": parameters}, **more)


def report_of(labels, predicted):
    """`metrics.classification_report` of labels by their names, those of the texts and those a model gave."""
    names = sorted(set(labels) | set(predicted))
    one_hot = np.eye(len(names))[[names.index(label) for label in predicted]]
    return metrics.classification_report([names.index(label) for label in labels], one_hot, names)


def predictions_in(run_folder):
    """The labels that a run's --do_predict wrote: list of str.

    Raises:
      UserError: it has not.
    """
    path = os.path.join(run_folder, PREDICTIONS)
    if not os.path.exists(path):
        raise UserError("%s: not there; run the command again with --do_predict" % path)
    return [line.split("\t")[0] for line in files.read_lines(path)[1:]]


def distilled_over_plain(labels, predicted):
    """`metrics.paired_bootstrap` of the two students.

    Args:
      labels: list of the texts' labels.
      predicted: dict of model name -> list of the labels it gave.
    """
    labels = np.array(labels)
    return metrics.paired_bootstrap(np.array(predicted["student_distilled"]) == labels,
                                    np.array(predicted["student_plain"]) == labels, seed=1)


def count_parameters(run_folder, with_embeddings=True):
    """Values in the variables that an export of the run's best checkpoint holds, with or without the word table."""
    shapes = tf.train.list_variables(checkpoints.find_model(run_folder, "folder").checkpoint)
    return int(sum(np.prod(shape) for name, shape in shapes
                   if name != "global_step" and not name.startswith("distill/")
                   and (with_embeddings or not name.endswith("word_embeddings"))))


def megabytes(run_folder):
    """Size of the files of the run's best checkpoint, in units of 10^6 bytes."""
    prefix = checkpoints.find_model(run_folder, "folder").checkpoint
    folder = os.path.dirname(prefix)
    return sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)
               if name.startswith(os.path.basename(prefix) + ".")) / 1e6


def latency(predict, texts):
    """Milliseconds for one text, raw text to label: the median over `NUM_TIMED` texts.

    Args:
      predict: function of a list of texts.
    """
    times = []
    for text in texts[:NUM_TIMED]:
        started = time.perf_counter()
        predict([text])
        times.append(time.perf_counter() - started)
    return round(1000 * float(np.median(times)), 3)


def texts_per_second(predict, texts):
    """Texts a second, given together, raw text to label; the first time is not counted.

    Args:
      predict: function of a list of texts.
      texts: list of str, of which `NUM_TIMED` are taken.
    """
    predict(texts[:NUM_TIMED])
    started = time.perf_counter()
    predict(texts[:NUM_TIMED])
    return round(len(texts[:NUM_TIMED]) / (time.perf_counter() - started), 1)
