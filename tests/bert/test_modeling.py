"""The encoder, against Google's own code where that runs (TensorFlow 1.x), and figures stored from there.

`python -m tests.bert.test_modeling`, on TensorFlow 1.15, writes those figures anew.
"""

import math
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert.modeling import BertConfig
from bert.modeling import BertModel
from bert.modeling import activation
from tests import graphs
from tests import peer
from training import native
from training.command import UserError
from training.files import read_json

FIGURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "google_modeling.npz")
CHECKPOINT = os.path.join(graphs.SHARED, "data", "models", "e5_zh_L-12_H-384_A-12")

CONFIGS = {
    "gelu": dict(vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                 intermediate_size=12, max_position_embeddings=16, type_vocab_size=2),
    "relu": dict(vocab_size=11, hidden_size=12, num_hidden_layers=3, num_attention_heads=3,
                 intermediate_size=5, hidden_act="relu", max_position_embeddings=7, type_vocab_size=3),
    "tanh": dict(vocab_size=33, hidden_size=6, num_hidden_layers=1, num_attention_heads=1,
                 intermediate_size=24, hidden_act="tanh", max_position_embeddings=9, type_vocab_size=2),
}
LENGTHS = [7, 4, 1]
WEIGHTS = graphs.named_weights(0.3)
TOLERANCE = 1e-5  # measured: 1.1e-6, and 1.9e-6 for the released checkpoint's twelve layers


def batch(config):
    """Ids, mask and segments [3, 7] with padding; ids and segments of padding are not 0."""
    random = np.random.RandomState(5)
    ids = random.randint(0, config["vocab_size"], [3, 7]).astype(np.int32)
    segments = random.randint(0, config["type_vocab_size"], [3, 7]).astype(np.int32)
    return ids, graphs.mask_of(LENGTHS, 7), segments


def outputs(model):
    """dict of name -> tensor, of our model or of Google's."""
    found = {"layer_%d" % number: layer for number, layer in enumerate(model.get_all_encoder_layers())}
    found.update(embedding=model.get_embedding_output(), sequence=model.get_sequence_output(),
                 pooled=model.get_pooled_output(), table=model.get_embedding_table())
    return found


def our_outputs(config, features, weights=WEIGHTS):
    return graphs.run(lambda: outputs(BertModel(BertConfig(**config), False, *map(constant, features))),
                      weights=weights)


def google_outputs(config, features, weights=WEIGHTS):
    modeling = peer.google_modeling()

    def build():
        ids, mask, segments = map(constant, features)
        return outputs(modeling.BertModel(
            modeling.BertConfig(**config), False, ids, mask, segments, scope="bert"))

    return graphs.run(build, weights=weights)


def constant(value):
    return None if value is None else tf.constant(value)


def shapes_of(build):
    with tf.Graph().as_default():
        build()
        return {variable.op.name: variable.shape.as_list() for variable in tf.trainable_variables()}


def our_shapes(config):
    def build():
        BertModel(BertConfig(**config), False, *map(constant, batch(config))).get_pooled_output()

    return shapes_of(build)


def google_shapes(config):
    modeling = peer.google_modeling()
    return shapes_of(lambda: modeling.BertModel(
        modeling.BertConfig(**config), False, *map(constant, batch(config)), scope="bert"))


def write_figures():
    """Stores what Google's code gives for `CONFIGS` and `batch`, with `named_weights`."""
    figures = {}
    for name, config in CONFIGS.items():
        for key, value in google_outputs(config, batch(config)).items():
            if key != "table":
                figures["%s/%s" % (name, key)] = value
    os.makedirs(os.path.dirname(FIGURES), exist_ok=True)
    np.savez_compressed(FIGURES, **figures)


def stored(name):
    with np.load(FIGURES) as figures:
        return {key.split("/")[1]: figures[key] for key in figures.files if key.startswith(name + "/")}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_variables_have_googles_names_and_shapes(name):
    assert our_shapes(CONFIGS[name]) == google_shapes(CONFIGS[name])


def test_every_variable_is_in_a_released_checkpoint():
    if not os.path.isdir(CHECKPOINT):
        pytest.skip("no checkpoint in Google's format beside the checkout")
    source = os.path.join(CHECKPOINT, "bert_config.json")
    config = BertConfig.from_dict(read_json(source), source)
    found = shapes_of(lambda: BertModel(config, False, tf.zeros([1, 4], tf.int32)))
    there = dict(tf.train.list_variables(os.path.join(CHECKPOINT, "bert_model.ckpt")))
    assert found == {name: shape for name, shape in there.items() if name.startswith("bert/")}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_outputs_are_those_stored_from_googles_code(name):
    ours = our_outputs(CONFIGS[name], batch(CONFIGS[name]))
    for key, expected in stored(name).items():
        np.testing.assert_allclose(ours[key], expected, atol=TOLERANCE, rtol=0, err_msg=key)


@pytest.mark.parametrize("given", ["mask and segments", "neither"])
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_outputs_are_googles(name, given):
    ids, mask, segments = batch(CONFIGS[name])
    features = (ids, mask, segments) if given != "neither" else (ids, None, None)
    ours, google = our_outputs(CONFIGS[name], features), google_outputs(CONFIGS[name], features)
    assert sorted(ours) == sorted(google)
    for key in google:
        np.testing.assert_allclose(ours[key], google[key], atol=TOLERANCE, rtol=0, err_msg=key)


def test_a_released_checkpoint_gives_googles_outputs():
    if not os.path.isdir(CHECKPOINT):
        pytest.skip("no checkpoint in Google's format beside the checkout")
    # Its first layers alone, to save time.
    config = dict(read_json(os.path.join(CHECKPOINT, "bert_config.json")), num_hidden_layers=2)
    reader = tf.train.load_checkpoint(os.path.join(CHECKPOINT, "bert_model.ckpt"))

    def weights(name, shape):
        return reader.get_tensor(name) if reader.has_tensor(name) else graphs.named_weights(0.02)(name, shape)

    ids, mask, _ = batch(config)
    segments = np.zeros_like(ids)
    google = google_outputs(config, (ids, mask, segments), weights)
    ours = our_outputs(config, (ids, mask, segments), weights)
    for key in google:
        np.testing.assert_allclose(ours[key], google[key], atol=TOLERANCE, rtol=0, err_msg=key)


def test_padding_never_changes_a_real_position():
    config = CONFIGS["gelu"]
    ids, mask, segments = batch(config)
    before = our_outputs(config, (ids, mask, segments))
    padding = mask == 0
    ids[padding] = (ids[padding] + 7) % config["vocab_size"]
    segments[padding] = 1 - segments[padding]
    after = our_outputs(config, (ids, mask, segments))
    for layer in ("layer_0", "layer_1"):
        assert np.array_equal(before[layer][mask == 1], after[layer][mask == 1])
        assert not np.any(before[layer][padding] == after[layer][padding])
    assert np.array_equal(before["pooled"], after["pooled"])


def test_more_padding_moves_nothing():
    config = CONFIGS["gelu"]
    features = batch(config)
    wider = [np.pad(values, [(0, 0), (0, 6)], "constant") for values in features]
    before, after = our_outputs(config, features), our_outputs(config, wider)
    real = features[1] == 1
    np.testing.assert_allclose(after["sequence"][:, :7][real], before["sequence"][real], atol=1e-6)


def gradients_of(config):
    def build():
        model = BertModel(BertConfig(**config), False, *map(constant, batch(config)))
        random = np.random.RandomState(1)
        sequence = model.get_sequence_output()
        loss = tf.add_n([
            tf.reduce_sum(tensor * random.normal(size=tensor.shape.as_list()).astype(np.float32))
            for tensor in (sequence, model.get_pooled_output())])
        variables = tf.trainable_variables()
        return {variable.op.name: tf.convert_to_tensor(gradient)
                for variable, gradient in zip(variables, tf.gradients(loss, variables))}

    return graphs.run(build, weights=WEIGHTS)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_variable_has_a_gradient_but_the_keys_bias(name):
    for variable, gradient in gradients_of(CONFIGS[name]).items():
        largest = np.abs(gradient).max()
        if variable.endswith("key/bias"):
            # Adds the same to all scores of a query, which the softmax does not see: only rounding is left.
            assert largest < 1e-5
        else:
            assert largest > 1e-3, variable


def test_every_operation_is_reachable_from_the_outputs():
    with tf.Graph().as_default() as graph:
        config = BertConfig(**CONFIGS["gelu"])
        # With shapes known beforehand, what would compute them lies idle.
        model = BertModel(config, True, *[tf.placeholder(tf.int32, [None, None]) for _ in range(3)])
        left = [tensor.op for tensor in list(outputs(model).values()) + model.get_attention_scores()]
        left.append(tf.global_variables_initializer())
        reached = set()
        while left:
            op = left.pop()
            if op not in reached:
                reached.add(op)
                left.extend([tensor.op for tensor in op.inputs] + list(op.control_inputs))
        # Every variable brings a read and a question of its own, every assertion its message.
        own = tuple("%s/" % variable.op.name for variable in tf.global_variables() + tf.local_variables())
        idle = [op.name for op in graph.get_operations() if op not in reached and not op.name.startswith(own)]
        assert [name for name in idle if "/Assert/Const" not in name] == []


@graphs.COMPILED
@pytest.mark.parametrize("parts, least", [(4, 1), (4, 7), (4, 14), (2, 1), (3, 100)])
@pytest.mark.parametrize("static", [False, True])
def test_texts_computed_side_by_side_are_those_computed_at_once(parts, least, static, monkeypatch):
    config, features = CONFIGS["gelu"], [np.concatenate([part] * 3) for part in batch(CONFIGS["gelu"])]  # 9 texts

    def build():
        given = [tf.placeholder_with_default(part, part.shape if static else [None, None]) for part in features]
        model = BertModel(BertConfig(**config), False, *given)
        found = dict(outputs(model), scores=model.get_attention_scores())
        found["of_table"] = tf.convert_to_tensor(tf.gradients(
            tf.reduce_sum(tf.square(found["sequence"])), tf.trainable_variables()[0])[0])
        return found

    def computed():
        return tf.nest.flatten(graphs.run(build, weights=WEIGHTS))

    with native.using(False):
        at_once = computed()
    monkeypatch.setattr("bert.modeling.PARTS", parts)
    monkeypatch.setattr("bert.modeling.LEAST_TOKENS", least)
    with native.using(True):
        for found, expected in zip(computed(), at_once):
            np.testing.assert_allclose(found, expected, atol=2e-5)


@graphs.COMPILED
@pytest.mark.parametrize("is_training, native_ops, texts, parts", [
    (False, True, None, 4), (False, True, 9, 4), (False, True, 3, 3), (False, True, 1, 1), (True, True, 9, 1),
    (False, False, 9, 1)], ids=["any number", "nine", "three", "one", "training", "without our ops"])
def test_what_is_computed_side_by_side(is_training, native_ops, texts, parts):
    with tf.Graph().as_default() as graph, native.using(native_ops):
        BertModel(BertConfig(**CONFIGS["gelu"]), is_training, tf.placeholder(tf.int32, [texts, None]))
        products = [op for op in graph.get_operations() if op.type == "MatMul" and "/encoder/" in op.name]
    assert len(products) == parts * 6 * CONFIGS["gelu"]["num_hidden_layers"]


def test_attention_scores_are_products_before_mask_and_softmax():
    config = CONFIGS["tanh"]
    ids, mask, segments = batch(config)

    def build():
        model = BertModel(BertConfig(**config), False, *map(constant, (ids, mask, segments)))
        with tf.variable_scope("bert/encoder/layer_0/attention/self", reuse=True):
            parts = {name: tf.get_variable(name)
                     for name in ("query/kernel", "query/bias", "key/kernel", "key/bias")}
        return model.get_attention_scores(), model.get_embedding_output(), parts

    (scores,), embedding, parts = graphs.run(build, weights=WEIGHTS)
    query = embedding @ parts["query/kernel"] + parts["query/bias"]
    key = embedding @ parts["key/kernel"] + parts["key/bias"]
    np.testing.assert_allclose(scores[:, 0], query @ key.transpose(0, 2, 1) / np.sqrt(6), atol=1e-5)


def test_dropout_runs_in_training_alone():
    config = CONFIGS["gelu"]

    def sequence(is_training):
        return graphs.run(lambda: BertModel(
            BertConfig(**config), is_training, *map(constant, batch(config))).get_sequence_output())

    assert np.array_equal(sequence(False), sequence(False))
    assert not np.any(np.isclose(sequence(True), sequence(False), atol=1e-7).all(axis=-1))


def test_the_pooler_stands_in_the_models_scope_wherever_it_is_asked_for():
    with tf.Graph().as_default():
        with tf.variable_scope("teacher"):
            model = BertModel(BertConfig(**CONFIGS["gelu"]), False, tf.zeros([1, 4], tf.int32))
        assert not [v for v in tf.trainable_variables() if "pooler" in v.op.name]
        with tf.variable_scope("elsewhere"):
            first = model.get_pooled_output()
        assert model.get_pooled_output() is first
        assert [v.op.name for v in tf.trainable_variables() if "pooler" in v.op.name] == [
            "teacher/bert/pooler/dense/kernel", "teacher/bert/pooler/dense/bias"]


@pytest.mark.parametrize("length", [17, None])
def test_a_sequence_longer_than_the_position_table_is_refused(length):
    def build():
        ids = tf.placeholder_with_default(np.zeros([1, 17], np.int32), [None, length])
        return BertModel(BertConfig(**CONFIGS["gelu"]), False, ids).get_sequence_output()

    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match="max_position_embeddings"):
        graphs.run(build)


@pytest.mark.parametrize("change, message", [
    ({"hidden_size": 9},
     "bert_config.json: 'hidden_size' (9) is not a multiple of 'num_attention_heads' (2)"),
    ({"hidden_act": "swish"},
     "bert_config.json: unknown activation 'swish'; known: gelu, gelu_erf, gelu_new, linear, relu, tanh"),
    ({"hidden_dropout_prob": 1.0}, "bert_config.json: 'hidden_dropout_prob' must be at least 0 and below 1"),
    ({"num_hidden_layers": 0}, "bert_config.json: 'num_hidden_layers' must be above 0, found 0"),
    ({"vocab_size": "20"}, "bert_config.json: 'vocab_size' must be of type int, found '20'"),
    ({"hiden_size": 8}, "bert_config.json: unknown key 'hiden_size'; did you mean 'hidden_size'?")])
def test_a_wrong_config_is_told(change, message):
    with pytest.raises(UserError) as error:
        BertConfig.from_dict(dict(CONFIGS["gelu"], **change), "bert_config.json")
    assert str(error.value).startswith(message)


def test_keys_of_googles_chinese_config_are_read():
    released = {
        "attention_probs_dropout_prob": 0.1, "directionality": "bidi", "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072,
        "max_position_embeddings": 512, "num_attention_heads": 12, "num_hidden_layers": 12,
        "pooler_fc_size": 768, "pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3,
        "pooler_size_per_head": 128, "pooler_type": "first_token_transform", "type_vocab_size": 2,
        "vocab_size": 21128}
    assert BertConfig.from_dict(released, "bert_config.json") == BertConfig(21128)


def test_activations_are_their_formulas():
    values = np.linspace(-4, 4, 33).astype(np.float32)
    bias = np.float32(0.5)

    def apply(name):
        return graphs.run(lambda: activation(name)(tf.constant(values[:, None] - bias), tf.constant([bias])))[:, 0]

    # Google's gelu is the tanh form: up to 4.7e-4 away from the one with erf.
    expected = 0.5 * values * (1 + np.tanh(np.sqrt(2 / np.pi) * (values + 0.044715 * values ** 3)))
    np.testing.assert_allclose(apply("gelu"), expected, atol=1e-6)
    np.testing.assert_allclose(apply("gelu_new"), expected, atol=1e-6)
    expected = [0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in values]
    np.testing.assert_allclose(apply("gelu_erf"), expected, atol=1e-6)
    np.testing.assert_allclose(apply("relu"), np.maximum(values, 0))
    np.testing.assert_allclose(apply("tanh"), np.tanh(values), atol=1e-6)
    np.testing.assert_allclose(apply("linear"), values)


@pytest.mark.parametrize("pooled, millions", [(False, 59.15), (True, 59.74)])
def test_the_papers_teacher_has_its_parameters(pooled, millions):
    def build():
        model = BertModel(BertConfig(21128, num_hidden_layers=6), False, tf.zeros([1, 4], tf.int32))
        if pooled:
            model.get_pooled_output()

    count = sum(int(np.prod(shape)) for shape in shapes_of(build).values())
    assert round(count / 1e6, 2) == millions


if __name__ == "__main__":
    write_figures()
