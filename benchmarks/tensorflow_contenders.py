"""What is measured of this project, for `turns.race`: functions of plain arguments -> (work, about)."""

from training import command  # noqa: F401, I001  quiets TensorFlow's log
import numpy as np
import tensorflow.compat.v1 as tf

from benchmarks import texts
from benchmarks import turns
from bert import records
from bert.modeling import BertConfig
from bert.optimization import Schedule
from bert.optimization import create_train_op
from student import lstm
from tasks.encoders import KINDS, build_encoder
from tasks.masked_lm import MaskedLm
from tasks.model_fn import task_model_fn
from tests import peer
from training import calls
from training import graph_mode  # noqa: F401
from training import native
from training import runtime


def _about():
    return {"tensorflow": tf.__version__}


def _repeated(fetches, feeds=(), config=None):
    """A session's run of these, every time anew, once for each feed; variables are initialized first."""
    session = tf.Session(config=config)
    session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
    if not feeds:
        return session.make_callable(fetches)
    run = calls.prepared(session, fetches.name, [tensor.name for tensor in feeds[0]])
    return lambda: [run(*feed.values()) for feed in feeds]


def _kept(values):
    """A variable: a constant would let TensorFlow compute ahead."""
    return tf.get_variable("given_%d" % len(tf.global_variables()), initializer=values, trainable=False)


def matrix_product(rows, depth, columns):
    """One product of float32 matrices."""
    random = np.random.RandomState(0)
    one, other = [_kept(random.normal(size=size).astype(np.float32)) for size in ((rows, depth), (depth, columns))]
    return _repeated(tf.matmul(one, other).op), _about()


def lstm_stack(kernel, units, batch, length, features=200, layers=3, train=True):
    """A stack of BiLSTM layers over vectors, every text full; forward, or forward and every gradient.

    Args:
      kernel: as of `student.lstm.chosen`.
      units: of each direction.
      batch, length, features, layers: sizes.
      train: bool; False: forward alone.
    """
    random = np.random.RandomState(0)
    hidden = given = _kept(random.normal(size=[batch, length, features]).astype(np.float32))
    lengths = _kept(np.full([batch], length, np.int32))
    for layer in range(layers):
        directions = []
        for name in ("forward", "backward"):
            with tf.variable_scope("layer_%d/%s" % (layer, name)):
                directions.append(lstm.lstm(hidden, units, lengths, kernel, name == "backward", train))
        hidden = tf.concat(directions, axis=-1)
    if not train:
        return _repeated(tf.reduce_sum(hidden)), _about()
    factors = _kept(random.normal(size=[batch, length, 2 * units]).astype(np.float32))
    gradients = tf.gradients(tf.reduce_sum(hidden * factors), tf.trainable_variables() + [given])
    # A gradient that nobody reads would not be computed.
    return _repeated(tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])), _about()


def encoder_products(config, batch, length):
    """The matrix products of a Transformer's forward pass, each of what the one before gives, with nothing between.

    Args:
      config: dict, a BERT's JSON.
      batch, length: sizes.
    """
    random, width, inner = np.random.RandomState(0), config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    hidden = _kept(random.normal(size=[batch * length, width]).astype(np.float32))
    for _ in range(config["num_hidden_layers"]):
        for _ in range(3):  # query, key, value
            hidden = tf.matmul(hidden, _matrix(random, width, width))
        split = tf.reshape(hidden, [batch, heads, length, width // heads])
        scores = tf.matmul(split, split, transpose_b=True)
        hidden = tf.reshape(tf.matmul(scores, split), [batch * length, width])
        for rows, columns in ((width, width), (width, inner), (inner, width)):
            hidden = tf.matmul(hidden, _matrix(random, rows, columns))
    return _repeated(hidden.op), _about()


def _matrix(random, rows, columns):
    """Small enough that no chain of products overflows, and none of it is denormal."""
    return _kept(random.normal(scale=0.1 / rows ** 0.5, size=[rows, columns]).astype(np.float32) + 1e-6)


def encoder(config, batches, kernel="auto", native_ops=True):
    """An encoder's vector of each text, ids in, one batch after the other.

    Args:
      config: dict, a model's JSON.
      batches: as of `texts.drawn`.
      kernel: as of `student.lstm.chosen`.
      native_ops: bool; False: by TensorFlow's ops alone.
    """
    sizes = {len(lengths) for lengths in batches}
    rows = sizes.pop() if len(sizes) == 1 else None
    features = {name: tf.placeholder(tf.int32, [rows, None]) for name in ("input_ids", "input_mask")}
    features["segment_ids"] = tf.zeros_like(features["input_ids"])
    config, kind = dict(config), config["model_type"]
    with lstm.using(kernel), native.using(native_ops):
        pooled = build_encoder(KINDS[kind][0](**config), False, features).get_pooled_output()
    runs = _repeated(pooled, [{features["input_ids"]: ids, features["input_mask"]: mask}
                              for ids, mask in texts.drawn(batches, config["vocab_size"])])
    return runs, _about()


def table_update(rows, width, native_ops=True):
    """One update of a word table by a gradient of 2,048 of its rows."""
    tf.train.get_or_create_global_step()
    table = tf.get_variable("word_embeddings", [rows, width])
    ids = _kept(np.random.RandomState(0).randint(0, rows, [2048]).astype(np.int32))
    loss = tf.reduce_sum(tf.square(tf.nn.embedding_lookup(table, ids)))
    with native.using(native_ops):
        return _repeated(create_train_op(loss, Schedule(1e-4, 10 ** 6))[0]), _about()


def pretraining_step(batch, length, predictions, layers, width, google=False, native_ops=True, use_bf16=False):
    """One update of masked LM, every text full, dropout on; google: the graph of the package bert-tensorflow."""
    random, vocabulary = np.random.RandomState(0), 21128
    features = {"input_ids": random.randint(0, vocabulary, [batch, length]), "segment_ids": np.zeros([batch, length]),
                "input_mask": np.ones([batch, length]),
                "masked_lm_ids": random.randint(0, vocabulary, [batch, predictions]),
                "masked_lm_positions": np.sort(random.randint(0, length, [batch, predictions])),
                "next_sentence_labels": np.zeros([batch, 1])}
    features = {name: _kept(values.astype(np.int32)) for name, values in features.items()}
    features["masked_lm_weights"] = _kept(np.ones([batch, predictions], np.float32))
    sizes = {"vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": layers,
             "num_attention_heads": width // 64, "intermediate_size": 4 * width}
    tf.train.get_or_create_global_step()
    config = runtime.run_config(None, 0, 1, use_bf16=use_bf16).session_config
    with native.using(native_ops):
        return _repeated((_google_update if google else _our_update)(features, sizes), config=config), _about()


def _our_update(features, sizes):
    features = dict(features, **records.totals(features))
    model_fn = task_model_fn(BertConfig(**sizes), MaskedLm(), Schedule(1e-4, 10 ** 6))
    return model_fn(features, tf.estimator.ModeKeys.TRAIN).train_op


def _google_update(features, sizes):
    modeling, script = peer.google_modeling(), peer.google_pretraining()
    config = modeling.BertConfig(**sizes)
    model = modeling.BertModel(config, True, features["input_ids"], features["input_mask"], features["segment_ids"])
    masked_loss, *_ = script.get_masked_lm_output(
        config, model.get_sequence_output(), model.get_embedding_table(), features["masked_lm_positions"],
        features["masked_lm_ids"], features["masked_lm_weights"])
    next_loss, *_ = script.get_next_sentence_output(
        config, model.get_pooled_output(), features["next_sentence_labels"])
    return script.optimization.create_optimizer(masked_loss + next_loss, 1e-4, 10 ** 6, 0, False)


if __name__ == "__main__":
    turns.serve({"matrix_product": matrix_product, "lstm_stack": lstm_stack,
                 "encoder": encoder, "encoder_products": encoder_products,
                 "pretraining_step": pretraining_step, "table_update": table_update})
