"""What the cases that train need: interpreters, a teacher, its cache, records; made once, in build/benchmarks."""

import collections
import os
import shutil
import subprocess
import sys

from benchmarks.turns import CHECKOUT
from training import files
from training import run_folder
from training.command import UserError

# pythons: see `find_pythons`; data_dir, unlabeled_file, vocab_file: absolute paths, "" where they are not given;
# teacher, small_teacher, student: run folders of classifiers on data_dir: BERTs of 6 x 768 and 2 x 128, and the paper's
# student, exported; cache: of the teacher's outputs; records: of unlabeled_file.
Setting = collections.namedtuple(
    "Setting", "pythons data_dir unlabeled_file vocab_file teacher small_teacher student cache records",
    defaults=[""] * 8)

TENSORFLOWS = ("tensorflow 1.15", "tensorflow 2.15")
INTEL = "intel-tensorflow 1.15"
ONNX = "ONNX Runtime"

FOLDER = os.path.join(CHECKOUT, "build", "benchmarks")
SMALL_BERT = os.path.join(CHECKOUT, "benchmarks", "small_bert.json")
VOCABULARIES = (5000, 10000, 20000, 40000)


def prepare(values, wanted):
    """The Setting of the flags.

    Args:
      values: flags of `benchmarks.run`.
      wanted: list of Case.

    Raises:
      UserError: some of the texts are given and some not.
    """
    pythons = find_pythons(values.other_python, values.intel_python, values.peers_python)
    given = [values.data_dir, values.unlabeled_file, values.vocab_file]
    if not any(given) or not any(case.needs_text for case in wanted):
        return Setting(pythons)
    if not all(given):
        raise UserError("--data_dir, --unlabeled_file, --vocab_file: all three are needed, or none")
    data_dir, unlabeled_file, vocab_file = map(os.path.abspath, given)
    texts = ["--data_dir=" + data_dir, "--vocab_file=" + vocab_file]
    teacher = _classifier("teacher", *texts, "--bert_config_file=configs/teacher.json")
    small_teacher = _classifier("small_teacher", *texts, "--bert_config_file=" + SMALL_BERT)
    student = _classifier("student", *texts, "--student_config_file=configs/student.json", "--do_export")
    cache, records = os.path.join(FOLDER, "cache"), os.path.join(FOLDER, "unlabeled.tfrecord")
    if any(case.title == "Distillation" for case in wanted):
        _run("-m", "distill.cache_teacher", "--task=classification", "--data_dir=" + data_dir, "--layers=1,3,5",
             "--unlabeled_file=" + unlabeled_file, "--teacher_checkpoint=" + teacher, "--what=logits,states",
             "--output_dir=" + cache)
    if not os.path.exists(records):
        _run("-m", "bert.create_pretraining_data", "--input_file=" + unlabeled_file, "--vocab_file=" + vocab_file,
             "--dupe_factor=1", "--max_seq_length=128", "--output_file=" + records)
    return Setting(pythons, data_dir, unlabeled_file, vocab_file, teacher, small_teacher, student, cache, records)


def _classifier(name, *flags):
    """Trains a classifier, unless it is there; returns its folder. One update: what it answers does not matter here."""
    folder = os.path.join(FOLDER, name)
    if not run_folder.finished(folder):
        shutil.rmtree(folder, ignore_errors=True)
        _run("run_classifier.py", *flags, "--num_train_steps=1", "--do_train", "--output_dir=" + folder)
    return folder


def find_pythons(other, intel, peers):
    """dict of what it has -> path of an interpreter, None where there is none.

    Args:
      other: path of one with another TensorFlow than this.
      intel: path of one with Intel's build of 1.15.
      peers: path of one with PyTorch.
    """
    found = dict.fromkeys((*TENSORFLOWS, INTEL, ONNX, "torch"))
    for path in (sys.executable, _absolute(other)):
        version = _version(path, "tensorflow")
        if version:
            found["tensorflow " + ".".join(version.split(".")[:2])] = path
        if not found[ONNX] and _version(path, "onnxruntime"):
            found[ONNX] = path
    for kind, path, package in ((INTEL, intel, "intel-tensorflow"), ("torch", peers, "torch")):
        if _version(_absolute(path), package):
            found[kind] = _absolute(path)
    return found


def _absolute(path):
    return os.path.join(CHECKOUT, path)


def _version(python, package):
    """The version of an installed package; "" without it."""
    code = ("try:\n from importlib.metadata import version\nexcept ImportError:\n from pkg_resources import "
            "get_distribution\n version = lambda name: get_distribution(name).version\nprint(version(%r))" % package)
    if not os.path.exists(python):
        return ""
    return subprocess.run([python, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          universal_newlines=True, check=False).stdout.strip()


def vocabulary(path, size):
    """A vocabulary of so many tokens: the first of a file, or all and some that no text has; returns its path."""
    target = os.path.join(FOLDER, "vocab_%d.txt" % size)
    tokens = files.read_lines(path)
    files.write_text(target, "\n".join((tokens + ["[more%d]" % number for number in range(size)])[:size]) + "\n")
    return target


def student_config(**changed):
    """Writes the JSON of the paper's student with other values; returns its path."""
    target = os.path.join(FOLDER, "student_%s.json" % "_".join(map(str, changed.values())))
    files.write_json(target, dict(files.read_json(os.path.join(CHECKOUT, "configs", "student.json")), **changed))
    return target


def repeated(path, kilobytes):
    """A text again and again up to that size; returns its path."""
    target = os.path.join(FOLDER, "text_%d.txt" % kilobytes)
    text = files.read_bytes(path)
    whole = text * (kilobytes * 1000 // len(text) + 1)
    files.write_bytes(target, whole[:kilobytes * 1000].decode("utf-8", "ignore").encode("utf-8"))
    return target


def _run(*arguments):
    if subprocess.run([sys.executable, *arguments], cwd=CHECKOUT, check=False).returncode:
        raise UserError("%s: failed, see above" % " ".join(arguments[:2]))
