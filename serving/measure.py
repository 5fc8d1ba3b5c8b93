"""What a model of an export answers, how fast, and in how much memory: measured in a process of its own, one thread.

    measured = run("export/1700000000/tflite/model_int8.tflite", rows)

As a command, for `run` alone: python -m serving.measure MODEL ROWS ANSWERS
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from training import command  # noqa: F401  quiets TensorFlow's log
import numpy as np
import tensorflow.compat.v1 as tf

from bert.records import SEQUENCE
from training import calls

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(path, rows):
    """Runs a model over texts, one at a time.

    Args:
      path: a .tflite or .onnx file, or the folder of a SavedModel.
      rows: list of lists of ids, without padding.

    Returns:
      dict of "probabilities" float32 [N, C]; "milliseconds", the median of a text; "megabytes", what memory grew by at
      most from before the model was loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, answers = os.path.join(folder, "rows.json"), os.path.join(folder, "answers.npy")
        with open(given, "w", encoding="utf-8") as stream:
            json.dump(rows, stream)
        done = subprocess.run([sys.executable, "-m", "serving.measure", os.path.abspath(path), given, answers],
                              cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode:
            raise RuntimeError("%s: %s" % (path, done.stderr.decode("utf-8", "replace").strip()))
        return dict(json.loads(done.stdout.decode().splitlines()[-1]), probabilities=np.load(answers))


def _main(path, given, answers):
    with open(given, encoding="utf-8") as stream:
        rows = json.load(stream)
    _forget_peak()
    before = _peak_megabytes()
    predict = _opened(path)
    seconds, found = [], []
    for row in rows:
        start = time.perf_counter()
        found.append(predict(row))
        seconds.append(time.perf_counter() - start)
    np.save(answers, np.array(found, np.float32))
    print(json.dumps({"milliseconds": 1e3 * float(np.median(seconds)), "megabytes": _peak_megabytes() - before}))


def milliseconds(path, lengths, repetitions=9):
    """Median of one text in a SavedModel, in this process, as many threads as TensorFlow takes.

    Args:
      path: its folder.
      lengths: tokens of a text: ints.
      repetitions: counted ones, behind one that is not.

    Returns:
      list of float, one a length.
    """
    predict, found = _saved_model(path, tf.ConfigProto()), []
    for length in lengths:
        seconds = [_seconds(predict, [1] * length) for _ in range(repetitions + 1)]
        found.append(1e3 * float(np.median(seconds[1:])))
    return found


def _seconds(predict, row):
    start = time.perf_counter()
    predict(row)
    return time.perf_counter() - start


def _forget_peak():
    """Sets the kernel's record of this process's peak to what it holds now: importing took more for a while."""
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as stream:
        stream.write("5")


def _peak_megabytes():
    with open("/proc/self/status", encoding="utf-8") as stream:
        return next(int(line.split()[1]) / 1e3 for line in stream if line.startswith("VmHWM"))


def _opened(path):
    """A function of the ids of one text -> float32 [C]."""
    return {".tflite": _tflite, ".onnx": _onnx}.get(os.path.splitext(path)[1], _saved_model)(path)


def _tflite(path):
    model = tf.lite.Interpreter(model_path=path)
    given, answer = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]

    def predict(ids):
        model.resize_tensor_input(given, [1, len(ids)])
        model.allocate_tensors()
        model.reset_all_variables()
        model.set_tensor(given, np.array([ids], np.int32))
        model.invoke()
        return model.get_tensor(answer)[0]

    return predict


def _onnx(path):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda ids: session.run(["probabilities"], {
        "input_ids": np.array([ids], np.int32), "input_mask": np.ones([1, len(ids)], np.int32)})[0][0]


ONE_THREAD = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)


def _saved_model(path, config=ONE_THREAD):
    session = tf.Session(graph=tf.Graph(), config=config)
    with session.graph.as_default():
        found = tf.saved_model.loader.load(session, [tf.saved_model.tag_constants.SERVING], path)
    signature = found.signature_def["serving_default"]
    run = calls.prepared(session, signature.outputs["probabilities"].name,
                         [signature.inputs[name].name for name in SEQUENCE])
    return lambda ids: run(*[np.array([row], np.int32) for row in (ids, [1] * len(ids), [0] * len(ids))])[0]


if __name__ == "__main__":
    _main(*sys.argv[1:])
