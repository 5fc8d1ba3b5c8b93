import os
import signal

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import checkpoints
from bert import records
from bert.optimization import Schedule
from tasks import measuring
from tasks.model_fn import task_model_fn
from tests import batches
from tests import graphs
from training import files
from training import interruption
from training import loop
from training import run_folder
from training import runtime
from training import saved

TASK = batches.TASKS["classification"]
CONFIG = batches.bilstm(layers=1, dropout=0.3)
STEPS = 8
# Measured: 0. Other masks are off by 1e-2.
SAME_RUN = 1e-7


class Checkpoints:
    """Plays training for a Selection: saves files, and measures what is said in advance.

    Attributes:
      measured: steps that were measured, in order.
    """

    def __init__(self, folder, figures, patience=0, **settings):
        self.folder, self.measured = str(folder), []
        self._figures, self._settings = figures, dict({"select_by": "accuracy"}, **settings)
        self._patience = patience
        self.selection = self.new_selection()

    def new_selection(self):
        """As a process that goes on makes it."""
        selection = loop.Selection(self.folder, self.copy, self.evaluate, **self._settings)
        selection.begin_stage(0, self._patience)
        return selection

    def evaluate(self, checkpoint):
        step = int(checkpoint.rsplit("-", 1)[1])
        self.measured.append(step)
        return {"accuracy": self._figures[step], "classes": ["more"], "texts": 9}

    def copy(self, checkpoint, target):
        files.write_text(target + ".index", os.path.basename(checkpoint))

    def save(self, *steps):
        """Whether training was to stop after the last of the steps."""
        return [self.selection.after_save(None, np.int64(step)) for step in steps][-1]

    def best(self):
        """(name of the checkpoint in best/, step in its figures)."""
        with open(os.path.join(self.folder, "best", "model.ckpt.index")) as stream:
            return stream.read(), run_folder.best_figures(self.folder)["step"]

    def listed(self):
        return [found["step"] for found in files.read_json(os.path.join(self.folder, "evaluations.json"))]


@pytest.mark.parametrize("figures, better, best", [
    ({1: 0.2, 2: 0.5, 3: 0.4}, max, 2), ({1: 0.2, 2: 0.5, 3: 0.1}, min, 3), ({1: 0.5, 2: 0.4, 3: 0.3}, max, 1),
    ({1: 0.5, 2: 0.5, 3: 0.4}, max, 1), ({1: 0.4, 2: 0.5, 3: 0.5}, max, 2), ({1: 0.3, 2: 0.3, 3: 0.3}, min, 1)])
def test_the_best_checkpoint_is_kept_and_of_equals_the_earliest(figures, better, best, tmp_path):
    made = Checkpoints(tmp_path, figures, better=better)
    assert not made.save(1, 2, 3)
    assert made.best() == ("model.ckpt-%d" % best, best)
    assert made.selection.best() == {"step": best, "accuracy": figures[best], "texts": 9}
    assert made.new_selection().best()["step"] == best


def test_all_figures_of_the_best_stand_beside_it(tmp_path):
    made = Checkpoints(tmp_path, {1: 0.2})
    made.save(1)
    assert run_folder.best_figures(str(tmp_path)) == {"step": 1, "accuracy": 0.2, "classes": ["more"], "texts": 9}


def test_a_checkpoint_is_measured_once(tmp_path):
    made = Checkpoints(tmp_path, {2: 0.1, 4: 0.3})
    made.save(2, 2, 4)
    made.selection = made.new_selection()  # a run that goes on saves where it starts
    made.save(4)
    assert made.measured == made.listed() == [2, 4]


def test_a_model_that_was_not_trained_is_not_measured(tmp_path):
    made = Checkpoints(tmp_path, {})
    assert not made.save(0)
    assert made.selection.best() is None and not os.listdir(str(tmp_path))


def test_without_figures_the_last_checkpoint_is_the_best(tmp_path):
    made = Checkpoints(tmp_path, {})
    made.selection = loop.Selection(str(tmp_path), made.copy)
    made.selection.begin_stage(0, patience=1)
    assert not made.save(2, 4, 6)
    assert made.best() == ("model.ckpt-6", 6) and made.selection.best() == {"step": 6}


@pytest.mark.parametrize("figures, patience, stops", [
    ([0.5, 0.4, 0.3], 2, [False, False, True]),
    ([0.5, 0.4, 0.6, 0.5, 0.5], 2, [False, False, False, False, True]),
    ([0.5, 0.5, 0.5], 2, [False, False, True]),  # as good is not better
    ([0.5, 0.4], 1, [False, True]), ([0.1, 0.2, 0.3], 1, [False] * 3), ([0.5, 0.4, 0.3, 0.2], 0, [False] * 4)])
def test_training_stops_after_as_many_checkpoints_without_a_better_one(figures, patience, stops, tmp_path):
    made = Checkpoints(tmp_path, dict(enumerate(figures, 1)), patience=patience)
    assert [made.save(step) for step in range(1, len(figures) + 1)] == stops
    assert made.new_selection().should_stop() == stops[-1]


class Killed(BaseException):
    """Ends a process where it stands."""


def kill(*_, **__):
    raise Killed


def test_a_run_killed_while_it_measures_leaves_the_best_and_measures_again(tmp_path, monkeypatch):
    made = Checkpoints(tmp_path, {1: 0.2, 2: 0.5})
    made.save(1)
    monkeypatch.setattr(made, "evaluate", kill)
    made.selection = made.new_selection()
    with pytest.raises(Killed):
        made.save(2)
    assert made.best() == ("model.ckpt-1", 1) and made.listed() == [1]
    monkeypatch.undo()
    made.selection = made.new_selection()
    made.save(2)
    assert made.best() == ("model.ckpt-2", 2) and made.measured == made.listed() == [1, 2]


def test_a_run_killed_while_it_copies_leaves_the_best_whole(tmp_path, monkeypatch):
    made = Checkpoints(tmp_path, {1: 0.2, 2: 0.5})
    made.save(1)

    def copy_half(checkpoint, target):
        files.write_text(target + ".index", "half")
        raise Killed

    monkeypatch.setattr(made, "copy", copy_half)
    made.selection = made.new_selection()
    with pytest.raises(Killed):
        made.save(2)
    assert made.best() == ("model.ckpt-1", 1) and made.listed() == [1]
    monkeypatch.undo()
    made.selection = made.new_selection()
    made.save(2)
    assert made.best() == ("model.ckpt-2", 2)
    assert sorted(os.listdir(str(tmp_path))) == ["best", "evaluations.json"]


def test_a_run_killed_between_the_copy_and_the_list_keeps_the_copy_and_measures_again(tmp_path, monkeypatch):
    made = Checkpoints(tmp_path, {1: 0.2, 2: 0.5, 3: 0.4})
    made.save(1)
    monkeypatch.setattr(loop, "_numbers", kill)
    with pytest.raises(Killed):
        made.save(2)
    monkeypatch.undo()
    assert made.best() == ("model.ckpt-2", 2) and made.listed() == [1]
    made.selection = made.new_selection()
    made.save(2, 3)
    assert made.best() == ("model.ckpt-2", 2) and made.listed() == [1, 2, 3]


def test_a_best_that_was_being_replaced_by_a_killed_run_is_put_back(tmp_path):
    made = Checkpoints(tmp_path, {1: 0.2})
    made.save(1)
    os.rename(str(tmp_path / "best"), str(tmp_path / "best.old"))
    made.new_selection()
    assert made.best() == ("model.ckpt-1", 1)


class Power(tf.train.SessionRunHook):
    """Fails before the given run of the session, as if the machine had gone down."""

    def __init__(self, runs):
        self._left = runs

    def before_run(self, _):
        self._left -= 1
        if self._left < 0:
            raise Killed


@pytest.fixture(scope="module")
def records_file(tmp_path_factory):
    return batches.write(tmp_path_factory.mktemp("records") / "texts.tfrecord", batches.texts())


@pytest.fixture(scope="module")
def dev_file(tmp_path_factory):
    return batches.write(tmp_path_factory.mktemp("records") / "dev.tfrecord", batches.texts(all_labelled=True, seed=4))


def measure(dev_file):
    """A function of a checkpoint that gives the task's figures."""
    return lambda checkpoint: measuring.evaluate(CONFIG, TASK, checkpoint, [dev_file], 8)


def train(folder, records_file, evaluate, runs=None, patience=0, num_parts=1, replicas=1, hook=None):
    """`loop.train` of a classifier with dropout, saved every 2 of `STEPS` updates, selected by loss.

    Args:
      runs: of the session, before the machine goes down; None: it does not.
      hook: that looks on.
    """
    strategy, devices = runtime.distribution_strategy(num_cpu_replicas=replicas)
    model_fn = task_model_fn(CONFIG, TASK, Schedule(0.02, STEPS, num_parts=num_parts),
                             progress=lambda terms, scalars: Power(1000 if runs is None else runs))
    selection = loop.Selection(str(folder), checkpoints.copy_slim, evaluate, "loss", min)
    stage = loop.Stage("all", STEPS, lambda first_step: [(STEPS, model_fn)], lambda _, start: records.training_input_fn(
        [records_file], TASK.feature_names, 8, num_parts, 7, start), patience)
    config = runtime.run_config(str(folder), 5, save_checkpoints_steps=2, strategy=strategy, devices=devices)
    return loop.train([stage], config, selection, [hook] if hook else [])


@graphs.ON_REFERENCE
def test_a_run_that_died_and_goes_on_equals_an_unbroken_one(records_file, dev_file, tmp_path, num_parts=2, replicas=2):
    unbroken, died = tmp_path / "unbroken", tmp_path / "died"
    result = train(unbroken, records_file, measure(dev_file), num_parts=num_parts, replicas=replicas)
    with pytest.raises(Killed):
        train(died, records_file, measure(dev_file), runs=5 * num_parts, num_parts=num_parts, replicas=replicas)
    assert saved.last_step(str(died)) == 4 and run_folder.finished(str(died)) is None
    found = train(died, records_file, measure(dev_file), num_parts=num_parts, replicas=replicas)
    assert result["steps"] == found["steps"] == STEPS and result["best"]["step"] == found["best"]["step"]
    for name in ("model.ckpt-%d" % STEPS, os.path.join("best", "model.ckpt")):
        expected = graphs.weights_in(str(unbroken / name))
        assert graphs.largest_difference(graphs.weights_in(str(died / name)), expected) < SAME_RUN, name
    evaluations = [files.read_json(str(folder / "evaluations.json")) for folder in (unbroken, died)]
    assert [found["step"] for found in evaluations[0]] == [found["step"] for found in evaluations[1]] == [2, 4, 6, 8]
    np.testing.assert_allclose(*[[found["loss"] for found in each] for each in evaluations], rtol=1e-6)


class Asked(tf.train.SessionRunHook):
    """A signal comes before the given run of the session."""

    def __init__(self, runs, monkeypatch):
        self._left, self._monkeypatch = runs, monkeypatch

    def before_run(self, _):
        self._left -= 1
        if self._left < 0:
            self._monkeypatch.setattr(interruption, "_pending", signal.SIGTERM)


@pytest.mark.parametrize("num_parts, replicas, runs, step", [
    (1, 1, 4, 5), pytest.param(1, 1, 5, 6, marks=graphs.ON_REFERENCE),
    pytest.param(2, 2, 8, 4, marks=graphs.ON_REFERENCE), pytest.param(2, 1, 9, 5, marks=graphs.ON_REFERENCE)])
def test_a_run_that_was_asked_to_end_saves_at_once_and_goes_on_to_the_same_end(
        num_parts, replicas, runs, step, records_file, dev_file, tmp_path, monkeypatch):
    arguments = dict(num_parts=num_parts, replicas=replicas)
    result = train(tmp_path / "unbroken", records_file, measure(dev_file), **arguments)
    with monkeypatch.context() as patched, pytest.raises(interruption.Interrupted):
        train(tmp_path / "asked", records_file, measure(dev_file), hook=Asked(runs, patched), **arguments)
    asked = str(tmp_path / "asked")
    assert saved.last_step(asked) == step
    # What is due is measured when the run goes on, what is not never is.
    assert [found["step"] for found in files.read_json(os.path.join(asked, "evaluations.json"))] == [2, 4][:step // 2]
    assert run_folder.stopped_at(asked) == (step if step % 2 else None)
    assert train(asked, records_file, measure(dev_file), **arguments) == result
    assert run_folder.stopped_at(asked) is None
    for name in ("model.ckpt-%d" % STEPS, os.path.join("best", "model.ckpt")):
        expected = graphs.weights_in(str(tmp_path / "unbroken" / name))
        assert graphs.largest_difference(graphs.weights_in(os.path.join(asked, name)), expected) < SAME_RUN, name


def test_a_run_ends_with_its_best_checkpoint_and_says_why(records_file, dev_file, tmp_path):
    result = train(tmp_path, records_file, measure(dev_file))
    evaluations = files.read_json(str(tmp_path / "evaluations.json"))
    best = min(evaluations, key=lambda found: found["loss"])
    assert result == {"steps": STEPS, "reason": "all steps made", "best": best}
    assert run_folder.finished(str(tmp_path)) == result
    figures = measure(dev_file)(str(tmp_path / "best" / "model.ckpt"))
    assert figures["loss"] == pytest.approx(best["loss"], rel=1e-6)
    copied = graphs.weights_in(str(tmp_path / "best" / "model.ckpt"))
    assert copied["global_step"] == best["step"] and not [name for name in copied if "adam" in name]


def worse_and_worse(measured):
    """Figures that rise with every checkpoint; notes the steps."""
    def evaluate(checkpoint):
        measured.append(int(checkpoint.rsplit("-", 1)[1]))
        return {"loss": float(measured[-1])}

    return evaluate


def untouched(*_, **__):
    raise AssertionError("this run has nothing to train")


def go_on(folder, evaluate, patience=0):
    """`loop.train` of a run that must not train."""
    selection = loop.Selection(str(folder), checkpoints.copy_slim, evaluate, "loss", min)
    stage = loop.Stage("all", STEPS, untouched, untouched, patience)
    return loop.train([stage], runtime.run_config(str(folder), 5, 2), selection)


def test_a_run_stops_early_and_when_killed_before_it_said_so_does_not_train_on(records_file, tmp_path):
    measured = []
    result = train(tmp_path, records_file, worse_and_worse(measured), patience=2)
    assert result == {"steps": 6, "reason": "early stopping", "best": {"step": 2, "loss": 2.0}}
    assert measured == [2, 4, 6] and saved.last_step(str(tmp_path)) == 6
    os.remove(str(tmp_path / "finished.json"))
    assert go_on(tmp_path, worse_and_worse(measured), patience=2) == result == run_folder.finished(str(tmp_path))
    assert measured == [2, 4, 6]


def test_a_run_killed_after_its_last_checkpoint_measures_it_and_finishes(records_file, tmp_path):
    measured = []
    result = train(tmp_path, records_file, worse_and_worse(measured))
    assert measured == [2, 4, 6, 8]
    os.remove(str(tmp_path / "finished.json"))
    path = str(tmp_path / "evaluations.json")
    files.write_json(path, files.read_json(path)[:-1])
    again = []
    assert go_on(tmp_path, worse_and_worse(again)) == result == run_folder.finished(str(tmp_path))
    assert again == [8]


def test_a_checkpoint_that_a_killed_run_did_not_measure_decides_whether_it_goes_on(records_file, tmp_path):
    train(tmp_path, records_file, worse_and_worse([]), patience=2)
    os.remove(str(tmp_path / "finished.json"))
    path = str(tmp_path / "evaluations.json")
    files.write_json(path, files.read_json(path)[:-1])
    again = []
    assert go_on(tmp_path, worse_and_worse(again), patience=2)["reason"] == "early stopping"
    assert again == [6]


def test_a_folder_without_a_checkpoint_is_at_step_0(tmp_path):
    assert saved.last_step(str(tmp_path)) == 0 == saved.last_step(str(tmp_path / "none"))


def never_built(features):
    untouched(features)


class Stages:
    """A run of two stages, each a play: its updates are noted, and its checkpoints made.

    Attributes:
      done: (stage, first step of it, start, end) of each training, in order.
    """

    def __init__(self, folder, monkeypatch, losses=None, patience=0, killed_at=None):
        self.folder, self.done, self._killed_at = str(folder), [], killed_at
        self._losses, self._patience = losses or {}, patience
        monkeypatch.setattr(saved, "last_step", self.last_step)
        monkeypatch.setattr(runtime, "train", self._train)
        self._saved = 0

    def last_step(self, _):
        return self._saved

    def _train(self, estimator, input_fn, max_steps, hooks, saving_listeners, first_step):
        name, first_step, start = input_fn
        self.done.append((name, first_step, start, max_steps))
        for step in range(start + 1, max_steps + 1):
            if step == self._killed_at:
                raise Killed
            self._saved = step
            if saving_listeners[0].after_save(None, step):
                return

    def run(self):
        def stage(name, evaluate):
            return loop.Stage(
                name, 4, lambda first: [(first + 2, never_built), (first + 4, never_built)],
                lambda first, start: (name, first, start), self._patience, evaluate)

        selection = loop.Selection(self.folder, lambda checkpoint, target: None, lambda _: {"accuracy": self._saved},
                                   "accuracy")
        by_loss = (lambda _: self._losses[self._saved]) if self._losses else None
        return loop.train([stage("a", by_loss), stage("b", None)],
                          runtime.run_config(self.folder, 5, 2), selection)


BOTH_STAGES = [("a", 0, 0, 2), ("a", 0, 2, 4), ("b", 4, 4, 6), ("b", 4, 6, 8)]


def test_stages_follow_each_other_and_each_changes_its_graph_on_the_way(tmp_path, monkeypatch):
    run = Stages(tmp_path, monkeypatch)
    assert run.run() == {"steps": 8, "reason": "all steps made", "best": {"step": 8, "accuracy": 8}}
    assert run.done == BOTH_STAGES
    assert run_folder.ended_stages(str(tmp_path)) == [{"name": "a", "step": 4, "reason": "all steps made"}]


@pytest.mark.parametrize("killed_at", range(1, 9))
def test_a_run_killed_in_any_stage_goes_on_in_it(killed_at, tmp_path, monkeypatch):
    run = Stages(tmp_path, monkeypatch, killed_at=killed_at)
    with pytest.raises(Killed):
        run.run()
    run.done, run._killed_at = [], None
    assert run.run()["steps"] == 8
    expected = [part for part in BOTH_STAGES if part[3] >= killed_at]
    name, first_step, _, end = expected[0]
    assert run.done == [(name, first_step, killed_at - 1, end)] + expected[1:]


def test_a_run_killed_before_it_noted_the_end_of_a_stage_begins_the_next(tmp_path, monkeypatch):
    run = Stages(tmp_path, monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "end_stages", kill)
        with pytest.raises(Killed):
            run.run()
    assert run.run()["steps"] == 8 and run.done == BOTH_STAGES


def test_a_stage_that_stops_early_is_followed_by_the_next_from_where_it_stopped(tmp_path, monkeypatch):
    run = Stages(tmp_path, monkeypatch, losses={1: 0.3, 2: 0.4, 3: 0.2}, patience=1)
    result = run.run()
    assert run.done == [("a", 0, 0, 2), ("b", 2, 2, 4), ("b", 2, 4, 6)]
    assert run_folder.ended_stages(str(tmp_path)) == [{"name": "a", "step": 2, "reason": "early stopping"}]
    assert result["steps"] == 6  # accuracy rose with every step


def test_evaluations_of_an_earlier_stage_do_not_stop_a_later_one(tmp_path):
    made = Checkpoints(tmp_path, {1: 0.9, 2: 0.1, 3: 0.2, 4: 0.1}, patience=2)
    assert not made.save(1, 2)
    made.selection.begin_stage(2, patience=1)
    assert not made.save(3) and made.save(4)
    assert made.selection.best()["step"] == 1
