"""The project's own ops: sources in C++, compiled once for this CPU and TensorFlow, loaded once.

    python -m training.native

compiles those that are not there yet, and prints where the libraries are. Training does that by itself.
"""

import functools
import glob
import hashlib
import os
import shutil
import subprocess

from training import command
import tensorflow.compat.v1 as tf

from training import files
from training.choice import Choice
from training.command import UserError

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(CHECKOUT, "build", "kernels")
HEADERS = sorted(glob.glob(os.path.join(CHECKOUT, "training", "*.h")))
# -ffp-contract=fast: products and sums in one instruction; -fno-math-errno: square roots too are vectors. No
# -ffast-math: NaN must stay NaN.
OPTIONS = ("-std=c++14", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC",
           "-I" + CHECKOUT)
COMPILERS = ("c++", "g++", "clang++")

# Whether this process, or a block of it, computes by our ops where they run: bool.
_allowed = Choice(True)
use, using = _allowed.use, _allowed.using


def available():
    """Whether this process may and can compute by our ops; tells once why it cannot."""
    return _allowed.get() and _compiles()


def ready(source):
    """Whether this process may compute by a source's ops, and they are compiled: nobody has to wait for them."""
    return _allowed.get() and os.path.exists(_library(source))


@functools.lru_cache(maxsize=None)
def _compiles():
    try:
        for source in sources():
            load(source)
    except (UserError, OSError) as error:
        print("Computing by TensorFlow's ops alone, which is slower: %s" % error, flush=True)
        return False
    return True


def sources():
    """Paths of all of them."""
    return sorted(glob.glob(os.path.join(CHECKOUT, "*", "*.cc")))


@functools.lru_cache(maxsize=None)
def load(source):
    """The module with a source's ops.

    Raises:
      UserError: there is no compiler, or it fails.
    """
    library = build(source)
    try:
        return tf.load_op_library(library)
    except tf.errors.OpError as error:
        raise UserError("%s: cannot be loaded (%s); remove it, and it is compiled again" % (library, error.message))


def build(source):
    """Path of the library for this source, TensorFlow and CPU, compiled where it is not there yet.

    Raises:
      UserError: there is no compiler, or it fails.
    """
    compiler, library = find_compiler(), _library(source)
    if os.path.exists(library):
        return library
    if not compiler:
        raise UserError("no C++ compiler was found (%s, or the one that CXX names)" % ", ".join(COMPILERS))
    with files.whole_file(library) as temporary:
        done = subprocess.run(
            [compiler, *OPTIONS, *tf.sysconfig.get_compile_flags(), source, "-o", temporary,
             *tf.sysconfig.get_link_flags()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        if done.returncode:
            raise UserError("%s cannot compile %s: %s" % (compiler, source, done.stdout.strip()[:1000]))
    return library


def _library(source):
    name = os.path.splitext(os.path.basename(source))[0]
    return os.path.join(FOLDER, "%s-%s.so" % (name, _key(source)))


def find_compiler():
    """Path of the compiler; None where there is none."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), *COMPILERS)))), None)


def _key(source):
    """Of all that a library depends on; one for another CPU would end in an illegal instruction."""
    parts = (*map(files.read_bytes, (source, *HEADERS)), tf.__version__.encode(), " ".join(OPTIONS).encode(), _cpu())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cpu():
    """What Linux tells about the first CPU's kind."""
    kinds = (b"vendor_id", b"cpu family", b"model", b"flags", b"CPU implementer", b"CPU part", b"Features")
    lines = files.read_bytes("/proc/cpuinfo").split(b"\n\n")[0].splitlines()
    return b"\n".join(line for line in lines if line.split(b":")[0].strip() in kinds)


def main():
    for source in sources():
        print(build(source))


if __name__ == "__main__":
    command.run(main, lambda: None)
