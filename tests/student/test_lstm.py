import importlib

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from student import lstm as lstms
from student import lstm_layer
from student.lstm import KERNELS
from student.lstm import lstm
from tests import graphs
from training import native
from training.command import UserError

FEATURES, UNITS, LENGTH = 5, 4, 9
LENGTHS = [9, 1, 4, 0, 6]
ON_GPU = pytest.mark.skipif(not tf.config.experimental.list_physical_devices("GPU"), reason="no GPU is here")
MARKS = {"native": [graphs.COMPILED], "cudnn": [ON_GPU]}
ALL_KERNELS = [pytest.param(kernel, marks=MARKS.get(kernel, [])) for kernel in sorted(KERNELS)]
DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def inputs(scale=1.0):
    return np.random.RandomState(2).normal(0, scale, [len(LENGTHS), LENGTH, FEATURES]).astype(np.float32)


def run(kernel, scale, values=None, lengths=tuple(LENGTHS), reverse=False, units=UNITS):
    """Outputs at real tokens (0 elsewhere), and gradients of a weighted sum of them."""
    values = inputs() if values is None else values
    real = graphs.mask_of(lengths, values.shape[1])[:, :, None]
    factors = np.random.RandomState(4).normal(size=[*values.shape[:2], units]).astype(np.float32)

    def build():
        given = tf.constant(values)
        outputs = lstm(given, units, tf.constant(list(lengths), tf.int32), kernel, reverse)
        is_real = tf.constant(np.broadcast_to(real > 0, factors.shape))
        outputs = tf.where(is_real, outputs, tf.zeros_like(outputs))
        variables = {variable.op.name: variable for variable in tf.trainable_variables()}
        names = sorted(variables)
        gradients = tf.gradients(outputs * factors, [given] + [variables[name] for name in names])
        return dict(zip(["outputs", "inputs"] + names, [outputs] + gradients))

    return graphs.run(build, weights=graphs.named_weights(scale))


def numpy_lstm(values, lengths, kernel, bias, reverse):
    """The formulas in `student.lstm`, in float64; (outputs, zero at padding; largest cell state)."""
    units = len(bias) // 4
    outputs, largest = np.zeros(values.shape[:2] + (units,)), 0.0
    for text, length in enumerate(lengths):
        c, h = np.zeros(units), np.zeros(units)
        for step in reversed(range(length)) if reverse else range(length):
            joined = np.concatenate([values[text, step], h]).astype(np.float64)
            i, g, f, o = np.split(joined @ kernel + bias, 4)
            c = c / (1 + np.exp(-f - 1)) + np.tanh(g) / (1 + np.exp(-i))
            h = np.tanh(c) / (1 + np.exp(-o))
            outputs[text, step] = h
            largest = max(largest, np.abs(c).max())
    return outputs, largest


@DIRECTIONS
@pytest.mark.parametrize("scale", [0.1, 4.0])
@pytest.mark.parametrize("kernel", ALL_KERNELS)
def test_outputs_are_those_of_the_formulas(kernel, scale, reverse):
    draw = graphs.named_weights(scale)
    expected, largest = numpy_lstm(inputs(), LENGTHS, draw("kernel", [FEATURES + UNITS, 4 * UNITS]),
                                   draw("bias", [4 * UNITS]), reverse)
    if scale > 1 and not reverse:
        assert largest > 4  # BlockLSTM would clip cells at 3 if it were not told otherwise
    np.testing.assert_allclose(run(kernel, scale, reverse=reverse)["outputs"], expected, atol=1e-5)


def assert_same(found, expected):
    assert sorted(found) == ["bias", "inputs", "kernel", "outputs"]
    for name in found:
        largest = np.abs(expected[name]).max()
        assert largest > 1e-3
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5 * max(1.0, largest), err_msg=name)


@DIRECTIONS
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("kernel", [kernel for kernel in ALL_KERNELS if kernel.values != ("cell",)])
def test_the_kernel_equals_the_cell_forward_and_in_every_gradient(kernel, scale, reverse):
    assert_same(run(kernel, scale, reverse=reverse), run("cell", scale, reverse=reverse))


@graphs.COMPILED
@DIRECTIONS
@pytest.mark.parametrize("texts", [1, 2, 7, 13])
@pytest.mark.parametrize("units", [1, 15, 16, 17, 52, 70])
def test_the_native_kernel_is_right_at_every_edge_of_its_blocks(units, texts, reverse):
    random = np.random.RandomState(texts)
    lengths = random.randint(0, LENGTH + 1, texts)
    lengths[0] = LENGTH
    values = random.normal(size=[texts, LENGTH, FEATURES]).astype(np.float32)
    assert_same(*[run(kernel, 0.5, values, lengths, reverse, units) for kernel in ("native", "block")])


@graphs.COMPILED
@DIRECTIONS
@pytest.mark.parametrize("lengths", [[300], [131, 300, 1, 128]])
def test_the_native_kernel_is_right_where_the_gates_of_a_text_are_made_in_several_pieces(lengths, reverse):
    values = np.random.RandomState(3).normal(size=[len(lengths), 300, FEATURES]).astype(np.float32)
    assert_same(*[run(kernel, 0.5, values, lengths, reverse) for kernel in ("native", "block")])


@graphs.COMPILED
@DIRECTIONS
@pytest.mark.parametrize("units", [4, 40])
@pytest.mark.parametrize("lengths", [[300], [131, 300, 1, 0, 128], [1 + text % 3 for text in range(300)]], ids=len)
def test_the_native_kernel_gives_the_same_whether_or_not_it_keeps_what_its_gradient_needs(lengths, units, reverse):
    values = np.random.RandomState(3).normal(size=[len(lengths), 300, FEATURES]).astype(np.float32)

    def build(is_training):
        given = tf.constant(values)
        states = lstm(given, units, tf.constant(lengths), "native", reverse, is_training)
        return [states] + tf.gradients(states, [given] + tf.trainable_variables())

    weights = graphs.named_weights(0.5)
    kept, not_kept = graphs.run(lambda: build(True), weights=weights), graphs.run(lambda: build(False), weights=weights)
    for one, other in zip(kept, not_kept):
        np.testing.assert_array_equal(one, other)


@graphs.COMPILED
def test_the_native_kernels_gradients_are_those_of_finite_differences():
    random = np.random.RandomState(1)
    shapes = {"inputs": [3, 4, 5], "kernel": [11, 24], "bias": [24]}
    values = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    with tf.Graph().as_default(), tf.Session():
        given = {name: tf.constant(value) for name, value in values.items()}
        hidden = lstm_layer.ops().lstm_layer(
            **given, lengths=tf.constant([4, 0, 3]), reverse=True, forget_bias=1.0, is_training=True).hidden
        loss = tf.reduce_sum(hidden * tf.constant(random.normal(size=[3, 4, 6]), tf.float32))
        for name, shape in shapes.items():
            error = tf.test.compute_gradient_error(
                given[name], shape, loss, [], x_init_value=values[name], delta=1e-2)
            assert error < 2e-3, name


@graphs.COMPILED
def test_what_is_not_a_number_stays_so_in_the_native_kernel():
    values = inputs()
    values[2, 1, 3] = np.nan
    found = run("native", 1.0, values)
    assert np.isnan(found["outputs"][2, 1:4]).all() and np.isfinite(found["outputs"][[0, 1, 3, 4]]).all()
    assert np.isfinite(found["outputs"][2, 0]).all()
    for name in ("kernel", "bias"):
        assert np.isnan(found[name]).any(), name


@graphs.COMPILED
def test_shapes_that_do_not_fit_are_refused():
    for inputs_, kernel, bias, lengths in (
            ([2, 3, 5], [7, 8], [8], [3]), ([2, 3, 5], [6, 8], [8], [2]), ([2, 3, 5], [7, 7], [7], [2]),
            ([2, 3, 5], [7, 8], [4], [2]), ([6, 5], [7, 8], [8], [6]), ([2, 3, 0], [1, 8], [8], [2])):
        with tf.Graph().as_default(), tf.Session() as session:
            given = [tf.placeholder_with_default(tf.zeros(shape), None) for shape in (inputs_, kernel, bias)]
            hidden = lstm_layer.ops().lstm_layer(
                *given, tf.fill(lengths, 1), reverse=False, forget_bias=1.0, is_training=True).hidden
            with pytest.raises(tf.errors.InvalidArgumentError, match="are needed"):
                session.run(hidden)


@pytest.mark.parametrize("kernel", ALL_KERNELS)
def test_padding_moves_no_output_and_gets_no_gradient(kernel):
    padding = graphs.mask_of(LENGTHS, LENGTH) == 0
    other = inputs()
    other[padding] = 100.0
    before, after = run(kernel, 1.0), run(kernel, 1.0, other)
    for name in ("outputs", "kernel", "bias", "inputs"):
        assert np.array_equal(before[name], after[name]), name
    assert np.all(before["inputs"][padding] == 0)
    assert np.all(np.any(before["inputs"][~padding] != 0, axis=-1))


@pytest.mark.parametrize("kernel", ALL_KERNELS)
def test_texts_without_tokens_have_finite_outputs_and_gradients_of_0(kernel):
    for value in run(kernel, 1.0, lengths=(0,) * len(LENGTHS)).values():
        assert np.all(value == 0)


@pytest.mark.parametrize("kernel", ALL_KERNELS)
def test_a_text_has_the_same_states_alone_and_in_a_batch(kernel):
    together = run(kernel, 1.0)["outputs"]
    alone = run(kernel, 1.0, lengths=(0, 0, 4, 0, 0))["outputs"]
    np.testing.assert_allclose(alone[2], together[2], atol=1e-6)


@graphs.COMPILED
def test_how_many_sequences_share_a_thread_changes_no_bit_of_the_native_kernels_states():
    """So the number of threads changes none; it cannot be another one in the same process."""
    text, other = np.random.RandomState(3).normal(size=[2, 60, FEATURES]).astype(np.float32)

    def states(values, lengths):
        return run("native", 0.5, np.stack(values), lengths, units=40)["outputs"][0]

    np.testing.assert_array_equal(states([text, other], [60, 20]), states([text, other, text], [60, 60, 20]))


@pytest.mark.parametrize("kernel", [
    pytest.param(kernel, marks=[graphs.COMPILED] if kernel == "native" else []) for kernel in sorted(KERNELS)])
def test_kernels_have_the_same_variables(kernel):
    with tf.Graph().as_default():
        lstm(tf.zeros([2, 3, FEATURES]), UNITS, tf.constant([3, 1]), kernel)
        found = [(v.op.name, v.shape.as_list()) for v in tf.trainable_variables()]
    assert found == [("kernel", [FEATURES + UNITS, 4 * UNITS]), ("bias", [4 * UNITS])]


def keras_canonical_to_params():
    """Keras's way from matrices and biases to cuDNN's parameters; it moved between the versions."""
    for name, function in (("tensorflow.python.keras.layers.recurrent_v2", "_canonical_to_params"),
                           ("keras.src.layers.rnn.gru_lstm_utils", "canonical_to_params")):
        try:
            return getattr(importlib.import_module(name), function)
        except (ImportError, AttributeError):
            pass
    pytest.fail("Keras has it nowhere any more")


def test_cudnns_parameters_are_packed_as_keras_packs_them():
    random = np.random.RandomState(6)
    weights, bias = random.normal(size=[FEATURES + UNITS, 4 * UNITS]), random.normal(size=[4 * UNITS])
    i, g, f, o = np.split(weights, 4, axis=1)
    b_i, b_g, b_f, b_o = np.split(bias, 4)
    # Keras's CuDNNLSTM: kernels of the inputs, of the states, biases of both, gates in the order i, f, c, o.
    matrices = [gate[:FEATURES] for gate in (i, f, g, o)] + [gate[FEATURES:] for gate in (i, f, g, o)]
    biases = [b_i, b_f + 1, b_g, b_o] + 4 * [np.zeros(UNITS)]
    convert = keras_canonical_to_params()
    found, expected = graphs.run(lambda: (
        lstms.cudnn_parameters(tf.constant(weights), tf.constant(bias)),
        convert(list(map(tf.constant, matrices)), list(map(tf.constant, biases)), tf.constant([-1]), True)))
    assert found.shape == (4 * UNITS * (FEATURES + UNITS + 2),)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_cudnns_op_takes_what_it_is_given_and_has_a_gradient(reverse):
    with tf.Graph().as_default() as graph:
        given = tf.placeholder(tf.float32, [None, None, FEATURES])
        outputs = lstm(given, UNITS, tf.placeholder(tf.int32, [None]), "cudnn", reverse)
        gradients = tf.gradients(outputs, [given] + tf.trainable_variables())
        assert all(gradient is not None for gradient in gradients)
        assert {"CudnnRNNV3", "CudnnRNNBackpropV3"} <= {operation.type for operation in graph.get_operations()}


def ops_of(**arguments):
    """The kinds of operations of a graph with one LSTM."""
    with tf.Graph().as_default() as graph:
        lstm(tf.zeros([2, 3, FEATURES]), UNITS, tf.constant([3, 1]), **arguments)
        return {operation.type for operation in graph.get_operations()}


@graphs.COMPILED
def test_the_kernel_is_the_named_one_else_that_of_the_context_else_the_processs_else_the_fastest(monkeypatch):
    monkeypatch.setattr(lstms._chosen, "_values", ["auto"])
    assert "LstmLayer" in ops_of()
    lstms.use("cell")
    assert "LoopCond" in ops_of()
    with lstms.using("block"):
        assert "BlockLSTM" in ops_of()
        assert "LstmLayer" in ops_of(kernel="native")
    assert "BlockLSTM" not in ops_of()


def test_without_native_ops_auto_is_block():
    with native.using(False):
        assert "BlockLSTM" in ops_of()


def test_on_gpus_native_is_refused():
    with pytest.raises(UserError, match="--lstm_kernel=native: for CPUs, and --num_gpus=2 asks for GPUs"):
        lstms.use("native", num_gpus=2)


def test_on_a_cpu_cudnn_is_refused():
    with pytest.raises(UserError, match="--lstm_kernel=cudnn: for GPUs"):
        lstms.use("cudnn")
