"""A BiLSTM classifier as a TFLite file, written from its weights: the same file whatever TensorFlow is installed.

In: `input_ids` int32 [1, S], one text, no padding; S is set with `resize_tensor_input`. Out: `probabilities` float32
[1, C] and `pooled_output` float32 [1, F]. Each direction of a layer is one fused UNIDIRECTIONAL_SEQUENCE_LSTM. Its
state is left in the interpreter: `reset_all_variables()` before each text, or the last text leaks into the next.

Kinds of weights: float32; float16, which are widened when the model is loaded; int8, one scale a matrix, with inputs
rounded as they come ("dynamic range").

Needs the packages flatbuffers and tflite (requirements-export.txt).
"""

import numpy as np

from training import command
from training import files

try:
    import flatbuffers
    import tflite
except ImportError:
    tflite = None

KINDS = ("float32", "float16", "int8")
EXAMPLE_LENGTH = 32  # S before it is set
ABSENT = -1          # an optional input


def check_packages():
    """Raises UserError where a package is missing."""
    command.check_packages(tflite is not None, "--export_formats=tflite", "flatbuffers", "tflite")


def write(path, recurrent, kind="float32"):
    """Writes a model, whole or not at all.

    Args:
      path: the file.
      recurrent: `recurrent.Recurrent`.
      kind: one of `KINDS`.

    Raises:
      UserError: a package is missing.
    """
    check_packages()
    model = _Model()
    ids = model.tensor("input_ids", [1, EXAMPLE_LENGTH], tflite.TensorType.INT32, signature=[1, -1])
    column = model.add("RESHAPE", [ids, model.integers([-1, 1])], [EXAMPLE_LENGTH, 1],
                       tflite.TensorType.INT32, NewShape=[-1, 1])
    hidden = _embed(model, column, recurrent.table, kind)
    ends = []
    for forward, backward in recurrent.layers:
        one = _lstm(model, hidden, forward, kind)
        other = _lstm(model, _reversed(model, hidden), backward, kind)
        ends = [one, other]
        hidden = _merged(model, [one, _reversed(model, other)], recurrent.merge)
    vector = _pooled(model, hidden, ends, recurrent)
    logits = model.add("FULLY_CONNECTED", [vector, model.floats(recurrent.class_weights),
                                           model.floats(recurrent.class_bias)], [1, len(recurrent.class_bias)])
    answer = model.add("LOGISTIC" if recurrent.independent else "SOFTMAX", [logits], [1, len(recurrent.class_bias)],
                       name="probabilities", **({} if recurrent.independent else {"Beta": 1.0}))
    files.write_bytes(path, model.finish([ids], [answer, vector]))


def _embed(model, column, table, kind):
    """Rows of the table, [S, 1] -> float32 [S, 1, E]."""
    shape = [EXAMPLE_LENGTH, 1, table.shape[1]]
    if kind == "int8":
        found = model.add("GATHER", [_rounded(model, table), column], shape, tflite.TensorType.INT8,
                          scale=_scale(table), version=2, Axis=0)
        return model.add("DEQUANTIZE", [found], shape, version=2)
    if kind == "float16":
        return model.add("GATHER", [_widened(model, table), column], shape, Axis=0)
    return model.add("GATHER", [model.floats(table), column], shape, Axis=0)


def _lstm(model, inputs, direction, kind):
    """The states of one direction, float32 [S, 1, F] -> [S, 1, U]."""
    order = ("input", "forget", "cell", "output")
    units = len(direction.bias["input"])
    weigh = {"float32": model.floats, "float16": lambda values: _widened(model, values),
             "int8": lambda values: _rounded(model, values)}
    matrices = [weigh[kind](matrices[gate]) for matrices in (direction.kernel, direction.recurrent) for gate in order]
    biases = [model.floats(direction.bias[gate]) for gate in order]
    states = [model.tensor("state", [1, units], variable=True) for _ in range(2)]
    given = [inputs, *matrices, *[ABSENT] * 3, *biases, *[ABSENT] * 2, *states, *[ABSENT] * 4]
    return model.add("UNIDIRECTIONAL_SEQUENCE_LSTM", given, [EXAMPLE_LENGTH, 1, units],
                     version=2 if kind == "int8" else 1,
                     FusedActivationFunction=tflite.ActivationFunctionType.TANH, TimeMajor=True)


def _reversed(model, sequence):
    return model.add("REVERSE_V2", [sequence, model.integers([0])], model.shape_of(sequence))


def _merged(model, directions, merge):
    """[S, 1, U] twice -> [S, 1, H]."""
    length, one, units = model.shape_of(directions[0])
    if merge == "sum":
        return model.add("ADD", directions, [length, one, units])
    return model.add("CONCATENATION", directions, [length, one, 2 * units], Axis=2)


def _pooled(model, hidden, ends, recurrent):
    """One vector, float32 [1, F]; ends: the top layer's directions, each in the order it ran."""
    width = model.shape_of(hidden)[-1]
    if recurrent.pooling == "max":
        return model.add("REDUCE_MAX", [hidden, model.integers([0])], [1, width], name="pooled_output", KeepDims=False)
    if recurrent.pooling == "mean":
        return model.add("MEAN", [hidden, model.integers([0])], [1, width], name="pooled_output", KeepDims=False)
    last = [model.add("STRIDED_SLICE", [states, *[model.integers(values) for values in ([-1, 0, 0], [0, 0, 0],
                                                                                        [1, 1, 1])]],
                      [1, model.shape_of(states)[-1]], EndMask=7, BeginMask=6, ShrinkAxisMask=1) for states in ends]
    if recurrent.merge == "sum":
        return model.add("ADD", last, [1, width], name="pooled_output")
    return model.add("CONCATENATION", last, [1, width], name="pooled_output", Axis=1)


def _scale(values):
    """What int8 values are multiplied by."""
    return float(np.abs(values).max()) / 127.0 or 1.0


def _rounded(model, values):
    """The values as an int8 constant; zero stays zero."""
    scale = _scale(values)
    return model.constant(np.clip(np.rint(values / scale), -127, 127).astype(np.int8), tflite.TensorType.INT8, scale)


def _widened(model, values):
    """float16 values as a float32 tensor."""
    narrow = model.constant(values.astype(np.float16), tflite.TensorType.FLOAT16)
    return model.add("DEQUANTIZE", [narrow], list(values.shape), version=3)


class _Model:
    """A model of one graph as it is put together; tensors are numbers, constants of equal bytes are one."""

    def __init__(self):
        self._builder = flatbuffers.Builder(1 << 20)
        self._buffers, self._tensors, self._shapes, self._operators = [b""], [], [], []
        self._codes, self._known = [], {}

    def tensor(self, name, shape, kind=None, signature=None, variable=False, buffer=0, scale=None):
        """A new tensor, float32 where nothing is said."""
        self._shapes.append(list(shape))
        self._tensors.append((name, list(shape), tflite.TensorType.FLOAT32 if kind is None else kind, signature,
                              variable, buffer, scale))
        return len(self._tensors) - 1

    def shape_of(self, tensor):
        return self._shapes[tensor]

    def constant(self, values, kind, scale=None):
        values = np.ascontiguousarray(values)
        key = (values.tobytes(), values.shape, kind, scale)
        if key not in self._known:
            self._buffers.append(key[0])
            self._known[key] = self.tensor("constant_%d" % len(self._buffers), values.shape, kind,
                                           buffer=len(self._buffers) - 1, scale=scale)
        return self._known[key]

    def floats(self, values):
        return self.constant(np.asarray(values, np.float32), tflite.TensorType.FLOAT32)

    def integers(self, values):
        return self.constant(np.asarray(values, np.int32), tflite.TensorType.INT32)

    def add(self, code, inputs, shape, kind=None, name=None, scale=None, version=1, **options):
        """Adds an operation with one output, and returns that."""
        output = self.tensor(name or "%s_%d" % (code.lower(), len(self._operators)), shape, kind, scale=scale)
        if (code, version) not in self._codes:
            self._codes.append((code, version))
        self._operators.append((code, self._codes.index((code, version)), inputs, output, options))
        return output

    def finish(self, inputs, outputs):
        """The file's bytes."""
        subgraph = self._table("SubGraph", Tensors=self._offsets(map(self._tensor, self._tensors)),
                               Inputs=self._ints(inputs), Outputs=self._ints(outputs),
                               Operators=self._offsets(map(self._operator, self._operators)))
        codes = [self._table("OperatorCode", BuiltinCode=number, Version=version, DeprecatedBuiltinCode=number)
                 for number, version in ((getattr(tflite.BuiltinOperator, code), version)
                                         for code, version in self._codes)]
        buffers = [self._table("Buffer", Data=self._bytes(content)) if content else self._table("Buffer")
                   for content in self._buffers]
        model = self._table("Model", Version=3, OperatorCodes=self._offsets(codes),
                            Subgraphs=self._offsets([subgraph]), Buffers=self._offsets(buffers),
                            Description=self._builder.CreateString("BiLSTM text classifier"))
        self._builder.Finish(model, file_identifier=b"TFL3")
        return bytes(self._builder.Output())

    def _tensor(self, described):
        name, shape, kind, signature, variable, buffer, scale = described
        fields = {"Shape": self._ints(shape), "Type": kind, "Buffer": buffer,
                  "Name": self._builder.CreateString(name), "IsVariable": variable}
        if signature:
            fields["ShapeSignature"] = self._ints(signature)
        if scale is not None:
            fields["Quantization"] = self._table("QuantizationParameters", Scale=self._vector([scale], "Float32", 4),
                                                 ZeroPoint=self._vector([0], "Int64", 8))
        return self._table("Tensor", **fields)

    def _operator(self, described):
        code, number, inputs, output, options = described
        table = OPTIONS.get(code)
        fields = {"OpcodeIndex": number, "Inputs": self._ints(inputs), "Outputs": self._ints([output])}
        if table:
            given = {name: self._ints(value) if isinstance(value, list) else value for name, value in options.items()}
            fields.update(BuiltinOptionsType=getattr(tflite.BuiltinOptions, table),
                          BuiltinOptions=self._table(table, **given))
        return self._table("Operator", **fields)

    def _table(self, kind, **fields):
        getattr(tflite, kind + "Start")(self._builder)
        for name, value in fields.items():
            getattr(tflite, "%sAdd%s" % (kind, name))(self._builder, value)
        return getattr(tflite, kind + "End")(self._builder)

    def _vector(self, values, kind, size):
        self._builder.StartVector(size, len(values), size)
        for value in reversed(values):
            getattr(self._builder, "Prepend" + kind)(value)
        return self._builder.EndVector()

    def _ints(self, values):
        return self._vector(list(values), "Int32", 4)

    def _offsets(self, values):
        return self._vector(list(values), "UOffsetTRelative", 4)

    def _bytes(self, content):
        # Kernels read weights as they lie in the file.
        self._builder.StartVector(1, len(content), 16)
        self._builder.head = self._builder.head - len(content)
        self._builder.Bytes[self._builder.head:self._builder.head + len(content)] = content
        return self._builder.EndVector()


# The table of an operation's options; those that are not here have none.
OPTIONS = {"RESHAPE": "ReshapeOptions", "GATHER": "GatherOptions", "CONCATENATION": "ConcatenationOptions",
           "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions", "ADD": "AddOptions",
           "STRIDED_SLICE": "StridedSliceOptions", "FULLY_CONNECTED": "FullyConnectedOptions",
           "SOFTMAX": "SoftmaxOptions", "REDUCE_MAX": "ReducerOptions", "MEAN": "ReducerOptions"}
