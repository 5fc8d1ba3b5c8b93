import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import records
from serving import export
from tests.commands import read
from tests.test_run_classifier import predictions
from training import graph_mode  # noqa: F401

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


def test_the_same_model_is_not_exported_again(several_classifier, forks):
    before = os.listdir(os.path.join(several_classifier.folder, "export"))
    result = forks.run("run_classifier.py", "--output_dir=" + several_classifier.folder, "--do_export")
    assert result.code == 0 and "%s: exported already" % exported(several_classifier) in result.out
    assert os.listdir(os.path.join(several_classifier.folder, "export")) == before


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
