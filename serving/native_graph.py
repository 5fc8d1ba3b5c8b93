"""An export's BiLSTM computed by our op: here, for the export itself holds core operations alone."""

import tensorflow.compat.v1 as tf

from student import lstm
from student import lstm_layer
from training import native


def use_where_compiled(graph_def):
    """Puts our op in the place of what `student.lstm` makes of BlockLSTM, where it is compiled and no GPU is.

    Args:
      graph_def: GraphDef, changed; what gave each layer's states now is the op.
    """
    nodes = {node.name: node for node in graph_def.node}
    blocks = [node for node in graph_def.node if node.op == "BlockLSTM"]
    if not blocks or not native.ready(lstm_layer.SOURCE) or tf.config.experimental.list_physical_devices("GPU"):
        return
    lstm_layer.ops()
    readers = {name: node for node in graph_def.node for name in node.input}
    for block in blocks:
        given, result = nodes[block.input[1]], readers[block.name + ":6"]  # both turn steps and texts around
        inputs = given.input[0]
        reverse = nodes[inputs].op == "ReverseSequence"
        if reverse:
            inputs, result = nodes[inputs].input[0], readers[result.name]
        most = nodes[nodes[block.input[0]].input[0]]  # tokens of the longest text, as an int64
        _become_layer(result, [inputs, block.input[4], block.input[8], most.input[0]], reverse)


def _become_layer(node, inputs, reverse):
    node.op = "LstmLayer"
    del node.input[:]
    node.input.extend(inputs)
    node.attr.clear()
    node.attr["reverse"].b = reverse
    node.attr["forget_bias"].f = lstm.FORGET_BIAS
    node.attr["is_training"].b = False
