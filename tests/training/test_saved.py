"""Checkpoints of a run: damaged, gone, half written; weights that are no numbers."""

import os
import shutil
import threading

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import checkpoints
from tests import tiny
from training import run_folder
from training import saved
from training.command import UserError

VALUES = {"student/layer_0/kernel": np.arange(2000, dtype=np.float32).reshape(40, 50), "global_step": np.int64(7)}


@pytest.fixture
def folder(tmp_path):
    """A run folder with checkpoints of step 10 and 20."""
    names = []
    for step in (10, 20):
        checkpoints.write(VALUES, saved.prefix_of(str(tmp_path), step))
        names.append("model.ckpt-%d" % step)
    tf.train.update_checkpoint_state(str(tmp_path), names[-1], names)
    return str(tmp_path)


def change(path, position, size=1):
    with open(path, "r+b") as stream:
        stream.seek(position)
        old = stream.read(size)
        stream.seek(position)
        stream.write(bytes(value ^ 0x40 for value in old))


DATA, INDEX = ".data-00000-of-00001", ".index"


@pytest.mark.parametrize("name, harm", [
    (DATA, lambda path: change(path, 4000)), (DATA, lambda path: os.truncate(path, 4000)),
    (DATA, lambda path: os.truncate(path, 0)), (DATA, os.remove), (INDEX, lambda path: os.truncate(path, 60)),
    (INDEX, lambda path: os.truncate(path, 0)), (INDEX, lambda path: change(path, 20, 8)),
    (INDEX, lambda path: change(path, os.path.getsize(path) - 8, 8))])
def test_a_damaged_checkpoint_is_named_and_the_others_are_offered(name, harm, folder):
    harm(saved.prefix_of(folder, 20) + name)
    with pytest.raises(UserError) as error:
        saved.verify(saved.prefix_of(folder, 20))
    told = str(error.value)
    assert told.startswith(saved.prefix_of(folder, 20) + ": damaged: ")
    assert told.endswith("; to go back to the last whole one of those of step 10: "
                         "python -m bert.checkpoints repair --output_dir=" + folder)
    assert saved.repair(folder) == ([20], 10)
    assert saved.last_step(folder) == 10 and saved.steps_of(folder) == [10]
    assert tf.train.latest_checkpoint(folder) == saved.prefix_of(folder, 10)


def test_a_run_that_is_named_from_the_working_directory_is_repaired_alike(folder, monkeypatch):
    monkeypatch.chdir(os.path.dirname(folder))
    relative = os.path.basename(folder)
    change(saved.prefix_of(folder, 20) + DATA, 4000)
    assert saved.repair(relative) == ([20], 10)
    assert saved.last(relative) == saved.prefix_of(relative, 10)
    assert tf.train.latest_checkpoint(folder) == saved.prefix_of(folder, 10)


def test_a_whole_one_is_read_and_stays(folder):
    saved.verify(saved.prefix_of(folder, 20))
    assert saved.repair(folder) == ([], 20) and saved.steps_of(folder) == [10, 20]


def test_of_a_damaged_one_that_stands_alone_nothing_is_offered(folder):
    saved.remove(saved.prefix_of(folder, 10))
    change(saved.prefix_of(folder, 20) + DATA, 4000)
    with pytest.raises(UserError, match="; no other stands in " + folder):
        saved.verify(saved.prefix_of(folder, 20))
    assert saved.repair(folder) == ([20], None) and saved.last(folder) is None


@pytest.mark.parametrize("harm", [
    lambda folder: saved.remove(saved.prefix_of(folder, 20)),
    lambda folder: os.remove(os.path.join(folder, "checkpoint")),
    lambda folder: os.truncate(os.path.join(folder, "checkpoint"), 0),
    lambda folder: change(os.path.join(folder, "checkpoint"), 0, 30)])
def test_a_run_whose_last_checkpoint_cannot_be_told_does_not_begin_anew(harm, folder):
    harm(folder)
    with pytest.raises(UserError, match="checkpoint: damaged, or names a checkpoint that is gone; .* repair "):
        saved.last(folder)
    saved.repair(folder)
    assert saved.last_step(folder) in (10, 20)


def test_one_who_looks_while_a_run_saves_finds_a_checkpoint_and_never_damage(tmp_path):
    folder = str(tmp_path)

    def save_and_remove():
        for step in range(400):  # the first is of step 0, as of every run
            tiny.write_lines(saved.prefix_of(folder, step) + INDEX, [])
            tf.train.update_checkpoint_state(folder, "model.ckpt-%d" % step)
            saved.remove(saved.prefix_of(folder, step - 1))

    run = threading.Thread(target=save_and_remove)
    run.start()
    seen = [0]
    while run.is_alive():
        seen.append(saved.last_step(folder))
    assert seen == sorted(seen) and saved.last_step(folder) == 399


def test_a_folder_that_was_moved_has_its_checkpoints_still(folder, tmp_path):
    shutil.copytree(folder, str(tmp_path / "moved"))
    assert saved.last(str(tmp_path / "moved")) == saved.prefix_of(str(tmp_path / "moved"), 20)


def test_a_run_killed_while_it_saved_its_very_first_checkpoint_begins_anew(folder):
    for step in (10, 20):
        saved.remove(saved.prefix_of(folder, step))
    os.remove(os.path.join(folder, "checkpoint"))
    checkpoints.write(VALUES, saved.prefix_of(folder, 0))
    assert saved.last(folder) is None and saved.last_step(folder) == 0


def test_what_a_killed_save_left_is_swept_and_nothing_else(folder):
    before = sorted(os.listdir(folder))
    os.mkdir(saved.prefix_of(folder, 30) + "_temp_0a1b")
    for name in ("model.ckpt-30_temp_0a1b/part", "run.json.tmp-123"):
        with open(os.path.join(folder, name), "w"):
            pass
    saved.sweep(folder)
    assert sorted(os.listdir(folder)) == before


def train(folder, num_steps, is_due, broken_at=None):
    """Counts up under a CheckpointHook; the weight is no number after an update."""
    with tf.Graph().as_default():
        step = tf.train.get_or_create_global_step()
        weight = tf.get_variable("weight", [], initializer=tf.zeros_initializer())
        with tf.control_dependencies([weight.assign_add(np.inf) if broken_at is None else weight.assign(
                tf.where(tf.equal(step.read_value() + 1, broken_at), np.nan, 1.0))]):
            update = step.assign_add(1)
        with tf.train.MonitoredTrainingSession(hooks=[saved.CheckpointHook(folder, is_due)]) as session:
            for _ in range(num_steps):
                session.run(update)


def test_checkpoints_stand_where_they_are_due(tmp_path):
    train(str(tmp_path), 7, lambda step: step in (3, 4, 7), broken_at=100)
    assert saved.steps_of(str(tmp_path)) == [0, 3, 4, 7]
    assert tf.train.latest_checkpoint(str(tmp_path)) == saved.prefix_of(str(tmp_path), 7)


def test_no_graph_is_written(tmp_path):
    train(str(tmp_path), 1, lambda step: True, broken_at=100)
    assert not [name for name in os.listdir(str(tmp_path)) if "graph" in name or "meta" in name]


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    train(str(tmp_path), 4, lambda step: True, broken_at=3)
    assert saved.steps_of(str(tmp_path)) == [0, 1, 2, 4]
    train(str(tmp_path / "infinite"), 2, lambda step: True)
    assert saved.steps_of(str(tmp_path / "infinite")) == [0]


def test_a_step_that_a_signal_stopped_at_is_forgotten_when_the_run_is_finished(tmp_path):
    folder = str(tmp_path)
    assert run_folder.stopped_at(folder) is None
    run_folder.stop(folder, 5)
    assert run_folder.stopped_at(folder) == 5
    run_folder.finish(folder, {"steps": 6})
    assert os.listdir(folder) == ["finished.json"]
