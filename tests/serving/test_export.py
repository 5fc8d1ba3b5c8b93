import concurrent.futures as futures
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import records
from serving import export
from serving import warm_up
from serving.predictor import Predictor
from tests import graphs
from tests import tiny
from tests.commands import CHECKOUT
from tests.commands import read
from tests.test_run_classifier import predictions
from training import graph_mode  # noqa: F401

try:
    from tensorflow_serving.apis import predict_pb2
except ImportError:
    predict_pb2 = None  # its test is skipped

IDS = [[2, 5, 6, 7, 3], [2, 60, 3], [2, 110, 111, 112, 3]]


def exported(step):
    return export.newest(os.path.join(step.folder, "export"))


def features(ids):
    return {"input_ids": ids, "input_mask": [1] * len(ids), "segment_ids": [0] * len(ids)}


def padded():
    """IDS as feeds of the signature `serving_default`."""
    longest = max(map(len, IDS))
    found = {name: [] for name in records.SEQUENCE}
    for ids in IDS:
        for name, values in features(ids).items():
            found[name].append(values + [0] * (longest - len(ids)))
    return {name: np.array(values, np.int32) for name, values in found.items()}


def answer(folder, signature, feeds):
    """dict of the outputs of a signature."""
    with tf.Graph().as_default(), tf.Session() as session:
        loaded = tf.saved_model.loader.load(session, [tf.saved_model.tag_constants.SERVING], folder)
        found = loaded.signature_def[signature]
        return session.run({name: tensor.name for name, tensor in found.outputs.items()},
                           {found.inputs[name].name: value for name, value in feeds.items()})


def saved_model_cli(*arguments):
    program = os.path.join(os.path.dirname(sys.executable), "saved_model_cli")
    done = subprocess.run([program] + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3"))
    text = done.stdout.decode("utf-8")
    assert done.returncode == 0, text
    return text


@pytest.mark.parametrize("name", ["teacher_classifier", "student_classifier", "several_classifier"])
def test_both_signatures_answer_alike(name, request):
    folder = exported(request.getfixturevalue(name))
    by_ids = answer(folder, "serving_default", padded())
    by_examples = answer(folder, "examples:serving_default", {
        "examples": [records.serialize(features(ids)) for ids in IDS]})
    assert sorted(by_ids) == sorted(by_examples) == ["logits", "probabilities"]
    assert by_ids["probabilities"].shape == (3, 3)
    for output, values in by_ids.items():
        np.testing.assert_allclose(values, by_examples[output], atol=1e-6)


@pytest.mark.parametrize("name", ["teacher_classifier", "student_classifier", "several_classifier"])
def test_the_exported_model_answers_as_the_estimator_did(name, request):
    step = request.getfixturevalue(name)
    _, expected = predictions(step.folder)
    made = os.path.join(step.folder, "records", "predict.tfrecord")
    with tf.Graph().as_default():
        examples = list(tf.python_io.tf_record_iterator(made))
    found = answer(exported(step), "examples:serving_default", {"examples": examples})["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_export_holds_what_its_user_needs_and_nothing_of_the_training(student_classifier):
    folder = exported(student_classifier)
    for name in ("vocab.txt", "labels.txt", "config.json", "text.json"):
        assert read(folder, "assets.extra", name) == read(student_classifier.folder, name)
    names = {name for name, _ in tf.train.list_variables(os.path.join(folder, "variables", "variables"))}
    assert {"output_weights", "student/embeddings/word_embeddings"} <= names
    assert not [name for name in names
                if name.startswith(("distill/", "teacher/", "bert/", "cls/")) or "adam" in name]


def test_thresholds_go_with_a_model_of_several_labels_alone(several_classifier, student_classifier):
    chosen = json.loads(read(several_classifier.folder, "best", "figures.json"))["thresholds"]
    assert json.loads(read(exported(several_classifier), "assets.extra", "thresholds.json")) == chosen
    assert not os.path.exists(os.path.join(exported(student_classifier), "assets.extra", "thresholds.json"))


TEXTS = ["聚氯乙烯", "", "一丁七 万丈三上下。", "\u4e0d" * 200, "与 PVC 丐丑专"]


@pytest.mark.parametrize("name", ["teacher_classifier", "student_classifier", "several_classifier"])
def test_raw_text_gets_the_answer_of_its_ids(name, request):
    folder = exported(request.getfixturevalue(name))
    found = answer(folder, "classify_text", {"text": TEXTS})
    predictor = Predictor(folder)
    np.testing.assert_allclose(found["probabilities"], predictor.probabilities(TEXTS), atol=1e-5)
    names = [label.decode("utf-8") for label in found["classes"][0]]
    assert names == predictor.labels.names and found["classes"].shape == (len(TEXTS), 3)
    labels = [prediction.label for prediction in predictor.predict(TEXTS)]
    if name == "several_classifier":
        chosen = [",".join(label for label, yes in zip(names, row) if yes) for row in found["chosen"]]
        assert chosen == labels
    else:
        assert [label.decode("utf-8") for label in found["label"]] == labels


def test_a_pair_in_raw_text_gets_the_answer_of_its_ids(teacher_classifier):
    folder = exported(teacher_classifier)
    found = answer(folder, "classify_pair", {"text": TEXTS, "text_b": TEXTS[::-1]})["probabilities"]
    np.testing.assert_allclose(found, Predictor(folder).probabilities(list(zip(TEXTS, TEXTS[::-1]))), atol=1e-5)


@pytest.mark.parametrize("name, width", [("teacher_classifier", tiny.TEACHER["hidden_size"]),
                                         ("student_classifier", tiny.STUDENT["hidden_size"])])
def test_encode_text_gives_the_vectors_of_its_tokens_and_of_the_text(name, width, request):
    found = answer(exported(request.getfixturevalue(name)), "encode_text", {"text": ["一丁七", "万"]})
    assert found["sequence_output"].shape == (2, 5, width) and found["pooled_output"].shape == (2, width)
    alone = answer(exported(request.getfixturevalue(name)), "encode_text", {"text": ["万"]})
    np.testing.assert_allclose(alone["sequence_output"][0], found["sequence_output"][1, :3], atol=1e-5)
    np.testing.assert_allclose(alone["pooled_output"][0], found["pooled_output"][1], atol=1e-5)


@graphs.ON_REFERENCE
def test_a_text_gets_the_same_answer_in_any_company(student_classifier):
    folder = exported(student_classifier)
    together = answer(folder, "classify_text", {"text": TEXTS})["probabilities"]
    for text, row in zip(TEXTS, together):
        alone = answer(folder, "classify_text", {"text": [text]})["probabilities"]
        np.testing.assert_allclose(alone, [row], atol=1e-5)


ALONE = """
import sys
import tensorflow.compat.v1 as tf
with tf.Session(graph=tf.Graph()) as session:
    loaded = tf.saved_model.loader.load(session, ["serve"], sys.argv[1])
    used = {node.op for node in session.graph.as_graph_def().node}
    assert not {name for name in used if name.startswith(("Bert", "LstmRec"))}, used
    found = loaded.signature_def["classify_text"]
    label = session.run(found.outputs["label"].name, {found.inputs["text"].name: [sys.argv[2].encode("utf-8")]})
    print("label", label[0].decode("utf-8"))
"""


@pytest.mark.parametrize("name", ["teacher_classifier", "student_classifier"])
def test_a_process_without_our_code_classifies_text(name, request, tmp_path):
    folder = exported(request.getfixturevalue(name))
    text = tiny.texts(3, seed=2)[1][1]
    done = subprocess.run([sys.executable, "-c", ALONE, folder, text], stdout=subprocess.PIPE, cwd=str(tmp_path),
                          env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", PYTHONIOENCODING="utf-8"), check=True)
    assert "label " + Predictor(folder).predict([text])[0].label in done.stdout.decode("utf-8").splitlines()


def test_the_warm_up_is_a_request_that_the_export_answers(student_classifier):
    prediction_log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    folder = exported(student_classifier)
    with tf.Graph().as_default():
        written, = tf.python_io.tf_record_iterator(os.path.join(folder, "assets.extra", "tf_serving_warmup_requests"))
    request = prediction_log.PredictionLog.FromString(written).predict_log.request
    texts = tf.make_ndarray(request.inputs["text"]).tolist()
    assert [text.decode("utf-8") for text in texts] == list(warm_up.TEXTS)
    found = answer(folder, request.model_spec.signature_name, {"text": texts})
    assert found["probabilities"].shape == (len(texts), 3)


@pytest.mark.parametrize("signature, feeds, error, said", [
    ("classify_text", {"text": [["一"]]}, ValueError, "Cannot feed value of shape"),
    ("classify_text", {"text": "一"}, ValueError, "Cannot feed value of shape"),
    ("classify_text", {"text": [1.5]}, tf.errors.InternalError, "Unsupported object type"),
    ("classify_pair", {"text": ["一", "丁"], "text_b": ["七"]}, tf.errors.InvalidArgumentError,
     "as many second texts as texts are needed, or none"),
    ("serving_default", {"input_ids": [[2, 3]], "input_mask": [[1]], "segment_ids": [[0, 0]]},
     tf.errors.InvalidArgumentError, "input_ids, input_mask and segment_ids need one shape"),
    ("serving_default", {"input_ids": [[2, 9999]], "input_mask": [[1, 1]], "segment_ids": [[0, 0]]},
     tf.errors.InvalidArgumentError, "is not in"),
    ("examples:serving_default", {"examples": [b"no example"]}, tf.errors.InvalidArgumentError, "parse"),
])
def test_input_of_another_kind_is_refused(signature, feeds, error, said, student_classifier):
    with pytest.raises(error, match=said):
        answer(exported(student_classifier), signature, feeds)


class Service:
    """What a TensorFlow Serving does with a PredictRequest, as far as the request and its answer go."""

    def __init__(self, folder):
        self._folder = folder

    def Predict(self, request, context):
        del context
        feeds = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        found = answer(self._folder, request.model_spec.signature_name, feeds)
        response = predict_pb2.PredictResponse()
        for name, values in found.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
        return response


@graphs.ON_REFERENCE
def test_the_documented_client_gets_its_answer_over_grpc(student_classifier):
    grpc = pytest.importorskip("grpc")
    service = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc")
    server = grpc.server(futures.ThreadPoolExecutor(1))
    # The other methods are not called.
    servicer = type("Servicer", (Service, service.PredictionServiceServicer), {})(exported(student_classifier))
    service.add_PredictionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    code = read(CHECKOUT, "docs", "serving.md").split("```python\n")[1].split("```")[0]
    code = code.replace("8500", str(port)).replace("timeout=5.0", "timeout=60.0")
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE,
                          env=dict(os.environ, PYTHONIOENCODING="utf-8", TF_CPP_MIN_LOG_LEVEL="3"))
    server.stop(None)
    text = "聚氯乙烯生产车间招聘操作工"
    assert done.returncode == 0 and text in code
    assert done.stdout.decode("utf-8").strip() == Predictor(exported(student_classifier)).predict([text])[0].label


def test_the_same_model_is_not_exported_again(several_classifier, forks):
    before = os.listdir(os.path.join(several_classifier.folder, "export"))
    result = forks.run("run_classifier.py", "--output_dir=" + several_classifier.folder, "--do_export")
    assert result.code == 0 and "%s: exported already" % exported(several_classifier) in result.out
    assert os.listdir(os.path.join(several_classifier.folder, "export")) == before


def test_what_a_killed_export_left_is_gone_after_the_next(several_classifier, forks):
    exports = os.path.join(several_classifier.folder, "export")
    before = sorted(os.listdir(exports))
    os.mkdir(os.path.join(exports, "unfinished-ee3s9fab"))
    assert forks.run("run_classifier.py", "--output_dir=" + several_classifier.folder, "--do_export").code == 0
    assert sorted(os.listdir(exports)) == before


@graphs.ON_TENSORFLOW_2
def test_another_checkpoint_is_exported_anew_and_is_then_the_newest(several_classifier, forks, tmp_path):
    exports = str(tmp_path / "export")
    command = ("run_classifier.py", "--do_export", "--export_dir=" + exports,
               "--output_dir=%s" % (tmp_path / "run"))
    best, last = (os.path.join(several_classifier.folder, name)
                  for name in ("best/model.ckpt", "model.ckpt-40"))
    assert forks.run(*command, "--init_checkpoint=" + best).code == 0
    first = export.newest(exports)
    result = forks.run(*command, "--init_checkpoint=" + last)
    assert result.code == 0, result.err
    assert len(os.listdir(exports)) == 2 and export.newest(exports) > first


def test_tensorflows_own_tool_shows_and_runs_an_export(student_classifier, tmp_path):
    folder = exported(student_classifier)
    shown = saved_model_cli(
        "show", "--dir", folder, "--tag_set", "serve", "--signature_def", "serving_default")
    assert "inputs['input_ids'] tensor_info" in shown and "outputs['probabilities'] tensor_info" in shown
    feeds = []
    for name, values in padded().items():
        np.save(str(tmp_path / name), values)
        feeds.append("%s=%s" % (name, tmp_path / (name + ".npy")))
    saved_model_cli("run", "--dir", folder, "--tag_set", "serve", "--signature_def", "serving_default",
                    "--inputs", ";".join(feeds), "--outdir", str(tmp_path))
    expected = answer(folder, "serving_default", padded())["probabilities"]
    np.testing.assert_allclose(np.load(str(tmp_path / "probabilities.npy")), expected, atol=1e-6)
