import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import records
from bert.optimization import Schedule
from distill.model_fn import Distillation
from distill.model_fn import distillation_model_fn
from tasks import measuring
from tasks.model_fn import Init
from tests import batches
from tests import graphs
from tests.distill.pairs import CUTTABLE
from tests.distill.pairs import DRAW
from tests.distill.pairs import MAP
from tests.distill.pairs import MORE_WEIGHTS
from tests.distill.pairs import STUDENTS
from tests.distill.pairs import WEIGHTS
from tests.distill.pairs import build
from training import loop
from training import runtime
from training.command import UserError


@graphs.ON_REFERENCE
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


@graphs.ON_REFERENCE
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


def computed_of_teacher(teacher, weights, layer_map):
    """Names of the teacher's operations that one update runs."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.train.get_or_create_global_step()
        asked = Distillation(STUDENTS["bilstm"], teacher, batches.TASKS["classification"], layer_map, weights)
        train_op = distillation_model_fn(asked, Schedule(1e-2, 10))(batches.features(batches.texts())).train_op
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        traced = tf.RunMetadata()
        session.run(train_op, options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), run_metadata=traced)
    return {node.node_name for device in traced.step_stats.dev_stats for node in device.node_stats
            if node.node_name.startswith("teacher/")}


@graphs.ON_REFERENCE
@pytest.mark.parametrize("weights, layer_map, computed, left_out", [
    ({"hidden_1": 1.0}, [(1, 1)], "layer_0", ("layer_1", "pooler")),
    ({"hidden_1": 1.0, "prediction": 1.0}, [(1, 1)], "pooler", ()),
    ({"embedding": 1.0}, [(1, 1)], "embeddings", ("layer_0", "layer_1", "pooler"))])
def test_of_the_teacher_nothing_is_computed_that_no_term_reads(weights, layer_map, computed, left_out, saved_teacher):
    found = computed_of_teacher(saved_teacher("bert", "classification")[0], weights, layer_map)
    assert any("/%s/" % computed in name for name in found)
    assert not [name for name in found for part in left_out if "/%s/" % part in name and "Read" not in name]


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
    answers = measuring.answering(student, task, [str(folder / "texts.tfrecord")], 5)(
        tf.train.latest_checkpoint(str(folder / "run")))
    expected = batches.forward(student, task, batches.texts(), batches.from_dict(found))["logits"]
    np.testing.assert_allclose(answers["logits"], expected, atol=1e-5)


@graphs.ON_REFERENCE
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
    ("masked_lm", "small", 2, 2), pytest.param("classification", "small", 1, 2, marks=graphs.ON_REFERENCE),
    pytest.param("classification", "small_bert", 2, 1, marks=graphs.ON_REFERENCE)])
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
