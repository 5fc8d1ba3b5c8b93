import dataclasses
import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import optimization
from bert.optimization import Schedule
from tests import graphs
from tests.bert.both_ops import EACH_OP
from training import native

STEPS = 20
# The gradient's norm lies between 0.3 and 0.6: every update is clipped, each to another share.
CLIPPED = Schedule(learning_rate=2e-3, num_train_steps=25, num_warmup_steps=3, clip_norm=0.1)
# Sums over parts round in another order, by 1e-7 of a gradient, and Adam divides each by its own size, so
# where a gradient is nearly 0 that rounding counts. Measured: 1.2e-7, of weights that move by up to 0.12. A
# mean of means is off by 6e-2, clipping of single parts by 7e-2.
SAME_WEIGHTS = 2e-6
# Measured: 0. The machine may choose another order of sums within an op; other masks are off by 1e-2.
SAME_RUN = 1e-7
ROUNDING = 2e-6  # of float32, over ten updates
NAMES = ("dense/kernel", "dense/bias", "LayerNorm/gamma")


@pytest.fixture(scope="module")
def records_file(tmp_path_factory):
    return graphs.ragged_records(str(tmp_path_factory.mktemp("records") / "texts.tfrecord"))


@pytest.fixture(scope="module")
def in_one_piece(records_file, tmp_path_factory):
    """Weights after `STEPS` updates by one replica in one part: a function of the clip norm."""
    @functools.lru_cache(maxsize=None)
    def weights(clip_norm):
        schedule = dataclasses.replace(CLIPPED, clip_norm=clip_norm)
        return graphs.trained(str(tmp_path_factory.mktemp("one")), records_file, STEPS, schedule)

    return weights


@pytest.mark.parametrize("replicas, num_parts, clip_norm", [
    (1, 2, 0.1), (1, 4, 0.0), (2, 2, 0.1)])
def test_an_update_cut_into_replicas_and_parts_equals_one_piece(
        replicas, num_parts, clip_norm, records_file, in_one_piece, tmp_path):
    schedule = dataclasses.replace(CLIPPED, clip_norm=clip_norm, num_parts=num_parts)
    cut = graphs.trained(str(tmp_path), records_file, STEPS, schedule, replicas=replicas)
    assert cut["global_step"] == STEPS
    assert graphs.largest_difference(cut, in_one_piece(clip_norm)) < SAME_WEIGHTS


@pytest.mark.parametrize("replicas, num_parts", [(1, 1), pytest.param(2, 2, marks=graphs.ON_REFERENCE)])
def test_a_run_that_was_stopped_equals_an_unbroken_one_with_dropout(
        replicas, num_parts, records_file, tmp_path):
    schedule = dataclasses.replace(CLIPPED, num_parts=num_parts)
    unbroken, stopped = str(tmp_path / "unbroken"), str(tmp_path / "stopped")
    expected = graphs.trained(unbroken, records_file, 6, schedule, replicas=replicas, dropout=0.3)
    graphs.train(stopped, records_file, 4, schedule, replicas=replicas, dropout=0.3)
    found = graphs.trained(stopped, records_file, 6, schedule, replicas=replicas, dropout=0.3)
    assert graphs.largest_difference(found, expected) < SAME_RUN


class Power(tf.train.SessionRunHook):
    """Fails before the given run of the session, as if the machine had gone down."""

    def __init__(self, runs):
        self._left = runs

    def before_run(self, run_context):
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt


@graphs.ON_REFERENCE
def test_a_run_that_died_within_an_update_equals_an_unbroken_one(records_file, tmp_path):
    schedule = dataclasses.replace(CLIPPED, num_parts=4)
    unbroken, stopped = str(tmp_path / "unbroken"), str(tmp_path / "stopped")
    expected = graphs.trained(unbroken, records_file, 5, schedule, dropout=0.3)
    with pytest.raises(KeyboardInterrupt):
        graphs.train(stopped, records_file, 5, schedule, dropout=0.3, hooks=[Power(3 * 4 + 2)])
    assert tf.train.load_variable(tf.train.latest_checkpoint(stopped), "global_step") == 3
    found = graphs.trained(stopped, records_file, 5, schedule, dropout=0.3)
    assert graphs.largest_difference(found, expected) < SAME_RUN


@graphs.ON_REFERENCE
def test_checkpoints_stand_at_whole_updates(records_file, tmp_path):
    """They hold no sum of gradients and no part, so one within an update would be useless."""
    folder, other = str(tmp_path / "all"), str(tmp_path / "short")
    schedule = dataclasses.replace(CLIPPED, num_parts=2)
    graphs.train(folder, records_file, 4, schedule)
    state = tf.train.get_checkpoint_state(folder)
    found = graphs.weights_in(state.all_model_checkpoint_paths[-2])
    assert not [name for name in found if "gradient_sum" in name or "update_part" in name]
    expected = graphs.trained(other, records_file, int(found["global_step"]), schedule)
    assert graphs.largest_difference(found, expected) < SAME_RUN


def train_on(gradients, schedule, variables=NAMES, with_moments=()):
    """What each run of the train op leaves, for a loss whose gradients are given.

    Args:
      gradients: list over runs of dict name -> array, the shapes those of the variables.
      schedule: Schedule.
      variables: names of those that train.
      with_moments: names of those that have moments whether they train or not.

    Returns:
      (list over runs of (dict of values of all variables, learning rate, gradient norm), names of all
      global variables).
    """
    with tf.Graph().as_default(), tf.Session() as session:
        tf.train.get_or_create_global_step()
        values = {name: tf.get_variable(
            name, value.shape, initializer=tf.constant_initializer(start_of(name)))
                  for name, value in gradients[0].items()}
        given = {name: tf.placeholder(tf.float32, value.shape) for name, value in gradients[0].items()}
        loss = tf.add_n([tf.reduce_sum(values[name] * given[name]) for name in values])
        train_op, logged = optimization.create_train_op(
            loss, schedule, [values[name] for name in variables], [values[name] for name in with_moments])
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        runs = []
        for gradient in gradients:
            _, rate, norm = session.run([train_op, logged["learning_rate"], logged["gradient_norm"]],
                                        {given[name]: value for name, value in gradient.items()})
            found = session.run({variable.op.name: variable for variable in tf.global_variables()})
            runs.append((found, rate, norm))
        return runs, sorted(variable.op.name for variable in tf.global_variables())


def start_of(name):
    return 0.5 + 0.1 * len(name)


def random_gradients(runs, scale=1.0):
    random = np.random.RandomState(0)
    return [{"dense/kernel": random.normal(0, scale, [3, 4]), "dense/bias": random.normal(0, scale, [4]),
             "LayerNorm/gamma": random.normal(0, scale, [4])} for _ in range(runs)]


def adam_weight_decay(gradients, schedule):
    """BERT's AdamWeightDecayOptimizer in NumPy, float64, its bias corrected where asked.

    Returns:
      list over updates of (the variables after it, its rate, the norm of its gradient).
    """
    values = {name: np.full(value.shape, start_of(name)) for name, value in gradients[0].items()}
    moments = {name: (np.zeros(value.shape), np.zeros(value.shape)) for name, value in values.items()}
    # 1 - 0.999 in float32 is off by 1.3e-5 of itself, and its root divides every update.
    beta_1, beta_2 = float(np.float32(0.9)), float(np.float32(0.999))
    updates = []
    for step, gradient in enumerate(gradients):
        rate = schedule.learning_rate * max(0.0, 1.0 - step / schedule.num_train_steps)
        if step < schedule.num_warmup_steps:
            rate = schedule.learning_rate * step / schedule.num_warmup_steps
        correction = np.sqrt(1 - beta_2 ** (step + 1)) / (1 - beta_1 ** (step + 1)) if schedule.bias_correction else 1.0
        norm = np.sqrt(sum(np.sum(value ** 2) for value in gradient.values()))
        scale = schedule.clip_norm / max(norm, schedule.clip_norm) if schedule.clip_norm else 1.0
        for name in values:
            m, v = moments[name]
            m = beta_1 * m + (1 - beta_1) * gradient[name] * scale
            v = beta_2 * v + (1 - beta_2) * (gradient[name] * scale) ** 2
            decay = schedule.weight_decay_rate if name == "dense/kernel" else 0.0
            values[name] = values[name] - rate * (correction * m / (np.sqrt(v) + 1e-6) + decay * values[name])
            moments[name] = m, v
        updates.append((dict(values), rate, norm))
    return updates


@pytest.mark.parametrize("schedule", [
    Schedule(0.1, 8),
    Schedule(0.1, 8, num_warmup_steps=3, weight_decay_rate=0.1),
    Schedule(0.1, 8, weight_decay_rate=0.0, clip_norm=4.5),  # some of the norms, 3.4 to 5.6, lie below
    Schedule(0.1, 8, num_warmup_steps=8, clip_norm=0.0),
    Schedule(0.1, 8, weight_decay_rate=0.1, bias_correction=True)])
@EACH_OP
def test_updates_are_those_of_berts_optimizer(native_ops, schedule):
    gradients = random_gradients(10)  # two more than the schedule has: their rate is 0
    with native.using(native_ops):
        runs, _ = train_on(gradients, schedule)
    for (found, rate, norm), (expected, expected_rate, expected_norm) in zip(
            runs, adam_weight_decay(gradients, schedule)):
        assert rate == pytest.approx(expected_rate, abs=1e-8)
        assert norm == pytest.approx(expected_norm, rel=1e-6)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=ROUNDING, atol=ROUNDING)


def test_accumulated_parts_change_nothing_until_the_last():
    gradients = random_gradients(6)
    schedule = Schedule(0.1, 8, num_warmup_steps=1, weight_decay_rate=0.1, num_parts=3)
    runs, _ = train_on(gradients, schedule)
    whole = [{name: sum(part[name] for part in gradients[start:start + 3]) for name in NAMES}
             for start in (0, 3)]
    updates = adam_weight_decay(whole, schedule)
    start = {name: np.full(gradients[0][name].shape, start_of(name)) for name in NAMES}
    for number, (found, _, _) in enumerate(runs):
        done = (number + 1) // 3
        assert found["global_step"] == done
        for name, value in (updates[done - 1][0] if done else start).items():
            np.testing.assert_allclose(found[name], value, rtol=ROUNDING, atol=ROUNDING)
    for done in (1, 2):
        assert runs[3 * done - 1][2] == pytest.approx(updates[done - 1][2], rel=1e-6)


LOSS_SCALE = "loss_scale/value"


@pytest.mark.parametrize("num_parts", [1, 3])
def test_a_scaled_loss_gives_the_same_updates_to_the_last_bit(num_parts):
    gradients = random_gradients(6)
    schedule = Schedule(0.1, 8, num_warmup_steps=1, weight_decay_rate=0.1, num_parts=num_parts)
    expected, _ = train_on(gradients, schedule)
    scaled, names = train_on(gradients, dataclasses.replace(schedule, loss_scaling=True))
    assert LOSS_SCALE in names
    for (found, _, norm), (values, _, expected_norm) in zip(scaled, expected):
        assert norm == expected_norm
        assert all(np.array_equal(found[name], values[name]) for name in values)


@pytest.mark.parametrize("num_parts", [1, 2])
@pytest.mark.parametrize("wrong", [np.inf, np.nan])
def test_an_update_whose_gradient_is_not_finite_is_left_out_and_halves_the_scale(wrong, num_parts):
    gradients = random_gradients(4 * num_parts)
    gradients[num_parts]["dense/kernel"][1, 2] = wrong  # a part of the second update
    schedule = Schedule(0.1, 8, weight_decay_rate=0.1, num_parts=num_parts, loss_scaling=True)
    found = [values for values, _, _ in train_on(gradients, schedule)[0][num_parts - 1::num_parts]]
    changing = [name for name in found[0] if name.startswith(NAMES)]
    assert len(changing) == 9  # moments too
    for name in changing:
        assert np.array_equal(found[1][name], found[0][name])
        assert not np.array_equal(found[2][name], found[1][name]) and np.all(np.isfinite(found[3][name]))
    assert [values["global_step"] for values in found] == [1, 2, 3, 4]
    first = optimization.FIRST_LOSS_SCALE
    assert [values[LOSS_SCALE] for values in found] == [first] + 3 * [first / 2]


def test_the_scale_grows_after_enough_updates_and_within_bounds(monkeypatch):
    monkeypatch.setattr(optimization, "LOSS_SCALE_GROWS_AFTER", 2)
    monkeypatch.setattr(optimization, "FIRST_LOSS_SCALE", 2.0)
    monkeypatch.setattr(optimization, "LARGEST_LOSS_SCALE", 4.0)
    wrong = [{name: np.full_like(value, np.nan) for name, value in random_gradients(1)[0].items()}]
    gradients = random_gradients(5) + 4 * wrong + random_gradients(2)
    runs, _ = train_on(gradients, Schedule(0.1, 20, loss_scaling=True))
    assert [found[LOSS_SCALE] for found, _, _ in runs] == [2, 4, 4, 4, 4, 2, 1, 1, 1, 1, 2]


@graphs.ON_TENSORFLOW_2
def test_replicas_have_one_loss_scale(records_file, in_one_piece, tmp_path):
    schedule = dataclasses.replace(CLIPPED, loss_scaling=True)
    found = graphs.trained(str(tmp_path), records_file, STEPS, schedule, replicas=2)
    assert found.pop(LOSS_SCALE) == optimization.FIRST_LOSS_SCALE and found.pop("loss_scale/updates") == STEPS
    assert graphs.largest_difference(found, in_one_piece(CLIPPED.clip_norm)) < SAME_WEIGHTS


def test_a_variable_that_does_not_train_keeps_its_value_and_has_no_slot():
    gradients = random_gradients(3)
    runs, names = train_on(gradients, Schedule(0.1, 8), variables=["dense/bias"])
    assert [name for name in names if "adam" in name] == ["dense/bias/adam_m", "dense/bias/adam_v"]
    for found, _, _ in runs:
        assert np.all(found["dense/kernel"] == np.float32(start_of("dense/kernel")))
    assert np.all(runs[-1][0]["dense/bias"] != np.float32(start_of("dense/bias")))


def test_a_variable_that_does_not_train_can_have_moments_for_a_graph_that_goes_on():
    gradients = random_gradients(3)
    expected, _ = train_on(gradients, Schedule(0.1, 8), variables=["dense/bias"])
    runs, names = train_on(gradients, Schedule(0.1, 8), variables=["dense/bias"], with_moments=NAMES)
    assert [name for name in names if "adam" in name] == sorted(
        "%s/%s" % (name, slot) for name in NAMES for slot in optimization.SLOTS)
    for name in NAMES:
        assert np.array_equal(runs[-1][0][name], expected[-1][0][name])


@pytest.mark.parametrize("bias_correction", [False, True])
def test_a_schedule_that_begins_later_is_the_same_from_there(bias_correction):
    gradients = random_gradients(4)
    expected, _ = train_on(gradients, Schedule(0.1, 4, 2, bias_correction=bias_correction))
    late, _ = train_on([{name: 0 * value for name, value in gradients[0].items()}] * 3 + gradients,
                       Schedule(0.1, 4, 2, weight_decay_rate=0.0, bias_correction=bias_correction, first_step=3))
    assert [rate for _, rate, _ in late[3:]] == [rate for _, rate, _ in expected]


def test_a_variable_that_does_not_train_has_no_part_in_the_norm():
    gradients = random_gradients(1)
    runs, _ = train_on(gradients, Schedule(0.1, 8), variables=["dense/bias"])
    assert runs[0][2] == pytest.approx(np.linalg.norm(gradients[0]["dense/bias"]), rel=1e-6)


def test_layer_norm_and_biases_do_not_decay():
    zeros = [{name: np.zeros_like(value) for name, value in random_gradients(1)[0].items()}]
    runs, _ = train_on(zeros, Schedule(0.1, 8, weight_decay_rate=0.5))
    found = runs[0][0]
    np.testing.assert_allclose(found["dense/kernel"], start_of("dense/kernel") * (1 - 0.1 * 0.5), rtol=1e-6)
    assert np.all(found["dense/bias"] == np.float32(start_of("dense/bias")))
    assert np.all(found["LayerNorm/gamma"] == np.float32(start_of("LayerNorm/gamma")))


@EACH_OP
@pytest.mark.parametrize("num_parts, clip_norm", [(1, 0.0), (1, 1.0), (2, 0.0), (2, 1.0)])
def test_no_variable_changes_before_the_forward_pass_has_read_them_all(num_parts, clip_norm, native_ops):
    with tf.Graph().as_default(), native.using(native_ops):
        tf.train.get_or_create_global_step()
        variables = [tf.get_variable("kernel_%d" % number, [2], initializer=tf.ones_initializer())
                     for number in range(3)]
        reads = [variable.read_value() for variable in variables]
        loss = tf.add_n([tf.reduce_sum(tf.square(read)) for read in reads])
        train_op, _ = optimization.create_train_op(
            loss, Schedule(0.1, 8, num_parts=num_parts, clip_norm=clip_norm), variables)
        kinds = ("BertAdam",) if native_ops else ("AssignVariableOp", "ResourceApplyAdam")
        writers = [op for op in ancestors(train_op) if op.type in kinds
                   and handle_of(op).name in [variable.handle.name for variable in variables]]
        assert len(writers) == len(kinds) * len(variables)
        for writer in writers:
            assert {read.op for read in reads} <= ancestors(writer)


def handle_of(writer):
    """The variable that an op writes to, also from within a condition."""
    tensor = writer.inputs[0]
    while tensor.op.type == "Switch":
        tensor = tensor.op.inputs[0]
    return tensor


def ancestors(op):
    """All operations that end before `op` starts, and `op`."""
    found, left = set(), [op]
    while left:
        op = left.pop()
        if op not in found:
            found.add(op)
            left.extend([tensor.op for tensor in op.inputs] + list(op.control_inputs))
    return found


def test_slots_are_named_as_in_googles_checkpoints():
    _, names = train_on(random_gradients(1), Schedule(0.1, 8))
    assert names == sorted(["global_step"] + list(NAMES) + [
        "%s/%s" % (name, slot) for name in NAMES for slot in ("adam_m", "adam_v")])
    assert optimization.slot_names("dense/kernel") == ["dense/kernel/adam_m", "dense/kernel/adam_v"]


def test_the_graph_grows_by_a_constant_for_each_variable():
    """The norm takes all gradients: computed anew for each variable it would make the graph quadratic."""
    def size(count):
        with tf.Graph().as_default() as graph:
            tf.train.get_or_create_global_step()
            variables = [tf.get_variable("v%d" % number, [2], initializer=tf.ones_initializer())
                         for number in range(count)]
            optimization.create_train_op(tf.add_n([tf.reduce_sum(v) for v in variables]), Schedule(0.1, 8))
            return len(graph.get_operations())

    assert size(30) - size(20) == size(20) - size(10)
