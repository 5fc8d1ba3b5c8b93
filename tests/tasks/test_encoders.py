import dataclasses
import json

import pytest
import tensorflow.compat.v1 as tf

from bert.albert import AlbertConfig
from bert.albert import AlbertModel
from bert.electra import ElectraConfig
from bert.electra import ElectraModel
from bert.modeling import BertConfig
from bert.modeling import BertModel
from student.modeling import BiLstmConfig
from student.modeling import BiLstmModel
from tasks import encoders
from tasks import runs
from tests import batches
from training.command import UserError


@pytest.fixture
def model_file(tmp_path):
    """Writes a model's JSON and returns its path."""
    def write(values):
        path = tmp_path / "model.json"
        path.write_text(json.dumps(values))
        return str(path)

    return write


def test_a_json_without_a_kind_is_a_bert_as_googles(model_file):
    assert encoders.read_config(model_file({"vocab_size": 9})) == BertConfig(9)
    assert encoders.read_config(model_file({"vocab_size": 9, "model_type": "bert"})) == BertConfig(9)


def test_a_json_of_kind_bilstm_is_a_student(model_file):
    assert encoders.read_config(model_file({"vocab_size": 9, "model_type": "bilstm"})) == BiLstmConfig(9)


@pytest.mark.parametrize("kind, config", [("albert", AlbertConfig(9)), ("electra", ElectraConfig(9))])
def test_a_json_may_be_of_another_transformer(kind, config, model_file):
    assert encoders.read_config(model_file({"vocab_size": 9, "model_type": kind})) == config


def test_a_json_with_keys_of_albert_alone_is_one_as_googles(model_file):
    assert encoders.read_config(model_file({"vocab_size": 9, "num_hidden_groups": 1})) == AlbertConfig(9)


def test_a_json_that_may_be_of_several_kinds_is_refused(model_file):
    path = model_file({"vocab_size": 9, "embedding_size": 4})
    with pytest.raises(UserError) as error:
        encoders.read_config(path)
    assert str(error.value) == (
        "%s: 'model_type' is missing, and a BERT has no 'embedding_size'; add \"electra\" or another" % path)


@pytest.mark.parametrize("config", [batches.bert(), batches.albert(), batches.electra(), batches.bilstm()])
def test_a_configuration_that_was_written_is_read_as_it_was(config, model_file):
    assert encoders.read_config(model_file(dataclasses.asdict(config))) == config


def test_every_kind_has_a_learning_rate():
    assert sorted(runs.LEARNING_RATES) == sorted(encoders.KINDS)


@pytest.mark.parametrize("kind", ["gpt", "", None, 3, ["bert"], {}])
def test_an_unknown_kind_is_an_error_that_names_the_file(kind, model_file):
    path = model_file({"vocab_size": 9, "model_type": kind})
    with pytest.raises(UserError) as error:
        encoders.read_config(path)
    assert str(error.value) == "%s: 'model_type' must be one of albert, bert, bilstm, electra, found %r" % (path, kind)


@pytest.mark.parametrize("values, message", [
    ({"vocab_size": 9, "hiden_size": 8}, "unknown key 'hiden_size'"),
    ({"vocab_size": 9, "model_type": "bilstm", "intermediate_size": 8}, "unknown key 'intermediate_size'"),
    ({"vocab_size": 9, "model_type": "albert", "num_hidden_groups": 2},
     "'num_hidden_groups' must be 1, found 2: no other network is implemented"),
    ({"vocab_size": 9, "model_type": "electra", "num_hidden_groups": 1}, "unknown key 'num_hidden_groups'"),
    ([1], "a JSON object is needed"), ("bert", "a JSON object is needed")])
def test_other_mistakes_name_the_file_too(values, message, model_file):
    path = model_file(values)
    with pytest.raises(UserError) as error:
        encoders.read_config(path)
    assert str(error.value).startswith("%s: %s" % (path, message))


@pytest.mark.parametrize("config, kind", [
    (batches.bert(), BertModel), (batches.albert(), AlbertModel), (batches.electra(), ElectraModel),
    (batches.bilstm(), BiLstmModel)])
def test_a_configuration_gives_its_own_encoder_with_the_same_outputs(config, kind):
    with tf.Graph().as_default():
        encoder = encoders.build_encoder(config, False, batches.features(batches.texts()))
        assert type(encoder) is kind
        layers = encoder.get_all_encoder_layers()
        assert len(layers) == config.num_layers and layers[-1] is encoder.get_sequence_output()
        assert encoder.get_embedding_output().shape.as_list()[-1] == config.embedding_size
        assert {layer.shape.as_list()[-1] for layer in layers} == {config.hidden_size}
        assert encoder.get_pooled_output().shape.as_list()[-1] == config.hidden_size
        assert encoder.get_embedding_table().shape.as_list() == [batches.VOCABULARY, config.embedding_size]


def test_a_cut_model_has_a_layer_for_each_that_is_kept():
    assert encoders.cut_layers(batches.bert(layers=6), (0, 2, 5), "bert.json") == batches.bert(layers=3)
    assert encoders.cut_layers(batches.bert(layers=6), (), "bert.json") == batches.bert(layers=6)


def test_other_transformers_are_cut_too():
    assert encoders.cut_layers(batches.albert(layers=6), (0, 1), "albert.json") == batches.albert(layers=2)
    assert encoders.cut_layers(batches.electra(layers=6), (0, 5), "electra.json") == batches.electra(layers=2)


def test_a_configuration_that_is_cut_already_stays():
    assert encoders.cut_layers(batches.bert(layers=2), (3, 5), "bert.json") == batches.bert(layers=2)


def test_layers_that_are_not_there_are_an_error_that_says_from_where_they_are_counted():
    with pytest.raises(UserError) as error:
        encoders.cut_layers(batches.bert(layers=6), (0, 6), "bert.json")
    assert str(error.value) == ("--init_layers=0,6: the model has 6 layers (bert.json), counted from 0: layer 6 does "
                                "not exist")


def test_a_bilstm_is_not_cut():
    with pytest.raises(UserError, match="^--init_layers=0: only a Transformer is cut, and student.json is a bilstm$"):
        encoders.cut_layers(batches.bilstm(), (0,), "student.json")
