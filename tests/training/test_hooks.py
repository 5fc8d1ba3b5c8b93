import collections
import glob
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from training import graph_mode  # noqa: F401
from training import hooks
from training.command import UserError

RATES = np.arange(200, dtype=np.float32) / 10


def run(terms, num_train_steps, num_parts=1, log_steps=50, directory=None, start=0, runs=None, rates=RATES,
        scaled=False):
    """Runs a session under a ProgressHook.

    Args:
      terms: dict of name -> what a term is in each run of the session.
      start: updates made before.
      runs: how often the session runs; None: until the last update.
      rates: what half the gradient's norm is in each run of the session.
      scaled: whether there is a loss scale.
    """
    with tf.Graph().as_default():
        step = tf.train.get_or_create_global_step()
        made = tf.get_variable("runs", [], tf.int32, initializer=tf.zeros_initializer())
        now = made.read_value()
        found = collections.OrderedDict((name, tf.constant(values, tf.float32)[now]) for name, values in terms.items())
        rate = tf.constant(np.float32(rates))[now]
        with tf.control_dependencies(list(found.values()) + [rate]):
            with tf.control_dependencies([made.assign_add(1)]):
                train = tf.group(step.assign_add(tf.cast(tf.equal((now + 1) % num_parts, 0), tf.int64)))
        scalars = dict(learning_rate=rate, gradient_norm=2 * rate, **({"loss_scale": rate} if scaled else {}))
        hook = hooks.ProgressHook(found, scalars, num_train_steps, 8, num_parts, log_steps, directory)
        init = tf.group(made.initializer, step.assign(start, read_value=False))
        with tf.train.MonitoredSession(
                tf.train.ChiefSessionCreator(tf.train.Scaffold(init_op=init)), hooks=[hook]) as session:
            for _ in range((num_train_steps - start) * num_parts if runs is None else runs):
                session.run(train)


def lines(capsys):
    """The progress lines: list of (step, text of the terms)."""
    found = []
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("step "):
            found.append((line.split("/")[0][len("step "):], line.split(" left  ")[1]))
    return found


def test_a_window_tells_the_mean_of_its_updates(capsys):
    run({"loss": [1, 2, 6, 10, 20, 30]}, 6, log_steps=3)
    assert lines(capsys) == [("3", "loss 3"), ("6", "loss 20")]


def test_the_parts_of_an_update_are_added_up(capsys):
    run({"loss": [1, 2, 3, 4, 10, 20, 30, 40], "label": [1] * 8}, 4, num_parts=2, log_steps=2)
    assert lines(capsys) == [("2", "loss 5  label 2"), ("4", "loss 50  label 2")]


def test_the_last_window_is_told_though_it_is_shorter(capsys):
    run({"loss": [1, 2, 6, 10, 30]}, 5, log_steps=3)
    assert lines(capsys) == [("3", "loss 3"), ("5", "loss 20")]


def test_a_run_that_stops_early_tells_what_is_left(capsys):
    run({"loss": [1, 2, 6, 10, 30]}, 100, log_steps=3, runs=5)
    assert lines(capsys) == [("3", "loss 3"), ("5", "loss 20")]


def test_a_part_of_an_update_is_not_told_as_one(capsys):
    for runs in (1, 3):
        run({"loss": [1, 2, 3]}, 100, num_parts=2, runs=runs)
        assert lines(capsys) == []


def test_slow_updates_are_told_before_the_window_is_full(capsys, monkeypatch):
    monkeypatch.setattr(hooks, "MAX_SECONDS", -1.0)
    run({"loss": [1, 2, 3, 4]}, 2, num_parts=2, log_steps=50)
    assert lines(capsys) == [("1", "loss 3"), ("2", "loss 7")]


def test_a_run_that_goes_on_says_from_where_and_counts_on(capsys):
    run({"loss": [1, 2]}, 1002, start=1000)
    out = capsys.readouterr().out
    assert out.startswith("going on from step 1,000\nstep 1,002/1,002  ") and out.endswith("  loss 1.5\n")


def test_a_run_from_the_beginning_does_not_go_on(capsys):
    run({"loss": [1]}, 1)
    assert "going on" not in capsys.readouterr().out


def test_a_line_tells_step_speed_time_left_and_terms(capsys, monkeypatch):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(hooks.time, "time", lambda: float(next(clock)))
    run({"loss": [1.23456], "label": [0.5]}, 1201, runs=1, log_steps=1)
    # The clock ticks twice within the window: 1 update of 8 texts in 4 s at most.
    line = capsys.readouterr().out
    assert line.startswith("step 1/1,201  ") and line.endswith(" left  loss 1.235  label 0.5\n")
    speed = float(line.split("  ")[1].split(" ")[0])
    assert line.split("  ")[1] == "%d examples/s" % speed and speed in (2.0, 4.0)
    assert line.split("  ")[2] == hooks.duration(1200 * 8 / speed) + " left"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("num_parts", [1, 2])
def test_a_term_that_is_no_number_ends_the_run_at_once_and_is_named_with_its_step(value, num_parts):
    label = [0.5] * 20
    label[3 * num_parts] = value
    with pytest.raises(UserError) as error:
        run({"loss": [1.0] * 20, "hidden_1": [1.0] * 20, "label": label}, 20 // num_parts, num_parts, start=1)
    assert str(error.value) == ("step 5: label is %s; a lower --learning_rate or a longer warm-up may help"
                                % float(value))


def test_a_gradient_that_is_no_number_ends_the_run_though_the_loss_is_one():
    # A root of zero has such a gradient; the weights would be gone one update later.
    with pytest.raises(UserError, match="^step 2: gradient_norm is inf; "):
        run({"loss": [1.0, 1.0, 1.0]}, 3, rates=[1.0, np.inf, 1.0])


def test_with_loss_scaling_an_infinite_gradient_is_left_out_by_itself(capsys):
    run({"loss": [1.0, 1.0, 1.0]}, 3, rates=[1.0, np.inf, 1.0], scaled=True)
    assert lines(capsys) == [("3", "loss 1")]


def test_the_last_good_checkpoint_is_named(tmp_path):
    for step in (5, 10):
        tmp_path.joinpath("model.ckpt-%d.index" % step).write_bytes(b"")
    with pytest.raises(UserError, match="; the last good checkpoint is .*model.ckpt-10$"):
        run({"loss": [np.nan]}, 1, directory=str(tmp_path))


def test_spikes_of_the_loss_are_counted(capsys):
    losses = 5.0 + np.sin(np.arange(100.0))
    run({"loss": losses}, 100, log_steps=100)
    losses[[20, 70, 90]] = 30.0  # the first before the loss is known
    run({"loss": losses}, 100, log_steps=100)
    run({"loss": np.repeat(losses, 2) / 2}, 100, num_parts=2, log_steps=100)
    found = [line.split("  ")[-1] for _, line in lines(capsys)]
    assert found[0].startswith("loss ") and found[1:] == ["spikes 2", "spikes 2"]


def test_every_term_that_is_no_number_is_named():
    with pytest.raises(UserError, match="^step 1: loss is nan, label is inf; "):
        run({"loss": [np.nan], "hidden_1": [1.0], "label": [np.inf]}, 1)


def events(directory):
    """dict of step -> dict of name -> value, as TensorBoard reads them."""
    found = collections.defaultdict(dict)
    for name in glob.glob(os.path.join(directory, "events*")):
        for event in tf.train.summary_iterator(name):
            for value in event.summary.value:
                found[event.step][value.tag] = value.simple_value
    return dict(found)


def test_tensorboard_has_every_term_and_scalar_at_the_windows_ends(tmp_path):
    run({"loss": [1, 2, 6, 10, 30], "label": [5, 5, 5, 7, 7]}, 5, log_steps=3, directory=str(tmp_path))
    found = events(str(tmp_path))
    assert sorted(found) == [3, 5]
    assert sorted(found[3]) == ["examples_per_second", "gradient_norm", "label", "learning_rate", "loss", "spikes"]
    for step, loss, label in ((3, 3, 5), (5, 20, 7)):
        assert found[step]["loss"] == loss and found[step]["label"] == label
        rate = RATES[step - 1]  # of the window's last update
        assert found[step]["learning_rate"] == pytest.approx(rate)
        assert found[step]["gradient_norm"] == pytest.approx(2 * rate)


def test_tensorboard_has_what_was_told_also_when_the_run_dies(tmp_path):
    with pytest.raises(UserError):
        run({"loss": [1, 2, np.nan]}, 5, log_steps=2, directory=str(tmp_path))
    assert events(str(tmp_path))[2]["loss"] == 1.5


@pytest.mark.parametrize("seconds, text", [
    (0, "0 s"), (0.4, "0 s"), (45, "45 s"), (89.4, "89 s"), (90, "2 min"), (720, "12 min"), (3569, "59 min"),
    (3570, "1 h 00 min"), (3600, "1 h 00 min"), (11100, "3 h 05 min"), (360000, "100 h 00 min")])
def test_durations_are_told_for_people(seconds, text):
    assert hooks.duration(seconds) == text
