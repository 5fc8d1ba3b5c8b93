import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert.optimization import Schedule
from distill import model_fn
from distill.model_fn import Distillation
from distill.model_fn import distillation_model_fn
from tasks import model_fn as tasks_model_fn
from tests import batches
from tests import graphs
from tests.distill.pairs import DRAW
from tests.distill.pairs import MAP
from tests.distill.pairs import MORE_WEIGHTS
from tests.distill.pairs import STUDENTS

pytestmark = graphs.ON_REFERENCE

TASK = batches.TASKS["classification"]
WEIGHTS = {"embedding": 1.0, "hidden_1": 0.5, "contrast_2": 0.3, "prediction": 1.0, "label": 1.0}


def test_the_step_goes_up_the_gradient_and_is_a_share_of_the_texts_embedding():
    random = np.random.RandomState(1)
    embedding, slope = random.randn(2, 3, 4, 5).astype(np.float32)
    mask = graphs.mask_of([4, 2, 1], 4)
    slope[mask == 0] = 0  # as of a loss that does not look at padding

    def build():
        given = tf.constant(embedding)
        return model_fn.perturbed(tf.reduce_sum(given * slope), given, tf.constant(mask), 0.25)

    found = graphs.run(build)
    for text in range(3):
        length = np.linalg.norm(embedding[text][mask[text] > 0])
        np.testing.assert_allclose(found[text], 0.25 * length * slope[text] / np.linalg.norm(slope[text]), rtol=1e-5)


@pytest.mark.parametrize("config", [
    STUDENTS["bilstm"], STUDENTS["bert"], batches.albert(layers=2), batches.electra(layers=2)])
def test_an_encoder_adds_it_to_the_output_of_its_embeddings_and_encodes_that(config):
    def build(step):
        features = batches.features(batches.texts())
        width = config.embedding_size
        given = None if step is None else tf.fill([16, 12, width], step) * tf.cast(
            tf.range(width), tf.float32)  # a LayerNorm would take an even step away
        encoder = model_fn.build_encoder(config, False, features, given)
        return encoder.get_embedding_output(), encoder.get_sequence_output()

    plain, none, some = (graphs.run(lambda step=step: build(step), weights=DRAW) for step in (None, 0.0, 0.1))
    np.testing.assert_allclose(none[1], plain[1], atol=1e-5)
    steps = np.broadcast_to(0.1 * np.arange(config.embedding_size), some[0].shape)
    np.testing.assert_allclose(some[0] - plain[0], steps, atol=1e-5)
    assert np.abs(some[1] - plain[1]).max() > 1e-3


def loss_of(student, teacher, perturbation):
    """The loss as training sees it, and its gradients by name."""
    def build():
        tf.train.get_or_create_global_step()
        features = batches.features(batches.texts())
        asked = Distillation(student, teacher, TASK, MAP, WEIGHTS, 2.0, False, perturbation)
        built = model_fn.build_terms(asked, features, True, counting=WEIGHTS)
        loss = tasks_model_fn.loss_of(built)
        variables = tf.trainable_variables()
        return loss, [tf.convert_to_tensor(gradient) for gradient in tf.gradients(loss, variables)], [
            variable.op.name for variable in variables]

    with tf.Graph().as_default():
        names = build()[2]
    found = graphs.run(lambda: build()[:2], weights=DRAW)
    return found[0], dict(zip(names, found[1]))


@pytest.mark.parametrize("kind", ["bilstm", "bert"])
def test_the_loss_is_that_of_texts_made_harder_on_the_same_variables(kind, saved_teacher):
    teacher, _ = saved_teacher("bert", "classification")
    plain, _ = loss_of(STUDENTS[kind], teacher, 0.0)
    small, small_gradients = loss_of(STUDENTS[kind], teacher, 1e-4)
    large, gradients = loss_of(STUDENTS[kind], teacher, 0.05)
    assert plain < small < plain + 1e-3 and large > plain + 1e-2
    for name, gradient in gradients.items():
        if not name.endswith("key/bias"):
            assert np.abs(gradient).max() > 1e-6, name
    assert max(np.abs(gradients[name] - small_gradients[name]).max() for name in gradients) > 1e-3


def test_training_so_keeps_the_variables_of_training_without_on_replicas_too(saved_teacher, tmp_path):
    teacher, _ = saved_teacher("bert", "classification")
    weights = {name: weight for name, weight in dict(WEIGHTS, **MORE_WEIGHTS).items()
               if name.startswith(("embedding", "hidden", "cosine", "prediction", "label"))}
    records_file = batches.write(tmp_path / "texts.tfrecord", batches.texts())
    found = {}
    for size in (0.0, 0.1):
        asked = Distillation(batches.bilstm(layers=2, dropout=0.2), teacher, TASK, MAP, weights, 1.0, False, size)
        found[size] = batches.train(tmp_path / str(size), distillation_model_fn(asked, Schedule(1e-2, 10)),
                                    records_file, 3, replicas=2)
    assert sorted(found[0.0]) == sorted(found[0.1])
    assert graphs.largest_difference(*found.values()) > 1e-3
