"""The ops of fused.cc against TensorFlow's own: forward, gradients, draws."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import fused
from tests import graphs
from tests.bert.both_ops import both, same, values
from tests.graphs import run

pytestmark = graphs.COMPILED

WIDTHS = (1, 7, 15, 16, 17, 64, 100)  # around a register, and not a multiple of one


@pytest.mark.parametrize("width", WIDTHS)
def test_gelu(width):
    same(fused.gelu, values(3, width, scale=3.0), values(width, seed=1), atol=5e-6)


def test_gelu_far_from_zero_is_the_value_itself_or_nothing():
    found, *_ = same(fused.gelu, np.float32([[-1e30, -50.0, -5.0, 0.0, 5.0, 50.0, 1e18]]), np.zeros(7))
    np.testing.assert_allclose(found, [[0.0, 0.0, -5e-7, 0.0, 5.0, 50.0, 1e18]], atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("width", WIDTHS[1:])
def test_add_norm(width, rate):
    same(lambda *given: fused.add_norm(*given, rate, "here"), values(150, width), values(width, seed=4),
         values(150, width, seed=1), values(width, seed=2), values(width, seed=3), atol=1e-4)


def test_add_norm_of_one_value_leaves_beta_and_no_gradient_but_its():
    # Which is what rounding leaves of 10^6, 1 / sqrt(epsilon), times nothing.
    (found, *gradients), _ = both(lambda *given: fused.add_norm(*given, 0.0, ""), values(5, 1), values(1, seed=4),
                                  values(5, 1, seed=1), values(1, seed=2), values(1, seed=3))
    np.testing.assert_array_equal(found, np.broadcast_to(values(1, seed=3), [5, 1]))
    for gradient in gradients[:4]:
        np.testing.assert_allclose(gradient, np.zeros_like(gradient), atol=0.5)
    np.testing.assert_allclose(gradients[4], [np.cos(np.arange(5)).sum()], rtol=1e-5)


def test_what_is_dropped_is_dropped_in_the_gradient_too():
    kept, slope, *_ = same(lambda *given: fused.add_norm(*given, 0.5, "here"), values(64, 32), np.zeros(32),
                           values(64, 32) * 0.0, np.ones(32), np.zeros(32), atol=1e-4)
    assert 0.4 < (slope == 0.0).mean() < 0.6


@pytest.mark.parametrize("rows", [1, 7, 8, 64, 150])
@pytest.mark.parametrize("width", WIDTHS)
def test_bias_add(width, rows):
    same(fused.bias_add, values(rows, width), values(width, seed=1), atol=1e-5)


def cross_entropy_of(labels):
    return lambda logits: fused.cross_entropy(logits, tf.constant(labels, tf.int32))


@pytest.mark.parametrize("width", (*WIDTHS, 5000))
@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_cross_entropy(width, scale):
    labels = np.random.RandomState(0).randint(0, width, [9])
    labels[:2] = 0, width - 1
    same(cross_entropy_of(labels), values(9, width, scale=scale), atol=1e-5)


def test_cross_entropy_of_logits_far_apart():
    # exp(400) is more than a float holds.
    found, slope = same(cross_entropy_of([0, 1, 2]), np.float32([[400, 0, -400]] * 3))
    np.testing.assert_array_equal(found, [0.0, 400.0, 800.0])
    np.testing.assert_allclose(slope[1], np.cos(1) * np.float32([1, -1, 0]), rtol=1e-6)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_a_label_that_is_no_class_is_refused(labels):
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels are 0 to 2; found (3|-1)"):
        run(lambda: cross_entropy_of(labels)(tf.zeros([2, 3])))


@pytest.mark.parametrize("build, inputs", [
    (fused.gelu, [values(2, 20), np.zeros(20)]),
    (lambda *given: fused.add_norm(*given, 0.0, ""),
     [values(2, 20), np.zeros(20), values(2, 20), np.ones(20), np.zeros(20)]),
    (cross_entropy_of([1, 2]), [values(2, 20)]),
    (cross_entropy_of([1, 2]), [values(2, 5)]),
], ids=["gelu", "add_norm", "cross_entropy", "cross_entropy of few classes"])
def test_nan_stays_nan(build, inputs):
    inputs[0][..., 0, 3] = np.nan
    (ours, *_), (theirs, *_) = both(build, *inputs)
    assert np.isnan(theirs).any() and np.isnan(ours)[np.isnan(theirs)].all()
    assert not np.isnan(ours[1]).any()


def test_a_row_is_computed_alike_in_any_company():
    rows = values(300, 48)

    def normalized(rows):
        return run(lambda: fused.add_norm(
            tf.constant(rows), tf.ones([48]), tf.constant(rows), tf.ones([48]), tf.zeros([48]), 0.0, ""))

    np.testing.assert_array_equal(normalized(rows)[:5], normalized(rows[:5]))


def test_nothing_to_compute():
    found, slope, of_bias = both(fused.gelu, np.zeros([0, 4]), np.ones(4))[0]
    assert found.shape == slope.shape == (0, 4)
    np.testing.assert_array_equal(of_bias, np.zeros(4))
    found, of_inputs, of_bias, of_residual, *_ = both(
        lambda *given: fused.add_norm(*given, 0.1, ""), np.zeros([0, 4]), np.ones(4), np.zeros([0, 4]), np.ones(4),
        np.zeros(4))[0]
    assert found.shape == of_inputs.shape == of_residual.shape == (0, 4)
    np.testing.assert_array_equal(of_bias, np.zeros(4))
    found, slope = both(cross_entropy_of(np.zeros([0])), np.zeros([0, 4]))[0]
    assert found.shape == (0,) and slope.shape == (0, 4)
    *_, of_bias = both(fused.bias_add, np.zeros([0, 4]), np.ones(4))[0]
    np.testing.assert_array_equal(of_bias, np.zeros(4))


@pytest.mark.parametrize("bias, rows", [(4, 1), (1, 2)])
def test_add_norm_of_other_shapes_is_refused(bias, rows):
    with pytest.raises(tf.errors.InvalidArgumentError, match="BertAddNorm needs inputs"):
        run(lambda: fused._ops().bert_add_norm(
            tf.zeros([2, 4]), tf.zeros([bias]), tf.zeros([rows, 4]), tf.zeros([0], tf.int16), tf.ones([4]),
            tf.zeros([4]), least=0, scale=1.0, epsilon=1e-12))


def test_other_shapes_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="BertGelu needs a tensor"):
        run(lambda: fused._ops().bert_gelu(tf.zeros([2, 4]), tf.zeros([2])))
    with pytest.raises(tf.errors.InvalidArgumentError, match="BertCrossEntropy needs logits"):
        run(lambda: fused._ops().bert_cross_entropy(tf.zeros([2, 4]), tf.zeros([3], tf.int32)))
