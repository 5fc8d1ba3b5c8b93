import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from student.lstm import KERNELS
from student.lstm import lstm
from tests import graphs

FEATURES, UNITS, LENGTH = 5, 4, 9
LENGTHS = [9, 1, 4, 0, 6]


def inputs(scale=1.0):
    return np.random.RandomState(2).normal(0, scale, [len(LENGTHS), LENGTH, FEATURES]).astype(np.float32)


def run(kernel, scale, values=None, lengths=tuple(LENGTHS)):
    """Outputs at real tokens (0 elsewhere), and gradients of a weighted sum of them."""
    values = inputs() if values is None else values
    real = graphs.mask_of(lengths, LENGTH)[:, :, None]
    factors = np.random.RandomState(4).normal(size=[len(LENGTHS), LENGTH, UNITS]).astype(np.float32)

    def build():
        given = tf.constant(values)
        outputs = lstm(given, UNITS, tf.constant(list(lengths), tf.int32), kernel)
        is_real = tf.constant(np.broadcast_to(real > 0, factors.shape))
        outputs = tf.where(is_real, outputs, tf.zeros_like(outputs))
        variables = {variable.op.name: variable for variable in tf.trainable_variables()}
        names = sorted(variables)
        gradients = tf.gradients(outputs * factors, [given] + [variables[name] for name in names])
        return dict(zip(["outputs", "inputs"] + names, [outputs] + gradients))

    return graphs.run(build, weights=graphs.named_weights(scale))


def numpy_lstm(values, lengths, kernel, bias):
    """The formulas in `student.lstm`, in float64; (outputs, zero at padding; largest cell state)."""
    units = len(bias) // 4
    outputs, largest = np.zeros(values.shape[:2] + (units,)), 0.0
    for text, length in enumerate(lengths):
        c, h = np.zeros(units), np.zeros(units)
        for step in range(length):
            joined = np.concatenate([values[text, step], h]).astype(np.float64)
            i, g, f, o = np.split(joined @ kernel + bias, 4)
            c = c / (1 + np.exp(-f - 1)) + np.tanh(g) / (1 + np.exp(-i))
            h = np.tanh(c) / (1 + np.exp(-o))
            outputs[text, step] = h
            largest = max(largest, np.abs(c).max())
    return outputs, largest


@pytest.mark.parametrize("scale", [0.1, 4.0])
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_outputs_are_those_of_the_formulas(kernel, scale):
    draw = graphs.named_weights(scale)
    expected, largest = numpy_lstm(inputs(), LENGTHS, draw("kernel", [FEATURES + UNITS, 4 * UNITS]),
                                   draw("bias", [4 * UNITS]))
    if scale > 1:
        assert largest > 4  # BlockLSTM would clip cells at 3 if it were not told otherwise
    np.testing.assert_allclose(run(kernel, scale)["outputs"], expected, atol=1e-5)


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_the_block_kernel_equals_the_cell_forward_and_in_every_gradient(scale):
    block, cell = run("block", scale), run("cell", scale)
    assert sorted(block) == ["bias", "inputs", "kernel", "outputs"]
    for name in block:
        largest = np.abs(cell[name]).max()
        assert largest > 1e-3
        np.testing.assert_allclose(block[name], cell[name], atol=1e-5 * max(1.0, largest), err_msg=name)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_padding_moves_no_output_and_gets_no_gradient(kernel):
    padding = graphs.mask_of(LENGTHS, LENGTH) == 0
    other = inputs()
    other[padding] = 100.0
    before, after = run(kernel, 1.0), run(kernel, 1.0, other)
    for name in ("outputs", "kernel", "bias", "inputs"):
        assert np.array_equal(before[name], after[name]), name
    assert np.all(before["inputs"][padding] == 0)
    assert np.all(np.any(before["inputs"][~padding] != 0, axis=-1))


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_texts_without_tokens_have_finite_outputs_and_gradients_of_0(kernel):
    for value in run(kernel, 1.0, lengths=(0,) * len(LENGTHS)).values():
        assert np.all(value == 0)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_a_text_has_the_same_states_alone_and_in_a_batch(kernel):
    together = run(kernel, 1.0)["outputs"]
    alone = run(kernel, 1.0, lengths=(0, 0, 4, 0, 0))["outputs"]
    np.testing.assert_allclose(alone[2], together[2], atol=1e-6)


def test_kernels_have_the_same_variables():
    found = []
    for kernel in sorted(KERNELS):
        with tf.Graph().as_default():
            lstm(tf.zeros([2, 3, FEATURES]), UNITS, tf.constant([3, 1]), kernel)
            found.append([(v.op.name, v.shape.as_list()) for v in tf.trainable_variables()])
    assert found[0] == found[1] == [("kernel", [FEATURES + UNITS, 4 * UNITS]), ("bias", [4 * UNITS])]
