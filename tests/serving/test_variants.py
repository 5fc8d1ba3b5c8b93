"""TFLite and ONNX forms: the answers of the graph, never those of another text."""

import collections
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from serving import export
from serving import measure
from serving import onnx_model
from serving import pruning
from serving import recurrent as recurrents
from serving import tflite
from serving.predictor import Predictor
from student.modeling import BiLstmConfig, BiLstmModel
from tests import graphs
from tests import tiny
from tests.commands import read
from training.command import UserError

pytest.importorskip("tflite")
pytest.importorskip("onnxruntime")

Task = collections.namedtuple("Task", "head independent_classes", defaults=("pooled", False))
SHAPES = [("concat", "last"), ("sum", "last"), ("concat", "max"), ("sum", "mean")]


def model_of(folder, merge, pooling, independent=False):
    """A Recurrent, and a function of ids [1, S] -> (probabilities, pooled vector), of one set of weights."""
    config = BiLstmConfig(50, hidden_size=12, num_hidden_layers=2, embedding_size=7, merge=merge, pooling=pooling)
    with tf.Graph().as_default():
        ids = tf.placeholder(tf.int32, [1, None])
        pooled = BiLstmModel(config, False, ids, kernel="block").get_pooled_output()
        kernel, bias = tf.get_variable("output_weights", [3, 12]), tf.get_variable("output_bias", [3])
        logits = tf.matmul(pooled, kernel, transpose_b=True) + bias
        answer = tf.sigmoid(logits) if independent else tf.nn.softmax(logits)
        session = tf.Session()
        session.run(tf.global_variables_initializer())
        graphs.assign(session, tf.trainable_variables(), graphs.named_weights(0.5))
        prefix = tf.train.Saver().save(session, str(folder / "model.ckpt"))
    found = recurrents.read(config, Task("pooled", independent), prefix, "--export_formats=x")
    return found, lambda row: session.run([answer, pooled], {ids: [row]})


def rows():
    draw = np.random.RandomState(3)
    return [draw.randint(0, 50, length).tolist() for length in (9, 1, 2, 30, 9, 3, 64)]


@pytest.mark.parametrize("kind, tolerance", [("float32", 1e-5), ("float16", 5e-3), ("int8", 5e-2)])
@pytest.mark.parametrize("merge, pooling", SHAPES)
def test_tflite_answers_as_the_graph_for_texts_of_any_length_one_after_the_other(
        merge, pooling, kind, tolerance, tmp_path):
    recurrent, graph = model_of(tmp_path, merge, pooling)
    tflite.write(str(tmp_path / "m.tflite"), recurrent, kind)
    model = tf.lite.Interpreter(model_path=str(tmp_path / "m.tflite"))
    given, (answer, vector) = model.get_input_details()[0], model.get_output_details()
    for row in rows():
        model.resize_tensor_input(given["index"], [1, len(row)])
        model.allocate_tensors()
        model.reset_all_variables()
        model.set_tensor(given["index"], np.array([row], np.int32))
        model.invoke()
        for found, expected in zip((answer, vector), graph(row)):
            np.testing.assert_allclose(model.get_tensor(found["index"]), expected, atol=tolerance)


# Seen: 0.033, and 0.055 on a CPU without VNNI, whose sums of int8 products saturate.
@pytest.mark.parametrize("kind, tolerance", [("float32", 1e-5), ("int8", 8e-2)])
@pytest.mark.parametrize("merge, pooling", SHAPES)
def test_onnx_answers_as_the_graph_for_each_text_of_a_padded_batch(merge, pooling, kind, tolerance, tmp_path):
    import onnxruntime
    recurrent, graph = model_of(tmp_path, merge, pooling)
    onnx_model.write(str(tmp_path / "m.onnx"), recurrent, kind)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    texts = rows()
    ids = np.full([len(texts), 64], 7, np.int32)  # what stands at padding does not count
    for target, row in zip(ids, texts):
        target[:len(row)] = row
    found = session.run(["probabilities", "pooled_output"], {
        "input_ids": ids, "input_mask": graphs.mask_of([len(row) for row in texts], 64)})
    for number, row in enumerate(texts):
        for values, expected in zip(found, graph(row)):
            np.testing.assert_allclose(values[number], expected[0], atol=tolerance)


@graphs.ON_REFERENCE
def test_independent_classes_have_a_probability_each(tmp_path):
    recurrent, graph = model_of(tmp_path, "concat", "last", independent=True)
    expected = np.concatenate([graph(row)[0] for row in rows()])
    assert np.abs(expected.sum(axis=1) - 1.0).max() > 0.1
    for name, writer in (("m.tflite", tflite), ("m.onnx", onnx_model)):
        writer.write(str(tmp_path / name), recurrent)
        np.testing.assert_allclose(measure.run(str(tmp_path / name), rows())["probabilities"], expected, atol=1e-5)


def test_each_direction_of_a_layer_is_one_operation(tmp_path):
    recurrent, _ = model_of(tmp_path, "concat", "last")
    tflite.write(str(tmp_path / "m.tflite"), recurrent)
    import tflite as schema
    graph = schema.Model.GetRootAsModel((tmp_path / "m.tflite").read_bytes(), 0)
    codes = [graph.OperatorCodes(number).BuiltinCode() for number in range(graph.OperatorCodesLength())]
    used = [codes[graph.Subgraphs(0).Operators(number).OpcodeIndex()]
            for number in range(graph.Subgraphs(0).OperatorsLength())]
    assert used.count(schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM) == 4 and len(used) < 25


@graphs.ON_REFERENCE
def test_another_encoder_or_head_is_refused(teacher_classifier, tmp_path):
    from tasks import encoders
    config = encoders.read_config(os.path.join(teacher_classifier.folder, "config.json"))
    with pytest.raises(UserError, match="--export_formats=x: writes BiLSTM students, and this model is a bert"):
        recurrents.read(config, Task(), "", "--export_formats=x")
    with pytest.raises(UserError, match="--export_formats=x: writes --head=pooled, and this model's is cnn"):
        recurrents.read(BiLstmConfig(50), Task("cnn"), "", "--export_formats=x")


@pytest.fixture(scope="module")
def exported(student_classifier, world, forks, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("variants"))
    result = forks.run("run_classifier.py", "--do_export", "--init_checkpoint=" + student_classifier.folder,
                       "--output_dir=" + os.path.join(folder, "run"), "--export_dir=" + folder,
                       "--data_dir=" + world.task, "--export_formats=tflite,onnx")
    assert result.code == 0, result.err
    return export.newest(folder)


def test_every_form_answers_as_the_saved_model_on_what_is_reported(exported):
    card = json.loads(read(exported, "card.json"))
    forms = {form["path"]: form for form in card["forms"]}
    assert set(forms) == {".", "onnx/model_float32.onnx", "onnx/model_int8.onnx", "tflite/model_float32.tflite",
                          "tflite/model_float16.tflite", "tflite/model_int8.tflite"}
    for name, form in forms.items():
        assert form["largest_difference"] < (1e-5 if "float32" in name or name == "." else 0.05)
        assert form["milliseconds_a_text"] > 0 and form["accuracy"] > 0.5
    sizes = [forms["tflite/model_%s.tflite" % kind]["megabytes"] for kind in ("int8", "float16", "float32")]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]


def test_the_card_says_what_the_model_is(exported, student_classifier):
    card, readme = json.loads(read(exported, "card.json")), read(exported, "README.md")
    assert card["labels"] == list(Predictor(exported).labels.names) and card["model_type"] == "bilstm"
    assert card["text"]["max_seq_length"] == tiny.MAX_LENGTH and card["measured_on"] == "test.tsv"
    assert sorted(card["milliseconds"]) == ["32"] and all(value > 0 for value in card["milliseconds"].values())
    assert "| tflite/model_int8.tflite |" in readme and ", ".join(card["labels"]) in readme


def test_a_plain_export_has_a_card_with_the_figures_of_its_run(student_classifier):
    folder = export.newest(os.path.join(student_classifier.folder, "export"))
    card = json.loads(read(folder, "card.json"))
    assert card["evaluation"]["accuracy"] == json.loads(read(student_classifier.folder, "eval.json"))["accuracy"]
    assert card["training"]["task"] == "classification" and "test.tsv" not in card["training"]
    assert card["evaluation"]["measured_on"] == "test.tsv" and len(card["evaluation"]["data_sha256"]) == 64
    assert card["command"].startswith("python ") and "--unlabeled_file=" in card["command"]
    readme = read(folder, "README.md")
    assert "texts of test.tsv." in readme and card["command"] in readme and "ms (32 tokens)" in readme


@graphs.ON_REFERENCE
def test_memory_is_what_a_model_adds_not_what_importing_took(exported):
    rows = [[1] * 9] * 3
    small = measure.run(os.path.join(exported, "tflite", "model_int8.tflite"), rows)["megabytes"]
    assert 0 < small < measure.run(exported, rows)["megabytes"]


def run_client(folder, texts):
    """[label, probability] of each text, by the client in a folder and nothing of ours."""
    done = subprocess.run([sys.executable, "-I", "client.py", "model_float32.tflite"], cwd=str(folder),
                          input="".join(text + "\n" for text in texts).encode("utf-8"), stdout=subprocess.PIPE,
                          env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3"), check=True)
    return [line.split("\t") for line in done.stdout.decode("utf-8").splitlines()]


CLIENT_TEXTS = [text for _, text in tiny.texts(8, seed=3)] + [
    "Ab 一,\u3000丁é", "一" * 10 + "丁" * 40, "龘", "丁\u0301七Σ"]


@graphs.ON_REFERENCE
@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail"])
def test_the_client_beside_the_model_needs_nothing_of_ours_and_answers_alike(exported, truncation, tmp_path):
    copied = tmp_path / "export"
    shutil.copytree(exported, str(copied))
    for folder in ("assets.extra", "tflite"):
        settings = json.loads(read(exported, folder, "text.json"))
        (copied / folder / "text.json").write_text(json.dumps(dict(settings, truncation=truncation)), encoding="utf-8")
    found = run_client(copied / "tflite", CLIENT_TEXTS)
    expected = Predictor(str(copied)).predict(CLIENT_TEXTS)
    assert [label for label, _ in found] == [one.label for one in expected]
    np.testing.assert_allclose([float(value) for _, value in found],
                               [one.probabilities.max() for one in expected], atol=1e-4)


@graphs.ON_REFERENCE
def test_the_client_tells_all_labels_of_a_text_that_may_have_several(several_classifier, forks, tmp_path):
    result = forks.run("run_classifier.py", "--do_export", "--output_dir=" + several_classifier.folder,
                       "--export_dir=%s" % tmp_path, "--export_formats=tflite")
    assert result.code == 0, result.err
    folder = export.newest(str(tmp_path))
    found = [label for label, _ in run_client(os.path.join(folder, "tflite"), CLIENT_TEXTS)]
    assert found == [one.label for one in Predictor(folder).predict(CLIENT_TEXTS)] and len(set(found)) > 2


def test_no_text_leads_to_a_token_that_is_pruned(exported):
    predictor = Predictor(exported)
    tokenizer = predictor._featurizer.tokenizer
    kept = set(pruning.emitted(tokenizer))
    for text in (chr(code) for code in range(0x20, 0x10000) if not 0xD800 <= code < 0xE000):
        assert kept.issuperset(tokenizer.tokenize("a%sb %s" % (text, text)))


def tokenizer_of(tmp_path, tokens):
    from bert.tokenization import FullTokenizer
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tokens]) + "\n", encoding="utf-8")
    return FullTokenizer(str(path))


def test_what_is_pruned_is_what_the_tokenizer_cannot_give(tmp_path):
    tokenizer = tokenizer_of(tmp_path, [
        "氯", "##氯", "a", "##b", "A", "##B", "é", "[unused1]", "ab", ",", "##,", "a,", "##"])
    assert pruning.emitted(tokenizer)[5:] == ["氯", "a", "##b", "ab", ","]


def test_the_most_frequent_tokens_of_some_texts_stay(tmp_path):
    tokenizer = tokenizer_of(tmp_path, list("氯乙烯苯酚"))
    texts = ["乙烯烯", "苯乙烯", "??"]
    assert pruning.choose(tokenizer, "seen", texts)[5:] == ["乙", "烯", "苯"]
    assert pruning.choose(tokenizer, "7", texts)[5:] == ["乙", "烯"]
    assert pruning.choose(tokenizer, "", texts)[5:] == list("氯乙烯苯酚")


@graphs.ON_REFERENCE
@pytest.mark.parametrize("flags, said", [
    (["--export_formats=coreml"], "--export_formats=coreml: no format coreml; there are saved_model, tflite, onnx"),
    (["--prune_vocab=100"], "--prune_vocab=100: for --export_formats=tflite or onnx"),
    (["--prune_vocab=many", "--export_formats=tflite"], "--prune_vocab=many: a number of tokens above 5, or seen"),
    (["--prune_vocab=5", "--export_formats=tflite"], "--prune_vocab=5: a number of tokens above 5, or seen"),
    (["--prune_vocab=seen", "--export_formats=tflite"], "--prune_vocab=seen: needs --data_dir"),
])
def test_flags_that_make_no_sense_are_refused_before_anything_is_made(flags, said, student_classifier, forks, tmp_path):
    result = forks.run("run_classifier.py", "--do_export", "--init_checkpoint=" + student_classifier.folder,
                       "--output_dir=%s" % (tmp_path / "run"), *flags)
    assert result.code == 1 and said in result.err and not (tmp_path / "run").exists()


@graphs.ON_TENSORFLOW_2
def test_a_pruned_vocabulary_is_measured_with_its_unknown_tokens(student_classifier, world, forks, tmp_path):
    result = forks.run("run_classifier.py", "--do_export", "--init_checkpoint=" + student_classifier.folder,
                       "--output_dir=%s" % (tmp_path / "run"), "--data_dir=" + world.task, "--export_formats=tflite",
                       "--prune_vocab=60", "--export_dir=%s" % tmp_path)
    assert result.code == 0, result.err
    folder = export.newest(str(tmp_path))
    assert len(read(folder, "tflite", "vocab.txt").splitlines()) == 60
    forms = {form["path"]: form for form in json.loads(read(folder, "card.json"))["forms"]}
    assert forms["tflite/model_float32.tflite"]["unknown_tokens"] > forms["."]["unknown_tokens"] + 0.2
