import concurrent.futures
import os
import shutil

import numpy as np
import pytest

from serving.predictor import SIMILAR
from serving.predictor import Predictor
from serving.predictor import batches
from student import lstm_layer
from tests import graphs
from tests import tiny
from tests.commands import run as run_command
from tests.test_run_classifier import predictions
from tests.test_run_classifier import rows
from training import native
from training.command import UserError

TEXTS = [text for _, text in tiny.texts(40, seed=21)]


@pytest.fixture(scope="module")
def exports(student_classifier):
    return os.path.join(student_classifier.folder, "export")


@pytest.fixture(scope="module")
def predictor(exports):
    return Predictor(exports, batch_size=7)


def test_raw_texts_get_the_labels_and_probabilities_of_the_command(predictor, student_classifier, world):
    labels, probabilities = predictions(student_classifier.folder)
    found = predictor.predict([row[1] for row in rows(world.task, "test.tsv")])
    assert [prediction.label for prediction in found] == labels
    np.testing.assert_allclose([prediction.probabilities for prediction in found], probabilities, atol=1e-5)


def test_texts_of_any_length_together_give_what_each_gives_alone(predictor):
    together = predictor.probabilities(TEXTS)
    alone = np.concatenate([predictor.probabilities([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert len({str(row) for row in alone}) > 30


@graphs.COMPILED
def test_our_op_and_tensorflows_give_the_same_answers(exports):
    native.load(lstm_layer.SOURCE)
    with native.using(False):
        expected = Predictor(exports).probabilities(TEXTS)
    np.testing.assert_allclose(Predictor(exports).probabilities(TEXTS), expected, atol=1e-6)


def test_short_texts_of_similar_length_share_larger_batches_within_a_budget_of_tokens():
    lengths = np.random.RandomState(0).permutation([3] * 70 + [20] * 10 + [21] * 10 + [64] * 5).tolist()
    found = batches(lengths, batch_size=5)
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    assert [[lengths[place] for place in batch] for batch in found] == [
        [3] * 70, [20] * 10 + [21] * 5, [21] * 5, [64] * 5]


def test_a_batch_is_never_smaller_than_asked_nor_larger_where_lengths_differ():
    lengths = [round(10 * 1.5 ** number) for number in range(9)]
    assert [len(batch) for batch in batches(lengths, batch_size=4)] == [4, 4, 1]
    assert [len(batch) for batch in batches([100] * 9, batch_size=4)] == [4, 4, 1]
    assert batches([], batch_size=4) == [] and 1 < SIMILAR < 1.5


def test_many_threads_each_get_their_own_answer(predictor):
    expected = predictor.predict(TEXTS)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda text: predictor.predict([text])[0], TEXTS))
    for one, other in zip(found, expected):
        assert one.label == other.label
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


def test_no_text_gives_no_prediction(predictor):
    assert predictor.predict([]) == []
    assert predictor.probabilities([]).shape == (0, 3)


def test_a_text_that_is_too_long_is_cut(predictor):
    long = TEXTS[0] * 20
    np.testing.assert_allclose(
        predictor.probabilities([long]), predictor.probabilities([long[:30]]), atol=1e-6)


def test_an_empty_text_and_unknown_characters_do_no_harm(predictor):
    assert np.isfinite(predictor.probabilities(["", "\u3000", "龘"])).all()


def test_the_second_text_of_a_pair_counts(teacher_classifier):
    predictor = Predictor(os.path.join(teacher_classifier.folder, "export"))
    first, second, third = TEXTS[:3]
    pairs = predictor.probabilities([(first, second), (first, third), first])
    assert np.abs(pairs[0] - pairs[1]).max() > 1e-6 and np.abs(pairs[0] - pairs[2]).max() > 1e-6
    np.testing.assert_allclose(predictor.probabilities([(first, second)])[0], pairs[0], atol=1e-6)


def test_one_text_in_place_of_a_list_is_refused(predictor):
    with pytest.raises(TypeError, match="a list of texts is needed"):
        predictor.predict(TEXTS[0])


def test_several_labels_are_joined_where_they_reach_their_thresholds(several_classifier, world):
    predictor = Predictor(os.path.join(several_classifier.folder, "export"))
    labels, _ = predictions(several_classifier.folder)
    found = predictor.predict([row[1] for row in rows(world.several, "test.tsv")])
    assert [prediction.label for prediction in found] == labels


@pytest.mark.parametrize("broken", ["absent", "empty"])
def test_a_folder_without_an_export_is_refused(broken, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--export_dir=.*%s: no saved_model.pb is there" % broken):
        Predictor(str(tmp_path / broken))


@graphs.ON_REFERENCE
@pytest.mark.parametrize("name, said", [
    ("assets.extra/vocab.txt", "assets.extra/vocab.txt is missing; copy the export again, whole"),
    ("assets.extra/labels.txt", "assets.extra/labels.txt is missing"),
    ("variables/variables.index", "variables/variables.index is missing"),
    ("variables/variables.data-00000-of-00001", "cannot load it"),
    ("half of saved_model.pb", "cannot load it"),
    ("half of variables/variables.data-00000-of-00001", "cannot load it")])
def test_an_export_that_is_half_copied_is_refused(name, said, exports, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(os.path.join(exports, os.listdir(exports)[0]), str(copied))
    path = copied / name.split(" ")[-1]
    if name.startswith("half"):
        path.write_bytes(path.read_bytes()[:-path.stat().st_size // 2])
    else:
        path.unlink()
    with pytest.raises(UserError, match=said):
        Predictor(str(copied))


def test_the_newest_export_of_a_folder_is_taken(exports, several_classifier, tmp_path):
    for name, source in (("9", exports), ("10", os.path.join(several_classifier.folder, "export"))):
        shutil.copytree(os.path.join(source, os.listdir(source)[0]), str(tmp_path / name))
    assert Predictor(str(tmp_path)).labels.separator == ","


def test_the_command_writes_a_line_for_each_line_it_reads(exports, predictor):
    lines = TEXTS[:3] + ["", "  "] + TEXTS[3:5] + ["甲\u2028乙\r丙"]
    result = run_command("serving.predictor", "--export_dir=" + exports,
                         stdin=("\ufeff" + "\r\n".join(lines)).encode("utf-8"))
    assert (result.code, result.err) == (0, "")
    expected = []
    for text in map(str.strip, lines):
        if text:
            found = predictor.predict([text])[0]
            expected.append("%s\t%.4f\t%s" % (found.label, found.probabilities.max(), text))
        else:
            expected.append("")
    assert result.out.split("\n") == expected + [""]


def test_the_command_names_the_line_that_is_not_utf_8(exports, forks):
    result = forks.run("serving.predictor", "--export_dir=" + exports, stdin=b"a\nb\xff\n")
    assert result.code == 1
    assert result.err == "predictor.py: error: stdin:2: not UTF-8: byte 2 of the line is 0xff\n"


def test_the_command_reads_nothing_and_writes_nothing(exports, forks):
    assert forks.run("serving.predictor", "--export_dir=" + exports) == (0, "", "")


@pytest.mark.parametrize("flags, message", [
    (["--export_dir=/absent"], "--export_dir=/absent: no saved_model.pb is there"),
    ([], "--export_dir must have a value"),
    (["--export_dir=/absent", "--batch_size=0"], "--batch_size=0: 0 is not a positive integer")])
def test_what_is_refused_is_told_in_one_line(flags, message, forks):
    result = forks.run("serving.predictor", *flags)
    assert result.code == 1 and len(result.err.splitlines()) == 1 and message in result.err
