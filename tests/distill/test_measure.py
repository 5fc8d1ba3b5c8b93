import pytest
import tensorflow.compat.v1 as tf

from bert import records
from bert.optimization import Schedule
from distill import measure
from distill.model_fn import Distillation
from distill.model_fn import distillation_model_fn
from distill.teacher import Teacher
from tasks.model_fn import Init
from tests import batches
from tests import graphs

pytestmark = graphs.ON_REFERENCE

TASK = batches.TASKS["classification"]
STUDENT = batches.bilstm(layers=1, dropout=0.5)  # with dropout no figure below would fit
WEIGHTS = {"embedding": 0.5, "hidden_1": 2.0, "prediction": 1.5, "label": 0.75}


@pytest.fixture(scope="module")
def distillation(tmp_path_factory):
    config = batches.bert(layers=1)
    checkpoint, _ = batches.save_model(tmp_path_factory.mktemp("teacher") / "model.ckpt", config, TASK)
    return Distillation(STUDENT, Teacher(config, checkpoint, ()), TASK, [(1, 1)], WEIGHTS)


@pytest.fixture(scope="module")
def records_file(tmp_path_factory):
    return batches.write(tmp_path_factory.mktemp("records") / "texts.tfrecord", batches.texts())


def means(distillation, records_file, batch_size=8, **arguments):
    input_fn = records.evaluation_input_fn([records_file], TASK.feature_names, batch_size)
    return measure.term_means(distillation, input_fn, **arguments)


def first_update(distillation, folder, records_file):
    """What the first update of a training without dropout tells, and its last checkpoint."""
    told = []

    class Hook(tf.train.SessionRunHook):
        def __init__(self, terms):
            self._terms = terms

        def before_run(self, _):
            return tf.train.SessionRunArgs(self._terms)

        def after_run(self, _, run_values):
            told.append({name: float(value) for name, value in run_values.results.items() if name != "loss"})

    still = distillation._replace(config=batches.bilstm(layers=1))
    model_fn = distillation_model_fn(still, Schedule(0.5, 10), progress=lambda terms, scalars: Hook(terms))
    batches.train(folder, model_fn, records_file, 2)
    return told[0], tf.train.latest_checkpoint(str(folder))


def test_means_are_those_that_training_logs_without_dropout(distillation, tmp_path):
    records_file = batches.write(tmp_path / "texts.tfrecord", batches.texts()[:8])  # an update
    told, checkpoint = first_update(distillation, tmp_path / "run", records_file)
    for batch_size in (3, 8):
        assert means(distillation, records_file, batch_size, seed=5) == pytest.approx(told, rel=1e-5)
    assert means(distillation, records_file, checkpoint=checkpoint)["label"] != pytest.approx(told["label"], rel=1e-2)


def test_a_student_is_measured_where_it_starts(distillation, records_file, tmp_path):
    checkpoint, _ = batches.save_model(tmp_path / "m.ckpt", STUDENT, TASK, scale=0.9)
    found = means(distillation, records_file, init=Init(checkpoint, (), same_labels=True))
    assert found["label"] != pytest.approx(means(distillation, records_file)["label"], rel=1e-3)


def test_no_more_batches_are_read_than_asked_for(distillation, records_file):
    one = means(distillation, records_file, 4, max_batches=1)
    assert one != means(distillation, records_file, 4)
    endless = records.training_input_fn([records_file], TASK.feature_names, 4)
    assert set(measure.term_means(distillation, endless, max_batches=2)) == set(WEIGHTS)


def test_balanced_terms_count_what_their_weights_say():
    weights = measure.balanced({"a": 2.0, "b": 1.0, "c": 3.0}, {"a": 0.25, "b": 40.0, "c": 0.0})
    assert weights == {"a": 8.0, "b": 0.025, "c": 3.0}
