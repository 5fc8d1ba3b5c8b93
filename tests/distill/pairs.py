"""A student and a teacher, small, with every term between them."""

import collections
from unittest import mock

import tensorflow.compat.v1 as tf

from bert.optimization import Schedule
from distill.model_fn import Distillation
from distill.model_fn import distillation_model_fn
from tests import batches
from tests import graphs

STUDENTS = {"bilstm": batches.bilstm(layers=2), "bert": batches.bert(layers=2, width=6),
            "small": batches.bilstm(layers=1), "small_bert": batches.bert(layers=1, width=6)}
# Dropout, which a teacher must not have: with it no figure below would fit.
TEACHERS = {"bilstm": batches.bilstm(layers=3, dropout=0.5, width=10, embedding=7),
            "bert": batches.bert(layers=3, dropout=0.5), "small": batches.bert(layers=1, dropout=0.5)}
MAP = [(1, 1), (2, 3)]
WEIGHTS = {"embedding": 0.5, "hidden_1": 2.0, "hidden_2": 0.25, "prediction": 1.5, "label": 0.75}
ALL_TERMS = ["embedding", "hidden_1", "hidden_2", "prediction", "label"]
# The terms of other methods, in the order of the log.
MORE_WEIGHTS = collections.OrderedDict([
    ("hard_label", 0.5), ("logit_mse", 0.25), ("cosine", 2.0), ("token_similarity_1", 3.0), ("token_similarity_2", 4.0),
    ("text_similarity", 5.0), ("contrast_1", 0.3), ("contrast_2", 0.6), ("patience_1", 6.0), ("patience_2", 7.0),
    ("attention_1", 0.75), ("attention_2", 1.5)])
CUTTABLE = {name: weight for name, weight in MORE_WEIGHTS.items()
            if name != "text_similarity" and not name.startswith("contrast")}
DRAW = graphs.named_weights(0.4)


def build(student, teacher, task, weights=WEIGHTS, serialized=None, temperature=2.0, totals=None, layer_map=MAP):
    """Builds the training graph, but for its updates; returns what it logs.

    Args:
      totals: dict of name -> float, in place of the batch's own.
    """
    caught = {}

    def progress(terms, scalars):
        caught.update(terms=terms)
        return tf.train.SessionRunHook()

    tf.train.get_or_create_global_step()
    batch = dict(batches.features(serialized or batches.texts()), **(totals or {}))
    asked = Distillation(student, teacher, batches.TASKS[task], layer_map, weights, temperature)
    with mock.patch("tasks.model_fn.create_train_op", lambda *_: (tf.no_op(), {})):  # half of the graph
        spec = distillation_model_fn(asked, Schedule(1e-3, 10), progress=progress)(batch)
    return dict(caught, loss=spec.loss)


def terms_of(*args, **kwargs):
    """The terms as they are logged, OrderedDict of name -> value."""
    return graphs.run(lambda: build(*args, **kwargs)["terms"], weights=DRAW)
