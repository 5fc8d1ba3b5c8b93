import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert.optimization import Schedule
from distill import teacher as teachers
from distill.model_fn import Distillation
from distill.model_fn import distillation_model_fn
from distill.teacher import Teacher
from serving import export
from student import lstm
from tasks import encoders
from tasks import heads
from tasks import measuring
from tasks.classification import Classification
from tasks.encoders import build_encoder
from tasks.model_fn import Init
from tasks.model_fn import task_model_fn
from tasks.text_files import Labels
from tasks.text_settings import TextSettings
from tests import batches
from tests import graphs
from training.command import UserError

pytestmark = graphs.ON_REFERENCE

LENGTHS = [7, 2, 5, 1, 0, 4]  # shorter than some windows, as long, longer
STATES = np.random.RandomState(4).normal(0, 1, [len(LENGTHS), 7, 6]).astype(np.float32)
DRAW = graphs.named_weights(0.4)
CONFIGS = {"bert": batches.bert, "albert": batches.albert, "electra": batches.electra, "bilstm": batches.bilstm}
OVER_STATES = sorted(heads.OVER_STATES)


class States:
    """An encoder of given states."""

    def __init__(self, states):
        self._states = states

    def get_sequence_output(self):
        return tf.constant(self._states)


def vectors(head, states=STATES, lengths=LENGTHS):
    """float32 [B, F], with the weights of DRAW."""
    mask = graphs.mask_of(lengths, states.shape[1])
    return graphs.run(lambda: heads.text_vector(head, States(states), tf.constant(mask)), weights=DRAW)


def task(head):
    return Classification(Labels(batches.CLASSES), head=head)


def expected_cnn(tokens):
    """Of one text: its states float [length, H]."""
    found = []
    for width in heads.WIDTHS:
        kernel = DRAW("head/cnn/width_%d/kernel" % width, [width * 6, heads.FILTERS])
        bias = DRAW("head/cnn/width_%d/bias" % width, [heads.FILTERS])
        filled = np.concatenate([tokens, np.zeros([max(0, width - len(tokens)), 6])])
        windows = [filled[start:start + width].reshape(-1) for start in range(len(filled) - width + 1)]
        found.append(np.max([np.maximum(window @ kernel + bias, 0) for window in windows], axis=0))
    return np.concatenate(found)


def expected_attention(tokens):
    if not len(tokens):
        return np.zeros(6)
    kernel, bias = DRAW("head/attention/dense/kernel", [6, 6]), DRAW("head/attention/dense/bias", [6])
    powers = np.exp(np.tanh(tokens @ kernel + bias) @ DRAW("head/attention/context", [6]))
    return powers / powers.sum() @ tokens


@pytest.mark.parametrize("head, expected", [("cnn", expected_cnn), ("attention", expected_attention)])
def test_a_head_is_its_formula_over_the_real_tokens_of_each_text(head, expected):
    wanted = [expected(states[:length].astype(np.float64)) for states, length in zip(STATES, LENGTHS)]
    np.testing.assert_allclose(vectors(head), wanted, atol=1e-5)


@pytest.mark.parametrize("head", OVER_STATES)
def test_whatever_stands_at_padding_and_however_much_of_it_a_vector_is_the_same(head):
    wide = np.concatenate([STATES, STATES[:, :3]], axis=1)
    wide[graphs.mask_of(LENGTHS, 10) == 0] = np.nan
    np.testing.assert_allclose(vectors(head, wide), vectors(head), atol=1e-6)


@pytest.mark.parametrize("head", OVER_STATES)
def test_a_text_has_the_same_vector_alone_and_among_others(head):
    together = vectors(head)
    for number, length in enumerate(LENGTHS):
        alone = vectors(head, STATES[number:number + 1, :max(length, 1)], [length])
        np.testing.assert_allclose(alone[0], together[number], atol=1e-6)


def built(config, head, build=lambda logits, encoder: {v.op.name: v for v in tf.trainable_variables()}):
    """What `build` makes of a classifier's logits and encoder, as arrays; by default the variables."""
    def graph():
        batch = batches.features(batches.texts())
        encoder = build_encoder(config, False, batch)
        return build(task(head).logits(encoder, config, batch), encoder)

    return graphs.run(graph, weights=DRAW)


@pytest.mark.parametrize("kind", sorted(encoders.KINDS))
@pytest.mark.parametrize("head", heads.HEADS)
def test_each_variable_of_a_classifier_is_the_encoders_or_by_its_name_one_of_the_head(kind, head):
    names = set(built(CONFIGS[kind](), head))
    ours = {name for name in names if not encoders.in_encoder(name)}
    assert ours == {name for name in names if name.startswith(task(head).label_variables)}
    assert ours == {name for name in names if name.startswith("head/%s/" % head)} | {"output_weights", "output_bias"}
    assert (head == "pooled") == (not [name for name in ours if name.startswith("head/")])


@pytest.mark.parametrize("kind", ["bert", "bilstm"])
@pytest.mark.parametrize("head", OVER_STATES)
def test_the_class_layer_stands_over_the_heads_vector(kind, head):
    def build(logits, encoder):
        with tf.variable_scope("", reuse=True):
            batch = batches.features(batches.texts())
            return (logits, heads.text_vector(head, encoder, batch["input_mask"]),
                    tf.get_variable("output_weights"), tf.get_variable("output_bias"))

    logits, found, kernel, bias = built(CONFIGS[kind](), head, build)
    np.testing.assert_allclose(logits, found @ kernel.T + bias, atol=1e-5)


@pytest.fixture(scope="module")
def records_file(tmp_path_factory):
    return batches.write(tmp_path_factory.mktemp("records") / "texts.tfrecord", batches.texts())


def schedule():
    return Schedule(5e-2, 25, weight_decay_rate=0.1)


def training(config, task, **arguments):
    """Builds the training graph over all texts; returns its EstimatorSpec."""
    tf.train.get_or_create_global_step()
    return task_model_fn(config, task, schedule(), **arguments)(
        batches.features(batches.texts()), tf.estimator.ModeKeys.TRAIN)


@pytest.mark.parametrize("head", OVER_STATES)
def test_the_gradient_reaches_every_variable_of_head_and_encoder(head):
    def gradients():
        loss, variables = training(batches.bilstm(layers=1), task(head)).loss, tf.trainable_variables()
        return {variable.op.name: tf.convert_to_tensor(gradient)
                for variable, gradient in zip(variables, tf.gradients(loss, variables))}

    for name, gradient in graphs.run(gradients, weights=DRAW).items():
        assert np.abs(gradient).max() > 1e-5, name


@pytest.mark.parametrize("kind, backward", [("bilstm", "BlockLSTMGrad"), ("bert", "gradients/bert/")])
def test_over_a_frozen_encoder_no_gradient_is_computed_in_it(kind, backward):
    def holds(freeze_encoder):
        with tf.Graph().as_default() as graph, lstm.using("block"):
            training(CONFIGS[kind](), task("attention"), freeze_encoder=freeze_encoder)
            return any(operation.type.startswith(backward) or operation.name.startswith(backward)
                       for operation in graph.get_operations())

    assert holds(False) and not holds(True)


@pytest.mark.parametrize("kind, head, replicas", [
    ("bert", "pooled", 1), ("electra", "cnn", 1), ("bilstm", "cnn", 2), ("bilstm", "attention", 1)])
def test_a_frozen_encoder_keeps_every_bit_while_all_of_the_head_learns(kind, head, replicas, records_file, tmp_path):
    config = CONFIGS[kind](dropout=0.5)
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", config, task(head))
    model_fn = task_model_fn(config, task(head), schedule(), Init(checkpoint, (), True), freeze_encoder=True)
    found = batches.train(tmp_path / "run", model_fn, records_file, 3, replicas=replicas)
    assert set(saved) < set(found)
    for name, value in saved.items():
        assert np.array_equal(found[name], value) == encoders.in_encoder(name), name
    assert not [name for name in found if encoders.in_encoder(name) and "adam" in name]


@pytest.mark.parametrize("kind", ["bert", "bilstm"])
def test_a_frozen_encoder_has_no_dropout_but_its_head_has(kind):
    def states(is_frozen):
        caught = []

        class Spy(Classification):
            def logits(self, encoder, config, features, is_training=False):
                caught.append((encoder.get_sequence_output(), is_training))
                return super().logits(encoder, config, features, is_training)

        training(CONFIGS[kind](dropout=0.5), Spy(Labels(batches.CLASSES), head="cnn"), freeze_encoder=is_frozen)
        assert caught[0][1]
        return caught[0][0]

    plain = built(CONFIGS[kind](), "cnn", lambda logits, encoder: encoder.get_sequence_output())
    np.testing.assert_allclose(graphs.run(lambda: states(True), weights=DRAW), plain, atol=1e-6)
    assert np.abs(graphs.run(lambda: states(False), weights=DRAW) - plain).max() > 0.01


def start(config, head, checkpoint, freeze_encoder, folder, records_file, same_labels=True):
    """The variables a model starts with: after one update at rate 0."""
    model_fn = task_model_fn(config, task(head), Schedule(0.0, 25), Init(checkpoint, (), same_labels),
                             freeze_encoder=freeze_encoder)
    return batches.train(folder, model_fn, records_file, 1)


def test_a_frozen_encoder_of_which_something_is_absent_is_refused(records_file, tmp_path):
    checkpoint, _ = batches.save_model(tmp_path / "m.ckpt", batches.bert(), batches.TASKS["masked_lm"])
    with pytest.raises(UserError) as error:
        start(batches.bert(), "pooled", checkpoint, True, tmp_path / "run", records_file)
    assert str(error.value) == (
        "%s: bert/pooler/dense/bias is not in the checkpoint, nor are 1 other variables of the model; "
        "--freeze_encoder would keep it random: leave that out, or try another --head" % checkpoint)
    assert "head/cnn/width_3/bias" in start(batches.bert(), "cnn", checkpoint, True, tmp_path / "cnn", records_file)


@pytest.mark.parametrize("head", OVER_STATES)
@pytest.mark.parametrize("same_labels", [True, False])
def test_a_head_starts_as_the_checkpoints_where_that_is_the_same(head, same_labels, records_file, tmp_path):
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", batches.bilstm(), task(head))
    found = start(batches.bilstm(), head, checkpoint, False, tmp_path / "run", records_file, same_labels)
    for name, value in saved.items():
        assert np.array_equal(found[name], value) == (same_labels or encoders.in_encoder(name)), name


@pytest.mark.parametrize("kind, head", [("bert", "cnn"), ("bilstm", "cnn"), ("bilstm", "attention")])
def test_an_export_answers_as_the_estimator_does(kind, head, records_file, tmp_path):
    config = CONFIGS[kind](dropout=0.5)
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", config, task(head))
    wanted = batches.forward(config, task(head), batches.texts(), batches.from_dict(saved))["logits"]
    found = measuring.answering(config, task(head), [records_file], 5)(checkpoint)["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    folder = export.export(config, task(head), checkpoint, str(tmp_path / "export"), {},
                           TextSettings(tokenizer="words"), "")
    batch = batches.values(batches.texts())
    with tf.Graph().as_default(), tf.Session() as session:
        signature = tf.saved_model.loader.load(
            session, [tf.saved_model.tag_constants.SERVING], folder).signature_def["serving_default"]
        served = session.run(signature.outputs["logits"].name, {
            tensor.name: batch[name] for name, tensor in signature.inputs.items()})
    np.testing.assert_allclose(served, wanted, atol=3e-5)


@pytest.mark.parametrize("teachers_head, students_head", [("cnn", "pooled"), ("pooled", "attention")])
def test_teacher_and_student_each_have_their_own_head(teachers_head, students_head, tmp_path):
    config = batches.bert(dropout=0.5)
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", config, task(teachers_head), scale=0.6)
    teacher = Teacher(config, checkpoint, (), teachers_head)
    wanted = batches.forward(config, task(teachers_head), batches.texts(), batches.from_dict(saved))["logits"]
    found = graphs.run(lambda: teachers.build_teacher(
        teacher, task(students_head), batches.features(batches.texts()), ["logits"]).logits)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    with tf.Graph().as_default():
        tf.train.get_or_create_global_step()
        asked = Distillation(batches.bilstm(), teacher, task(students_head), [(1, 1)], {"prediction": 1.0})
        distillation_model_fn(asked, schedule())(batches.features(batches.texts()))
        names = [variable.op.name for variable in tf.trainable_variables()]
    assert [name for name in names if "head/" in name] == [
        name for name in built(batches.bilstm(), students_head) if name.startswith("head/")]


def test_a_frozen_student_learns_the_teachers_answers_with_its_head_alone(records_file, tmp_path):
    prefix, _ = batches.save_model(tmp_path / "teacher.ckpt", batches.bert(), task("pooled"))
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", batches.bilstm(dropout=0.5), None)
    asked = Distillation(batches.bilstm(dropout=0.5), Teacher(batches.bert(), prefix, (), "pooled"), task("cnn"),
                         [(1, 1)], {"prediction": 1.0, "label": 1.0}, freeze_encoder=True)
    model_fn = distillation_model_fn(asked, schedule(), Init(checkpoint, (), False))
    found = batches.train(tmp_path / "run", model_fn, records_file, 2)
    for name, value in saved.items():
        assert np.array_equal(found[name], value), name
    assert [name for name in found if name.startswith("head/cnn/") and "adam" in name]
