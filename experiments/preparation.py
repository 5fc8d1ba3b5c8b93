"""What the tables need before the first row: a fine-tuned teacher for each fold, and what the teachers answer."""

import os
import shlex

from experiments import cells
from training import run_folder


def is_classifier(teacher):
    """Whether a checkpoint is a run folder of run_classifier.py."""
    return os.path.exists(os.path.join(teacher, "labels.txt"))


def fine_tune(given, data_dirs, output_dir, flags):
    """The teacher of each data folder: list of run folders; what is given where it is a classifier, else fine-tuned.

    Args:
      given: list of absolute paths, of --teacher_checkpoint: a classifier for each data folder, or one model.
      data_dirs: list of paths.
      output_dir: of the table.
      flags: of run_classifier.py, as on a command line.
    """
    if is_classifier(given[0]):
        return given
    made = [os.path.join(output_dir, "teachers", "fold_%d" % number) for number in range(1, len(data_dirs) + 1)]
    for number, (data_dir, folder) in enumerate(zip(data_dirs, made), start=1):
        if not run_folder.finished(folder):
            print("\n== teacher %d/%d" % (number, len(made)), flush=True)
            cells.run(["run_classifier.py", "--data_dir=" + data_dir, "--init_checkpoint=" + given[0],
                       "--output_dir=" + folder, "--do_train", *shlex.split(flags)])
    return made


def cache(teachers, data_dirs, unlabeled, folder):
    """Writes what each teacher answers to its texts; returns the caches, folders in `folder`."""
    made = [os.path.join(folder, "fold_%d" % number) for number in range(1, len(data_dirs) + 1)]
    for teacher, data_dir, target in zip(teachers, data_dirs, made):
        cells.run(["-m", "distill.cache_teacher", "--task=classification", "--data_dir=" + data_dir,
                   "--teacher_checkpoint=" + teacher, "--what=logits,states", "--output_dir=" + target]
                  + (["--unlabeled_file=" + unlabeled] if unlabeled else []))
    return made
