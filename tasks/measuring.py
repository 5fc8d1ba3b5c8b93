"""What a checkpoint answers to records, and how well."""

import contextlib
import functools
import os
import re

import tensorflow.compat.v1 as tf

from bert import records
from tasks.model_fn import task_model_fn
from training import files
from training.command import UserError
from training.evaluation import Evaluator


def evaluate(config, task, checkpoint, record_files, batch_size, rules=None, **arguments):
    """The task's figures of a checkpoint; arguments: further ones of `task.figures`."""
    return task.figures(answering(config, task, record_files, batch_size, rules)(checkpoint), **arguments)


def answering(config, task, record_files, batch_size, rules=None):
    """What the model answers to every record: function of a checkpoint -> dict of arrays, see the task's `outputs`.

    rules: `masking.Rules`, for records without masks.
    """
    @functools.lru_cache(maxsize=1)
    def evaluator():
        return Evaluator(task_model_fn(config, task), records.evaluation_input_fn(
            record_files, task.feature_names, batch_size, rules))

    def answer(checkpoint):
        with restoring(checkpoint), records.naming_damage(record_files):
            answers = evaluator().run(checkpoint)
        if not answers:
            raise UserError("%s: no records" % ", ".join(record_files))
        return answers

    return answer


@contextlib.contextmanager
def restoring(checkpoint):
    """Tells in one line that a checkpoint does not hold the model's variables."""
    try:
        yield
    except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
        if "Restoring from checkpoint failed" not in str(error):
            raise
        found = re.search(r"Key \S+ not found in checkpoint|shapes? .*\[[^\n]*", str(error))
        raise UserError("%s: its variables are not those of the model%s" % (
            checkpoint, " (%s)" % found.group() if found else ""))


def write_figures(output_dir, name, task, figures, title):
    """Prints figures and writes them to <output_dir>/<name>.json."""
    print("%s\n%s" % (title, task.format_figures(figures)), flush=True)
    files.write_json(os.path.join(output_dir, name + ".json"), figures)
