"""python -m bert.checkpoints: looked at, made smaller, put under other names and back."""

import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import checkpoints
from bert import hugging_face
from tests import graphs
from tests import tiny
from tests.commands import read
from training.command import UserError


pytestmark = graphs.ON_REFERENCE


def values_of(folder):
    reader = tf.train.load_checkpoint(checkpoints.find_model(folder, "checkpoint").checkpoint)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def act(forks, *arguments):
    result = forks.run("bert.checkpoints", *arguments)
    assert result.code == 0, result.err
    return result.out


@pytest.mark.parametrize("name, said", [
    ("teacher", "a BERT of 3 layers, with a masked-LM head"),
    ("teacher_classifier", "a BERT of 3 layers, with a classifier of 3 labels"),
    ("student_classifier", "a BiLSTM of 2 layers, with a classifier of 3 labels")])
def test_inspect_says_what_a_checkpoint_is(name, said, request, forks):
    out = act(forks, "inspect", "--checkpoint=" + request.getfixturevalue(name).folder)
    assert said in out
    assert "word_embeddings" in out and "0.0 MB are the optimiser's" in out


def test_inspect_counts_the_optimiser_of_a_checkpoint_of_training(teacher, forks):
    last = tf.train.latest_checkpoint(teacher.folder)
    out = act(forks, "inspect", "--checkpoint=" + last)
    assert out.count("adam_m") == out.count("adam_v") > 10 and "0.0 MB are the optimiser's" not in out


def test_slim_leaves_the_optimiser_out_and_nothing_else(teacher_classifier, forks, tmp_path):
    last = tf.train.latest_checkpoint(teacher_classifier.folder)
    out = act(forks, "slim", "--checkpoint=" + last, "--output_dir=%s" % (tmp_path / "slim"))
    assert "MB before" in out
    before, after = values_of(last), values_of(str(tmp_path / "slim"))
    assert set(after) == {name for name in before if "adam" not in name}
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[name])
    for name in ("config.json", "vocab.txt", "labels.txt", "text.json"):
        assert read(str(tmp_path / "slim"), name) == read(teacher_classifier.folder, name)


def test_a_folder_that_is_there_is_not_written_to(teacher, forks, tmp_path):
    result = forks.run("bert.checkpoints", "slim", "--checkpoint=" + teacher.folder, "--output_dir=%s" % tmp_path)
    assert result.code == 1 and "--output_dir=%s: is there already" % tmp_path in result.err


@pytest.mark.parametrize("name", ["teacher", "teacher_classifier"])
def test_a_bert_goes_to_other_names_and_back_unchanged(name, request, forks, tmp_path):
    pytest.importorskip("safetensors")
    folder = request.getfixturevalue(name).folder
    there, back = str(tmp_path / "there"), str(tmp_path / "back")
    act(forks, "convert", "--from=google", "--checkpoint=" + folder, "--output_dir=" + there)
    act(forks, "convert", "--from=safetensors", "--checkpoint=" + there, "--output_dir=" + back)
    before, after = values_of(folder), values_of(back)
    assert set(after) == set(before) - {"global_step"}
    for variable, array in after.items():
        np.testing.assert_array_equal(array, before[variable])
    config, other = [json.loads(read(path, "config.json")) for path in (folder, back)]
    assert all(other[key] == config[key] for key in tiny.TEACHER)
    assert read(back, "vocab.txt") == read(folder, "vocab.txt")
    if name == "teacher_classifier":
        assert read(back, "labels.txt") == read(folder, "labels.txt")
        assert json.loads(read(there, "config.json"))["architectures"] == ["BertForSequenceClassification"]


def test_a_converted_teacher_can_be_used(teacher, world, forks, tmp_path):
    pytest.importorskip("safetensors")
    there, back = str(tmp_path / "there"), str(tmp_path / "back")
    act(forks, "convert", "--from=google", "--checkpoint=" + teacher.folder, "--output_dir=" + there)
    act(forks, "convert", "--from=safetensors", "--checkpoint=" + there, "--output_dir=" + back)
    result = forks.run("run_classifier.py", "--data_dir=" + world.task, "--init_checkpoint=" + back, "--do_train",
                       "--max_seq_length=%d" % tiny.MAX_LENGTH, "--num_train_steps=2", "--train_batch_size=16",
                       "--output_dir=%s" % (tmp_path / "run"))
    assert result.code == 0, result.err
    assert "variables restored" in result.out


@pytest.mark.parametrize("theirs, google, transposed", [
    ("bert.encoder.layer.11.attention.self.query.weight", "bert/encoder/layer_11/attention/self/query/kernel", True),
    ("encoder.layer.0.output.LayerNorm.gamma", "bert/encoder/layer_0/output/LayerNorm/gamma", False),
    ("embeddings.word_embeddings.weight", "bert/embeddings/word_embeddings", False),
    ("bert.embeddings.LayerNorm.bias", "bert/embeddings/LayerNorm/beta", False),
    ("cls.predictions.transform.dense.weight", "cls/predictions/transform/dense/kernel", True),
    ("cls.predictions.bias", "cls/predictions/output_bias", False),
    ("classifier.weight", "output_weights", False)])
def test_names_of_all_ages_are_known(theirs, google, transposed):
    assert hugging_face.to_google(theirs) == (google, transposed)


@pytest.mark.parametrize("name", ["bert.embeddings.position_ids", "cls.predictions.decoder.weight", "lstm.weight"])
def test_copies_and_what_is_not_known_are_left_out(name):
    assert hugging_face.to_google(name) is None


def test_the_two_forms_of_gelu_change_their_names():
    there = hugging_face.config_from_google({"hidden_act": "gelu", "vocab_size": 5}, {}, None)
    assert there["hidden_act"] == "gelu_new"
    assert hugging_face.config_to_google(there) == {"hidden_act": "gelu", "vocab_size": 5, "model_type": "bert"}
    assert hugging_face.config_to_google({"hidden_act": "gelu"})["hidden_act"] == "gelu_erf"


@pytest.mark.parametrize("key, value", [("model_type", "roberta"), ("position_embedding_type", "relative_key")])
def test_what_is_no_bert_is_not_taken_for_one(key, value):
    with pytest.raises(UserError, match='convert: a BERT.s has "%s": ".*", and this model.s is %s' % (key, value)):
        hugging_face.config_to_google({key: value})


@pytest.mark.parametrize("content, said", [(None, "no model.safetensors is there"), (b"\x08", "cannot be read as saf")])
def test_a_file_that_is_missing_or_broken_is_named(content, said, forks, tmp_path):
    pytest.importorskip("safetensors")
    (tmp_path / "config.json").write_text("{}")
    if content:
        (tmp_path / "model.safetensors").write_bytes(content)
    result = forks.run("bert.checkpoints", "convert", "--from=safetensors", "--checkpoint=%s" % tmp_path,
                       "--output_dir=%s" % (tmp_path / "out"))
    assert result.code == 1 and said in result.err and not os.path.exists(str(tmp_path / "out"))


def test_a_bilstm_has_no_names_there(student_classifier, forks, tmp_path):
    pytest.importorskip("safetensors")
    result = forks.run("bert.checkpoints", "convert", "--from=google", "--checkpoint=" + student_classifier.folder,
                       "--output_dir=%s" % (tmp_path / "out"))
    assert result.code == 1 and "convert: for BERTs, and this model is a bilstm" in result.err
