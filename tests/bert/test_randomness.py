import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert.randomness import _draw_16_bits
from bert.randomness import dropout
from bert.randomness import glorot
from bert.randomness import new_variable
from bert.randomness import normal
from bert.randomness import root_variable_scope
from bert.randomness import update_part
from tests import graphs
from training import native

SIZE = [40, 50]


def initial_values(build, seed=1):
    """dict of name -> initial value of the variables that `build()` makes."""
    def values():
        build()
        return {variable.op.name: variable for variable in tf.trainable_variables()}

    return graphs.run(values, seed)


def mask(seed=1, step=0, part=0, site="here", scope="layer", rate=0.5):
    """Which values a dropout keeps, in a graph of its own: 1 / (1 - rate) or 0."""
    def build():
        global_step = tf.train.get_or_create_global_step()
        with tf.control_dependencies([global_step.assign(step), update_part().assign(part)]):
            with tf.variable_scope(scope):
                return dropout(tf.ones(SIZE) + tf.zeros([]), rate, site)

    return graphs.run(build, seed)


def test_an_initial_value_does_not_depend_on_what_else_the_graph_holds():
    def alone():
        with tf.variable_scope("one"):
            new_variable("kernel", SIZE, normal(0.02))

    def beside():
        tf.random.normal([3])
        with tf.variable_scope("two"):
            new_variable("kernel", SIZE, normal(0.02))
        alone()

    found, expected = initial_values(beside), initial_values(alone)
    assert np.array_equal(found["one/kernel"], expected["one/kernel"])
    assert not np.any(found["two/kernel"] == expected["one/kernel"])


def test_another_seed_gives_other_initial_values():
    def build():
        new_variable("kernel", SIZE, normal(0.02))

    assert np.mean(initial_values(build, 1)["kernel"] == initial_values(build, 2)["kernel"]) < 0.01


def test_normal_has_its_deviation_and_ends_at_twice_that():
    drawn = initial_values(lambda: new_variable("kernel", [200, 200], normal(0.1)))["kernel"]
    assert np.abs(drawn).max() <= 0.2
    # A normal distribution cut at two deviations has 0.880 of its deviation.
    assert drawn.std() == pytest.approx(0.088, rel=0.02)
    assert abs(drawn.mean()) < 0.002


def test_glorot_fills_its_interval():
    drawn = initial_values(lambda: new_variable("kernel", [100, 200], glorot))["kernel"]
    limit = (6.0 / 300) ** 0.5
    assert 0.99 * limit < np.abs(drawn).max() <= limit
    assert drawn.std() == pytest.approx(limit / 3 ** 0.5, rel=0.02)


def test_dropout_in_another_process_graph_is_the_same():
    assert np.array_equal(mask(step=7, part=2), mask(step=7, part=2))


@pytest.mark.parametrize("change", [
    {"seed": 2}, {"step": 1}, {"part": 1}, {"site": "there"}, {"scope": "layer_2"}, {"step": 2 ** 30}])
def test_dropout_is_another_in_every_place_and_time(change):
    assert 0.4 < np.mean(mask() == mask(**change)) < 0.6


def test_dropout_is_another_on_every_replica():
    def build():
        tf.train.get_or_create_global_step()

        def replica():
            with tf.variable_scope("layer"):
                return dropout(tf.ones(SIZE), 0.5)

        strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
        with strategy.scope():
            run = strategy.run if hasattr(strategy, "run") else strategy.experimental_run_v2
            return strategy.experimental_local_results(run(replica))

    one, other = graphs.run(build)
    assert 0.4 < np.mean(one == other) < 0.6


def test_dropout_is_another_on_every_worker(monkeypatch):
    masks = []
    for index in (0, 1):
        monkeypatch.setenv("TF_CONFIG", json.dumps({
            "cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": index}}))
        masks.append(mask())
    assert 0.4 < np.mean(masks[0] == masks[1]) < 0.6
    monkeypatch.delenv("TF_CONFIG")
    assert np.array_equal(masks[0], mask())


@graphs.COMPILED
@pytest.mark.parametrize("count", [0, 1, 2, 7, 255, 256, 257, 100003])
@pytest.mark.parametrize("seed", [[1, 2], [-5, 2 ** 40 + 3], [2 ** 32 - 1, -1]])
def test_our_op_draws_what_tensorflow_draws(count, seed):
    def drawn():
        return _draw_16_bits(tf.constant(count), tf.constant(seed, tf.int64))

    with native.using(True):
        found = graphs.run(drawn)
    with native.using(False):
        np.testing.assert_array_equal(found, graphs.run(drawn))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(rate):
    kept = mask(rate=rate)
    assert np.unique(kept) == pytest.approx([0.0, 1.0 / (1.0 - rate)], rel=1e-3)
    assert np.mean(kept) == pytest.approx(1.0, abs=4 * (rate / (1 - rate) / kept.size) ** 0.5)
    assert np.mean(kept > 0) == pytest.approx(1 - rate, abs=4 * (rate * (1 - rate) / kept.size) ** 0.5)


@pytest.mark.parametrize("shape", [[0], [1], [3, 5], [2, 3, 4]])
def test_dropout_takes_any_shape(shape):
    def build():
        tf.train.get_or_create_global_step()
        return dropout(tf.ones(shape), 0.5)

    assert graphs.run(build).shape == tuple(shape)


def test_a_rate_near_1_keeps_something():
    assert np.isfinite(mask(rate=1 - 1e-7)).all()


def test_dropout_of_rate_0_is_the_tensor_itself():
    with tf.Graph().as_default():
        tensor = tf.ones(SIZE)
        assert dropout(tensor, 0.0) is tensor


def test_a_masks_gradient_is_the_mask():
    def build():
        tf.train.get_or_create_global_step()
        tensor = tf.ones(SIZE)
        dropped = dropout(tensor, 0.5)
        return dropped, tf.gradients(dropped, tensor)[0]

    dropped, gradient = graphs.run(build)
    assert np.array_equal(dropped, gradient)


def test_the_root_scope_is_the_same_wherever_it_is_entered():
    with tf.Graph().as_default():
        with root_variable_scope():
            outside = tf.get_variable("counter", [])
        with tf.variable_scope("a"), root_variable_scope():
            inside = tf.get_variable("counter", [])
            assert tf.get_variable("other", []).op.name == "other"
        assert inside is outside


def test_the_part_of_an_update_is_in_no_checkpoint():
    with tf.Graph().as_default():
        part = update_part()
        assert part in tf.local_variables() and part not in tf.global_variables()
        assert update_part() is part
