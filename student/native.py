"""recurrence.cc as ops of this process: compiled once for this CPU and TensorFlow, loaded once.

    python -m student.native

compiles it, if it is not there yet, and prints where the library is. Training does that by itself.
"""

import functools
import hashlib
import os
import shutil
import subprocess

from training import command
import tensorflow.compat.v1 as tf

from training import files
from training.command import UserError

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recurrence.cc")
FOLDER = os.path.join(os.path.dirname(os.path.dirname(SOURCE)), "build", "kernels")
# -ffp-contract=fast: products and sums in one instruction. No -ffast-math: NaN must stay NaN.
OPTIONS = ("-std=c++14", "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")
COMPILERS = ("c++", "g++", "clang++")


def load():
    """The module with the ops `lstm_recurrence` and `lstm_recurrence_grad`; the first has its gradient.

    Raises:
      UserError: there is no compiler, or it fails.
    """
    return _load(build())


@functools.lru_cache(maxsize=None)
def _load(library):
    try:
        ops = tf.load_op_library(library)
    except tf.errors.OpError as error:
        raise UserError("%s: cannot be loaded (%s); remove it, and it is compiled again" % (library, error.message))

    @tf.RegisterGradient("LstmRecurrence")
    def _gradient(op, of_hidden, *_):
        return _recurrence_gradient(ops, op, of_hidden)

    return ops


def _recurrence_gradient(ops, op, of_hidden):
    """Of the gates [B, S, 4 U] and of the kernel [U, 4 U]."""
    _, kernel, lengths = op.inputs
    hidden, activations, cells = op.outputs
    reverse = op.get_attr("reverse")
    of_gates = ops.lstm_recurrence_grad(of_hidden, kernel, lengths, activations, cells, reverse=reverse)
    units, width = kernel.shape.as_list()
    first = tf.zeros_like(hidden[:, :1])
    before = tf.concat([hidden[:, 1:], first] if reverse else [first, hidden[:, :-1]], axis=1)
    of_kernel = tf.matmul(tf.reshape(before, [-1, units]), tf.reshape(of_gates, [-1, width]), transpose_a=True)
    return of_gates, of_kernel, None


def build():
    """Path of the library for this source, TensorFlow and CPU, compiled where it is not there yet.

    Raises:
      UserError: there is no compiler, or it fails.
    """
    compiler = find_compiler()
    library = os.path.join(FOLDER, "recurrence-%s.so" % _key())
    if os.path.exists(library):
        return library
    if not compiler:
        raise UserError("--lstm_kernel=native: no C++ compiler was found (%s, or the one that CXX names)"
                        % ", ".join(COMPILERS))
    with files.whole_file(library) as temporary:
        done = subprocess.run(
            [compiler, *OPTIONS, *tf.sysconfig.get_compile_flags(), SOURCE, "-o", temporary,
             *tf.sysconfig.get_link_flags()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        if done.returncode:
            raise UserError("--lstm_kernel=native: %s cannot compile %s: %s"
                            % (compiler, SOURCE, done.stdout.strip()[:1000]))
    return library


def find_compiler():
    """Path of the compiler; None where there is none."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), *COMPILERS)))), None)


def _key():
    """Of all that a library depends on; one for another CPU would end in an illegal instruction."""
    parts = (files.read_bytes(SOURCE), tf.__version__.encode(), " ".join(OPTIONS).encode(), _cpu())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cpu():
    """What Linux tells about the first CPU's kind."""
    kinds = (b"vendor_id", b"cpu family", b"model", b"flags", b"CPU implementer", b"CPU part", b"Features")
    lines = files.read_bytes("/proc/cpuinfo").split(b"\n\n")[0].splitlines()
    return b"\n".join(line for line in lines if line.split(b":")[0].strip() in kinds)


def main():
    print(build())


if __name__ == "__main__":
    command.run(main, lambda: None)
