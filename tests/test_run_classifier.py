import json
import os

import numpy as np
import pytest

from bert.word_tokenization import WordTokenizer
from serving.predictor import Predictor
from tests import graphs
from tests import tiny
from tests.commands import read
from tests.graphs import weights_in
from tests.test_run_pretraining import NOISE


def rows(*path):
    """The cells of a file with tabs, line by line, without the header."""
    return [line.split("\t") for line in read(*path).splitlines()][1:]


def predictions(folder):
    """(labels, float [N, C]) of predictions.tsv."""
    found = rows(folder, "predictions.tsv")
    return [row[0] for row in found], np.array([[float(cell) for cell in row[1:]] for row in found])


@pytest.fixture
def classify(world, forks, tmp_path):
    """Trains a BiLSTM for one update, or as the flags say; returns (folder, Result)."""
    def run(*flags):
        folder = str(tmp_path / "run")
        return folder, forks.run(
            "run_classifier.py", "--data_dir=" + world.task, "--output_dir=" + folder,
            "--vocab_file=" + world.vocabulary, "--student_config_file=" + world.student, "--do_train",
            "--num_train_steps=1", *flags)

    return run


def predict(forks, folder, *flags):
    """(labels, probabilities) that a run folder's model gives."""
    result = forks.run("run_classifier.py", "--output_dir=" + folder, "--do_predict", *flags)
    assert result.code == 0, result.err
    return predictions(folder)


@pytest.fixture
def copied(several_classifier, teacher_classifier, student_classifier, tmp_path):
    """Function of a step -> a folder with what its model needs, to write to."""
    def copy(step):
        folder = str(tmp_path / "copy")
        os.makedirs(folder)
        for name in os.listdir(step.folder):
            if name not in ("predictions.tsv", "eval.json", "records", "export"):
                os.symlink(os.path.join(step.folder, name), os.path.join(folder, name))
        return folder

    return copy


def test_a_classifiers_run_folder_holds_its_labels_and_how_text_becomes_ids(teacher_classifier):
    assert read(teacher_classifier.folder, "labels.txt").splitlines() == sorted(tiny.TOPICS)
    assert json.loads(read(teacher_classifier.folder, "text.json"))["max_seq_length"] == tiny.MAX_LENGTH
    names = set(os.listdir(teacher_classifier.folder))
    assert {"config.json", "vocab.txt", "best", "finished.json", "eval.json", "predictions.tsv"} <= names


def test_a_run_of_all_actions_says_nothing_but_its_own_plain_lines(teacher_classifier):
    assert teacher_classifier.result.err == ""
    assert not [word for word in NOISE if word in teacher_classifier.result.out]


def test_dev_selects_and_test_is_reported(teacher_classifier):
    figures = json.loads(read(teacher_classifier.folder, "eval.json"))
    assert figures["texts"] == 31 and len(figures["classes"]) == 3
    assert "trained on train.tsv, selected on dev.tsv, reported on test.tsv" in teacher_classifier.result.out


def test_the_encoder_is_restored_and_its_masked_lm_head_left_out(teacher_classifier, teacher):
    line = [line for line in teacher_classifier.result.out.splitlines() if "variables restored" in line][0]
    assert line.startswith(os.path.join(teacher.folder, "best", "model.ckpt") + ": ")
    assert "fresh: bert/pooler/dense/bias, bert/pooler/dense/kernel" in line and "cls/predictions" in line


def test_the_labels_predicted_are_those_with_the_highest_probability(student_classifier):
    labels, probabilities = predictions(student_classifier.folder)
    names = read(student_classifier.folder, "labels.txt").splitlines()
    assert [names[number] for number in probabilities.argmax(axis=1)] == labels
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)


def test_predictions_stand_in_the_order_of_the_texts(student_classifier, world):
    labels, _ = predictions(student_classifier.folder)
    true = [row[0] for row in rows(world.task, "test.tsv")]
    figures = json.loads(read(student_classifier.folder, "eval.json"))
    right = [label == wanted for label, wanted in zip(labels, true)]
    assert np.mean(right) == pytest.approx(figures["accuracy"])


@graphs.ON_REFERENCE
def test_a_text_file_without_labels_is_predicted_in_its_order(
        student_classifier, world, copied, forks, tmp_path):
    texts = tiny.write_lines(tmp_path / "texts.txt", [row[1] for row in rows(world.task, "test.tsv")])
    labels, probabilities = predict(forks, copied(student_classifier), "--predict_file=" + texts)
    expected_labels, expected = predictions(student_classifier.folder)
    assert labels == expected_labels
    np.testing.assert_allclose(probabilities, expected, atol=2e-6)


def test_a_run_folder_predicts_with_its_own_text_settings_whatever_its_start(
        teacher_classifier, teacher, world, copied, forks):
    # The pre-trained teacher has no text.json: its default of 128 tokens would be refused.
    labels, _ = predict(forks, copied(teacher_classifier), "--data_dir=" + world.task,
                        "--init_checkpoint=" + teacher.folder)
    assert labels == predictions(teacher_classifier.folder)[0]


@graphs.ON_TENSORFLOW_2
def test_a_bad_row_is_left_out_and_counted_when_asked(classify, world, tmp_path):
    folder = str(tmp_path / "task")
    tiny.write_task(folder)
    train = read(folder, "train.tsv").splitlines()
    tiny.write_lines(os.path.join(folder, "train.tsv"), train[:4] + ["one column"] + train[5:])
    result = classify("--data_dir=" + folder)[1]
    assert result.code == 1 and len(result.err.splitlines()) == 1
    assert "train.tsv:5: 1 column where 2 are needed" in result.err and "--errors=skip" in result.err
    result = classify("--data_dir=" + folder, "--errors=skip")[1]
    assert result.code == 0, result.err
    assert "89 texts" in result.out and "1 rows left out" in result.out


@graphs.ON_REFERENCE
def test_other_texts_under_the_same_name_are_refused_and_the_records_stay(classify, tmp_path):
    folder = str(tmp_path / "task")
    tiny.write_task(folder)
    run_folder, result = classify("--data_dir=" + folder)
    assert result.code == 0, result.err
    records = read(run_folder, "records", "train.json")
    tiny.write_tsv(os.path.join(folder, "train.tsv"), tiny.texts(90, seed=77))
    result = classify("--data_dir=" + folder)[1]
    assert result.code == 1 and "begun with train.tsv=" in result.err
    assert read(run_folder, "records", "train.json") == records


def test_texts_with_several_labels_are_learned_and_measured_with_chosen_thresholds(several_classifier):
    figures = json.loads(read(several_classifier.folder, "eval.json"))
    assert figures["macro_f1"] > 0.8
    chosen = json.loads(read(several_classifier.folder, "best", "figures.json"))["thresholds"]
    assert figures["thresholds"] == chosen and chosen != [0.5] * 3


def test_several_labels_are_predicted_where_each_reaches_its_threshold(several_classifier):
    labels, probabilities = predictions(several_classifier.folder)
    names = read(several_classifier.folder, "labels.txt").splitlines()
    thresholds = json.loads(read(several_classifier.folder, "best", "figures.json"))["thresholds"]
    assert {label.count(",") for label in labels} == {0, 1, 2} and "" in labels
    for label, row in zip(labels, probabilities):
        assert label.split(",") == [
            name for name, value, least in zip(names, row, thresholds) if value >= least] or [""]


def test_labels_of_others_are_refused_where_nothing_is_trained(several_classifier, forks, world, tmp_path):
    labels = tiny.write_lines(tmp_path / "labels.txt", tiny.TOPICS[:2])
    before = read(several_classifier.folder, "predictions.tsv")
    result = forks.run("run_classifier.py", "--output_dir=" + several_classifier.folder, "--do_predict",
                       "--predict_file=" + world.unlabeled, "--labels_file=" + labels)
    assert result.code == 1 and len(result.err.splitlines()) == 1
    assert "labels.txt: the labels of the model" in result.err
    assert read(several_classifier.folder, "predictions.tsv") == before


@pytest.mark.parametrize("action", ["--do_predict", "--do_export"])
def test_a_model_without_classes_is_refused(action, teacher, world, forks, tmp_path):
    labels = tiny.write_lines(tmp_path / "labels.txt", tiny.TOPICS)
    result = forks.run(
        "run_classifier.py", "--output_dir=%s" % (tmp_path / "run"), "--init_checkpoint=" + teacher.folder,
        action, "--labels_file=" + labels, "--predict_file=" + world.unlabeled, "--max_seq_length=32")
    assert result.code == 1 and len(result.err.splitlines()) == 1
    assert "model.ckpt: no classifier is in it" in result.err
    assert not (tmp_path / "run").exists()


@graphs.ON_REFERENCE
def test_a_model_of_words_is_trained_applied_exported_and_keeps_its_tokenizer(classify, world, forks, tmp_path):
    vocabulary = str(tmp_path / "words.txt")
    made = forks.run("tasks.word_vocabulary", "--input_file=%s/train.tsv" % world.task, "--output_file=" + vocabulary)
    assert made.code == 0, made.err
    size = len(read(vocabulary).split("\n")) - 1
    model = tiny.write_model(tmp_path / "words.json", tiny.STUDENT, size)
    folder, result = classify("--tokenizer=words", "--vocab_file=" + vocabulary, "--student_config_file=" + model,
                              "--do_eval", "--do_predict", "--do_export", "--learning_rate=2e-2",
                              "--num_train_steps=60", "--save_checkpoints_steps=60")
    assert result.code == 0 and result.err == "", result.err
    assert json.loads(read(folder, "text.json"))["tokenizer"] == "words"
    assert json.loads(read(folder, "eval.json"))["accuracy"] > 0.6
    unknown = json.loads(read(folder, "records", "test.json"))["counts"]["tokens_unknown"]
    texts = [row[1] for row in rows(world.task, "test.tsv")]
    tokenizer = WordTokenizer(vocabulary)
    assert unknown == sum(tokenizer.tokenize(text).count("[UNK]") for text in texts) > 0
    before = predictions(folder)
    again = predict(forks, folder, "--predict_file=" + tiny.write_lines(tmp_path / "texts.txt", texts))
    assert again[0] == before[0]
    np.testing.assert_allclose(again[1], before[1], atol=2e-6)
    found = Predictor(os.path.join(folder, "export")).predict(texts)
    assert [prediction.label for prediction in found] == before[0]
    np.testing.assert_allclose([prediction.probabilities for prediction in found], before[1], atol=1e-5)


def test_a_trained_model_reads_no_other_tokens(teacher_classifier, world, forks):
    before = read(teacher_classifier.folder, "predictions.tsv")
    result = forks.run("run_classifier.py", "--output_dir=" + teacher_classifier.folder, "--do_predict",
                       "--predict_file=" + world.unlabeled, "--tokenizer=words")
    assert result.code == 1 and len(result.err.splitlines()) == 1
    assert "--tokenizer=words: " in result.err and "was trained with --tokenizer=wordpiece; leave" in result.err
    assert read(teacher_classifier.folder, "predictions.tsv") == before


def best(folder):
    return weights_in(os.path.join(folder, "best", "model.ckpt"))


@graphs.ON_REFERENCE
def test_a_head_learns_over_a_frozen_encoder_whose_every_bit_stays(frozen_classifier, student_classifier):
    before, after = best(student_classifier.folder), best(frozen_classifier.folder)
    kept = [name for name in before if name.startswith("student/")]
    assert len(kept) == 9 and all(np.array_equal(before[name], after[name]) for name in kept)
    assert json.loads(read(frozen_classifier.folder, "eval.json"))["accuracy"] > 0.6


@graphs.ON_REFERENCE
def test_a_head_is_found_again_in_the_run_folder_and_in_the_export(frozen_classifier, world, copied, forks):
    labels, probabilities = predictions(frozen_classifier.folder)
    found = predict(forks, copied(frozen_classifier), "--data_dir=" + world.task)
    assert found[0] == labels
    np.testing.assert_allclose(found[1], probabilities, atol=2e-6)
    served = Predictor(os.path.join(frozen_classifier.folder, "export")).predict(
        [row[1] for row in rows(world.task, "test.tsv")])
    assert [prediction.label for prediction in served] == labels
    np.testing.assert_allclose([prediction.probabilities for prediction in served], probabilities, atol=1e-5)


def test_another_head_than_the_models_is_refused_where_nothing_is_trained(frozen_classifier, forks, world):
    result = forks.run("run_classifier.py", "--output_dir=" + frozen_classifier.folder, "--do_eval",
                       "--data_dir=" + world.task, "--head=attention")
    assert result.code == 1 and len(result.err.splitlines()) == 1
    assert "--head=attention: the model's is cnn (" in result.err and "leave --head away" in result.err


@graphs.ON_TENSORFLOW_2
def test_a_head_goes_on_learning_from_where_it_was_with_its_encoder(frozen_classifier, world, forks, tmp_path):
    folder = str(tmp_path / "run")
    result = forks.run("run_classifier.py", "--data_dir=" + world.task, "--output_dir=" + folder, "--do_train",
                       "--init_checkpoint=" + frozen_classifier.folder, "--num_train_steps=1", "--learning_rate=0")
    assert result.code == 0, result.err
    before, after = best(frozen_classifier.folder), best(folder)
    assert all(np.array_equal(before[name], after[name]) for name in before if name != "global_step")


@graphs.ON_TENSORFLOW_2
def test_a_bilstm_starts_with_word_vectors_and_needs_their_file_no_more(classify, tmp_path):
    vectors = str(tmp_path / "vectors.txt")
    random = np.random.RandomState(1)
    tiny.write_lines(vectors, ["40 12"] + [
        "%s %s" % (char, " ".join("%.4f" % value for value in random.normal(size=12)))
        for char in tiny.CHARACTERS[-40:]])
    flags = ["--init_embeddings=" + vectors, "--learning_rate=0"]
    folder, result = classify(*flags)
    assert result.code == 0, result.err
    # The last character is not in the vocabulary.
    assert "%s: 39 of 154 tokens found, 12 values each\n" % vectors in result.out
    table = weights_in(os.path.join(folder, "best", "model.ckpt"))["student/embeddings/word_embeddings"]
    assert np.mean(np.sum(table[-39:] ** 2, axis=1)) == pytest.approx(1.0, rel=1e-5)
    assert np.abs(table[:-39]).max() < 0.05
    os.remove(vectors)
    _, again = classify(*flags)
    assert (again.code, again.err) == (0, "") and "nothing to do" in again.out


REFUSED = {
    "the word table of no teacher": (["--init_embeddings=teacher"], "run_distill.py alone has a teacher"),
    "nothing to do": (["--nodo_train"], "--do_train, --do_eval, --do_predict or --do_export"),
    "no data": (["--data_dir="], "--data_dir: --do_train needs it"),
    "a missing folder": (["--data_dir=/absent"], "--data_dir=/absent: no such folder"),
    "texts of nowhere": (["--nodo_train", "--data_dir=", "--do_predict"],
                         "--predict_file: --do_predict needs it"),
    "missing texts": (["--do_predict", "--predict_file=/absent.txt"],
                      "--predict_file=/absent.txt: no such file"),
    "missing labels": (["--labels_file=/absent.txt"], "/absent.txt: No such file"),
    "too few tokens": (["--max_seq_length=2"], "'max_seq_length' must be at least 3"),
    "a misspelt value": (["--truncation=middle"], "flag --truncation=middle: value should be one of"),
    "another tokenizer": (["--tokenizer=bpe"], "flag --tokenizer=bpe: value should be one of <wordpiece|words>"),
    "an unknown head": (["--head=mean"], "flag --head=mean: value should be one of"),
    "random vectors": (["--freeze_encoder"], "--freeze_encoder: needs --init_checkpoint"),
    "an unknown flag": (["--max_seq_len=3"], "Unknown command line flag 'max_seq_len'. Did you mean"),
    "missing GPUs": (["--num_gpus=64"], "--num_gpus=64: "),
    "replicas": (["--train_batch_size=15", "--num_cpu_replicas=2"],
                 "--train_batch_size=15: cannot be divided"),
    "a run that is not there": (["--nodo_train", "--do_eval"], "--output_dir={run}: no such folder"),
    "no model": (["--student_config_file="],
                 "--bert_config_file or --student_config_file: one of them is needed")}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_refused_is_told_in_one_line_and_leaves_no_folder(case, classify, tmp_path):
    flags, message = REFUSED[case]
    folder, result = classify(*flags)
    assert result.code == 1
    assert result.err.startswith("run_classifier.py: error: ") and len(result.err.splitlines()) == 1
    assert message.format(run=folder) in result.err
    assert not os.path.exists(folder)
