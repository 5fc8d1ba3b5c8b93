"""The op of attention.cc against the same by products: forward, gradients, any shape."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import attention
from tests import graphs
from tests.bert.both_ops import both, same, values
from tests.graphs import run
from training import native

pytestmark = graphs.COMPILED


def attended(lengths, length, heads, rate=0.0):
    """Function of query, key and value, a bias behind each, for `both`; lengths: real tokens of each text."""
    real = np.arange(length) < np.array(lengths)[:, None]
    mask = np.where(real, 0.0, -10000.0)[:, None, None, :].astype(np.float32)
    return lambda *given: attention.attend(*zip(given[::2], given[1::2]), tf.constant(mask), heads, rate, "here")


def drawn(rows, width, scale=1.0):
    """Query, key and value, a bias behind each."""
    return [values(*shape, scale=scale, seed=seed) for seed, shape in enumerate([(rows, width), (width,)] * 3)]


@pytest.mark.parametrize("width", [1, 5, 16, 26, 64, 100])
@pytest.mark.parametrize("length, rate", [(1, 0.0), (6, 0.3), (15, 0.0), (16, 0.3), (17, 0.3), (64, 0.0), (100, 0.3)])
def test_any_length_and_width_of_a_head(length, rate, width):
    same(attended([length, max(1, length // 2)], length, 3, rate), *drawn(2 * length, 3 * width), atol=2e-5)


def test_a_tensor_that_is_query_and_key_and_value_has_the_gradient_of_all_three():
    attend = attended([12], 12, 2)
    same(lambda given, bias: attend(*[given, bias] * 3), values(12, 32), values(32, seed=1), atol=2e-5)


@pytest.mark.parametrize("length, width, heads", [
    (17, 16, 24), (512, 64, 40)], ids=["all of a thread's at once", "four at once, and a thread has more"])
def test_many_heads(length, width, heads):
    same(attended([length], length, heads, 0.2), *drawn(length, heads * width), atol=2e-5)


def test_what_stands_at_padding_is_not_looked_at():
    length, heads = 20, 2
    given = drawn(length, heads * 16)
    changed = [array.copy() for array in given]
    for array in changed[2::2]:
        array[7:] = 3.0

    def context(arrays):
        return run(lambda: attended([7], length, heads)(*map(tf.constant, arrays)))

    np.testing.assert_array_equal(context(given), context(changed))


def test_where_everything_is_padding_all_places_are_alike():
    query, of_query, key, of_key, value, of_value = drawn(5, 32)
    found, *_ = same(attended([0], 5, 2), query, of_query, key * 0.0, of_key, value, of_value, atol=2e-5)
    np.testing.assert_allclose(found, np.broadcast_to(value.mean(axis=0) + of_value, [5, 32]), atol=1e-5)


def test_scores_that_differ_by_more_than_a_float_can_tell():
    found, *_ = same(attended([9], 9, 1), *drawn(9, 16, scale=40.0), rtol=1e-4, atol=1e-2)
    assert np.isfinite(found).all()


def test_nan_stays_in_its_text_and_head():
    length, heads = 10, 2
    given = drawn(2 * length, heads * 16)
    given[2][3, 5] = np.nan
    (ours, *_), (theirs, *_) = both(attended([length, length], length, heads), *given)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    assert np.isnan(ours[:length, :16]).all() and not np.isnan(ours[length:]).any()


def test_a_text_is_computed_alike_in_any_company():
    length, heads = 33, 4
    given = drawn(5 * length, heads * 32)

    def context(texts):
        return run(lambda: attended([length] * texts, length, heads)(
            *[tf.constant(array[:texts * length] if array.ndim == 2 else array) for array in given]))

    np.testing.assert_array_equal(context(5)[:length], context(1))


@pytest.mark.parametrize("lengths, length", [([], 4), ([0, 0], 0)], ids=["no text", "no token"])
def test_nothing_to_compute(lengths, length):
    context, *gradients = both(attended(lengths, length, 2), *[np.zeros([0, 8]), np.ones(8)] * 3)[0]
    assert context.shape == (0, 8)
    for of_rows, of_bias in zip(gradients[::2], gradients[1::2]):
        assert of_rows.shape == (0, 8)
        np.testing.assert_array_equal(of_bias, np.zeros(8))


@pytest.mark.parametrize("rows, bias, mask, heads, draws", [
    (6, 8, [2, 4], 2, 0), (8, 8, [2, 4], 3, 0), (8, 8, [8], 2, 0), (8, 8, [2, 4], 2, 63), (8, 1, [2, 4], 2, 0)])
def test_other_shapes_are_refused(rows, bias, mask, heads, draws):
    with pytest.raises(tf.errors.InvalidArgumentError, match="BertAttention needs query"):
        run(lambda: attention._ops().bert_attention(
            *[tf.zeros([rows, 8]), tf.zeros([bias])] * 3, tf.zeros(mask), tf.zeros([draws], tf.int16), heads=heads,
            least=0, scale=1.0))


def test_a_gradient_of_another_shape_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="shapes differ"):
        run(lambda: attention._ops().bert_attention_grad(
            *[tf.zeros([8, 8]), tf.zeros([8])] * 3, tf.zeros([2, 4]), tf.zeros([0], tf.int16), tf.zeros([8, 4]),
            heads=2, least=0, scale=1.0))


def test_what_is_dropped_is_dropped_in_the_gradient_too():
    length = 40
    ones, none = np.ones([length, 1]), np.zeros(1)
    # Alike scores, and every value its own: what a value gets is what its probabilities in all rows have kept.
    *_, of_values, _ = same(attended([length], length, 1, 0.99), ones * 0.0, none, ones, none, values(length, 1), none,
                            atol=2e-5)
    assert (of_values == 0.0).any() and not (of_values == 0.0).all()


def test_no_scores_are_kept():
    with tf.Graph().as_default(), native.using(True):
        given = [(tf.placeholder(tf.float32, [8, 8]), tf.zeros([8])) for _ in range(3)]
        context = attention.attend(*given, tf.zeros([2, 1, 1, 4]), 2, 0.1, "here")
        tf.gradients(context, [rows for rows, _ in given])
        kinds = {op.type for op in tf.get_default_graph().get_operations()}
    assert "BertAttentionGrad" in kinds and kinds.isdisjoint({"BatchMatMul", "BatchMatMulV2", "Softmax"})
