import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from distill import losses
from tests import graphs

LENGTHS, LENGTH, WIDTH = [5, 3, 0, 1], 5, 3
MASK = graphs.mask_of(LENGTHS, LENGTH)


def states(seed):
    """float32 [B, S, D]."""
    return np.random.RandomState(seed).normal(size=[len(LENGTHS), LENGTH, WIDTH]).astype(np.float32)


def logits(seed, scale=2.0):
    """float32 [N, C]."""
    return np.random.RandomState(seed).normal(0, scale, size=[4, 6]).astype(np.float32)


def run_mse(student, teacher, mask=MASK):
    """(sum, count, gradient of the sum in the student)."""
    def build():
        given = tf.constant(student)
        total, count = losses.masked_mse(given, tf.constant(teacher), tf.constant(mask))
        return total, count, tf.gradients(total, given)[0]

    return graphs.run(build)


def run_rows(loss, student, teacher, temperature=1.0):
    """(loss of each row, gradient of their sum in the student)."""
    def build():
        given = tf.constant(student)
        rows = loss(given, tf.constant(teacher), temperature)
        return rows, tf.gradients(rows, given)[0]

    return graphs.run(build)


def log_softmax(values):
    values = values.astype(np.float64)
    return values - np.log(np.sum(np.exp(values), axis=-1, keepdims=True))


def test_mse_is_the_mean_over_features_summed_over_real_tokens():
    student, teacher = states(1), states(2)
    expected = sum(np.mean((student[text, place].astype(np.float64) - teacher[text, place]) ** 2)
                   for text, length in enumerate(LENGTHS) for place in range(length))
    total, count, gradient = run_mse(student, teacher)
    assert count == sum(LENGTHS)
    assert total == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, 2 / WIDTH * (student - teacher) * MASK[:, :, None], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_the_mask_may_be_of_integers_or_floats(dtype):
    assert run_mse(states(1), states(2), MASK.astype(dtype))[0] == run_mse(states(1), states(2))[0]


@pytest.mark.parametrize("value", [1e6, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("whose", ["student", "teacher", "both"])
def test_padding_moves_neither_the_mse_nor_its_gradient(value, whose):
    student, teacher = states(1), states(2)
    before = run_mse(student, teacher)
    for name, array in (("student", student), ("teacher", teacher)):
        if whose in (name, "both"):
            array[MASK == 0] = value
    for found, expected in zip(run_mse(student, teacher), before):
        assert np.array_equal(found, expected)


def test_texts_that_are_all_padding_count_for_nothing():
    total, count, gradient = run_mse(states(1), states(2), np.zeros_like(MASK))
    assert total == 0 and count == 0 and np.all(gradient == 0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_cross_entropy_is_summed_over_classes_and_grows_with_the_square_of_the_temperature(temperature):
    student, teacher = logits(1), logits(2)
    targets, found = np.exp(log_softmax(teacher / temperature)), log_softmax(student / temperature)
    rows, gradient = run_rows(losses.soft_cross_entropy, student, teacher, temperature)
    np.testing.assert_allclose(rows, -np.sum(targets * found, axis=1) * temperature ** 2, rtol=1e-5)
    np.testing.assert_allclose(gradient, temperature * (np.exp(found) - targets), atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_binary_cross_entropy_is_the_mean_over_classes_times_the_square_of_the_temperature(temperature):
    student, teacher = logits(1), logits(2)
    targets, found = [1 / (1 + np.exp(-values.astype(np.float64) / temperature)) for values in (teacher, student)]
    expected = np.mean(-targets * np.log(found) - (1 - targets) * np.log(1 - found), axis=1) * temperature ** 2
    rows, gradient = run_rows(losses.soft_binary_cross_entropy, student, teacher, temperature)
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, temperature * (found - targets) / student.shape[1], atol=1e-5)


@pytest.mark.parametrize("loss", [losses.soft_cross_entropy, losses.soft_binary_cross_entropy])
def test_large_logits_stay_finite(loss):
    rows, gradient = run_rows(loss, logits(1, scale=1e4), logits(2, scale=1e4), 0.5)
    assert np.all(np.isfinite(rows)) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("loss", [losses.soft_cross_entropy, losses.soft_binary_cross_entropy])
def test_a_student_that_equals_its_teacher_has_no_gradient(loss):
    _, gradient = run_rows(loss, logits(1), logits(1), 2.0)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_no_gradient_reaches_the_teacher():
    def build():
        student, teacher, vectors = tf.constant(logits(1)), tf.constant(logits(2)), tf.constant(states(2))
        return [tf.gradients(rows, [teacher, vectors])
                for rows in (losses.soft_cross_entropy(student, teacher),
                             losses.masked_mse(states(1), vectors, MASK)[0],
                             losses.soft_binary_cross_entropy(student, teacher))]

    with tf.Graph().as_default():
        assert build() == [[None, None]] * 3
