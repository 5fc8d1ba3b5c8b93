"""Runs a trained model over a set and brings its answers together."""

import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import tqdm

from training import graph_mode  # noqa: F401


class Evaluator:
    """A model over a set of records, on one device: built once, for any number of its checkpoints.

    An Estimator would build graph and session anew for each, which takes seconds.
    """

    def __init__(self, model_fn, input_fn):
        """Builds the graph.

        Args:
          model_fn: of an Estimator, whose EstimatorSpec has a scaffold; its predictions are tensors whose first axis is
            that of the batch, or of the rows the task makes of it.
          input_fn: see `bert.records.evaluation_input_fn`.
        """
        with tf.Graph().as_default() as graph:
            self._batches = tf.data.make_initializable_iterator(input_fn())
            spec = model_fn(features=self._batches.get_next(), mode=tf.estimator.ModeKeys.PREDICT)
            self._predictions, self._scaffold = spec.predictions, spec.scaffold.finalize()
        self._session = tf.Session(graph=graph, config=tf.ConfigProto(allow_soft_placement=True))
        self._session.run(self._scaffold.local_init_op)

    def run(self, checkpoint):
        """What the model answers to every record.

        Args:
          checkpoint: its prefix.

        Returns:
          dict of name -> array, the batches joined; sorted by "record", where the model gives that.
        """
        self._scaffold.saver.restore(self._session, checkpoint)
        self._session.run(self._batches.initializer)
        batches = list(tqdm(batches_of(self._session, self._predictions), desc="evaluating", unit=" batches",
                            disable=None, leave=False))
        if not batches:
            return {}
        joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        if "record" in joined:
            order = np.argsort(joined["record"], kind="stable")
            joined = {name: values[order] for name, values in joined.items()}
        return joined


def batches_of(session, fetches):
    """Yields what each run of the session gives, to the end of the data that it reads."""
    while True:
        try:
            yield session.run(fetches)
        except tf.errors.OutOfRangeError:
            return
