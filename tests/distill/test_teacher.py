import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from distill import teacher as teachers
from distill.teacher import Teacher
from tests import batches
from tests import graphs
from training.command import UserError

pytestmark = graphs.ON_REFERENCE

TASK = batches.TASKS["classification"]


def run(teacher, needs=("logits",), task=TASK):
    """The TeacherOutputs of all texts as arrays."""
    return graphs.run(lambda: [value for value in teachers.build_teacher(
        teacher, task, batches.features(batches.texts()), needs)._replace(encoder=None) if value is not None])


@pytest.mark.parametrize("config", [
    batches.bert(dropout=0.5), batches.albert(dropout=0.5), batches.electra(dropout=0.5),
    batches.bilstm(dropout=0.5)])
def test_outputs_are_those_of_the_saved_model_without_dropout(config, tmp_path):
    checkpoint, weights = batches.save_model(tmp_path / "m.ckpt", config, TASK)
    expected = batches.forward(config, TASK, batches.texts(), batches.from_dict(weights))
    embedding, hidden, logits = run(Teacher(config, checkpoint, ()))
    np.testing.assert_allclose(embedding, expected["embedding"], atol=1e-5)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)
    assert len(hidden) == config.num_layers
    for found, layer in zip(hidden, expected["hidden"]):
        np.testing.assert_allclose(found, layer, atol=1e-5)


def test_attention_is_there_when_it_is_asked_for(tmp_path):
    checkpoint, _ = batches.save_model(tmp_path / "m.ckpt", batches.bert(), TASK)
    with tf.Graph().as_default():
        given = Teacher(batches.bert(), checkpoint, ()), TASK, batches.features(batches.texts())
        assert teachers.build_teacher(*given, ()).attention is None
    with tf.Graph().as_default():
        given = Teacher(batches.bert(), checkpoint, ()), TASK, batches.features(batches.texts())
        assert len(teachers.build_teacher(*given, ["attention"]).attention) == 2


def test_a_teacher_may_be_some_layers_of_its_checkpoint(tmp_path):
    checkpoint, weights = batches.save_model(tmp_path / "m.ckpt", batches.bert(layers=4), TASK)
    cut = {name.replace("layer_3/", "layer_1/"): value for name, value in weights.items()
           if "layer_1/" not in name and "layer_2/" not in name}
    expected = batches.forward(batches.bert(layers=2), TASK, batches.texts(), batches.from_dict(cut))
    _, hidden, logits = run(Teacher(batches.bert(layers=2), checkpoint, (0, 3)))
    np.testing.assert_allclose(hidden[1], expected["hidden"][1], atol=1e-5)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)


def test_several_teachers_are_their_mean(tmp_path):
    config = batches.bert()
    saved = [batches.save_model(tmp_path / ("%d.ckpt" % number), config, TASK, scale=0.2 + 0.1 * number)[0]
             for number in range(3)]
    alone = [run(Teacher(config, checkpoint, ())) for checkpoint in saved]
    together = run(Teacher(config, saved[0], (), others=tuple(saved[1:])))
    for place in range(3):  # embedding, hidden, logits
        np.testing.assert_allclose(
            together[place], np.mean([outputs[place] for outputs in alone], axis=0), atol=1e-6)
    assert np.abs(np.array(together[2]) - alone[0][2]).max() > 0.01


def error(teacher, **arguments):
    with pytest.raises(UserError) as found:
        run(teacher, **arguments)
    return str(found.value)


def test_a_checkpoint_without_the_tasks_head_is_refused_where_logits_are_needed(tmp_path):
    checkpoint, _ = batches.save_model(tmp_path / "m.ckpt", batches.bert(), None)
    teacher = Teacher(batches.bert(), checkpoint, ())
    assert error(teacher) == (
        "%s: output_bias is not in the checkpoint, nor are 1 other variables of the model" % checkpoint)
    assert len(run(teacher, ())) == 2


def test_a_head_for_other_classes_is_refused(tmp_path):
    checkpoint, _ = batches.save_model(tmp_path / "m.ckpt", batches.bert(), TASK)
    four = type(TASK)(batches.Labels(["a", "b", "c", "d"]))
    assert error(Teacher(batches.bert(), checkpoint, ()), task=four) == (
        "%s: output_bias is [3] in the checkpoint, and [4] in the model; the configuration or the vocabulary is another"
        % checkpoint)


def test_an_encoder_of_another_width_is_refused(tmp_path):
    checkpoint, _ = batches.save_model(tmp_path / "m.ckpt", batches.bert(width=8), TASK)
    assert error(Teacher(batches.bert(width=6), checkpoint, ())).startswith(
        "%s: bert/embeddings/LayerNorm/beta is [8] in the checkpoint, and [6] in the model" % checkpoint)


def test_a_checkpoint_with_fewer_layers_is_refused(tmp_path):
    checkpoint, _ = batches.save_model(tmp_path / "m.ckpt", batches.bert(layers=1), TASK)
    assert error(Teacher(batches.bert(layers=2), checkpoint, ())).startswith(
        "%s: bert/encoder/layer_1/attention/output/LayerNorm/beta is not in the checkpoint, nor are 15" % checkpoint)


@pytest.mark.parametrize("config", [batches.bert(), batches.albert(), batches.electra()])
def test_a_student_of_the_same_kind_stands_beside_its_teacher(config, tmp_path):
    checkpoint, weights = batches.save_model(tmp_path / "m.ckpt", config, TASK)

    def build():
        batch = batches.features(batches.texts())
        student = teachers.build_encoder(config, True, batch)
        found = teachers.build_teacher(Teacher(config, checkpoint, ()), TASK, batch, ["logits"])
        trained = [variable.op.name for variable in tf.trainable_variables()]
        return student.get_sequence_output(), found.hidden[-1], trained

    with tf.Graph().as_default():
        names = build()[2]
    assert names and all(name.startswith(("bert/", "electra/")) for name in names)
    student, teacher = graphs.run(lambda: build()[:2])
    assert np.abs(student - teacher).max() > 0.1
    expected = batches.forward(config, TASK, batches.texts(), batches.from_dict(weights))
    np.testing.assert_allclose(teacher, expected["hidden"][-1], atol=1e-5)
