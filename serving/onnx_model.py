"""A BiLSTM classifier as an ONNX model, written from its weights: each layer is one bidirectional LSTM node.

In: `input_ids`, `input_mask` int32 [B, S], padding at the end. Out: `probabilities` float32 [B, C] and `pooled_output`
float32 [B, F].

Needs the packages onnx and onnxruntime (requirements-export.txt).
"""

import contextlib
import importlib.util
import io
import os
import tempfile

import numpy as np

from training import command
from training import files

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    onnx = None

KINDS = ("float32", "int8")
OPSET, IR_VERSION = 13, 7  # old enough for runtimes of 2021
GATES = ("input", "output", "forget", "cell")  # in ONNX's order
LOWEST = -1e9  # added to padding before a maximum


def check_packages():
    """Raises UserError where a package is missing."""
    there = onnx is not None and importlib.util.find_spec("onnxruntime") is not None
    command.check_packages(there, "--export_formats=onnx", "onnx", "onnxruntime")


def write(path, recurrent, kind="float32"):
    """Writes a model, whole or not at all.

    Args:
      path: the file.
      recurrent: `recurrent.Recurrent`.
      kind: one of `KINDS`; "int8": ONNX Runtime's dynamic quantization of the float32 model.

    Raises:
      UserError: a package is missing.
    """
    check_packages()
    content = _model(recurrent).SerializeToString()
    files.write_bytes(path, _quantized(content) if kind == "int8" else content)


def _quantized(content):
    # Not above: this imports SymPy, two seconds that every command would wait.
    from onnxruntime.quantization import QuantType, quantize_dynamic
    with tempfile.TemporaryDirectory() as folder:
        given, made = os.path.join(folder, "float32.onnx"), os.path.join(folder, "int8.onnx")
        files.write_bytes(given, content)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the node around each tensor that it leaves alone
            quantize_dynamic(given, made, weight_type=QuantType.QInt8)
        return files.read_bytes(made)


def _model(recurrent):
    graph = _Graph()
    graph.add("ReduceSum", ["input_mask", graph.constant("second", [1])], "lengths", keepdims=0)
    graph.add("Transpose", ["input_ids"], "ids_by_step", perm=[1, 0])
    table = graph.constant("word_embeddings", recurrent.table)
    hidden = graph.add("Gather", [table, "ids_by_step"], "embedded", axis=0)
    for number, layer in enumerate(recurrent.layers, start=1):
        hidden = _layer(graph, hidden, layer, "layer_%d" % number, recurrent.merge)
    last = "layer_%d_last" % len(recurrent.layers)
    _pool(graph, hidden, last, recurrent)
    graph.add("Gemm", ["pooled_output", graph.constant("output_weights", recurrent.class_weights),
                       graph.constant("output_bias", recurrent.class_bias)], "logits", transB=1)
    if recurrent.independent:
        graph.add("Sigmoid", ["logits"], "probabilities")
    else:
        graph.add("Softmax", ["logits"], "probabilities", axis=1)
    return graph.finish(recurrent)


def _layer(graph, inputs, layer, name, merge):
    """Both directions, [S, B, F] -> [S, B, H]; their last states are in `<name>_last`, [2, B, U]."""
    units = len(layer[0].bias["input"])

    def stacked(part):
        return np.stack([np.concatenate([getattr(direction, part)[gate] for gate in GATES]) for direction in layer])

    biases = np.concatenate([stacked("bias"), np.zeros([2, 4 * units], np.float32)], axis=1)
    graph.add("LSTM", [inputs, *[graph.constant("%s_%s" % (name, part), values) for part, values in (
        ("kernel", stacked("kernel")), ("recurrent", stacked("recurrent")), ("bias", biases))], "lengths"],
              name + "_states", name + "_last", direction="bidirectional", hidden_size=units)
    if merge == "sum":
        return graph.add("ReduceSum", [name + "_states", graph.constant("second", [1])], name, keepdims=0)
    graph.add("Transpose", [name + "_states"], name + "_by_token", perm=[0, 2, 1, 3])
    return graph.add("Reshape", [name + "_by_token", graph.constant("joined", [0, 0, 2 * units])], name)


def _pool(graph, hidden, last, recurrent):
    """One vector a text: `pooled_output`, [B, F]."""
    if recurrent.pooling == "last" and recurrent.merge == "sum":
        return graph.add("ReduceSum", [last, graph.constant("first", [0])], "pooled_output", keepdims=0)
    if recurrent.pooling == "last":
        units = len(recurrent.layers[0][0].bias["input"])
        graph.add("Transpose", [last], "last_by_text", perm=[1, 0, 2])
        return graph.add("Reshape", ["last_by_text", graph.constant("joined_last", [0, 2 * units])], "pooled_output")
    if recurrent.pooling == "mean":  # at padding a state is 0
        graph.add("ReduceSum", [hidden, graph.constant("first", [0])], "summed", keepdims=0)
        graph.add("Cast", ["lengths"], "counts", to=TensorProto.FLOAT)
        graph.add("Unsqueeze", ["counts", graph.constant("second", [1])], "counts_column")
        return graph.add("Div", ["summed", "counts_column"], "pooled_output")
    graph.add("Transpose", ["input_mask"], "mask_by_step", perm=[1, 0])
    graph.add("Cast", ["mask_by_step"], "real", to=TensorProto.FLOAT)
    graph.add("Sub", [graph.constant("one", np.float32([1.0])), "real"], "padding")
    graph.add("Mul", ["padding", graph.constant("lowest", np.float32([LOWEST]))], "below")
    graph.add("Unsqueeze", ["below", graph.constant("third", [2])], "below_states")
    graph.add("Add", [hidden, "below_states"], "real_states")
    return graph.add("ReduceMax", ["real_states"], "pooled_output", axes=[0], keepdims=0)


class _Graph:
    """Nodes and constants as they are put together."""

    def __init__(self):
        self._nodes, self._constants = [], {}

    def constant(self, name, values):
        """The name of a constant; lists are int64, arrays float32."""
        values = np.asarray(values, np.int64 if isinstance(values, list) else np.float32)
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def add(self, kind, inputs, output, last="", **attributes):
        """Adds a node and returns its output; last: the second output of an LSTM."""
        outputs = [output, last] if last else [output]
        self._nodes.append(helper.make_node(kind, inputs, outputs, name=output, **attributes))
        return output

    def finish(self, recurrent):
        """The ModelProto, checked."""
        def values(name, kind, *shape):
            return helper.make_tensor_value_info(name, kind, shape)

        units = len(recurrent.layers[-1][0].bias["input"])
        width = units if recurrent.merge == "sum" else 2 * units
        graph = helper.make_graph(
            self._nodes, "bilstm_classifier",
            [values(name, TensorProto.INT32, "texts", "tokens") for name in ("input_ids", "input_mask")],
            [values("probabilities", TensorProto.FLOAT, "texts", len(recurrent.class_bias)),
             values("pooled_output", TensorProto.FLOAT, "texts", width)], list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return model
