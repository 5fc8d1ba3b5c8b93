"""Runs a trained model over a set and brings its answers together."""

import os

import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import tqdm

from training.runtime import local_config


def run_model(model_fn, input_fn, checkpoint, what="evaluating"):
    """What the model answers to every record, on one device.

    Args:
      model_fn: for tf.estimator.Estimator; its predictions are tensors whose first axis is that of the
        batch, or of the rows the task makes of it.
      input_fn: see `bert.records.evaluation_input_fn`.
      checkpoint: its prefix.
      what: for the progress bar.

    Returns:
      dict of name -> array, the batches joined; sorted by "record", where the model gives that.
    """
    estimator = tf.estimator.Estimator(model_fn, config=local_config(os.path.dirname(checkpoint)))
    batches = estimator.predict(input_fn, checkpoint_path=checkpoint, yield_single_examples=False)
    batches = list(tqdm(batches, desc=what, unit=" batches", disable=None, leave=False))
    if not batches:
        return {}
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    if "record" in joined:
        order = np.argsort(joined["record"], kind="stable")
        joined = {name: values[order] for name, values in joined.items()}
    return joined
