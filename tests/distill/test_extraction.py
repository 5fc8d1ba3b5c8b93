import dataclasses
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import checkpoints
from distill import extraction
from tasks.encoders import build_encoder
from tests import batches
from tests import graphs
from training.command import UserError

pytestmark = graphs.ON_REFERENCE

MASKED_LM = batches.TASKS["masked_lm"]
TEACHER = dataclasses.replace(batches.bert(layers=4, width=12), num_attention_heads=3, intermediate_size=10)
STUDENT = dataclasses.replace(TEACHER, num_hidden_layers=2, hidden_size=8, num_attention_heads=2,
                              intermediate_size=6, max_position_embeddings=14)


def build(config):
    """The variables of an encoder with its pooler and both heads: dict of name -> shape."""
    batch = batches.features(batches.texts())
    encoder = build_encoder(config, False, batch)
    for task in ("masked_lm", "classification"):
        batches.TASKS[task].logits(encoder, config, batch)
    return {variable.op.name: variable.shape.as_list() for variable in tf.trainable_variables()}


def shapes_of(config):
    with tf.Graph().as_default():
        return build(config)


def tensors_of(config):
    draw = graphs.named_weights(0.4)
    return {name: draw(name, shape) for name, shape in shapes_of(config).items()}


def same(one, other):
    return sorted(one) == sorted(other) and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_student_as_large_as_the_teacher_is_the_teacher():
    tensors = tensors_of(TEACHER)
    assert same(extraction.cut(tensors, TEACHER, TEACHER, seed=1), tensors)


def test_a_student_as_wide_as_the_teacher_takes_whole_layers_up_to_the_top():
    tensors = tensors_of(TEACHER)
    shallow = dataclasses.replace(TEACHER, num_hidden_layers=2)
    found = extraction.cut(tensors, TEACHER, shallow, seed=1)
    for task in ("masked_lm", "classification"):
        ours, theirs = [batches.forward(config, batches.TASKS[task], batches.texts(), batches.from_dict(weights))
                        for config, weights in ((shallow, found), (shallow, {
                            name.replace("layer_1/", "layer_0/").replace("layer_3/", "layer_1/"): value
                            for name, value in tensors.items() if "layer_0/" not in name and "layer_2/" not in name}))]
        assert np.array_equal(ours["logits"], theirs["logits"])


def test_a_narrower_student_has_every_variable_it_needs_in_its_shape():
    found = extraction.cut(tensors_of(TEACHER), TEACHER, STUDENT, seed=1)
    assert {name: list(value.shape) for name, value in found.items()} == shapes_of(STUDENT)


def slow_slices(tensors, choice):
    """What the student takes, each variable written out by itself."""
    hidden, found = choice.hidden, {}
    table = {"word": slice(None), "token_type": slice(None), "position": slice(14)}
    for kind, rows in table.items():
        name = "bert/embeddings/%s_embeddings" % kind
        found[name] = tensors[name][rows][:, hidden]
    for scope in ("bert/embeddings/LayerNorm", "cls/predictions/transform/LayerNorm"):
        for part in ("beta", "gamma"):
            found["%s/%s" % (scope, part)] = tensors["%s/%s" % (scope, part)][hidden]
    for scope in ("bert/pooler/dense", "cls/predictions/transform/dense"):
        found[scope + "/kernel"] = tensors[scope + "/kernel"][np.ix_(hidden, hidden)]
        found[scope + "/bias"] = tensors[scope + "/bias"][hidden]
    found["output_weights"] = tensors["output_weights"][:, hidden]
    for name in ("output_bias", "cls/predictions/output_bias"):
        found[name] = tensors[name]
    for place, layer in enumerate(choice.layers):
        def take(name, *axes, place=place, layer=layer):
            found["bert/encoder/layer_%d/%s" % (place, name)] = tensors[
                "bert/encoder/layer_%d/%s" % (layer, name)][np.ix_(*axes)]

        attended = [unit for unit in range(12) if unit // 4 in choice.heads[place]]
        inner = choice.intermediate[place]
        for name in ("query", "key", "value"):
            take("attention/self/%s/kernel" % name, hidden, attended)
            take("attention/self/%s/bias" % name, attended)
        take("attention/output/dense/kernel", attended, hidden)
        take("intermediate/dense/kernel", hidden, inner)
        take("intermediate/dense/bias", inner)
        take("output/dense/kernel", inner, hidden)
        for name in ("attention/output/dense/bias", "output/dense/bias", "attention/output/LayerNorm/beta",
                     "attention/output/LayerNorm/gamma", "output/LayerNorm/beta", "output/LayerNorm/gamma"):
            take(name, hidden)
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_a_narrower_student_keeps_the_same_units_wherever_they_meet(seed):
    tensors = tensors_of(TEACHER)
    choice = extraction.choose(TEACHER, STUDENT, seed)
    assert same(extraction.cut(tensors, TEACHER, STUDENT, seed), slow_slices(tensors, choice))


def test_units_are_chosen_without_repetition_and_for_each_layer_anew():
    teacher = dataclasses.replace(TEACHER, hidden_size=480, num_attention_heads=120, intermediate_size=100)
    student = dataclasses.replace(STUDENT, hidden_size=240, num_attention_heads=60, intermediate_size=50)
    choice = extraction.choose(teacher, student, seed=1)
    assert choice.layers == [1, 3]
    for kept, number, of in [(choice.hidden, 240, 480), (choice.heads[0], 60, 120), (choice.heads[1], 60, 120),
                             (choice.intermediate[0], 50, 100), (choice.intermediate[1], 50, 100)]:
        assert len(kept) == number and sorted(set(kept)) == list(kept) and 0 <= kept[0] and kept[-1] < of
        assert number / 4 < np.sum(kept < of // 2) < 3 * number / 4
    assert choice.heads[0].tolist() != choice.heads[1].tolist()
    assert choice.intermediate[0].tolist() != choice.intermediate[1].tolist()


def test_the_seed_decides():
    tensors = tensors_of(TEACHER)
    one, again, other = (extraction.cut(tensors, TEACHER, STUDENT, seed) for seed in (1, 1, 2))
    assert same(one, again) and not same(one, other)


def test_what_is_no_berts_stays_behind_and_is_named():
    tensors = dict(tensors_of(TEACHER), global_step=np.int64(3), **{"distill/hidden_1/kernel": np.zeros([2, 2])})
    assert "distill/hidden_1/kernel" not in extraction.cut(tensors, TEACHER, STUDENT, seed=1)
    assert extraction.describe(tensors, TEACHER, STUDENT) == (
        "layers 1, 3 of 4, counted from 0; 8 of 12 hidden units; 2 of 3 heads; 6 of 10 intermediate units; "
        "left out: distill/hidden_1/kernel")


def test_the_head_of_next_sentence_prediction_is_cut_too():
    tensors = dict(tensors_of(TEACHER), **{
        "cls/seq_relationship/output_weights": np.arange(24.0).reshape([2, 12]),
        "cls/seq_relationship/output_bias": np.arange(2.0)})
    found = extraction.cut(tensors, TEACHER, STUDENT, seed=1)
    hidden = extraction.choose(TEACHER, STUDENT, 1).hidden
    assert np.array_equal(found["cls/seq_relationship/output_weights"], [hidden, hidden + 12])
    assert np.array_equal(found["cls/seq_relationship/output_bias"], [0, 1])


def test_the_folder_is_a_model_that_starts_from_the_slices(tmp_path, capsys):
    checkpoint, _ = batches.save_model(tmp_path / "t" / "model.ckpt", TEACHER, MASKED_LM, slots=("adam_m",))
    for name in ("vocab.txt", "labels.txt", "text.json"):
        (tmp_path / "t" / name).write_text("{}")
    folder = str(tmp_path / "cut")
    variables = extraction.cut(checkpoints.read_slim(checkpoint), TEACHER, STUDENT, seed=1)
    extraction.write(folder, variables, STUDENT, checkpoints.find_model(checkpoint, "teacher_checkpoint"))
    found = checkpoints.find_model(folder, "init_checkpoint")
    assert found == checkpoints.ModelFiles(*[os.path.join(folder, name) for name in (
        "model.ckpt", "config.json", "vocab.txt", "labels.txt", "text.json")])

    def started():
        encoder = build_encoder(STUDENT, False, batches.features(batches.texts()))
        MASKED_LM.logits(encoder, STUDENT, batches.features(batches.texts()))
        checkpoints.restore(found.checkpoint, tf.trainable_variables(), optional=lambda name: False)
        return {variable.op.name: variable for variable in tf.trainable_variables()}

    assert same(graphs.run(started), variables)


REFUSED = {
    "a BiLSTM": (batches.bilstm(), "s.json: a bilstm; a BERT is cut out of a BERT"),
    "more layers": ({"num_hidden_layers": 5}, "s.json: 'num_hidden_layers' is 5, and the teacher's (t.json) 4; only "
                                              "what is there can be cut out"),
    "a larger width": ({"hidden_size": 16, "num_attention_heads": 2}, "s.json: 'hidden_size' is 16, "),
    "more positions": ({"max_position_embeddings": 17}, "s.json: 'max_position_embeddings' is 17, "),
    "another vocabulary": ({"vocab_size": 49}, "s.json: 'vocab_size' is 49, and the teacher's (t.json) 50; they must "
                                               "be equal"),
    "another activation": ({"hidden_act": "relu"}, "s.json: 'hidden_act' is relu, and the teacher's (t.json) gelu; "),
    "narrower heads": ({"hidden_size": 9, "num_attention_heads": 3},
                       "s.json: a head is 3 wide (9 / 3), and the teacher's (t.json) 4 (12 / 3); they must be equal")}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_cut_out_is_refused(case):
    changes, message = REFUSED[case]
    student = dataclasses.replace(STUDENT, **changes) if isinstance(changes, dict) else changes
    with pytest.raises(UserError) as error:
        extraction.check(TEACHER, student, "t.json", "s.json")
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("changes, message", [
    ({"intermediate_size": 11}, "t.ckpt: bert/encoder/layer_0/intermediate/dense/bias is [10], and by t.json it would "
                                "be [11]"),
    ({"num_hidden_layers": 6}, "t.ckpt: no bert/encoder/layer_4 is in it, and t.json has 6 layers")])
def test_a_checkpoint_of_another_configuration_is_refused(changes, message):
    tensors = tensors_of(TEACHER)
    extraction.check_tensors(tensors, TEACHER, "t.ckpt", "t.json")
    with pytest.raises(UserError) as error:
        extraction.check_tensors(tensors, dataclasses.replace(TEACHER, **changes), "t.ckpt", "t.json")
    assert str(error.value) == message
