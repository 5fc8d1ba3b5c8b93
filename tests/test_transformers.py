"""The other Transformers through the commands: pre-trained, fine-tuned, exported, and taught from."""

import json
import os

import pytest
import tensorflow.compat.v1 as tf

from tests import graphs
from tests import tiny
from tests.commands import read

pytestmark = graphs.ON_TENSORFLOW_2
SIZES = dict(tiny.TEACHER, embedding_size=8)
MODELS = {"albert": (dict(SIZES, model_type="albert", num_hidden_groups=1, inner_group_num=1), "bert/"),
          "electra": (dict(SIZES, model_type="electra"), "electra/")}
SHORT = ("--do_train", "--num_train_steps=2", "--train_batch_size=16")


@pytest.fixture(params=sorted(MODELS))
def kind(request):
    return request.param


@pytest.fixture
def run(forks, tmp_path):
    """Runs a command that must end well, in the folder `name`; returns (folder, what it printed)."""
    def start(name, *command):
        folder = str(tmp_path / name)
        result = forks.run(*command, "--output_dir=" + folder)
        assert result.code == 0, result.err
        return folder, result.out

    return start


def names_in(folder):
    return [name for name, _ in tf.train.list_variables(tf.train.latest_checkpoint(folder))]


def test_another_transformer_goes_the_way_of_a_bert(kind, run, world, corpus_records, tmp_path):
    model, scope = MODELS[kind]
    _, size = tiny.write_vocabulary(tmp_path / "vocab.txt")
    config = tiny.write_model(tmp_path / "model.json", model, size)
    pretrained, _ = run("pretrained", "run_pretraining.py", "--input_file=" + corpus_records,
                        "--bert_config_file=" + config, "--vocab_file=" + world.vocabulary, *SHORT)
    assert "cls/predictions/transform/dense/kernel" in names_in(pretrained)

    # Cut to two of its three layers.
    tuned, out = run("tuned", "run_classifier.py", "--data_dir=" + world.task, "--init_checkpoint=" + pretrained,
                     "--init_layers=0,2", "--max_seq_length=%d" % tiny.MAX_LENGTH, "--do_eval", "--do_export", *SHORT)
    assert "variables restored (layers 0,2; " in out
    saved = json.loads(read(tuned, "config.json"))
    assert (saved["model_type"], saved["num_hidden_layers"], saved["embedding_size"]) == (kind, 2, 8)
    assert [name for name in names_in(tuned) if name.startswith(scope)]
    exported = os.path.join(tuned, "export", os.listdir(os.path.join(tuned, "export"))[0])
    assert os.path.exists(os.path.join(exported, "saved_model.pb"))

    student, out = run("student", "run_distill.py", "--task=classification", "--data_dir=" + world.task,
                       "--teacher_checkpoint=" + tuned, "--student_config_file=" + world.student,
                       "--layer_map=uniform", "--do_eval", *SHORT)
    line = [line for line in out.splitlines() if line.startswith("step ")][-1]
    for term in ("embedding", "hidden_1", "hidden_2", "prediction"):
        assert "  %s " % term in line
    assert not [name for name in names_in(student) if name.startswith(("teacher/", scope))]


@pytest.mark.parametrize("kind", ["albert"], indirect=True)  # the one whose word table is narrower than its states
def test_another_transformer_teaches_on_a_corpus(kind, run, world, corpus_records, tmp_path):
    model, _ = MODELS[kind]
    _, size = tiny.write_vocabulary(tmp_path / "vocab.txt")
    config = tiny.write_model(tmp_path / "model.json", model, size)
    teacher, _ = run("teacher", "run_pretraining.py", "--input_file=" + corpus_records, "--bert_config_file=" + config,
                     "--vocab_file=" + world.vocabulary, *SHORT)
    student, out = run("student", "run_distill.py", "--task=masked_lm", "--input_file=" + corpus_records,
                       "--teacher_checkpoint=" + teacher, "--student_config_file=" + world.student, *SHORT)
    assert "  hidden_2 " in out and "  prediction " in out
    assert "student/embeddings/word_embeddings" in names_in(student)
