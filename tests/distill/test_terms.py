"""Each term against its formula in NumPy, on the outputs of the two models."""

import collections

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from distill.teacher import Teacher
from tasks.encoders import build_encoder
from tests import batches
from tests import graphs
from tests.distill.pairs import ALL_TERMS
from tests.distill.pairs import DRAW
from tests.distill.pairs import MAP
from tests.distill.pairs import MORE_WEIGHTS
from tests.distill.pairs import STUDENTS
from tests.distill.pairs import TEACHERS
from tests.distill.pairs import WEIGHTS
from tests.distill.pairs import build
from tests.distill.pairs import terms_of

pytestmark = graphs.ON_REFERENCE


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def expected_mse(name, ours, theirs, mask):
    kernel = DRAW("distill/%s/kernel" % name, [ours.shape[-1], theirs.shape[-1]])
    errors = np.mean((ours.astype(np.float64) @ kernel - theirs) ** 2, axis=-1)
    return errors[mask > 0].sum() / mask.sum()


def expected_prediction(task, ours, theirs, temperature):
    if task == "several_labels":
        targets, found = sigmoid(theirs / temperature), sigmoid(ours / temperature)
        rows = np.mean(-targets * np.log(found) - (1 - targets) * np.log(1 - found), axis=1)
    else:
        rows = -np.sum(softmax(theirs / temperature) * np.log(softmax(ours / temperature)), axis=1)
    return np.mean(rows) * temperature ** 2


def expected_label(task, ours, batch):
    labels = batch["label_ids"]
    if task == "masked_lm":
        words = batch["masked_lm_ids"][batch["masked_lm_weights"] > 0]
        return -np.mean(np.log(softmax(ours)[np.arange(len(words)), words]))
    labelled = labels[:, 0] >= 0
    assert 0 < labelled.sum() < len(labelled)
    if task == "classification":
        return -np.mean(np.log(softmax(ours)[labelled, labels[labelled, 0]]))
    yes = sigmoid(ours)[labelled]
    return -np.mean(np.where(labels[labelled], np.log(yes), np.log(1 - yes)))


@pytest.mark.parametrize("student, teacher, task", [
    ("bilstm", "bert", "masked_lm"), ("bilstm", "bert", "several_labels"),
    ("bert", "bilstm", "classification")])
def test_each_term_is_its_formula_on_the_outputs_of_the_two_models(student, teacher, task, saved_teacher):
    given, teacher_weights = saved_teacher(teacher, task)
    serialized = batches.texts(several_labels=task == "several_labels")
    batch = batches.values(serialized)
    ours = batches.forward(STUDENTS[student], batches.TASKS[task], serialized, DRAW)
    theirs = batches.forward(TEACHERS[teacher], batches.TASKS[task], serialized, batches.from_dict(teacher_weights))
    mask = batch["input_mask"]
    expected = {"embedding": expected_mse("embedding", ours["embedding"], theirs["embedding"], mask),
                "hidden_1": expected_mse("hidden_1", ours["hidden"][0], theirs["hidden"][0], mask),
                "hidden_2": expected_mse("hidden_2", ours["hidden"][1], theirs["hidden"][2], mask),
                "prediction": expected_prediction(task, ours["logits"], theirs["logits"], 2.0),
                "label": expected_label(task, ours["logits"], batch)}
    expected["loss"] = (0.5 * expected["embedding"] + 2.0 * expected["hidden_1"] + 0.25 * expected["hidden_2"]
                        + 1.5 * expected["prediction"] + 0.75 * expected["label"])
    found = terms_of(STUDENTS[student], given, task, serialized=serialized)
    assert list(found) == ["loss"] + ALL_TERMS
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-5), name


def attention_scores(config, serialized, weights):
    """List of [B, A, S, S], a BERT's without dropout."""
    return graphs.run(lambda: build_encoder(config, False, batches.features(serialized)).get_attention_scores(),
                      weights=weights)


def expected_hard_label(task, ours, theirs):
    if task == "several_labels":
        return -np.mean(np.log(np.where(theirs > 0, sigmoid(ours), 1 - sigmoid(ours))))
    return -np.mean(np.log(softmax(ours)[np.arange(len(ours)), np.argmax(theirs, axis=1)]))


def units(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)  # a BiLSTM's are 0 at padding


def cosine_error(ours, theirs):
    """Of the cosines between N vectors, [N, D] and [N, F]."""
    ours, theirs = units(ours.astype(np.float64)), units(theirs.astype(np.float64))
    return np.mean((ours @ ours.T - theirs @ theirs.T) ** 2)


def projected(name, ours, theirs):
    return ours.astype(np.float64) @ DRAW("distill/%s/kernel" % name, [ours.shape[-1], theirs.shape[-1]])


def expected_contrast(ours, theirs, lengths):
    directions = [units(np.stack([text[:length].mean(axis=0) for text, length in zip(states, lengths)]))
                  for states in (ours, theirs)]
    away = 1 - directions[0] @ directions[1].T
    own, number = np.diag(away), len(lengths)
    others = (away.sum(axis=1) - own) / (number - 1)
    return np.mean(own + (2 - (others - own)) / 2)


def expected_of_states(pairs, mask):
    """The terms that look at the states alone.

    Args:
      pairs: dict of student layer -> (its states, the teacher's).
    """
    ours, theirs = pairs[2]
    lengths = mask.sum(axis=1)
    cosines = np.sum(units(projected("cosine", ours, theirs)) * units(theirs), axis=-1)
    means = [np.stack([text[:length].mean(axis=0) for text, length in zip(states, lengths)])
             for states in (ours, theirs)]
    found = {"cosine": np.mean((1 - cosines)[mask > 0]), "text_similarity": cosine_error(*means)}
    for layer, (ours, theirs) in pairs.items():
        found["token_similarity_%d" % layer] = np.mean([
            cosine_error(ours[text, :length], theirs[text, :length]) for text, length in enumerate(lengths)])
        name = "patience_%d" % layer
        found[name] = np.mean((units(projected(name, ours[:, 0], theirs)) - units(theirs[:, 0])) ** 2)
        name = "contrast_%d" % layer
        found[name] = expected_contrast(projected(name, ours, theirs), theirs, lengths)
    return found


@pytest.mark.parametrize("student, teacher, task", [
    ("bert", "bert", "classification"), ("bilstm", "bert", "masked_lm"), ("bilstm", "bilstm", "several_labels")])
def test_each_term_of_another_method_is_its_formula_on_the_outputs_of_the_two_models(
        student, teacher, task, saved_teacher):
    given, teacher_weights = saved_teacher(teacher, task)
    serialized = batches.texts(several_labels=task == "several_labels")
    ours = batches.forward(STUDENTS[student], batches.TASKS[task], serialized, DRAW)
    theirs = batches.forward(TEACHERS[teacher], batches.TASKS[task], serialized, batches.from_dict(teacher_weights))
    mask = batches.values(serialized)["input_mask"]
    expected = {"hard_label": expected_hard_label(task, ours["logits"], theirs["logits"]),
                "logit_mse": np.mean((ours["logits"] - theirs["logits"]) ** 2)}
    expected.update(expected_of_states({1: (ours["hidden"][0], theirs["hidden"][0]),
                                        2: (ours["hidden"][1], theirs["hidden"][2])}, mask))
    if student == teacher == "bert":
        scores = [attention_scores(STUDENTS[student], serialized, DRAW),
                  attention_scores(TEACHERS[teacher], serialized, batches.from_dict(teacher_weights))]
        for layer, teacher_layer in MAP:
            errors = (scores[0][layer - 1] - scores[1][teacher_layer - 1]) ** 2
            expected["attention_%d" % layer] = np.mean([
                np.mean(errors[text, :, :length, :length]) for text, length in enumerate(mask.sum(axis=1))])
    weights = collections.OrderedDict((name, MORE_WEIGHTS[name]) for name in MORE_WEIGHTS if name in expected)
    found = terms_of(STUDENTS[student], given, task, weights, serialized)
    assert list(found) == ["loss"] + list(weights)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert found["loss"] == pytest.approx(sum(weights[name] * found[name] for name in weights), rel=1e-5)


def test_patience_needs_no_projection_where_the_widths_are_equal(saved_teacher):
    teacher, teacher_weights = saved_teacher("bert", "classification")
    student = batches.bert(layers=2)
    found = terms_of(student, teacher, "classification", {"patience_2": 1.0})
    ours, theirs = [
        batches.forward(config, batches.TASKS["classification"], batches.texts(), weights)["hidden"][-1][:, 0]
        for config, weights in ((student, DRAW), (teacher.config, batches.from_dict(teacher_weights)))]
    assert found["patience_2"] == pytest.approx(np.mean((units(ours) - units(theirs)) ** 2), rel=1e-4)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_its_states_and_attention(tmp_path):
    task, config = batches.TASKS["classification"], batches.bert(layers=3)
    checkpoint, weights = batches.save_model(tmp_path / "m.ckpt", config, task, scale=0.6)

    wanted = {name: weight for name, weight in MORE_WEIGHTS.items()
              if not name.startswith(("hard_label", "cosine", "contrast"))}
    found = graphs.run(lambda: build(config, Teacher(config, checkpoint, ()), "classification", wanted,
                                     layer_map=[(1, 1), (2, 2)])["terms"], weights=batches.from_dict(weights))
    assert len(found) == 1 + len(wanted)
    for name, value in found.items():
        assert value < 1e-9, name


@pytest.mark.parametrize("weights, needed", [
    ({"hard_label": 1.0}, "head"), ({"logit_mse": 1.0}, "head"), ({"cosine": 1.0}, "kernel"),
    ({"contrast_1": 1.0}, "kernel"), ({"token_similarity_2": 1.0}, ""), ({"text_similarity": 1.0}, ""),
    ({"patience_1": 1.0}, "kernel"),
    ({"attention_1": 1.0}, "")])
def test_a_term_of_another_method_builds_what_it_needs_and_no_more(weights, needed, saved_teacher):
    teacher, _ = saved_teacher("bert", "classification")
    with tf.Graph().as_default():
        assert list(build(STUDENTS["bert"], teacher, "classification", weights)["terms"]) == ["loss"] + list(weights)
        projections = [variable.op.name for variable in tf.trainable_variables()
                       if variable.op.name.startswith("distill/")]
        assert projections == (["distill/%s/kernel" % list(weights)[0]] if needed == "kernel" else [])
        has_head = "teacher/output_weights" in [variable.op.name for variable in tf.local_variables()]
        assert has_head == (needed == "head")


def test_a_part_is_divided_by_the_counts_of_the_whole_update(saved_teacher):
    teacher, _ = saved_teacher("bert", "classification")
    counts = {"total_tokens": 1000.0, "total_examples": 100.0, "total_labels": 10.0}
    batch = batches.values(batches.texts())
    whole = terms_of(STUDENTS["bilstm"], teacher, "classification")
    part = terms_of(STUDENTS["bilstm"], teacher, "classification", totals=counts)
    for name, total in (("embedding", "total_tokens"), ("hidden_2", "total_tokens"), ("prediction", "total_examples"),
                        ("label", "total_labels")):
        assert part[name] == pytest.approx(whole[name] * batch[total] / counts[total], rel=1e-5), name


def test_texts_without_a_label_count_in_every_term_but_that_of_the_labels(saved_teacher):
    teacher, _ = saved_teacher("bert", "classification")
    some = terms_of(STUDENTS["bilstm"], teacher, "classification")
    every = terms_of(STUDENTS["bilstm"], teacher, "classification", serialized=batches.texts(all_labelled=True))
    for name in ALL_TERMS[:-1]:
        assert some[name] == pytest.approx(every[name], rel=1e-6)
    assert abs(some["label"] - every["label"]) > 1e-3


def test_an_update_without_any_label_has_a_label_term_of_0(saved_teacher):
    teacher, _ = saved_teacher("bert", "classification")
    number = [number for number in range(batches.TEXTS) if number % 3 == 1]
    unlabelled = [batches.texts()[place] for place in number]
    found = terms_of(STUDENTS["bilstm"], teacher, "classification", serialized=unlabelled)
    assert found["label"] == 0
    assert all(np.isfinite(value) for value in found.values()) and found["prediction"] > 0


@pytest.mark.parametrize("weights, names", [
    (dict(WEIGHTS, embedding=0.0), ["hidden_1", "hidden_2", "prediction", "label"]),
    (dict(WEIGHTS, hidden_1=0.0, hidden_2=1.0), ["embedding", "hidden_2", "prediction", "label"]),
    (dict(WEIGHTS, prediction=0.0), ["embedding", "hidden_1", "hidden_2", "label"]),
    (dict(WEIGHTS, label=0.0), ["embedding", "hidden_1", "hidden_2", "prediction"]),
    ({"prediction": 3.0}, ["prediction"])])
def test_weight_0_removes_a_term_and_what_it_alone_needs(weights, names, saved_teacher):
    teacher, _ = saved_teacher("bert", "classification")
    with tf.Graph().as_default():
        assert list(build(STUDENTS["bilstm"], teacher, "classification", weights)["terms"]) == ["loss"] + names
        projections = {variable.op.name for variable in tf.trainable_variables()
                       if variable.op.name.startswith("distill/")}
        assert projections == {"distill/%s/kernel" % name for name in names if name in ALL_TERMS[:3]}
        has_head = "teacher/output_weights" in [variable.op.name for variable in tf.local_variables()]
        assert has_head == ("prediction" in names)


def test_labels_alone_need_no_teacher():
    with tf.Graph().as_default():
        found = build(STUDENTS["bilstm"], Teacher(TEACHERS["bert"], "/absent", ()), "classification", {"label": 1.0})
        assert list(found["terms"]) == ["loss", "label"] and not [
            variable for variable in tf.local_variables() if variable.op.name.startswith("teacher")]


def test_a_single_term_is_logged_by_its_own_name_without_its_weight(saved_teacher):
    teacher, _ = saved_teacher("bert", "classification")
    found = terms_of(STUDENTS["bilstm"], teacher, "classification", {"prediction": 3.0})
    assert found["loss"] == pytest.approx(3.0 * found["prediction"], rel=1e-6)
