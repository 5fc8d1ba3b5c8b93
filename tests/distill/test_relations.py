import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from distill import relations
from tests import graphs

pytestmark = graphs.ON_REFERENCE

LENGTHS, LENGTH, HEADS = [5, 3, 0, 1], 5, 2
MASK = graphs.mask_of(LENGTHS, LENGTH)
ERRORS = [relations.token_similarity, relations.text_similarity, relations.attention]  # 0 between equals
LOSSES = ERRORS + [relations.contrast]


def states(seed, width=3, scale=1.0):
    """float32 [B, S, D]."""
    return np.random.RandomState(seed).normal(0, scale, [len(LENGTHS), LENGTH, width]).astype(np.float32)


def inputs(loss, seed):
    """What the loss takes of one model."""
    if loss is not relations.attention:
        return states(seed)
    shape = [len(LENGTHS), HEADS, LENGTH, LENGTH]
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


def run(loss, student, teacher, mask=MASK):
    """(loss of each text, gradient of their sum in the student)."""
    def build():
        given = tf.constant(student)
        texts = loss(given, tf.constant(teacher), tf.constant(mask))
        return texts, tf.gradients(texts, given)[0]

    return graphs.run(build)


def cosines(vectors):
    """[N, D] -> [N, N]."""
    vectors = vectors.astype(np.float64)
    vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors @ vectors.T


def numeric_gradient(loss, student, teacher, place, step=1e-2):
    moved = [student.copy(), student.copy()]
    moved[0][place] += step
    moved[1][place] -= step
    above, below = [run(loss, array, teacher)[0].sum() for array in moved]
    return (above - below) / (2 * step)


def test_token_similarity_is_the_mean_over_the_pairs_of_a_texts_real_tokens():
    student, teacher = states(1), states(2, width=7)
    expected = [np.mean((cosines(student[text, :length]) - cosines(teacher[text, :length])) ** 2) if length else 0
                for text, length in enumerate(LENGTHS)]
    texts, _ = run(relations.token_similarity, student, teacher)
    np.testing.assert_allclose(texts, expected, rtol=1e-5, atol=1e-7)
    assert texts[0] > 0.01 and texts[2] == 0


def test_contrast_is_nearness_to_the_own_text_and_distance_from_the_others():
    student, teacher = states(1), states(2)
    ours, theirs = ([text[:length].mean(axis=0).astype(np.float64) if length else np.zeros(3)
                     for text, length in zip(vectors, LENGTHS)] for vectors in (student, teacher))

    def g(x, y):
        length = np.linalg.norm(x) * np.linalg.norm(y)
        return 1 - x @ y / length if length else 1.0

    expected = [g(ours[i], theirs[i]) + np.mean([
        (2 - (g(ours[i], theirs[k]) - g(ours[i], theirs[i]))) / 2 for k in range(len(LENGTHS)) if k != i])
                for i in range(len(LENGTHS))]
    texts, _ = run(relations.contrast, student, teacher)
    np.testing.assert_allclose(texts, expected, rtol=1e-5)


def test_contrast_of_a_text_that_is_alone_is_its_own_distance():
    student, teacher = states(1)[:1], states(2)[:1]
    texts, _ = run(relations.contrast, student, teacher, MASK[:1])
    cos = cosines(np.stack([student[0].mean(axis=0), teacher[0].mean(axis=0)]))[0, 1]
    np.testing.assert_allclose(texts, [1 - cos], rtol=1e-5)


def test_attention_is_the_mean_over_heads_and_pairs_of_real_tokens():
    student, teacher = inputs(relations.attention, 1), inputs(relations.attention, 2)
    errors = (student.astype(np.float64) - teacher) ** 2
    expected = [np.mean(errors[text, :, :length, :length]) if length else 0 for text, length in enumerate(LENGTHS)]
    texts, gradient = run(relations.attention, student, teacher)
    np.testing.assert_allclose(texts, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient[1, :, :3, :3], 2 / 18 * (student - teacher)[1, :, :3, :3], rtol=1e-5)


def test_text_similarity_is_the_mean_over_the_texts_of_the_batch():
    student, teacher = states(1), states(2, width=7)
    lengths = [5, 3, 2, 1]
    means = [np.stack([array[text, :length].mean(axis=0) for text, length in enumerate(lengths)])
             for array in (student, teacher)]
    expected = np.mean((cosines(means[0]) - cosines(means[1])) ** 2, axis=1)
    texts, _ = run(relations.text_similarity, student, teacher, graphs.mask_of(lengths, LENGTH))
    np.testing.assert_allclose(texts, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_that_of_the_loss(loss):
    student, teacher = inputs(loss, 1), inputs(loss, 2)
    _, gradient = run(loss, student, teacher)
    for place in [(0,) * student.ndim, (1,) + (1,) * (student.ndim - 1)]:
        assert gradient[place] == pytest.approx(numeric_gradient(loss, student, teacher, place), rel=0.02, abs=1e-4)


@pytest.mark.parametrize("value", [1e6, np.inf, np.nan])
@pytest.mark.parametrize("whose", [[0], [1], [0, 1]])
@pytest.mark.parametrize("loss", LOSSES)
def test_what_stands_at_padding_moves_neither_a_loss_nor_its_gradient(loss, value, whose):
    both = [inputs(loss, 1), inputs(loss, 2)]
    before = run(loss, *both)
    padding = MASK == 0
    if loss is relations.attention:
        padding = np.repeat((padding[:, None, :, None] | padding[:, None, None, :]), HEADS, axis=1)
    for number in whose:
        both[number][padding] = value
    for found, expected in zip(run(loss, *both), before):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_more_padding_moves_nothing(loss):
    both = [inputs(loss, 1), inputs(loss, 2)]
    before, _ = run(loss, *both)
    more = [(0, 0), (0, 0), (0, 3), (0, 3)] if loss is relations.attention else [(0, 0), (0, 3), (0, 0)]
    longer = [np.pad(array, more, "constant") for array in both]
    texts, _ = run(loss, *longer, mask=graphs.mask_of(LENGTHS, LENGTH + 3))
    np.testing.assert_allclose(texts, before, rtol=1e-6)


@pytest.mark.parametrize("loss", ERRORS)
def test_texts_that_are_all_padding_count_for_nothing(loss):
    texts, gradient = run(loss, inputs(loss, 1), inputs(loss, 2), np.zeros_like(MASK))
    assert np.all(texts == 0) and np.all(gradient == 0)


@pytest.mark.parametrize("loss", ERRORS)
def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient(loss):
    texts, gradient = run(loss, inputs(loss, 1), inputs(loss, 1))
    np.testing.assert_allclose(texts, 0, atol=1e-7)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("loss", [relations.token_similarity, relations.text_similarity])
def test_a_similarity_does_not_see_how_long_the_states_are_nor_a_rotation(loss):
    rotation, _ = np.linalg.qr(states(3)[0, :3])
    texts, _ = run(loss, 5 * states(1), states(1) @ rotation)
    np.testing.assert_allclose(texts, 0, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_states_of_zeros_have_a_finite_gradient(loss):
    _, gradient = run(loss, np.zeros_like(inputs(loss, 1)), inputs(loss, 2))
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("loss", LOSSES)
def test_no_gradient_reaches_the_teacher(loss):
    with tf.Graph().as_default():
        student, teacher = tf.constant(inputs(loss, 1)), tf.constant(inputs(loss, 2))
        ours, theirs = tf.gradients(loss(student, teacher, tf.constant(MASK)), [student, teacher])
        assert ours is not None and theirs is None


@pytest.mark.parametrize("loss", [relations.token_similarity, relations.attention])
def test_a_text_is_worth_the_same_whoever_is_in_its_batch(loss):
    student, teacher = inputs(loss, 1), inputs(loss, 2)
    together, _ = run(loss, student, teacher)
    for text in range(len(LENGTHS)):
        alone, _ = run(loss, student[text:text + 1], teacher[text:text + 1], MASK[text:text + 1])
        np.testing.assert_allclose(alone[0], together[text], rtol=1e-6, atol=1e-9)
