"""What is measured: for each case its races, and who takes part in them."""

import collections
import os
import subprocess
import sys

from benchmarks.turns import CHECKOUT, Contender

# title, text: for the page; races: function of `find_pythons` -> list of (title, work of a repetition as (amount,
# unit), list of Contender, the first is what the others are compared with).
Case = collections.namedtuple("Case", "title text races")

TENSORFLOW, TORCH = "benchmarks.tensorflow_contenders", "benchmarks.torch_contenders"
TENSORFLOWS = ("tensorflow 1.15", "tensorflow 2.15")


def find_pythons(other, peers):
    """dict of what it has -> path of an interpreter, None where there is none.

    Args:
      other: path of one with another TensorFlow than this.
      peers: path of one with PyTorch.
    """
    found = dict.fromkeys((*TENSORFLOWS, "torch"))
    for path in (sys.executable, _absolute(other)):
        version = _version(path, "tensorflow")
        if version:
            found["tensorflow " + ".".join(version.split(".")[:2])] = path
    if _version(_absolute(peers), "torch"):
        found["torch"] = _absolute(peers)
    return found


def _absolute(path):
    return os.path.join(CHECKOUT, path)


def _version(python, package):
    """The version of an installed package; "" without it."""
    code = "import pkg_resources; print(pkg_resources.get_distribution(%r).version)" % package
    if not os.path.exists(python):
        return ""
    return subprocess.run([python, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          universal_newlines=True, check=False).stdout.strip()


def _present(contenders):
    """Those whose interpreter is there."""
    return [contender for contender in contenders if contender.python]


def _matrix_products(pythons):
    """TensorFlow's rate against the machine's, for the sizes that matter."""
    races = []
    for rows, depth, columns in ((4096, 200, 800), (4096, 400, 800), (4096, 768, 3072)):
        arguments = {"rows": rows, "depth": depth, "columns": columns}
        contenders = [Contender("PyTorch (oneDNN)", pythons["torch"], TORCH, "matrix_product", arguments)] + [
            Contender(kind, pythons[kind], TENSORFLOW, "matrix_product", arguments) for kind in TENSORFLOWS]
        races.append(("[%d x %d] times [%d x %d]" % (rows, depth, depth, columns),
                      (2e-9 * rows * depth * columns, "GFLOP"), _present(contenders)))
    return races


def _lstm_stacks(sizes, train):
    """Races of `lstm_stack`; sizes: list of (batch, length)."""
    def races(pythons):
        found = []
        for batch, length in sizes:
            for units in (100, 200):
                arguments = {"units": units, "batch": batch, "length": length, "train": train}
                contenders = [Contender("PyTorch nn.LSTM", pythons["torch"], TORCH, "lstm_stack", arguments)] + [
                    Contender("%s, %s" % (kernel, kind), pythons[kind], TENSORFLOW, "lstm_stack",
                              dict(arguments, kernel=kernel))
                    for kind in reversed(TENSORFLOWS) for kernel in ("native", "block")]
                found.append(("batch %d, L %d, %d units a direction" % (batch, length, units),
                              (_lstm_gflop(units, batch, length) * (3 if train else 1), "GFLOP"), _present(contenders)))
        return found

    return races


def _lstm_gflop(units, batch, length, features=200, layers=3):
    """Products of three layers in two directions, forward."""
    widths = [features] + [2 * units] * (layers - 1)
    return sum(2e-9 * batch * length * 2 * (width + units) * 4 * units for width in widths)


CASES = collections.OrderedDict([
    ("matrix_product", Case(
        "Matrix products", "What the machine gives, and what TensorFlow gets of it: float32, two threads.",
        _matrix_products)),
    ("lstm_training", Case(
        "The BiLSTM, one training step", "Three layers over vectors of 200, every text full: forward and the gradient "
        "of every weight and of the input, without embeddings and optimizer.", _lstm_stacks([(32, 128)], train=True))),
    ("lstm_inference", Case(
        "The BiLSTM, forward", "The same three layers. `native` serves training and this project's own processes; what "
        "is exported is computed by `block`.", _lstm_stacks([(1, 32), (1, 128), (32, 32), (32, 128)], train=False)))])
