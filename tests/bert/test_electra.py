"""ELECTRA against the layout of Google's checkpoints, and against a BERT with the same weights."""

import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import optimization
from bert.electra import ElectraConfig
from bert.electra import ElectraModel
from bert.modeling import BertModel
from tests import batches
from tests import graphs
from training.command import UserError

WEIGHTS = graphs.named_weights(0.4)

# The discriminator of ELECTRA-small with Google's Chinese vocabulary; of its layers, one.
RELEASED = {
    "electra/embeddings/word_embeddings": [21128, 128],
    "electra/embeddings/token_type_embeddings": [2, 128],
    "electra/embeddings/position_embeddings": [512, 128],
    "electra/embeddings/LayerNorm/beta": [128],
    "electra/embeddings/LayerNorm/gamma": [128],
    "electra/embeddings_project/kernel": [128, 256],
    "electra/embeddings_project/bias": [256],
    "electra/encoder/layer_0/attention/self/query/kernel": [256, 256],
    "electra/encoder/layer_0/attention/self/query/bias": [256],
    "electra/encoder/layer_0/attention/self/key/kernel": [256, 256],
    "electra/encoder/layer_0/attention/self/key/bias": [256],
    "electra/encoder/layer_0/attention/self/value/kernel": [256, 256],
    "electra/encoder/layer_0/attention/self/value/bias": [256],
    "electra/encoder/layer_0/attention/output/dense/kernel": [256, 256],
    "electra/encoder/layer_0/attention/output/dense/bias": [256],
    "electra/encoder/layer_0/attention/output/LayerNorm/beta": [256],
    "electra/encoder/layer_0/attention/output/LayerNorm/gamma": [256],
    "electra/encoder/layer_0/intermediate/dense/kernel": [256, 1024],
    "electra/encoder/layer_0/intermediate/dense/bias": [1024],
    "electra/encoder/layer_0/output/dense/kernel": [1024, 256],
    "electra/encoder/layer_0/output/dense/bias": [256],
    "electra/encoder/layer_0/output/LayerNorm/beta": [256],
    "electra/encoder/layer_0/output/LayerNorm/gamma": [256],
}


def shapes_of(config):
    with tf.Graph().as_default():
        ElectraModel(config, False, tf.zeros([2, 5], tf.int32)).get_pooled_output()
        return {variable.op.name: variable.shape.as_list() for variable in tf.trainable_variables()}


def outputs(model, config, weights):
    def build():
        batch = batches.features(batches.texts())
        built = model(config, False, batch["input_ids"], batch["input_mask"], batch["segment_ids"])
        return {"embedding": built.get_embedding_output(), "layers": built.get_all_encoder_layers(),
                "scores": built.get_attention_scores(), "pooled": built.get_pooled_output(),
                "weights": {variable.op.name: variable for variable in tf.trainable_variables()}}

    return graphs.run(build, weights=weights)


def small(**changes):
    return ElectraConfig(21128, embedding_size=128, hidden_size=256, num_attention_heads=4, intermediate_size=1024,
                         **changes)


def test_variables_have_the_names_and_shapes_of_the_released_checkpoint():
    assert shapes_of(small(num_hidden_layers=1)) == RELEASED


def test_each_layer_has_its_own_variables():
    found = shapes_of(small(num_hidden_layers=3))
    assert found == {name.replace("layer_0", "layer_%d" % layer): shape
                     for name, shape in RELEASED.items() for layer in range(3)}


def test_a_table_as_wide_as_the_layers_is_not_projected():
    assert ElectraConfig(9).embedding_size == 768
    assert not [name for name in shapes_of(batches.electra(embedding=0)) if "embeddings_project" in name]


def test_with_a_table_as_wide_as_its_layers_it_is_a_bert_with_the_other_gelu():
    def weights(name, shape):
        return WEIGHTS(name.replace("electra/", "bert/"), shape)

    ours = outputs(ElectraModel, batches.electra(embedding=8), weights)
    bert = outputs(BertModel, batches.bert(hidden_act="gelu_erf"), weights)
    assert sorted(name.replace("electra/", "bert/") for name in ours["weights"]) == sorted(
        name for name in bert["weights"] if "pooler" not in name)
    for key in ("embedding", "layers", "scores"):
        np.testing.assert_allclose(ours[key], bert[key], atol=1e-5, err_msg=key)


def test_a_narrow_table_is_projected_to_the_width_of_the_layers():
    found = outputs(ElectraModel, batches.electra(layers=1), WEIGHTS)
    weights = found["weights"]
    assert found["embedding"].shape[-1] == 4

    def dense(tensor, name):
        return tensor @ weights[name + "/kernel"] + weights[name + "/bias"]

    hidden = dense(found["embedding"], "electra/embeddings_project")
    query, key = [np.split(dense(hidden, "electra/encoder/layer_0/attention/self/" + name), 2, axis=-1)
                  for name in ("query", "key")]
    for head in range(2):
        np.testing.assert_allclose(
            found["scores"][0][:, head], query[head] @ key[head].transpose(0, 2, 1) / np.sqrt(4), atol=1e-4)


def test_the_pooled_output_is_the_first_tokens_state_or_the_mean():
    found = outputs(ElectraModel, batches.electra(), WEIGHTS)
    assert np.array_equal(found["pooled"], found["layers"][-1][:, 0])
    mean = outputs(ElectraModel, batches.bert(kind=ElectraConfig, embedding_size=4, pooling="mean"), WEIGHTS)
    mask = batches.values(batches.texts())["input_mask"][:, :, None]
    np.testing.assert_allclose(
        mean["pooled"], (mean["layers"][-1] * mask).sum(axis=1) / mask.sum(axis=1), atol=1e-5)


def test_weight_decay_leaves_norms_and_biases_alone():
    left = {name for name in RELEASED if optimization.NO_DECAY.search(name)}
    assert left == {name for name in RELEASED if re.search("(beta|gamma|bias)$", name)}


def test_keys_of_released_configs_are_read():
    released = {
        "attention_probs_dropout_prob": 0.1, "directionality": "bidi", "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": 256, "initializer_range": 0.02, "intermediate_size": 1024,
        "max_position_embeddings": 512, "num_attention_heads": 4, "num_hidden_layers": 12, "pooler_fc_size": 768,
        "pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3, "pooler_size_per_head": 128,
        "pooler_type": "first_token_transform", "vocab_size": 21128, "embedding_size": 128}
    config = ElectraConfig.from_dict(released, "electra.json")
    assert config == small()
    assert config.hidden_act == "gelu_erf" and small(hidden_act="gelu_new").hidden_act == "gelu_new"


@pytest.mark.parametrize("change, message", [
    ({"embedding_size": -1}, "'embedding_size' must be above 0, or 0 for 'hidden_size'"),
    ({"num_attention_heads": 5}, "'hidden_size' (768) is not a multiple of 'num_attention_heads' (5)"),
    ({"inner_group_num": 1}, "unknown key 'inner_group_num'")])
def test_a_wrong_config_is_told(change, message):
    with pytest.raises(UserError) as error:
        ElectraConfig.from_dict(dict({"vocab_size": 9}, **change), "electra.json")
    assert str(error.value).startswith("electra.json: " + message)
