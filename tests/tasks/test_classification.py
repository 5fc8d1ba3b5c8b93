import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from bert import records
from tasks.classification import balanced_weights
from tasks.classification import Classification
from tasks.encoders import build_encoder
from tasks.text_files import Labels
from tests import batches
from tests import graphs
from training.command import UserError

NAMES = ["a", "b", "c", "d"]
ONE_LABEL = np.array([[2], [-1], [0], [2], [-1], [3]], np.int32)
SEVERAL_LABELS = np.array(
    [[1, 0, 1, 0], [-1] * 4, [0, 0, 0, 0], [1, 1, 1, 1], [-1] * 4, [0, 1, 0, 0]], np.int32)
LOGITS = np.random.RandomState(1).normal(0, 2, [6, 4]).astype(np.float32)
LABELLED = [0, 2, 3, 5]
WEIGHTS = [0.5, 1.0, 2.0, 3.0]


def task(several=False, weights=None, smoothing=0.0):
    return Classification(Labels(NAMES, "," if several else None), weights, smoothing)


def run_loss(task, labels, logits=LOGITS, total=4.0):
    """(sum, count, gradient of the sum in the logits)."""
    def build():
        given = tf.constant(logits)
        found, count = task.loss(given, {"label_ids": tf.constant(labels), "total_labels": tf.constant(total)})
        return found, count, tf.gradients(found, given)[0]

    return graphs.run(build)


def softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_one_class_is_weighted_cross_entropy_with_smoothed_targets(weights, smoothing):
    expected = 0.0
    for text in LABELLED:
        label = ONE_LABEL[text, 0]
        targets = np.full(4, smoothing / 4)
        targets[label] += 1 - smoothing
        expected -= (weights or [1.0] * 4)[label] * np.sum(targets * np.log(softmax(LOGITS[text])))
    total, count, _ = run_loss(task(False, weights, smoothing), ONE_LABEL, total=9.0)
    assert total == pytest.approx(expected, rel=1e-5)
    assert count == 9


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_several_classes_is_the_mean_over_classes_and_weighs_the_positives(weights, smoothing):
    expected = 0.0
    for text in LABELLED:
        targets = SEVERAL_LABELS[text] * (1 - smoothing) + smoothing / 2
        yes = sigmoid(LOGITS[text])
        expected += np.mean(-np.array(weights or [1.0] * 4) * targets * np.log(yes) - (1 - targets) * np.log(1 - yes))
    total, count, _ = run_loss(task(True, weights, smoothing), SEVERAL_LABELS, total=9.0)
    assert total == pytest.approx(expected, rel=1e-5)
    assert count == 9


@pytest.mark.parametrize("several, labels", [(False, ONE_LABEL), (True, SEVERAL_LABELS)])
def test_texts_without_a_label_move_neither_the_loss_nor_its_gradient(several, labels):
    smoothed = task(several, WEIGHTS, 0.1)
    changed = LOGITS.copy()
    changed[[1, 4]] = [1e3, -1e3, 0.0, 5.0]
    before, after = run_loss(smoothed, labels), run_loss(smoothed, labels, changed)
    for found, expected in zip(after, before):
        assert np.array_equal(found, expected)
    assert np.all(before[2][[1, 4]] == 0) and np.all(np.any(before[2][LABELLED] != 0, axis=1))


@pytest.mark.parametrize("several, labels", [(False, ONE_LABEL), (True, SEVERAL_LABELS)])
def test_a_batch_without_any_label_has_loss_0(several, labels):
    total, _, gradient = run_loss(task(several, WEIGHTS, 0.1), np.full_like(labels, records.NO_LABEL))
    assert total == 0 and np.all(gradient == 0)


def test_balanced_weights_are_scikit_learns():
    labels = [0] * 6 + [1] * 3 + [2]
    weights = balanced_weights([6, 3, 1], 10, False, "train.tsv")
    assert weights == pytest.approx([10 / 18, 10 / 9, 10 / 3])  # N / (C n_c), by hand
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=labels))
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1.0)


def test_balanced_weights_of_several_classes_weigh_texts_with_a_class_as_much_as_those_without():
    assert balanced_weights([2, 5, 10], 10, True, "train.tsv") == pytest.approx([4.0, 1.0, 0.0])


@pytest.mark.parametrize("several", [False, True])
def test_a_class_without_a_text_cannot_be_balanced(several):
    with pytest.raises(UserError, match="^--class_weights=balanced: train.tsv has no text of class 1 "):
        balanced_weights([3, 0, 2], 5, several, "train.tsv")


def test_probabilities_are_those_of_one_class_or_of_each_class_by_itself():
    found = graphs.run(lambda: task().probabilities(tf.constant(LOGITS)))
    np.testing.assert_allclose(found, softmax(LOGITS), atol=1e-6)
    np.testing.assert_allclose(
        graphs.run(lambda: task(True).probabilities(tf.constant(LOGITS))), sigmoid(LOGITS), atol=1e-6)


def outputs(several, labels, logits=LOGITS):
    return graphs.run(lambda: task(several).outputs(tf.constant(logits), {
        "label_ids": tf.constant(labels), "record": tf.range(len(labels))}))


def test_the_loss_figure_is_plain_cross_entropy():
    labels = ONE_LABEL[LABELLED]
    figures = task(False, WEIGHTS, 0.1).figures(outputs(False, labels, LOGITS[LABELLED]))
    expected = log_loss(labels[:, 0], softmax(LOGITS[LABELLED]), labels=range(4))
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)
    assert figures["accuracy"] == np.mean(LOGITS[LABELLED].argmax(axis=1) == labels[:, 0])
    assert json.loads(json.dumps(figures)) == figures


def test_the_loss_figure_of_several_classes_is_the_mean_over_texts_and_classes():
    labels = SEVERAL_LABELS[LABELLED]
    figures = task(True, WEIGHTS, 0.1).figures(outputs(True, labels, LOGITS[LABELLED]))
    yes = sigmoid(LOGITS[LABELLED])
    assert figures["loss"] == pytest.approx(-np.mean(np.where(labels, np.log(yes), np.log(1 - yes))), rel=1e-5)
    assert json.loads(json.dumps(figures)) == figures


@pytest.mark.parametrize("several, labels", [(False, ONE_LABEL), (True, SEVERAL_LABELS)])
def test_a_model_that_is_sure_and_wrong_has_a_finite_loss_figure(several, labels):
    wrong = np.where(np.arange(4) == 1, 1e4, -1e4).astype(np.float32) * np.ones([4, 1], np.float32)
    assert 1 < task(several).figures(outputs(several, labels[LABELLED], wrong))["loss"] < 50


def test_thresholds_chosen_on_one_set_are_used_on_another():
    dev_labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    dev = np.array([[0.3, 0.9], [0.4, 0.8], [0.1, 0.97], [0.1, 0.99]])
    two = Classification(Labels(["a", "b"], ","))
    chosen = two.figures({"label_ids": dev_labels, "probabilities": dev})["thresholds"]
    assert chosen == pytest.approx([0.2, 0.935])
    # At 0.5 two of these texts are wrong; with thresholds of their own they would do better than they may.
    test = {"label_ids": np.array([[1, 0], [0, 1], [1, 0]]),
            "probabilities": np.array([[0.25, 0.9], [0.15, 0.95], [0.19, 0.5]])}
    figures = two.figures(test, chosen)
    assert figures["thresholds"] == chosen
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert two.figures(test)["accuracy"] == 1
    assert two.figures(test, [0.5, 0.5])["accuracy"] == pytest.approx(1 / 3)


def test_one_class_a_text_has_no_threshold():
    found = outputs(False, ONE_LABEL[LABELLED], LOGITS[LABELLED])
    assert task().figures(found, [0.9] * 4) == task().figures(found)


@pytest.mark.parametrize("config", [batches.bert(layers=1), batches.bilstm(layers=1)])
def test_the_head_is_named_as_googles_and_maps_the_pooled_vector(config):
    def build():
        batch = batches.features(batches.texts())
        encoder = build_encoder(config, False, batch)
        logits = task().logits(encoder, config, batch)
        return logits, encoder.get_pooled_output(), {v.op.name: v for v in tf.trainable_variables()}

    logits, pooled, variables = graphs.run(build, weights=graphs.named_weights(0.5))
    assert variables["output_weights"].shape == (4, config.hidden_size)
    np.testing.assert_allclose(
        logits, pooled @ variables["output_weights"].T + variables["output_bias"], atol=1e-5)


@pytest.mark.parametrize("config", [batches.bert(layers=1, dropout=0.5), batches.bilstm(layers=1, dropout=0.5)])
def test_the_pooled_vector_is_dropped_out_in_training_alone(config):
    def build():
        batch = batches.features(batches.texts())
        encoder = build_encoder(config, False, batch)
        with tf.variable_scope("", reuse=tf.AUTO_REUSE):
            return [task().logits(encoder, config, batch, is_training) for is_training in (False, False, True)]

    first, second, training = graphs.run(build, weights=graphs.named_weights(0.5))
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert np.mean(np.abs(first - training)) > 0.05


def test_figures_are_told_with_the_loss_first():
    figures = task().figures(outputs(False, ONE_LABEL[LABELLED], LOGITS[LABELLED]))
    assert task().format_figures(figures).startswith("loss %.4f  texts 4  accuracy " % figures["loss"])
