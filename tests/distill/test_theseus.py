import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert.optimization import Schedule
from distill import schedule
from distill import theseus
from distill.model_fn import Distillation
from distill.model_fn import build_terms
from distill.model_fn import distillation_model_fn
from distill.teacher import Teacher
from tasks.encoders import build_encoder
from tasks.model_fn import Init
from tests import batches
from tests import graphs
from training.command import UserError

pytestmark = graphs.ON_REFERENCE

TASK = batches.TASKS["classification"]
TEACHER, STUDENT = batches.bert(layers=4), batches.bert(layers=2)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "model.ckpt"
    return Teacher(TEACHER, batches.save_model(path, TEACHER, TASK)[0], ())


def sequence(teacher, probability, seed=1):
    """What the mixed model makes of all texts, beside the two models themselves, with one set of embeddings.

    Returns:
      dict of "mixed", "student" and "teacher" -> [B, S, H].
    """
    def build():
        features = batches.features(batches.texts())
        tf.train.get_or_create_global_step()
        with tf.variable_scope("teacher"):
            predecessor = build_encoder(TEACHER, False, features)
        mixed = theseus.MixedModel(predecessor, tf.constant(probability), STUDENT, False, *(
            features[name] for name in ("input_ids", "input_mask", "segment_ids")))
        with tf.variable_scope("", reuse=True):
            student = build_encoder(STUDENT, False, features)
        return {"mixed": mixed.get_sequence_output(), "student": student.get_sequence_output(),
                "teacher": predecessor.get_sequence_output()}

    def weights(name, shape):
        if "/embeddings/" in name:
            name = name.replace("teacher/", "")
        return graphs.named_weights(0.4)(name, shape)

    return graphs.run(build, seed=seed, weights=weights)


def test_with_probability_0_the_model_is_the_teacher_and_with_1_the_student(teacher):
    found = sequence(teacher, 0.0)
    np.testing.assert_allclose(found["mixed"], found["teacher"], atol=1e-6)
    assert np.abs(found["student"] - found["teacher"]).max() > 0.01
    found = sequence(teacher, 1.0)
    np.testing.assert_allclose(found["mixed"], found["student"], atol=1e-6)


def draws(seed, step, layers=2):
    def build():
        with tf.control_dependencies([tf.assign(tf.train.get_or_create_global_step(), step)]):
            return [theseus._draw(layer) for layer in range(layers)]

    return graphs.run(build, seed=seed)


def test_layers_are_drawn_anew_for_each_layer_step_and_seed():
    found = [draws(seed, step) for seed in (1, 2) for step in (0, 1)]
    assert len({float(value) for pair in found for value in pair}) == 8


def test_between_them_some_layers_are_the_students(teacher):
    low, high = sorted(draws(1, 0))
    found = sequence(teacher, float(low + high) / 2)
    for name in ("teacher", "student"):
        assert np.abs(found["mixed"] - found[name]).max() > 1e-3


@pytest.mark.parametrize("step, expected", [(10, 0.4), (15, 0.7), (20, 1.0), (30, 1.0)])
def test_the_probability_grows_from_its_base_to_1(step, expected):
    rates = Schedule(1.0, 10, first_step=10)
    assert graphs.run(lambda: theseus.probability_at(tf.constant(step), rates, 0.4)) == pytest.approx(expected)


def distillation(teacher):
    return Distillation(STUDENT, teacher, TASK, [(1, 1), (2, 2)], {"label": 1.0})


def test_replacing_trains_the_students_layers_alone_and_its_checkpoints_hold_no_teacher(teacher, tmp_path):
    records_file = batches.write(tmp_path / "texts.tfrecord", batches.texts(all_labelled=True))
    init = Init(teacher.checkpoint, (0, 1), same_labels=True)
    model_fn = distillation_model_fn(distillation(teacher), Schedule(0.01, 10), init, trains=schedule.is_layer,
                                     replacing_base=1.0)
    found = batches.train(tmp_path / "run", model_fn, records_file, 3)
    assert not [name for name in found if name.startswith("teacher")]
    start = graphs.weights_in(teacher.checkpoint)
    for name, value in start.items():
        # The gradient of the keys' bias is 0 but for rounding.
        if name in found and name != "global_step" and "key/bias" not in name:
            assert np.array_equal(found[name], value) != ("/layer_" in name), name


def test_a_replaced_layer_learns_nothing(teacher):
    def build(probability):
        tf.train.get_or_create_global_step()
        features = batches.features(batches.texts(all_labelled=True))
        term, = build_terms(distillation(teacher), features, True, None, tf.constant(probability))
        layers = [variable for variable in tf.trainable_variables() if schedule.is_layer(variable.op.name)]
        return [tf.linalg.global_norm(tf.gradients(term.sum, layers))]

    assert graphs.run(lambda: build(0.0))[0] == 0 < graphs.run(lambda: build(1.0))[0]


@pytest.mark.parametrize("student, init, others, message", [
    (batches.bilstm(), "here", (), "both models must be BERTs, and one is a bilstm"),
    (STUDENT, "here", ("there",), "several teachers have no layers in common; give one --teacher_checkpoint"),
    (batches.bert(layers=2, width=6), "here", (), "the student is 6 wide, the teacher 8"),
    (batches.bert(layers=3), "here", (), "its 4 layers cannot be divided among the student's 3"),
    (STUDENT, None, (), "give --init_checkpoint=here --init_layers=0,1"),
    (STUDENT, "there", (), "give --init_checkpoint=here --init_layers=0,1")])
def test_a_student_that_cannot_take_the_place_is_refused(student, init, others, message):
    teacher = Teacher(TEACHER, "here", (), None, others)
    with pytest.raises(UserError, match=message):
        theseus.check(student, teacher, init and Init(init, (0, 1), True))


def test_a_student_that_starts_as_the_teacher_can_take_its_place():
    theseus.check(STUDENT, Teacher(TEACHER, "here", ()), Init(os.path.abspath("here"), (0, 1), True))
