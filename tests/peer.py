"""Google's own code as a test-only peer, from the wheel `bert-tensorflow` in the package index.

The wheel is never installed (its package is called `bert` too): it is fetched once into `build/peer`,
its hash checked, and single files of it are loaded by path under other names.
"""

import functools
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile

import pytest
from absl import flags

from training import files

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(CHECKOUT, "build", "peer")
WHEEL = "bert_tensorflow-1.0.4-py2.py3-none-any.whl"
REQUIREMENT = "bert-tensorflow==1.0.4"
SHA256 = "f880680a03fbf637c217443b7d3d8969d0b3aef4822b4ea13c2a124498dd21a0"


def google_tokenization():
    """Google's `tokenization` module; skips the test where it cannot be had."""
    module = _load("tokenization")
    # It reads an absl flag of its own at every word.
    flags.FLAGS.mark_as_parsed()
    return module


def google_modeling():
    """Google's `modeling` module, which needs `tf.contrib`: skips the test but on TensorFlow 1.x."""
    import tensorflow as tf
    if not tf.__version__.startswith("1."):
        pytest.skip("Google's modeling.py needs TensorFlow 1.x, here is %s" % tf.__version__)
    return _load("modeling")


def google_pretraining():
    """Google's `run_pretraining` module, over their `modeling` and `optimization`."""
    script = _load("run_pretraining")
    script.modeling, script.optimization = google_modeling(), _load("optimization")  # it has imported ours
    return script


def google_command(name, *arguments):
    """(command line, folder, environment) of one of Google's scripts, its own `bert` package before ours."""
    folder = os.path.dirname(os.path.dirname(_path("__init__")))
    for needed in ("tokenization", name):
        _path(needed)
    line = [sys.executable, os.path.join(folder, "bert", name + ".py")] + list(arguments)
    return line, folder, dict(os.environ, PYTHONPATH=folder)


def run_google_script(name, *arguments):
    """Runs one of Google's scripts in a process of its own, where its flags do not clash with ours."""
    line, folder, environment = google_command(name, *arguments)
    return subprocess.run(line, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


def _load(name):
    return _module("google_%s" % name, _path(name))


def _path(name):
    """One unpacked file of the wheel; skips the test where it cannot be had."""
    path, problem = _file("bert/%s.py" % name)
    if problem:
        pytest.skip(problem)
    return path


@functools.lru_cache(maxsize=None)
def _module(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _file(member):
    """(path of one unpacked file of the wheel, None), or (None, why not)."""
    problem = _fetch()
    if problem:
        return None, problem
    path = os.path.join(FOLDER, "unpacked", member)
    with zipfile.ZipFile(os.path.join(FOLDER, WHEEL)) as wheel:
        # Whole at once: the tests of both Python versions may run side by side.
        files.write_bytes(path, wheel.read(member))
    return path, None


@functools.lru_cache(maxsize=None)
def _fetch():
    """Brings the wheel into `FOLDER` once; None, or in a line what hindered it."""
    target = os.path.join(FOLDER, WHEEL)
    if _is_whole(target):
        return None
    os.makedirs(FOLDER, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        requirements = os.path.join(folder, "requirements.txt")
        with open(requirements, "w") as stream:
            stream.write("%s --hash=sha256:%s\n" % (REQUIREMENT, SHA256))
        try:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
                 "--require-hashes", "--quiet", "--disable-pip-version-check", "--retries=1",
                 "--dest", folder, "-r", requirements],
                check=True, timeout=60, stderr=subprocess.PIPE, universal_newlines=True)
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().splitlines() or ["no reason given"]
            return "%s cannot be had from the package index: %s" % (REQUIREMENT, said[-1])
        except subprocess.TimeoutExpired:
            return "%s cannot be had: the package index did not answer" % REQUIREMENT
        os.replace(os.path.join(folder, WHEEL), target)
    return None


def _is_whole(path):
    if not os.path.exists(path):
        return False
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest() == SHA256
