"""Small graphs for tests: built, run, and trained through an Estimator."""

import os
import zlib

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import optimization
from bert import records
from bert.modeling import dense
from bert.randomness import normal
from student.modeling import BiLstmConfig
from student.modeling import BiLstmModel
from training import graph_mode  # noqa: F401
from training import native
from training import runtime

SHARED = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "shared")

# Tests that do not look at what differs between the TensorFlows run on one of them; whoever marks one sees to it that
# nothing else skips it there.
IS_REFERENCE = tf.__version__.startswith("1.")
COMPILED = pytest.mark.skipif(not native.find_compiler(), reason="no C++ compiler is here")
ON_TENSORFLOW_2 = pytest.mark.skipif(IS_REFERENCE, reason="one version is enough, TensorFlow 2")
ON_REFERENCE = pytest.mark.skipif(not IS_REFERENCE, reason="one version is enough, TensorFlow 1.15")

VOCABULARY = 30
TEXTS = 24


def run(build, seed=1, weights=None):
    """Values of what `build()` returns, in a graph of its own.

    Args:
      build: function without arguments that returns tensors in any structure.
      seed: the graph's seed.
      weights: function of (name, shape) -> array; None: variables keep their initial values.
    """
    with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(device_count={"CPU": 2})) as session:
        tf.set_random_seed(seed)
        fetches = build()
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        if weights:
            assign(session, tf.trainable_variables(), weights)
        return session.run(fetches)


def assign(session, variables, weights):
    """Gives variables the values of weights(name, shape); at once, for a session prepares each call anew."""
    session.run([variable.initializer for variable in variables], {
        variable.initializer.inputs[1]: weights(variable.op.name, variable.shape.as_list()) for variable in variables})


def named_weights(scale):
    """Weights for `run`: normal, of that standard deviation, decided by the variable's name alone."""
    def draw(name, shape):
        drawn = np.random.RandomState(zlib.crc32(name.encode("utf-8"))).normal(0.0, scale, shape)
        return (drawn + name.endswith("gamma")).astype(np.float32)

    return draw


def mask_of(lengths, width):
    """int32 [B, S], ones for `lengths` tokens and then zeros."""
    return (np.arange(width)[None, :] < np.asarray(lengths)[:, None]).astype(np.int32)


def ragged_records(path):
    """Writes `TEXTS` texts of 1 to 24 tokens to a TFRecord file, each with one of 3 labels."""
    random = np.random.RandomState(3)
    texts = []
    for length in random.permutation(TEXTS) + 1:
        ids = random.randint(1, VOCABULARY, length).tolist()
        texts.append(records.serialize({
            "input_ids": ids, "input_mask": [1] * int(length), "segment_ids": [0] * int(length),
            "label_ids": [int(random.randint(3))]}))
    records.write_records(path, texts)
    return path


def tagging_model_fn(features, mode, params):
    """Tells each token's id modulo 4 and each text's label; a text counts for its tokens and for itself.

    `params`: "schedule", and "dropout", a probability.
    """
    model = BiLstmModel(
        BiLstmConfig(VOCABULARY, hidden_size=8, num_hidden_layers=2, embedding_dropout_prob=params["dropout"],
                     hidden_dropout_prob=params["dropout"], initializer_range=0.5),
        mode == tf.estimator.ModeKeys.TRAIN, features["input_ids"], features["input_mask"])
    tags = dense(tf.reshape(model.get_sequence_output(), [-1, 8]), 4, "tags", normal(0.5))
    texts = dense(model.get_pooled_output(), 3, "texts", normal(0.5))
    tag_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.reshape(features["input_ids"] % 4, [-1]), logits=tags)
    text_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=features["label_ids"][:, 0], logits=texts)
    is_token = tf.cast(tf.reshape(features["input_mask"], [-1]), tf.float32)
    loss = (tf.reduce_sum(tag_losses * is_token) / features["total_tokens"]
            + tf.reduce_sum(text_losses) / features["total_examples"])
    train_op, _ = optimization.create_train_op(loss, params["schedule"])
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)


def train(folder, records_file, steps, schedule, replicas=1, dropout=0.0, hooks=(), saving_listeners=()):
    """Trains `tagging_model_fn` on 8 texts an update up to update `steps`, and saves after every update.

    Starts from the last checkpoint in `folder`, where there is one.
    """
    strategy, devices = runtime.distribution_strategy(num_cpu_replicas=replicas)
    config = runtime.run_config(folder, seed=5, save_checkpoints_steps=1, strategy=strategy, devices=devices)
    estimator = tf.estimator.Estimator(
        tagging_model_fn, config=config, params={"schedule": schedule, "dropout": dropout})
    last = tf.train.latest_checkpoint(folder)
    start_step = int(tf.train.load_variable(last, "global_step")) if last else 0
    input_fn = records.training_input_fn(
        [records_file], records.CLASSIFICATION_FEATURES, 8, schedule.num_parts, seed=7, start_step=start_step)
    runtime.train(estimator, input_fn, steps, hooks, saving_listeners)


def trained(folder, *args, **kwargs):
    """The variables in the last checkpoint, after `train`, as dict of name -> value."""
    train(folder, *args, **kwargs)
    return weights_in(tf.train.latest_checkpoint(folder))


def weights_in(checkpoint):
    """dict of name -> value of each variable in a checkpoint."""
    return {name: tf.train.load_variable(checkpoint, name) for name, _ in tf.train.list_variables(checkpoint)}


def largest_difference(one, other):
    """The largest difference between two dicts of arrays with the same names."""
    assert sorted(one) == sorted(other)
    return max(np.max(np.abs(one[name] - other[name])) for name in one)
