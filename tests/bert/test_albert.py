"""ALBERT against the layout of Google's checkpoints, and against a BERT with the one layer in every place."""

import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import optimization
from bert import randomness
from bert.albert import AlbertConfig
from bert.albert import AlbertModel
from bert.modeling import BertModel
from tasks.model_fn import task_model_fn
from tests import batches
from tests import graphs
from training.command import UserError

INNER = "bert/encoder/transformer/group_0/inner_group_0/"

# The encoder of Google's Chinese ALBERT-base and its masked-LM head.
RELEASED = {
    "bert/embeddings/word_embeddings": [21128, 128],
    "bert/embeddings/token_type_embeddings": [2, 128],
    "bert/embeddings/position_embeddings": [512, 128],
    "bert/embeddings/LayerNorm/beta": [128],
    "bert/embeddings/LayerNorm/gamma": [128],
    "bert/encoder/embedding_hidden_mapping_in/kernel": [128, 768],
    "bert/encoder/embedding_hidden_mapping_in/bias": [768],
    INNER + "attention_1/self/query/kernel": [768, 768],
    INNER + "attention_1/self/query/bias": [768],
    INNER + "attention_1/self/key/kernel": [768, 768],
    INNER + "attention_1/self/key/bias": [768],
    INNER + "attention_1/self/value/kernel": [768, 768],
    INNER + "attention_1/self/value/bias": [768],
    INNER + "attention_1/output/dense/kernel": [768, 768],
    INNER + "attention_1/output/dense/bias": [768],
    INNER + "LayerNorm/beta": [768],
    INNER + "LayerNorm/gamma": [768],
    INNER + "ffn_1/intermediate/dense/kernel": [768, 3072],
    INNER + "ffn_1/intermediate/dense/bias": [3072],
    INNER + "ffn_1/intermediate/output/dense/kernel": [3072, 768],
    INNER + "ffn_1/intermediate/output/dense/bias": [768],
    INNER + "LayerNorm_1/beta": [768],
    INNER + "LayerNorm_1/gamma": [768],
    "bert/pooler/dense/kernel": [768, 768],
    "bert/pooler/dense/bias": [768],
    "cls/predictions/transform/dense/kernel": [768, 128],
    "cls/predictions/transform/dense/bias": [128],
    "cls/predictions/transform/LayerNorm/beta": [128],
    "cls/predictions/transform/LayerNorm/gamma": [128],
    "cls/predictions/output_bias": [21128],
}

# How the names of a layer's variables begin, and with what in BERT.
OF_BERT = {"attention_1/": "attention/", "LayerNorm/": "attention/output/LayerNorm/",
           "ffn_1/intermediate/dense/": "intermediate/dense/", "ffn_1/intermediate/output/": "output/",
           "LayerNorm_1/": "output/LayerNorm/"}
WEIGHTS = graphs.named_weights(0.4)


def shapes_of(config, with_head=False):
    with tf.Graph().as_default():
        batch = batches.features(batches.texts())
        model = AlbertModel(config, False, batch["input_ids"], batch["input_mask"])
        model.get_pooled_output()
        if with_head:
            batches.TASKS["masked_lm"].logits(model, config, batch)
        return {variable.op.name: variable.shape.as_list() for variable in tf.trainable_variables()}


def bert_name(name, layer):
    """What BERT calls a variable of ALBERT when it is in that layer."""
    if not name.startswith(INNER):
        return name
    end = name[len(INNER):]
    old = [old for old in OF_BERT if end.startswith(old)][0]
    return "bert/encoder/layer_%d/%s" % (layer, end.replace(old, OF_BERT[old], 1))


def as_bert(weights, layers):
    """The weights of a BERT whose every layer is ALBERT's one."""
    return {bert_name(name, layer): value for name, value in weights.items() for layer in range(layers)}


def outputs_and_gradients(model, config, weights):
    def build():
        batch = batches.features(batches.texts())
        built = model(config, False, batch["input_ids"], batch["input_mask"], batch["segment_ids"])
        # Squared, so that no gradient is lost in the norm; of all layers, so that each has its share.
        loss = sum(tf.reduce_sum(tf.square(layer[:, :, :3])) for layer in built.get_all_encoder_layers())
        variables = tf.trainable_variables()
        gradients = [tf.convert_to_tensor(gradient) for gradient in tf.gradients(loss, variables)]
        return ({"embedding": built.get_embedding_output(), "layers": built.get_all_encoder_layers(),
                 "scores": built.get_attention_scores()},
                {variable.op.name: gradient for variable, gradient in zip(variables, gradients)})

    return graphs.run(build, weights=batches.from_dict(weights))


@pytest.fixture(scope="module")
def twins():
    """(outputs, gradients) of an ALBERT with E = H and of the same network as a BERT of 3 layers."""
    config = batches.albert(layers=3, embedding=8)
    weights = {name: WEIGHTS(name, shape) for name, shape in shapes_of(config).items()}
    return (outputs_and_gradients(AlbertModel, config, weights),
            outputs_and_gradients(BertModel, batches.bert(layers=3), as_bert(weights, 3)))


def test_variables_have_the_names_and_shapes_of_the_released_checkpoint():
    config = AlbertConfig(21128)
    assert shapes_of(config, with_head=True) == RELEASED


def test_the_base_model_has_its_parameters_whatever_the_number_of_layers():
    # 12 million in table 1 of the paper.
    for layers in (1, 12):
        shapes = shapes_of(AlbertConfig(30000, num_hidden_layers=layers))
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == 11683584


def test_with_a_table_as_wide_as_its_layers_it_is_a_bert_with_one_layer_in_every_place(twins):
    (ours, _), (berts, _) = twins
    np.testing.assert_allclose(ours["embedding"], berts["embedding"], atol=1e-6)
    assert len(ours["layers"]) == len(ours["scores"]) == 3
    np.testing.assert_allclose(ours["layers"], berts["layers"], atol=1e-5)
    np.testing.assert_allclose(ours["scores"], berts["scores"], atol=1e-5)
    assert np.abs(ours["layers"][0] - ours["layers"][2]).max() > 0.1


def test_the_gradient_of_the_one_layer_is_the_sum_over_its_applications(twins):
    (_, ours), (_, berts) = twins
    shared = [name for name in ours if name.startswith(INNER)]
    assert len(shared) == 16
    for name in shared:
        each = [berts[bert_name(name, layer)] for layer in range(3)]
        if "key/bias" not in name:
            assert min(np.abs(gradient).max() for gradient in each) > 1e-3, name
        np.testing.assert_allclose(ours[name], sum(each), rtol=1e-4, atol=1e-3, err_msg=name)


def test_a_narrow_table_is_mapped_to_the_width_of_the_layers():
    def build():
        batch = batches.features(batches.texts())
        model = AlbertModel(batches.albert(layers=1), False, batch["input_ids"], batch["input_mask"])
        return (model.get_embedding_output(), model.get_attention_scores()[0],
                {variable.op.name: variable for variable in tf.trainable_variables()})

    embedding, scores, weights = graphs.run(build, weights=WEIGHTS)
    assert embedding.shape[-1] == 4

    def dense(tensor, name):
        return tensor @ weights[name + "/kernel"] + weights[name + "/bias"]

    hidden = dense(embedding, "bert/encoder/embedding_hidden_mapping_in")
    query, key = [np.split(dense(hidden, INNER + "attention_1/self/" + name), 2, axis=-1) for name in ("query", "key")]
    for head in range(2):
        np.testing.assert_allclose(
            scores[:, head], query[head] @ key[head].transpose(0, 2, 1) / np.sqrt(4), atol=1e-4)


def test_each_application_drops_out_other_values(monkeypatch):
    sites, seed_of = [], randomness.stateless_seed

    def record(site):
        sites.append(site)
        return seed_of(site)

    monkeypatch.setattr(randomness, "stateless_seed", record)
    with tf.Graph().as_default():
        AlbertModel(batches.albert(layers=3, dropout=0.5), True, tf.zeros([2, 5], tf.int32))
    assert len(sites) == len(set(sites)) == 1 + 3 * 3


@graphs.ON_TENSORFLOW_2
def test_replicas_share_the_one_layer(tmp_path):
    task = batches.TASKS["classification"]
    model_fn = task_model_fn(batches.albert(layers=3), task, optimization.Schedule(1e-2, 4))
    records_file = batches.write(tmp_path / "texts.tfrecord", batches.texts(all_labelled=True))
    one, two = [batches.train(tmp_path / str(replicas), model_fn, records_file, 4, replicas=replicas)
                for replicas in (1, 2)]
    assert INNER + "attention_1/self/query/kernel" in one
    assert graphs.largest_difference(one, two) < 1e-4


def test_weight_decay_leaves_norms_and_biases_alone():
    left = {name for name in RELEASED if optimization.NO_DECAY.search(name)}
    assert left == {name for name in RELEASED if re.search("(beta|gamma|bias)$", name)}


def test_keys_of_googles_config_are_read():
    released = {
        "attention_probs_dropout_prob": 0, "hidden_act": "relu", "hidden_dropout_prob": 0.0, "embedding_size": 128,
        "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 512,
        "num_attention_heads": 12, "num_hidden_layers": 12, "num_hidden_groups": 1, "net_structure_type": 0,
        "gap_size": 0, "num_memory_blocks": 0, "inner_group_num": 1, "down_scale_factor": 1, "type_vocab_size": 2,
        "vocab_size": 21128}
    assert AlbertConfig.from_dict(released, "albert_config.json") == AlbertConfig(21128, hidden_act="relu")


@pytest.mark.parametrize("change, message", [
    ({"inner_group_num": 2}, "'inner_group_num' must be 1, found 2: no other network is implemented"),
    ({"num_hidden_groups": 3}, "'num_hidden_groups' must be 1, found 3"),
    ({"net_structure_type": 1}, "'net_structure_type' must be 0, found 1"),
    ({"embedding_size": 0}, "'embedding_size' must be above 0, found 0"),
    ({"classifier_dropout_prob": 1.0}, "'classifier_dropout_prob' must be at least 0 and below 1"),
    ({"embeding_size": 8}, "unknown key 'embeding_size'; did you mean 'embedding_size'?")])
def test_a_wrong_config_is_told(change, message):
    with pytest.raises(UserError) as error:
        AlbertConfig.from_dict(dict({"vocab_size": 9}, **change), "albert_config.json")
    assert str(error.value).startswith("albert_config.json: " + message)
