"""A BiLSTM classifier as plain arrays, for formats that are written from its weights."""

import collections

import tensorflow.compat.v1 as tf

from student.lstm import FORGET_BIAS
from training.command import UserError

GATES = ("input", "cell", "forget", "output")  # in the order of the variables' columns

# kernel: dict of gate -> float32 [U, F]; recurrent: the same, [U, U]; bias: the same, [U], what is added to the forget
# gate included.
Direction = collections.namedtuple("Direction", "kernel recurrent bias")

# table: float32 [V, E]; layers: list of (forward Direction, backward Direction); merge, pooling: as in BiLstmConfig;
# class_weights float32 [C, F], class_bias [C]; independent: whether a text may have several classes.
Recurrent = collections.namedtuple("Recurrent", "table layers merge pooling class_weights class_bias independent")


def read(config, task, checkpoint, what):
    """The `Recurrent` of a checkpoint.

    Args:
      config: the model's, as from `encoders.read_config`.
      task: Classification.
      checkpoint: its prefix.
      what: who asks, for messages.

    Raises:
      UserError: it is no BiLSTM, or its head is another than "pooled".
    """
    if config.model_type != "bilstm":
        raise UserError("%s: writes BiLSTM students, and this model is a %s; leave it out" % (what, config.model_type))
    if task.head != "pooled":
        raise UserError("%s: writes --head=pooled, and this model's is %s; leave it out" % (what, task.head))
    reader = tf.train.load_checkpoint(checkpoint)
    layers = [tuple(_direction(reader, "student/layer_%d/%s" % (layer, name)) for name in ("forward", "backward"))
              for layer in range(1, config.num_hidden_layers + 1)]
    return Recurrent(reader.get_tensor("student/embeddings/word_embeddings"), layers, config.merge, config.pooling,
                     reader.get_tensor("output_weights"), reader.get_tensor("output_bias"), task.independent_classes)


def _direction(reader, scope):
    weights, bias = [reader.get_tensor("%s/%s" % (scope, name)) for name in ("kernel", "bias")]
    units = len(bias) // len(GATES)
    features = len(weights) - units
    columns = {gate: slice(place * units, (place + 1) * units) for place, gate in enumerate(GATES)}
    biases = {gate: bias[chosen] + (FORGET_BIAS if gate == "forget" else 0.0) for gate, chosen in columns.items()}
    return Direction({gate: weights[:features, chosen].T for gate, chosen in columns.items()},
                     {gate: weights[features:, chosen].T for gate, chosen in columns.items()}, biases)
