import collections

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import records
from bert.optimization import Schedule
from distill.model_fn import Distillation
from distill.model_fn import distillation_model_fn
from distill.teacher import Teacher
from tasks.encoders import build_encoder
from tasks.model_fn import Init
from tasks.model_fn import task_model_fn
from tests import batches
from tests import graphs
from training import loop
from training import runtime
from training.command import UserError
from training.evaluation import run_model

STUDENTS = {"bilstm": batches.bilstm(layers=2), "bert": batches.bert(layers=2, width=6),
            "small": batches.bilstm(layers=1), "small_bert": batches.bert(layers=1, width=6)}
# Dropout, which a teacher must not have: with it no figure below would fit.
TEACHERS = {"bilstm": batches.bilstm(layers=3, dropout=0.5, width=10, embedding=7),
            "bert": batches.bert(layers=3, dropout=0.5), "small": batches.bert(layers=1, dropout=0.5)}
MAP = [(1, 1), (2, 3)]
WEIGHTS = {"embedding": 0.5, "hidden_1": 2.0, "hidden_2": 0.25, "prediction": 1.5, "label": 0.75}
ALL_TERMS = ["embedding", "hidden_1", "hidden_2", "prediction", "label"]
# The terms of other methods, in the order of the log.
MORE_WEIGHTS = collections.OrderedDict([
    ("hard_label", 0.5), ("logit_mse", 0.25), ("cosine", 2.0), ("token_similarity_1", 3.0), ("token_similarity_2", 4.0),
    ("text_similarity", 5.0), ("contrast_1", 0.3), ("contrast_2", 0.6), ("patience_1", 6.0), ("patience_2", 7.0),
    ("attention_1", 0.75), ("attention_2", 1.5)])
CUTTABLE = {name: weight for name, weight in MORE_WEIGHTS.items()
            if name != "text_similarity" and not name.startswith("contrast")}
DRAW = graphs.named_weights(0.4)


@pytest.fixture(scope="module")
def saved_teacher(tmp_path_factory):
    """A teacher's checkpoint by (kind, task): (Teacher, its weights)."""
    made = {}

    def get(kind, task):
        if (kind, task) not in made:
            path = tmp_path_factory.mktemp("teacher") / "model.ckpt"
            prefix, weights = batches.save_model(path, TEACHERS[kind], batches.TASKS[task], scale=0.6)
            made[kind, task] = Teacher(TEACHERS[kind], prefix, ()), weights
        return made[kind, task]

    return get


def build(student, teacher, task, weights=WEIGHTS, serialized=None, temperature=2.0, totals=None, layer_map=MAP):
    """Builds the training graph; returns what it logs and has.

    Args:
      totals: dict of name -> float, in place of the batch's own.
    """
    caught = {}

    def progress(terms, scalars):
        caught.update(terms=terms, scalars=scalars)
        return tf.train.SessionRunHook()

    tf.train.get_or_create_global_step()
    batch = dict(batches.features(serialized or batches.texts()), **(totals or {}))
    asked = Distillation(student, teacher, batches.TASKS[task], layer_map, weights, temperature)
    spec = distillation_model_fn(asked, Schedule(1e-3, 10), progress=progress)(batch)
    return dict(caught, loss=spec.loss)


def terms_of(*args, **kwargs):
    """The terms as they are logged, OrderedDict of name -> value."""
    return graphs.run(lambda: build(*args, **kwargs)["terms"], weights=DRAW)


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
    ("bilstm", "bert", "masked_lm"), ("bilstm", "bert", "several_labels"), ("bert", "bilstm", "classification")])
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


def test_gradients_of_each_term_of_another_method_reach_the_student_and_not_the_teacher(saved_teacher):
    teacher, _ = saved_teacher("bert", "classification")

    def gradients():
        terms = build(STUDENTS["bert"], teacher, "classification", MORE_WEIGHTS)["terms"]
        frozen = [variable for variable in tf.local_variables() if variable.op.name.startswith("teacher/")]
        assert len(frozen) > 50 and tf.gradients(terms["loss"], frozen) == [None] * len(frozen)
        table, = [variable for variable in tf.trainable_variables() if variable.op.name.endswith("word_embeddings")]
        return {name: tf.convert_to_tensor(tf.gradients(terms[name], table)[0]) for name in MORE_WEIGHTS}

    for name, gradient in graphs.run(gradients, weights=DRAW).items():
        assert np.all(np.isfinite(gradient)) and np.abs(gradient).max() > 1e-5, name


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


@pytest.mark.parametrize("student, task", [
    ("bilstm", "masked_lm"), ("bilstm", "classification"), ("bert", "classification")])
def test_every_tensor_of_the_student_has_a_gradient_and_none_of_the_teachers(student, task, saved_teacher):
    teacher, _ = saved_teacher("bert", task)

    def gradients():
        loss = build(STUDENTS[student], teacher, task)["loss"]
        frozen = [variable for variable in tf.local_variables() if variable.op.name.startswith("teacher/")]
        assert len(frozen) > 50 and tf.gradients(loss, frozen) == [None] * len(frozen)
        assert not [v for v in tf.global_variables() if v.op.name.startswith("teacher/")]
        variables = tf.trainable_variables()
        found = tf.gradients(loss, variables)
        assert None not in found
        return {variable.op.name: tf.convert_to_tensor(gradient) for variable, gradient in zip(variables, found)}

    for name, gradient in graphs.run(gradients, weights=DRAW).items():
        if not name.endswith("key/bias"):  # which the softmax does not see
            assert np.abs(gradient).max() > 1e-5, name


class Watch(tf.train.SessionRunHook):
    """Keeps the teacher's variables as they are when training begins and ends."""

    def begin(self):
        self._variables = {variable.op.name: variable for variable in tf.local_variables()
                           if variable.op.name.startswith("teacher/")}

    def after_create_session(self, session, coord):
        self.before = session.run(self._variables)

    def end(self, session):
        self.after = session.run(self._variables)


@pytest.fixture(scope="module")
def trained(saved_teacher, tmp_path_factory):
    """A short training: (Watch, variables of the last checkpoint, folder)."""
    folder, watch = tmp_path_factory.mktemp("trained"), Watch()
    records_file = batches.write(folder / "texts.tfrecord", batches.texts())
    asked = Distillation(STUDENTS["bilstm"], saved_teacher("bert", "classification")[0],
                         batches.TASKS["classification"], MAP, WEIGHTS)
    model_fn = distillation_model_fn(asked, Schedule(1e-2, 10), progress=lambda terms, scalars: watch)
    return watch, batches.train(folder / "run", model_fn, records_file, 3), folder


def test_training_leaves_the_teacher_as_its_checkpoint_has_it(trained, saved_teacher):
    watch, _, _ = trained
    _, weights = saved_teacher("bert", "classification")
    assert sorted(watch.before) == sorted("teacher/" + name for name in weights)
    for name, value in watch.before.items():
        assert np.array_equal(value, weights[name[len("teacher/"):]]), name
        assert np.array_equal(value, watch.after[name]), name


def test_checkpoints_hold_the_student_and_its_projections_and_nothing_of_the_teacher(trained):
    _, found, _ = trained
    names = {name for name in found if not name.endswith(("adam_m", "adam_v"))}
    assert {name for name in names if not name.startswith("student/")} == {
        "global_step", "output_weights", "output_bias", "distill/embedding/kernel", "distill/hidden_1/kernel",
        "distill/hidden_2/kernel"}
    assert len(found) == 3 * len(names) - 2


def test_the_student_is_measured_without_its_projections_and_its_teacher(trained):
    _, found, folder = trained
    task, student = batches.TASKS["classification"], STUDENTS["bilstm"]
    answers = run_model(
        task_model_fn(student, task),
        records.evaluation_input_fn([str(folder / "texts.tfrecord")], task.feature_names, 5),
        tf.train.latest_checkpoint(str(folder / "run")))
    expected = batches.forward(student, task, batches.texts(), batches.from_dict(found))["logits"]
    np.testing.assert_allclose(answers["logits"], expected, atol=1e-5)


def test_a_student_starts_where_it_is_told_and_its_projections_start_fresh(saved_teacher, tmp_path):
    teacher, _ = saved_teacher("small", "classification")
    task, student = batches.TASKS["classification"], STUDENTS["small"]
    checkpoint, weights = batches.save_model(tmp_path / "m.ckpt", student, batches.TASKS["masked_lm"])
    records_file = batches.write(tmp_path / "texts.tfrecord", batches.texts())
    model_fn = distillation_model_fn(Distillation(student, teacher, task, [(1, 1)], WEIGHTS), Schedule(0.0, 10),
                                     init=Init(checkpoint, (), same_labels=False))
    found = batches.train(tmp_path / "run", model_fn, records_file, 1, replicas=2)
    for name, value in weights.items():
        if name.startswith("student/"):
            assert np.array_equal(found[name], value), name
    assert np.abs(found["distill/embedding/kernel"]).max() > 0.1 and not np.any(found["output_bias"])


@pytest.mark.parametrize("task, student, replicas, num_parts", [
    ("masked_lm", "small", 2, 2), ("classification", "small", 2, 1), ("classification", "small", 1, 2),
    ("classification", "small_bert", 2, 2)])
def test_an_update_cut_into_replicas_and_parts_equals_one_piece(
        task, student, replicas, num_parts, in_one_piece, saved_teacher, tmp_path):
    records_file, expected = in_one_piece(task, student)
    model_fn = cut_model_fn(task, student, saved_teacher, num_parts)
    found = batches.train(tmp_path, model_fn, records_file, 4, replicas=replicas, num_parts=num_parts)
    moved = max(np.abs(found[name] - value).max() for name, value in expected["first"].items())
    assert moved > 2e-3
    assert graphs.largest_difference(found, expected["last"]) < 2e-6


def cut_model_fn(task, student, saved_teacher, num_parts):
    """The BiLSTM with the terms of the first paper, the BERT with those of others that can be cut."""
    schedule = Schedule(2e-3, 25, 2, clip_norm=0.1, num_parts=num_parts)
    asked = Distillation(STUDENTS[student], saved_teacher("small", task)[0], batches.TASKS[task], [(1, 1)],
                         WEIGHTS if student == "small" else CUTTABLE, 2.0)
    return distillation_model_fn(asked, schedule)


@pytest.fixture(scope="module")
def in_one_piece(saved_teacher, tmp_path_factory):
    """By task and student: (TFRecord file, variables before and after 4 updates by one replica in one part)."""
    made = {}

    def get(task, student):
        if (task, student) not in made:
            folder = tmp_path_factory.mktemp("one")
            records_file = batches.write(folder / "texts.tfrecord", batches.texts())
            model_fn = cut_model_fn(task, student, saved_teacher, 1)
            last = batches.train(folder / "run", model_fn, records_file, 4)
            first = graphs.weights_in(str(folder / "run" / "model.ckpt-0"))
            made[task, student] = records_file, {"first": {
                name: value for name, value in first.items()
                if name.startswith(("student/", "bert/")) and "adam" not in name}, "last": last}
        return made[task, student]

    return get


def test_a_wrong_teacher_is_told_in_one_line_also_by_replicas(saved_teacher, tmp_path):
    teacher, _ = saved_teacher("bert", "masked_lm")
    records_file = batches.write(tmp_path / "texts.tfrecord", batches.texts())
    strategy, devices = runtime.distribution_strategy(num_cpu_replicas=2)
    asked = Distillation(STUDENTS["bilstm"], teacher, batches.TASKS["classification"], MAP, WEIGHTS)
    stage = loop.Stage("all", 2, lambda _: [(2, distillation_model_fn(asked, Schedule(0.0, 10)))],
                       lambda *_: records.training_input_fn([records_file], batches.ALL_FEATURES, 8))
    config = runtime.run_config(str(tmp_path / "run"), 1, 2, strategy=strategy, devices=devices)
    with pytest.raises(UserError, match="^%s: .* is not in the checkpoint" % teacher.checkpoint):
        loop.train([stage], config, loop.Selection(str(tmp_path / "run"), None))
