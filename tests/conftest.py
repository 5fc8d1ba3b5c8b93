"""One chain of runs of the real commands, from a corpus to an export, that the tests of the commands share.

Each fixture is a step, run when the first test asks for it, whichever of pytest's workers that is in, and never
changed by a test.
"""

import collections
import fcntl
import json
import os

import pytest

from tests import commands
from tests import forks as forked_commands
from tests import quick  # noqa: F401
from tests import tiny

# folder: its --output_dir; command: what was run; result: commands.Result.
Step = collections.namedtuple("Step", "folder command result")

World = collections.namedtuple("World", "folder corpus vocabulary task several unlabeled teacher student")

TRAINING = ("--train_batch_size=16", "--log_steps=10")


@pytest.fixture(scope="session")
def forks():
    """What runs commands in less time than `commands` does."""
    return forked_commands


def once(folder, name, make):
    """What `make()` returns, in JSON's types; the worker that asks first makes it, the others wait for it."""
    with open(os.path.join(folder, name + ".made"), "a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        made = stream.read()
        if not made:
            made = json.dumps(make())
            stream.write(made)
    return json.loads(made)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The files a user begins with."""
    base = tmp_path_factory.getbasetemp()  # of this worker, in that of all
    folder = str(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)

    def at(name):
        return os.path.join(folder, "world", name)

    def make():
        vocabulary, size = tiny.write_vocabulary(at("vocab.txt"))
        return World(
            os.path.dirname(vocabulary), tiny.write_corpus(at("corpus.txt")), vocabulary, tiny.write_task(at("task")),
            tiny.write_task(at("several"), tiny.several_topics),
            tiny.write_lines(at("unlabeled.txt"), [text for _, text in tiny.texts(60, seed=9)]),
            tiny.write_model(at("teacher.json"), tiny.TEACHER, size),
            tiny.write_model(at("student.json"), tiny.STUDENT, size))

    return World(*once(folder, "world", make))


def step(run, world, name, *command):
    """Runs a training command in a folder of its own; it must end well."""
    folder = os.path.join(world.folder, name)
    command = command + TRAINING + ("--output_dir=" + folder,)

    def make():
        result = run(*command)
        assert result.code == 0, result.err
        return result

    return Step(folder, command, commands.Result(*once(world.folder, name, make)))


@pytest.fixture(scope="session")
def corpus_records(world, forks):
    """TFRecords of the corpus."""
    path = os.path.join(world.folder, "corpus.tfrecord")

    def make():
        result = forks.run("bert.create_pretraining_data", "--input_file=" + world.corpus,
                           "--output_file=" + path, "--vocab_file=" + world.vocabulary,
                           "--max_seq_length=%d" % tiny.MAX_LENGTH, "--dupe_factor=2", "--num_workers=1")
        assert result.code == 0, result.err
        return path

    return once(world.folder, "corpus.tfrecord", make)


@pytest.fixture(scope="session")
def teacher(world, corpus_records):
    """A BERT, pre-trained."""
    return step(commands.run, world, "teacher", "run_pretraining.py", "--input_file=" + corpus_records,
                "--bert_config_file=" + world.teacher, "--vocab_file=" + world.vocabulary, "--do_train",
                "--learning_rate=1e-3", "--num_train_steps=20")


@pytest.fixture(scope="session")
def teacher_classifier(world, teacher):
    """The BERT, fine-tuned; tested, and exported."""
    return step(commands.run, world, "teacher_classifier", "run_classifier.py", "--data_dir=" + world.task,
                "--init_checkpoint=" + teacher.folder, "--max_seq_length=%d" % tiny.MAX_LENGTH,
                "--do_train", "--do_eval", "--do_predict", "--do_export", "--num_train_steps=30",
                "--save_checkpoints_steps=30", "--learning_rate=3e-3")


@pytest.fixture(scope="session")
def student(world, forks, corpus_records, teacher):
    """A BiLSTM, distilled from the teacher on the corpus."""
    return step(forks.run, world, "student", "run_distill.py", "--task=masked_lm",
                "--input_file=" + corpus_records, "--eval_file=" + corpus_records,
                "--teacher_checkpoint=" + teacher.folder, "--student_config_file=" + world.student,
                "--do_train", "--do_eval", "--num_train_steps=10", "--learning_rate=1e-2")


@pytest.fixture(scope="session")
def student_classifier(world, forks, teacher_classifier, student):
    """The BiLSTM, distilled from the fine-tuned teacher on the task."""
    return step(forks.run, world, "student_classifier", "run_distill.py", "--task=classification",
                "--data_dir=" + world.task, "--unlabeled_file=" + world.unlabeled,
                "--teacher_checkpoint=" + teacher_classifier.folder, "--init_checkpoint=" + student.folder,
                "--do_train", "--do_eval", "--do_predict", "--do_export", "--num_train_steps=60",
                "--save_checkpoints_steps=30", "--learning_rate=2e-2")


@pytest.fixture(scope="session")
def frozen_classifier(world, forks, student_classifier):
    """The distilled BiLSTM as it is, under a new head of convolutions."""
    return step(forks.run, world, "frozen_classifier", "run_classifier.py", "--data_dir=" + world.task,
                "--init_checkpoint=" + student_classifier.folder, "--head=cnn", "--freeze_encoder", "--do_train",
                "--do_eval", "--do_predict", "--do_export", "--num_train_steps=30", "--save_checkpoints_steps=30",
                "--learning_rate=1e-2")


@pytest.fixture(scope="session")
def several_classifier(world, forks):
    """A BiLSTM, trained on texts that may have several labels."""
    return step(forks.run, world, "several_classifier", "run_classifier.py", "--data_dir=" + world.several,
                "--label_separator=,", "--class_weights=balanced", "--student_config_file=" + world.student,
                "--vocab_file=" + world.vocabulary, "--do_train", "--do_eval", "--do_predict", "--do_export",
                "--num_train_steps=80", "--save_checkpoints_steps=40", "--learning_rate=2e-2")
