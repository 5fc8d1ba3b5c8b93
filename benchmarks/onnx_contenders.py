"""ONNX Runtime as a peer, for `turns.race`: the student as `serving.onnx_model` writes it, random weights."""

import tempfile

from training import command  # noqa: F401  quiets TensorFlow's log
import numpy as np
import onnxruntime

from benchmarks import texts
from benchmarks import turns
from serving import onnx_model
from serving.recurrent import GATES, Direction, Recurrent


def encoder(config, batches):
    """A student's vector of each text, ids in, one batch after the other.

    Args:
      config: dict, a student's JSON.
      batches: as of `texts.drawn`.
    """
    random, units = np.random.RandomState(0), config["hidden_size"] // 2

    def draw(*shape):
        return random.normal(scale=0.1, size=shape).astype(np.float32)

    def direction(features):
        return Direction(*[{gate: draw(*shape) for gate in GATES} for shape in (
            (units, features), (units, units), (units,))])

    layers = [(direction(features), direction(features)) for features in (
        [200] + [2 * units] * (config["num_hidden_layers"] - 1))]
    recurrent = Recurrent(draw(config["vocab_size"], 200), layers, "concat", "last", draw(2, 2 * units), draw(2), False)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as stream:
        onnx_model.write(stream.name, recurrent)
        session = onnxruntime.InferenceSession(stream.name, providers=["CPUExecutionProvider"])
    feeds = [{"input_ids": ids, "input_mask": mask} for ids, mask in texts.drawn(batches, config["vocab_size"])]
    return (lambda: [session.run(["pooled_output"], feed) for feed in feeds]), {"onnxruntime": onnxruntime.__version__}


if __name__ == "__main__":
    turns.serve({"encoder": encoder})
