"""One chain of runs of the real commands, from a corpus to an export, that the tests of the commands share.

Each fixture is a step, run when the first test asks for it, and never changed by a test.
"""

import collections
import os

import pytest

from tests import commands
from tests import tiny

# folder: its --output_dir; command: what was run; result: commands.Result.
Step = collections.namedtuple("Step", "folder command result")

World = collections.namedtuple("World", "folder corpus vocabulary task several unlabeled teacher student")

TRAINING = ("--train_batch_size=16", "--log_steps=10")


@pytest.fixture(scope="session")
def forks():
    server = commands.Forks()
    yield server
    server.close()


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The files a user begins with."""
    folder = str(tmp_path_factory.mktemp("world"))

    def at(name):
        return os.path.join(folder, name)

    vocabulary, size = tiny.write_vocabulary(at("vocab.txt"))
    return World(
        folder, tiny.write_corpus(at("corpus.txt")), vocabulary, tiny.write_task(at("task")),
        tiny.write_task(at("several"), tiny.several_topics),
        tiny.write_lines(at("unlabeled.txt"), [text for _, text in tiny.texts(60, seed=9)]),
        tiny.write_model(at("teacher.json"), tiny.TEACHER, size),
        tiny.write_model(at("student.json"), tiny.STUDENT, size))


def step(run, world, name, *command):
    """Runs a training command in a folder of its own; it must end well."""
    folder = os.path.join(world.folder, name)
    command = command + TRAINING + ("--output_dir=" + folder,)
    result = run(*command)
    assert result.code == 0, result.err
    return Step(folder, command, result)


@pytest.fixture(scope="session")
def corpus_records(world, forks):
    """TFRecords of the corpus."""
    path = os.path.join(world.folder, "corpus.tfrecord")
    result = forks.run("bert.create_pretraining_data", "--input_file=" + world.corpus,
                       "--output_file=" + path, "--vocab_file=" + world.vocabulary,
                       "--max_seq_length=%d" % tiny.MAX_LENGTH, "--dupe_factor=2", "--num_workers=1")
    assert result.code == 0, result.err
    return path


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
