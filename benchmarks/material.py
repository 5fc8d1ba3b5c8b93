"""What the cases that train need: interpreters, a teacher, its cache, records; made once, in build/benchmarks."""

import os
import shutil
import subprocess
import sys

from benchmarks import cases
from benchmarks.turns import CHECKOUT
from training import run_folder
from training.command import UserError

FOLDER = os.path.join(CHECKOUT, "build", "benchmarks")


def prepare(values, wanted):
    """The `cases.Setting` of the flags.

    Args:
      values: flags of `benchmarks.run`.
      wanted: list of Case.

    Raises:
      UserError: some of the texts are given and some not.
    """
    pythons = cases.find_pythons(values.other_python, values.peers_python)
    given = [values.data_dir, values.unlabeled_file, values.vocab_file]
    if not any(given) or not any(case.needs_text for case in wanted):
        return cases.Setting(pythons, "", "", "", "", "", "")
    if not all(given):
        raise UserError("--data_dir, --unlabeled_file, --vocab_file: all three are needed, or none")
    data_dir, unlabeled_file, vocab_file = map(os.path.abspath, given)
    teacher, cache = os.path.join(FOLDER, "teacher"), os.path.join(FOLDER, "cache")
    records = os.path.join(FOLDER, "unlabeled.tfrecord")
    if not run_folder.finished(teacher):  # one update: what it answers does not matter here
        shutil.rmtree(teacher, ignore_errors=True)
        _run("run_classifier.py", "--data_dir=" + data_dir, "--vocab_file=" + vocab_file, "--num_train_steps=1",
             "--bert_config_file=configs/teacher.json", "--do_train", "--output_dir=" + teacher)
    if any(case.title == "Distillation" for case in wanted):
        _run("-m", "distill.cache_teacher", "--task=classification", "--data_dir=" + data_dir, "--layers=1,3,5",
             "--unlabeled_file=" + unlabeled_file, "--teacher_checkpoint=" + teacher, "--what=logits,states",
             "--output_dir=" + cache)
    if not os.path.exists(records):
        _run("-m", "bert.create_pretraining_data", "--input_file=" + unlabeled_file, "--vocab_file=" + vocab_file,
             "--dupe_factor=1", "--max_seq_length=128", "--output_file=" + records)
    return cases.Setting(pythons, data_dir, unlabeled_file, vocab_file, teacher, cache, records)


def _run(*arguments):
    if subprocess.run([sys.executable, *arguments], cwd=CHECKOUT, check=False).returncode:
        raise UserError("%s: failed, see above" % " ".join(arguments[:2]))
