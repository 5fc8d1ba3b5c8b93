import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from distill import losses
from tests import graphs

LENGTHS, LENGTH, WIDTH = [5, 3, 0, 1], 5, 3
MASK = graphs.mask_of(LENGTHS, LENGTH)
MASKED = [losses.masked_mse, losses.masked_cosine_distance, losses.patience]
ROWS = [losses.soft_cross_entropy, losses.soft_binary_cross_entropy, losses.hard_cross_entropy,
        losses.hard_binary_cross_entropy, losses.logit_mse]


def states(seed):
    """float32 [B, S, D]."""
    return np.random.RandomState(seed).normal(size=[len(LENGTHS), LENGTH, WIDTH]).astype(np.float32)


def logits(seed, scale=2.0):
    """float32 [N, C]."""
    return np.random.RandomState(seed).normal(0, scale, size=[4, 6]).astype(np.float32)


def run_masked(loss, student, teacher, mask=MASK):
    """(sum, count, gradient of the sum in the student)."""
    def build():
        given = tf.constant(student)
        total, count = loss(given, tf.constant(teacher), tf.constant(mask))
        return total, count, tf.gradients(total, given)[0]

    return graphs.run(build)


def run_mse(*args):
    return run_masked(losses.masked_mse, *args)


def units(vectors):
    """Each divided by its length, in float64."""
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def run_rows(loss, student, teacher, *temperature):
    """(loss of each row, gradient of their sum in the student)."""
    def build():
        given = tf.constant(student)
        rows = loss(given, tf.constant(teacher), *temperature)
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


def test_the_cosine_distance_is_1_less_the_cosine_summed_over_real_tokens():
    student, teacher = states(1), states(2)
    expected = np.sum((1 - np.sum(units(student) * units(teacher), axis=-1)) * MASK)
    total, count, gradient = run_masked(losses.masked_cosine_distance, student, teacher)
    assert count == sum(LENGTHS) and total == pytest.approx(expected, rel=1e-6)
    ours, theirs = units(student), units(teacher)
    sideways = theirs - np.sum(ours * theirs, axis=-1, keepdims=True) * ours
    expected = -sideways / np.linalg.norm(student, axis=-1, keepdims=True) * MASK[:, :, None]
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_patience_compares_the_directions_of_the_first_states_and_no_others():
    student, teacher = states(1), states(2)
    errors = np.mean((units(student[:, 0]) - units(teacher[:, 0])) ** 2, axis=-1)
    total, count, gradient = run_masked(losses.patience, student, teacher)
    assert count == 3 and total == pytest.approx(errors[[0, 1, 3]].sum(), rel=1e-5)
    assert np.all(gradient[:, 1:] == 0) and np.all(gradient[2] == 0)
    assert np.all(np.abs(gradient[[0, 1, 3], 0]).max(axis=-1) > 1e-3)


@pytest.mark.parametrize("loss", [losses.masked_cosine_distance, losses.patience])
def test_the_length_of_a_state_does_not_count_among_directions(loss):
    one = run_masked(loss, states(1), states(2))[0]
    assert run_masked(loss, 7 * states(1), states(2) / 3)[0] == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize("value", [1e6, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("whose", ["student", "teacher", "both"])
@pytest.mark.parametrize("loss", MASKED)
def test_padding_moves_neither_a_loss_nor_its_gradient(loss, value, whose):
    student, teacher = states(1), states(2)
    before = run_masked(loss, student, teacher)
    for name, array in (("student", student), ("teacher", teacher)):
        if whose in (name, "both"):
            array[MASK == 0] = value
    for found, expected in zip(run_masked(loss, student, teacher), before):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("loss", MASKED)
def test_texts_that_are_all_padding_count_for_nothing(loss):
    total, count, gradient = run_masked(loss, states(1), states(2), np.zeros_like(MASK))
    assert total == 0 and count == 0 and np.all(gradient == 0)


@pytest.mark.parametrize("loss", MASKED)
def test_states_that_equal_the_teachers_have_no_loss_and_no_gradient(loss):
    total, _, gradient = run_masked(loss, states(1), states(1))
    assert abs(total) < 1e-5
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


@pytest.mark.parametrize("loss", MASKED)
def test_a_state_of_zeros_has_a_finite_gradient(loss):
    _, _, gradient = run_masked(loss, np.zeros_like(states(1)), states(2))
    assert np.all(np.isfinite(gradient))


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


def test_hard_cross_entropy_is_that_of_the_teachers_likeliest_class():
    student, teacher = logits(1), logits(2)
    likeliest = np.argmax(teacher, axis=1)
    rows, gradient = run_rows(losses.hard_cross_entropy, student, teacher)
    np.testing.assert_allclose(rows, -log_softmax(student)[np.arange(4), likeliest], rtol=1e-5)
    np.testing.assert_allclose(gradient, np.exp(log_softmax(student)) - np.eye(6)[likeliest], atol=1e-6)


def test_hard_binary_cross_entropy_is_that_of_the_classes_the_teacher_gives_more_than_a_half():
    student, teacher = logits(1), logits(2)
    teacher[0] = [0, -1e-3, 1e-3, -9, 9, 0]
    found = 1 / (1 + np.exp(-student.astype(np.float64)))
    expected = np.mean(-np.log(np.where(teacher > 0, found, 1 - found)), axis=1)
    rows, gradient = run_rows(losses.hard_binary_cross_entropy, student, teacher)
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, (found - (teacher > 0)) / 6, atol=1e-6)


def test_logit_mse_is_the_mean_over_classes():
    student, teacher = logits(1), logits(2)
    rows, gradient = run_rows(losses.logit_mse, student, teacher)
    np.testing.assert_allclose(rows, np.mean((student - teacher) ** 2, axis=1), rtol=1e-5)
    np.testing.assert_allclose(gradient, (student - teacher) / 3, rtol=1e-5)
    assert np.all(run_rows(losses.logit_mse, student, student)[0] == 0)


@pytest.mark.parametrize("loss, temperature", [
    (losses.soft_cross_entropy, [0.5]), (losses.soft_binary_cross_entropy, [0.5]),
    (losses.hard_cross_entropy, []), (losses.hard_binary_cross_entropy, [])])
def test_large_logits_stay_finite(loss, temperature):
    rows, gradient = run_rows(loss, logits(1, scale=1e4), logits(2, scale=1e4), *temperature)
    assert np.all(np.isfinite(rows)) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("loss", [losses.soft_cross_entropy, losses.soft_binary_cross_entropy])
def test_a_student_that_equals_its_teacher_has_no_gradient(loss):
    _, gradient = run_rows(loss, logits(1), logits(1), 2.0)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("loss", ROWS + MASKED)
def test_no_gradient_reaches_the_teacher(loss):
    arrays = (logits(1), logits(2)) if loss in ROWS else (states(1), states(2), MASK)
    with tf.Graph().as_default():
        tensors = [tf.constant(array) for array in arrays]
        found = loss(*tensors)
        ours, theirs = tf.gradients(found if loss in ROWS else found[0], tensors[:2])
        assert ours is not None and theirs is None
