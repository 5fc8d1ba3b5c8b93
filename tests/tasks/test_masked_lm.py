import functools
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tasks.encoders import build_encoder
from tasks.masked_lm import MaskedLm
from tests import batches
from tests import graphs

TASK = MaskedLm()
CONFIGS = {"bert": batches.bert(layers=1), "bilstm": batches.bilstm(layers=1)}
WEIGHTS = graphs.named_weights(0.4)
HEAD = "cls/predictions/"


def run(config, changes=None):
    """What the task makes of one batch.

    Args:
      config: of the encoder.
      changes: dict of name -> array, in place of the batch's own features.
    """
    def build():
        batch = batches.features(batches.texts())
        batch.update({name: tf.constant(value) for name, value in (changes or {}).items()})
        encoder = build_encoder(config, False, batch)
        logits = TASK.logits(encoder, config, batch)
        total, count = TASK.loss(logits, batch)
        variables = {variable.op.name: variable for variable in tf.trainable_variables()}
        gradients = tf.gradients(total, list(variables.values()), unconnected_gradients="zero")
        return {"logits": logits, "sum": total, "count": count, "outputs": TASK.outputs(logits, batch),
                "sequence": encoder.get_sequence_output(), "table": encoder.get_embedding_table(),
                "variables": variables, "gradients": dict(zip(variables, map(tf.convert_to_tensor, gradients)))}

    return graphs.run(build, weights=WEIGHTS)


@functools.lru_cache(maxsize=None)
def unchanged(kind):
    return run(CONFIGS[kind])


@functools.lru_cache(maxsize=None)
def predictions():
    """The real predictions of the batch, (text, position, id), text after text."""
    batch = batches.values(batches.texts())
    return [(text, batch["masked_lm_positions"][text, place], batch["masked_lm_ids"][text, place])
            for text, weights in enumerate(batch["masked_lm_weights"]) for place in np.flatnonzero(weights)]


def numpy_head(vectors, table, variables):
    """The head's formula in float64, [R, H] -> [R, V]."""
    weights = {name: value.astype(np.float64) for name, value in variables.items()}
    x = vectors @ weights[HEAD + "transform/dense/kernel"] + weights[HEAD + "transform/dense/bias"]
    x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-12)
    x = x * weights[HEAD + "transform/LayerNorm/gamma"] + weights[HEAD + "transform/LayerNorm/beta"]
    return x @ table.astype(np.float64).T + weights[HEAD + "output_bias"]


def cross_entropies(logits):
    """Of each real prediction, in float64."""
    logits = logits.astype(np.float64)
    log_probs = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    return np.array([-row[word] for row, (_, _, word) in zip(log_probs, predictions())])


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_a_row_of_logits_is_the_heads_formula_at_a_real_position_text_after_text(kind):
    found = unchanged(kind)
    vectors = np.stack([found["sequence"][text, position] for text, position, _ in predictions()])
    expected = numpy_head(vectors, found["table"], found["variables"])
    assert found["logits"].shape == (len(predictions()), batches.VOCABULARY)
    np.testing.assert_allclose(found["logits"], expected, atol=1e-5)


def test_the_loss_is_the_sum_of_cross_entropies_and_the_count_that_of_the_update():
    found = run(CONFIGS["bert"], {"total_predictions": np.float32(77)})
    np.testing.assert_allclose(found["sum"], np.sum(cross_entropies(found["logits"])), rtol=1e-5)
    assert found["count"] == 77
    assert unchanged("bert")["count"] == len(predictions())


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_padded_predictions_move_neither_logits_nor_loss_nor_gradient(kind):
    batch = batches.values(batches.texts())
    # Every second column is padding, with a place and a word that look real.
    wider = {name: np.repeat(batch[name], 2, axis=1) for name in
             ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")}
    wider["masked_lm_positions"][:, ::2], wider["masked_lm_ids"][:, ::2] = batches.LONGEST - 1, 49
    wider["masked_lm_weights"][:, ::2] = 0.0
    before, after = unchanged(kind), run(CONFIGS[kind], wider)
    for name in ("logits", "sum", "count"):
        assert np.array_equal(before[name], after[name]), name
    for name, gradient in before["gradients"].items():
        # Sums are taken by several threads, in no fixed order; a gradient of padding is of the size of 1.
        np.testing.assert_allclose(after["gradients"][name], gradient, atol=1e-5, err_msg=name)


def test_texts_without_predictions_have_loss_0_and_gradients_of_0():
    none = np.zeros_like(batches.values(batches.texts())["masked_lm_weights"])
    found = run(CONFIGS["bert"], {"masked_lm_weights": none})
    assert found["logits"].shape == (0, batches.VOCABULARY)
    assert found["sum"] == 0
    assert all(np.all(gradient == 0) for gradient in found["gradients"].values())


@pytest.mark.parametrize("kind, width, table_width", [("bert", 8, 8), ("bilstm", 6, 4)])
def test_the_heads_variables_are_named_as_googles_and_as_wide_as_the_word_table(kind, width, table_width):
    shapes = {name[len(HEAD):]: value.shape for name, value in unchanged(kind)["variables"].items()
              if name.startswith(HEAD)}
    assert shapes == {"transform/dense/kernel": (width, table_width), "transform/dense/bias": (table_width,),
                      "transform/LayerNorm/gamma": (table_width,), "transform/LayerNorm/beta": (table_width,),
                      "output_bias": (batches.VOCABULARY,)}


def test_figures_are_means_over_all_masked_positions():
    logits = np.random.RandomState(1).normal(size=[len(predictions()), batches.VOCABULARY]).astype(np.float32)
    for row, (_, _, word) in enumerate(predictions()):
        logits[row, word] += 4.0 * (row % 3 != 0)
    right = [row.argmax() == word for row, (_, _, word) in zip(logits, predictions())]
    assert 0.5 < np.mean(right) < 1
    figures = TASK.figures(graphs.run(lambda: TASK.outputs(tf.constant(logits), batches.features(batches.texts()))))
    assert figures == {"masked_lm_loss": pytest.approx(np.mean(cross_entropies(logits)), rel=1e-5),
                       "masked_lm_accuracy": pytest.approx(np.mean(right)), "predictions": len(right)}
    assert json.loads(json.dumps(figures)) == figures


def test_figures_are_told_with_their_names():
    assert TASK.format_figures({"masked_lm_loss": 1.25, "masked_lm_accuracy": 0.5, "predictions": 1234}) == \
        "masked-LM loss 1.2500  accuracy 0.5000  positions 1,234"
