"""Adam's update as an op: of a whole gradient, and of the rows of a table that have one."""

import contextlib
import functools
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import adam
from bert import optimization
from bert.optimization import Schedule
from tests import graphs
from tests.bert.both_ops import EACH_OP
from training import native


@contextlib.contextmanager
def adam_of_ones(gradient):
    """(session, variable of three ones, function that builds the op of one update)."""
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, [3], initializer=tf.ones_initializer()) for name in ("w", "m", "v")]
        session.run(tf.global_variables_initializer())
        update = functools.partial(adam.update, *variables, gradient, 1.0, 1.0, 0.1, 0.9, 0.999, 1e-6)
        yield session, variables[0], update


@graphs.COMPILED
def test_who_has_read_a_variable_keeps_what_was_read_when_our_op_changes_it():
    with adam_of_ones(np.float32([1.0, 2.0, 3.0])) as (session, variable, update):
        before = variable.read_value()
        with tf.control_dependencies([before]):
            done = update()
        with tf.control_dependencies([done]):
            after = variable.read_value()
        before, after = session.run([before, after])
        assert np.all(before == 1.0) and np.all(after != 1.0)


@graphs.COMPILED
def test_our_op_refuses_a_gradient_of_another_shape():
    with adam_of_ones(np.zeros([4], np.float32)) as (session, _, update), pytest.raises(
            tf.errors.InvalidArgumentError, match="float of one shape"):
        session.run(update())


@graphs.COMPILED
def test_a_gradient_that_is_no_number_makes_no_number_with_our_op():
    with adam_of_ones(np.float32([1.0, np.nan, np.inf])) as (session, variable, update):
        session.run(update())
        assert np.isfinite(session.run(variable)).tolist() == [True, False, False]


@EACH_OP
def test_rows_of_a_table_that_no_text_has_decay_too(native_ops):
    def build():
        tf.train.get_or_create_global_step()
        table = tf.get_variable("table", [4, 2], initializer=tf.ones_initializer())
        loss = tf.reduce_sum(tf.nn.embedding_lookup(table, [1, 1, 2]))
        train_op, logged = optimization.create_train_op(
            loss, Schedule(0.1, 8, weight_decay_rate=0.5, clip_norm=0.0))
        with tf.control_dependencies([train_op]):
            return table.read_value(), logged["gradient_norm"]

    with native.using(native_ops):
        table, norm = graphs.run(build)
    np.testing.assert_allclose(table[[0, 3]], 1 - 0.1 * 0.5, rtol=1e-6)
    assert np.all(table[[1, 2]] < 0.9)
    # Row 1 is met twice: a norm over the single slices would be sqrt(6).
    assert norm == pytest.approx(np.sqrt(2 * 2 ** 2 + 2), rel=1e-6)


def table_after(updates, ids, width=20, **schedule):
    """A table after updates for texts with these ids, and the kinds of operations that made them."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.train.get_or_create_global_step()
        start = np.random.RandomState(0).normal(size=[9, width]).astype(np.float32)
        table = tf.get_variable("table", initializer=start)
        loss = tf.reduce_sum(tf.square(tf.nn.embedding_lookup(table, ids) - 1.0))
        train_op, _ = optimization.create_train_op(loss, Schedule(0.1, 8, **schedule))
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        for _ in range(updates):
            session.run(train_op)
        return session.run(table), {op.type for op in graph.get_operations()}


@graphs.COMPILED
@pytest.mark.parametrize("width", [1, 16, 37])
@pytest.mark.parametrize("ids", [[2], [4, 0, 4, 8, 4], [[7, 7], [0, 1]], np.zeros([0], np.int64)])
def test_an_update_of_rows_is_that_of_a_whole_gradient_to_the_last_bit(ids, width, monkeypatch):
    found, kinds = table_after(3, ids, width, clip_norm=0.0, weight_decay_rate=0.1)
    assert "BertAdamOfRows" in kinds
    monkeypatch.setattr(optimization, "_stays_in_rows", lambda *_: False)
    expected, kinds = table_after(3, ids, width, clip_norm=0.0, weight_decay_rate=0.1)
    assert "BertAdamOfRows" not in kinds
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("native_ops, workers, schedule", [
    (False, 0, {}), (True, 2, {}), (True, 0, {"num_parts": 2}), (True, 0, {"loss_scaling": True})],
    ids=["without our ops", "several machines", "accumulated", "scaled"])
def test_where_rows_cannot_be_kept_the_gradient_is_a_whole_one(native_ops, workers, schedule, monkeypatch):
    if workers:
        cluster = {"worker": ["host:%d" % port for port in range(workers)]}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))
    with native.using(native_ops):
        assert "BertAdamOfRows" not in table_after(0, [1, 2], **schedule)[1]


@graphs.COMPILED
@pytest.mark.parametrize("ids, values, error", [
    ([1, 3], [2, 2], "ids are rows, each once; found 3"), ([-1, 0], [2, 2], "each once; found -1"),
    ([1, 1], [2, 2], "each once; found 1"), ([1], [2, 2], "of one shape"), ([1], [1, 3], "of one shape"),
    ([1], [1], "of one shape")])
def test_our_op_refuses_rows_that_are_not_the_tables(ids, values, error):
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, [3, 2], initializer=tf.ones_initializer()) for name in ("w", "m", "v")]
        session.run(tf.global_variables_initializer())
        gradient = tf.IndexedSlices(tf.ones(values), tf.constant(ids))
        with pytest.raises(tf.errors.InvalidArgumentError, match=error):
            session.run(adam.update(*variables, gradient, 1.0, 1.0, 0.1, 0.9, 0.999, 1e-6))


@graphs.COMPILED
@pytest.mark.parametrize("shapes", [[[1]], [[0, 3], [5]], [[16384], [16385], [3, 7]], [[40, 1000], [2, 2, 2]]])
def test_the_norm_of_all_gradients(shapes):
    random = np.random.RandomState(0)
    gradients = [random.normal(size=shape).astype(np.float32) for shape in shapes]
    with native.using(True):
        found = graphs.run(lambda: adam.global_norm([
            tf.constant(gradients[0]), *[tf.IndexedSlices(tf.constant(one), [0]) for one in gradients[1:]]]))
    expected = np.sqrt(sum(np.sum(np.square(one, dtype=np.float64)) for one in gradients))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@EACH_OP
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_makes_the_norm_so(value, native_ops):
    gradient = np.ones(100, np.float32)
    gradient[70] = value
    with native.using(native_ops):
        np.testing.assert_equal(graphs.run(lambda: adam.global_norm([tf.constant(gradient), tf.ones([3])])),
                                np.float32(value))
