import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert.optimization import Schedule
from tasks import measuring
from tasks.model_fn import Init
from tasks.model_fn import task_model_fn
from tests import batches
from tests import graphs
from training import evaluation
from training.command import UserError
from training.evaluation import Evaluator

BERT, BILSTM = batches.bert(layers=1), batches.bilstm(layers=1)
SAME_WEIGHTS = 2e-6  # sums over parts round in another order


@pytest.fixture(scope="module")
def records_file(tmp_path_factory):
    return batches.write(tmp_path_factory.mktemp("records") / "texts.tfrecord", batches.texts())


class Shares(tf.train.SessionRunHook):
    """Keeps what is logged in each run of the session."""

    def __init__(self):
        self.terms, self.scalars = [], []

    def __call__(self, terms, scalars):
        self._fetches = terms, scalars
        return self

    def before_run(self, _):
        return tf.train.SessionRunArgs(self._fetches)

    def after_run(self, _, run_values):
        terms, scalars = run_values.results
        self.terms.append(terms)
        self.scalars.append(scalars)


def schedule(num_parts=1, rate=2e-3):
    return Schedule(rate, 25, 2, clip_norm=0.1, num_parts=num_parts)


@graphs.ON_REFERENCE
def test_what_is_logged_is_the_loss_over_the_whole_update_whatever_it_is_cut_into(records_file, tmp_path):
    logged = {}
    for replicas, num_parts in ((1, 1), (2, 2)):
        shares = Shares()
        model_fn = task_model_fn(BILSTM, batches.TASKS["classification"], schedule(num_parts), progress=shares)
        weights = batches.train(tmp_path / str(replicas), model_fn, records_file, 3, replicas=replicas,
                                num_parts=num_parts)
        assert all(list(terms) == ["loss"] for terms in shares.terms)
        losses = np.reshape([terms["loss"] for terms in shares.terms], [3, num_parts]).sum(axis=1)
        norms = [scalars["gradient_norm"] for scalars in shares.scalars[num_parts - 1::num_parts]]
        logged[replicas] = losses, norms, weights
    one, two = logged[1], logged[2]
    assert len(set(one[0])) == 3
    np.testing.assert_allclose(two[0], one[0], rtol=1e-5)
    np.testing.assert_allclose(two[1], one[1], rtol=1e-4)
    assert graphs.largest_difference(two[2], one[2]) < SAME_WEIGHTS


@pytest.mark.parametrize("task", sorted(batches.TASKS))
def test_the_loss_is_the_tasks_sum_over_the_count_of_the_update(task):
    serialized = batches.texts(several_labels=task == "several_labels")
    task = batches.TASKS[task]

    def both():
        tf.train.get_or_create_global_step()
        batch = dict(batches.features(serialized), total_labels=tf.constant(40.0),
                     total_predictions=tf.constant(50.0))
        spec = task_model_fn(BILSTM, task, schedule())(batch, tf.estimator.ModeKeys.TRAIN)
        return spec.loss, task.loss(tf.constant(logits), batch)

    draw = graphs.named_weights(0.4)
    logits = batches.forward(BILSTM, task, serialized, draw)["logits"]
    loss, (total, count) = graphs.run(both, weights=draw)
    assert count in (40, 50) and loss == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("task", ["masked_lm", "classification"])
@pytest.mark.parametrize("config", [BERT, BILSTM])
def test_every_tensor_of_a_model_has_a_gradient(config, task):
    def gradients():
        tf.train.get_or_create_global_step()
        spec = task_model_fn(config, batches.TASKS[task], schedule())(
            batches.features(batches.texts()), tf.estimator.ModeKeys.TRAIN)
        variables = tf.trainable_variables()
        found = tf.gradients(spec.loss, variables)
        assert None not in found
        return {variable.op.name: tf.convert_to_tensor(gradient) for variable, gradient in zip(variables, found)}

    for name, gradient in graphs.run(gradients, weights=graphs.named_weights(0.4)).items():
        if not name.endswith("key/bias"):  # which the softmax does not see
            assert np.abs(gradient).max() > 1e-5, name


def answers(config, task, checkpoint, records_file):
    return measuring.answering(config, task, [records_file], 5)(checkpoint)


@pytest.mark.parametrize("with_step", [True, False])
def test_a_checkpoint_answers_without_dropout_in_the_order_of_the_texts(with_step, records_file, tmp_path):
    config, task = batches.bilstm(layers=1, dropout=0.5), batches.TASKS["classification"]
    checkpoint, weights = batches.save_model(tmp_path / "m.ckpt", config, task, with_step=with_step)
    found = answers(config, task, checkpoint, records_file)
    assert found["record"].tolist() == list(range(batches.TEXTS))
    np.testing.assert_allclose(
        found["logits"], batches.forward(config, task, batches.texts(), batches.from_dict(weights))["logits"],
        atol=1e-5)
    assert np.array_equal(found["label_ids"], batches.values(batches.texts())["label_ids"])


def test_an_evaluator_answers_for_each_checkpoint_it_is_given_and_begins_anew_after_an_interruption(
        records_file, tmp_path, monkeypatch):
    task = batches.TASKS["classification"]
    saved = [batches.save_model(tmp_path / str(scale), BILSTM, task, scale)[0] for scale in (0.4, 0.8)]
    alone = [answers(BILSTM, task, checkpoint, records_file)["logits"] for checkpoint in saved]
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    answer = measuring.answering(BILSTM, task, [records_file], 5)
    for number in (0, 1):
        np.testing.assert_array_equal(answer(saved[number])["logits"], alone[number])

    def interrupted(batches, **_):
        yield next(iter(batches))
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(evaluation, "tqdm", interrupted)
        answer(saved[1])
    np.testing.assert_array_equal(answer(saved[0])["logits"], alone[0])


def test_a_run_builds_its_model_once_to_measure_its_checkpoints(records_file, tmp_path, monkeypatch):
    task, built = batches.TASKS["classification"], []
    saved = [batches.save_model(tmp_path / str(scale), BILSTM, task, scale)[0] for scale in (0.4, 0.8)]
    monkeypatch.setattr(measuring, "Evaluator", lambda *arguments: built.append(Evaluator(*arguments)) or built[-1])
    answer = measuring.answering(BILSTM, task, [records_file], 5)
    assert not built  # a run that measures nothing builds nothing
    found = [answer(checkpoint)["logits"] for checkpoint in saved]
    assert len(built) == 1 and not np.allclose(*found)


def test_a_file_without_any_record_is_named(tmp_path):
    task, empty = batches.TASKS["classification"], batches.write(tmp_path / "empty.tfrecord", [])
    checkpoint, _ = batches.save_model(tmp_path / "m.ckpt", BILSTM, task)
    with pytest.raises(UserError, match="%s: no records" % empty):
        answers(BILSTM, task, checkpoint, empty)


def test_masked_positions_of_all_batches_come_together(records_file, tmp_path):
    task = batches.TASKS["masked_lm"]
    checkpoint, weights = batches.save_model(tmp_path / "m.ckpt", BERT, task, with_step=False)
    logits = batches.forward(BERT, task, batches.texts(), batches.from_dict(weights))["logits"]
    batch = batches.values(batches.texts())
    words = batch["masked_lm_ids"][batch["masked_lm_weights"] > 0]
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(words)), words]
    found = answers(BERT, task, checkpoint, records_file)
    np.testing.assert_allclose(sorted(found["cross_entropy"]), sorted(expected), atol=1e-5)


@pytest.mark.parametrize("same_labels", [True, False])
def test_a_model_starts_with_the_head_of_the_checkpoint_for_the_same_classes_alone(
        same_labels, records_file, tmp_path):
    task = batches.TASKS["classification"]
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", BILSTM, task)
    model_fn = task_model_fn(BILSTM, task, schedule(rate=0.0), Init(checkpoint, (), same_labels))
    found = batches.train(tmp_path / "run", model_fn, records_file, 1)
    for name, value in saved.items():
        assert np.array_equal(found[name], value) == (same_labels or name not in task.label_variables), name


def test_a_model_needs_the_checkpoint_it_started_from_no_more(records_file, tmp_path):
    task = batches.TASKS["classification"]
    checkpoint, _ = batches.save_model(tmp_path / "m.ckpt", BILSTM, task)
    batches.train(tmp_path / "run", task_model_fn(BILSTM, task, schedule(), Init(checkpoint, (), True)),
                  records_file, 1)
    for name in tmp_path.glob("m.ckpt*"):
        os.remove(str(name))
    found = answers(BILSTM, task, tf.train.latest_checkpoint(str(tmp_path / "run")), records_file)
    assert len(found["logits"]) == batches.TEXTS
