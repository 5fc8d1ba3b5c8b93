"""What the terms amount to over some texts, before a stage or at its checkpoints; nothing is trained."""

import itertools

import numpy as np
import tensorflow.compat.v1 as tf

from distill.model_fn import build_terms
from training.evaluation import batches_of

BALANCE_BATCHES = 10  # of the training texts, measured before a stage


def term_means(distillation, input_fn, checkpoint=None, init=None, seed=0, max_batches=None):
    """The mean of each term, the student's dropout off: dict of logged name -> float.

    Args:
      distillation: Distillation.
      input_fn: see `bert.records.evaluation_input_fn`.
      checkpoint: prefix of a checkpoint of the run; None: the student as it starts.
      init, seed: where it starts, as in training.
      max_batches: that many at most; None: all.
    """
    with tf.Graph().as_default():
        tf.set_random_seed(seed)
        tf.train.get_or_create_global_step()
        iterator = tf.data.make_initializable_iterator(input_fn())
        built = build_terms(distillation, iterator.get_next(), False, None if checkpoint else init)
        fetches = [(term.sum, term.total) for term in built]
        with tf.Session(config=tf.ConfigProto(allow_soft_placement=True)) as session:
            session.run([tf.global_variables_initializer(), tf.local_variables_initializer(), iterator.initializer])
            if checkpoint:
                tf.train.Saver(tf.global_variables()).restore(session, checkpoint)
            found = list(itertools.islice(batches_of(session, fetches), max_batches))
    sums, totals = np.sum(np.array(found, np.float64), axis=0).T
    return {term.name: float(value) for term, value in zip(built, sums / np.maximum(totals, 1.0))}


def balanced(weights, means):
    """Weights by which each term's share of the loss is at first what its weight says.

    Args:
      weights: dict of logged name -> weight.
      means: dict of logged name -> the term's mean at the start; one that is 0 keeps its weight.
    """
    return {name: weight / means[name] if means[name] > 0 else weight for name, weight in weights.items()}
