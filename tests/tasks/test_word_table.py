import glob
import os
import tempfile

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import word_vectors
from bert.optimization import SLOTS
from bert.optimization import Schedule
from distill.teacher import Teacher
from tasks import word_table
from tasks.model_fn import task_model_fn
from tests import batches
from tests import graphs
from tests import tiny
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2

TASK = batches.TASKS["classification"]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + tiny.CHARACTERS[:batches.VOCABULARY - 5]
SEED = 5  # that of `batches.train`
MODELS = [batches.bilstm(), batches.bert(), batches.albert(), batches.electra()]


@pytest.fixture
def vocab_file(tmp_path):
    return tiny.write_lines(tmp_path / "vocab.txt", TOKENS)


def vectors(width, seed=2):
    """Of tokens 7, 9 and 20: float32 [3, width]."""
    return np.random.RandomState(seed).normal(1.0, 3.0, [3, width]).astype(np.float32)


def of_length_1(rows):
    return rows / np.sqrt(np.mean([row.dot(row) for row in rows]))


def write_vectors(tmp_path, rows):
    return tiny.write_lines(tmp_path / "vectors.txt", [
        "%s %s" % (TOKENS[token], " ".join(map(repr, map(float, row)))) for token, row in zip((7, 9, 20), rows)])


def open_file(path, config, vocab_file, seed=SEED):
    return word_table.open_word_table(path, config, "model.json", vocab_file, seed)


def start(folder, config, table=None, replicas=1):
    """The variables of a model that begins with a table, after an update that changes nothing."""
    def train(init):
        records_file = batches.write(os.path.join(str(folder), "texts.tfrecord"), batches.texts())
        model_fn = task_model_fn(config, TASK, Schedule(0.0, 1, 0), init)
        found = batches.train(os.path.join(str(folder), "run"), model_fn, records_file, 1, replicas=replicas)
        return {name: value for name, value in found.items() if name.rsplit("/", 1)[-1] not in SLOTS}

    if not table:
        return train(None)
    with word_table.as_init(table) as init:
        return train(init)


@pytest.mark.parametrize("config", MODELS)
def test_a_model_starts_with_the_vectors_of_the_file_and_is_fresh_elsewhere(config, vocab_file, tmp_path, capsys):
    rows = vectors(config.embedding_size)
    table = open_file(write_vectors(tmp_path, rows), config, vocab_file)
    assert "vectors.txt: 3 of 50 tokens found, %d values each\n" % config.embedding_size in capsys.readouterr().out
    plain, found = start(tmp_path / "plain", config), start(tmp_path / "with", config, table)
    changed = {name for name in plain if not np.array_equal(plain[name], found[name])}
    assert changed == {table.name} and table.name.endswith("/embeddings/word_embeddings")
    others = np.delete(np.arange(batches.VOCABULARY), [7, 9, 20])
    assert np.array_equal(found[table.name][others], plain[table.name][others])
    np.testing.assert_allclose(found[table.name][[7, 9, 20]], of_length_1(rows), rtol=1e-5)


def test_every_replica_starts_with_the_same_vectors(vocab_file, tmp_path):
    config = batches.bilstm()
    table = open_file(write_vectors(tmp_path, vectors(4)), config, vocab_file)
    one, two = start(tmp_path / "1", config, table), start(tmp_path / "2", config, table, replicas=2)
    assert graphs.largest_difference(one, two) == 0
    assert np.array_equal(two[table.name], table.values)


def test_a_run_begun_with_a_table_leaves_no_file_behind(vocab_file, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = open_file(write_vectors(tmp_path, vectors(4)), batches.bilstm(), vocab_file)
    with word_table.as_init(table) as init:
        assert glob.glob(init.checkpoint + "*")
    assert not glob.glob(init.checkpoint + "*") and not os.path.exists(os.path.dirname(init.checkpoint))


def test_wider_vectors_are_reduced_and_that_is_said(vocab_file, tmp_path, capsys):
    rows = vectors(11)
    table = open_file(write_vectors(tmp_path, rows), batches.bilstm(), vocab_file)
    assert "11 values each reduced to 4 (100.0 % of their squares kept)" in capsys.readouterr().out
    ours = table.values[[7, 9, 20]]
    expected = of_length_1(rows)  # of three rows, four columns lose nothing
    np.testing.assert_allclose(ours.dot(ours.T), expected.dot(expected.T), atol=1e-5)


def open_teacher(tmp_path, teacher, config, vocab_file):
    checkpoint, saved = batches.save_model(tmp_path / "teacher.ckpt", teacher, None)
    table = word_table.open_word_table(
        "teacher", config, "model.json", vocab_file, SEED, Teacher(teacher, checkpoint, ()))
    return table, [value for name, value in saved.items() if name.endswith("embeddings/word_embeddings")][0]


@pytest.mark.parametrize("teacher", [batches.bert(width=4), batches.albert(), batches.electra()])
def test_a_table_as_wide_as_the_teachers_is_the_teachers(teacher, vocab_file, tmp_path):
    table, saved = open_teacher(tmp_path, teacher, batches.bilstm(), vocab_file)
    assert table.name == "student/embeddings/word_embeddings"
    assert np.array_equal(table.values, saved)


def test_a_wider_table_of_the_teacher_is_reduced_and_keeps_its_scale(vocab_file, tmp_path, capsys):
    table, saved = open_teacher(tmp_path, batches.bert(), batches.bilstm(), vocab_file)
    assert np.array_equal(table.values, word_vectors.reduce(saved, 4))
    assert "the word table, 8 values each reduced to 4 (" in capsys.readouterr().out


def test_a_bert_can_start_with_the_table_of_a_bilstm(vocab_file, tmp_path):
    table, saved = open_teacher(tmp_path, batches.bilstm(embedding=8), batches.bert(), vocab_file)
    assert table.name == "bert/embeddings/word_embeddings" and np.array_equal(table.values, saved)


def test_vectors_that_are_too_narrow_are_refused(vocab_file, tmp_path):
    with pytest.raises(UserError) as error:
        open_file(write_vectors(tmp_path, vectors(3)), batches.bilstm(), vocab_file)
    assert str(error.value) == (
        "%s/vectors.txt: its vectors have 3 values, and the model's ('embedding_size' in model.json) 4; wider ones are "
        "needed, or a narrower model" % tmp_path)
    with pytest.raises(UserError, match="teacher.ckpt: its vectors have 4 values, and the model's .* 8; "):
        open_teacher(tmp_path, batches.albert(), batches.bert(), vocab_file)


def test_vectors_that_are_all_zero_are_refused(vocab_file, tmp_path):
    with pytest.raises(UserError, match="vectors.txt: the vectors of all tokens are 0"):
        open_file(write_vectors(tmp_path, np.zeros([3, 4])), batches.bilstm(), vocab_file)


@pytest.mark.parametrize("source, message", [
    ("teacher", "--init_embeddings=teacher: run_distill.py alone has a teacher; name a file of word vectors"),
    ("/absent.txt", "--init_embeddings=/absent.txt: no such file (and not \"teacher\")")])
def test_what_is_not_there_is_told(source, message, vocab_file):
    with pytest.raises(UserError) as error:
        open_file(source, batches.bilstm(), vocab_file)
    assert str(error.value) == message


def test_the_rows_without_a_vector_are_decided_by_the_seed(vocab_file, tmp_path):
    path = write_vectors(tmp_path, vectors(4))
    one, other = (open_file(path, batches.bilstm(), vocab_file, seed).values for seed in (1, 2))
    same = np.flatnonzero((one == other).all(axis=1))
    assert same.tolist() == [7, 9, 20]
    assert tf.get_default_graph().seed is None
