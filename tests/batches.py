"""Ragged texts for both tasks, tiny models over them, and their outputs, found without the code under test."""

import numpy as np
import tensorflow.compat.v1 as tf

from bert import records
from bert.albert import AlbertConfig
from bert.electra import ElectraConfig
from bert.modeling import BertConfig
from student.modeling import BiLstmConfig
from tasks.classification import Classification
from tasks.encoders import build_encoder
from tasks.masked_lm import MaskedLm
from tasks.text_files import Labels
from tests import graphs
from training import runtime

VOCABULARY, TEXTS, LONGEST = 50, 16, 12
CLASSES = ["a", "b", "c"]
ALL_FEATURES = records.MASKED_LM_FEATURES + records.LABELS
TASKS = {"masked_lm": MaskedLm(), "classification": Classification(Labels(CLASSES)),
         "several_labels": Classification(Labels(CLASSES, ","))}


def bert(layers=2, dropout=0.0, width=8, kind=BertConfig, **changes):
    """A tiny BertConfig, or one of a class derived from it."""
    return kind(VOCABULARY, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
                intermediate_size=12, max_position_embeddings=16, initializer_range=0.3,
                hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **changes)


def albert(layers=2, dropout=0.0, width=8, embedding=4):
    """A tiny AlbertConfig whose embeddings are narrower than its layers."""
    return bert(layers, dropout, width, AlbertConfig, embedding_size=embedding, classifier_dropout_prob=dropout)


def electra(layers=2, dropout=0.0, width=8, embedding=4):
    """A tiny ElectraConfig whose embeddings are narrower than its layers."""
    return bert(layers, dropout, width, ElectraConfig, embedding_size=embedding)


def bilstm(layers=2, dropout=0.0, width=6, embedding=4):
    """A tiny BiLstmConfig whose embeddings are narrower than its layers."""
    return BiLstmConfig(VOCABULARY, hidden_size=width, num_hidden_layers=layers, embedding_size=embedding,
                        embedding_dropout_prob=dropout, hidden_dropout_prob=dropout, pooled_dropout_prob=dropout,
                        initializer_range=0.3)


def texts(several_labels=False, all_labelled=False, seed=3):
    """`TEXTS` serialized examples of 1 to 12 tokens, with 0 to 3 predictions; every third has no label."""
    random = np.random.RandomState(seed)
    found = []
    for number in range(TEXTS):
        length = 1 + (5 * number) % LONGEST
        has_label = all_labelled or number % 3 != 1
        places = np.sort(random.permutation(length)[:number % 4]).tolist()
        labels = random.randint(0, 2, len(CLASSES)) if several_labels else random.randint(0, len(CLASSES), 1)
        found.append(records.serialize({
            "input_ids": random.randint(1, VOCABULARY, length).tolist(), "input_mask": [1] * length,
            "segment_ids": [int(place > length // 2) for place in range(length)],
            "masked_lm_positions": places, "masked_lm_ids": random.randint(1, VOCABULARY, len(places)).tolist(),
            "masked_lm_weights": [1.0] * len(places),
            "label_ids": (labels if has_label else np.full_like(labels, records.NO_LABEL)).tolist()}))
    return found


def features(serialized):
    """One padded batch of all texts: dict of tensors, `records.totals` counted in."""
    parsed = records.parse(tf.constant(serialized), ALL_FEATURES)
    return dict(parsed, **records.totals(parsed))


def values(serialized):
    """`features` as arrays."""
    return graphs.run(lambda: features(serialized))


def from_dict(weights):
    """Weights for `graphs.run` from a dict by name."""
    return lambda name, shape: weights[name]


def forward(config, task, serialized, weights):
    """A model's outputs without dropout: dict of "embedding", "hidden" (list) and "logits"."""
    def build():
        batch = features(serialized)
        encoder = build_encoder(config, False, batch)
        return {"logits": task.logits(encoder, config, batch), "embedding": encoder.get_embedding_output(),
                "hidden": encoder.get_all_encoder_layers()}

    return graphs.run(build, weights=weights)


def save_model(path, config, task, scale=0.4, slots=(), with_step=True, only=None):
    """Writes the checkpoint of a model with `graphs.named_weights`; returns its prefix and those as dict.

    Args:
      path: the prefix.
      config: of the encoder.
      task: whose head it has; None: the encoder and its pooler alone.
      scale: of the weights.
      slots: names of optimiser slots that it holds too.
      with_step: whether it has a global step.
      only: function of a name: whether the variable is written.
    """
    draw, weights = graphs.named_weights(scale), {}
    with tf.Graph().as_default(), tf.Session() as session:
        batch = features(texts())
        encoder = build_encoder(config, False, batch)
        if task:
            task.logits(encoder, config, batch)
        else:
            encoder.get_pooled_output()
        kept = [variable for variable in tf.trainable_variables() if only is None or only(variable.op.name)]
        for variable in list(kept):
            weights[variable.op.name] = draw(variable.op.name, variable.shape.as_list())
            kept += [tf.get_variable("%s/%s" % (variable.op.name, slot), variable.shape) for slot in slots]
        if with_step:
            kept.append(tf.train.get_or_create_global_step())
        session.run(tf.global_variables_initializer())
        graphs.assign(session, [variable for variable in kept if variable.op.name in weights],
                      lambda name, _: weights[name])
        tf.train.Saver(kept).save(session, str(path), write_state=False, write_meta_graph=False)
    return str(path), weights


def write(path, serialized):
    """Writes a TFRecord file; returns its path as str."""
    records.write_records(str(path), serialized)
    return str(path)


def train(folder, model_fn, records_file, steps, names=ALL_FEATURES, replicas=1, num_parts=1, seed=5, beside=None):
    """Trains through an Estimator, 8 texts an update; returns the variables in its last checkpoint."""
    strategy, devices = runtime.distribution_strategy(num_cpu_replicas=replicas)
    config = runtime.run_config(str(folder), seed, save_checkpoints_steps=steps, strategy=strategy, devices=devices)
    input_fn = records.training_input_fn([records_file], names, 8, num_parts, seed=7, beside=beside)
    runtime.train(tf.estimator.Estimator(model_fn, config=config), input_fn, steps)
    return graphs.weights_in(tf.train.latest_checkpoint(str(folder)))
