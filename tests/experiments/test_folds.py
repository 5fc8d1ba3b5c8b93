import collections

import pytest

from experiments import folds
from tasks.text_files import labels_from_data, read_rows
from training.command import UserError

# 11 texts of a, 5 of b, one of them in the file twice.
ROWS = [("a", "甲%d" % number) for number in range(11)] + [("b", "乙%d" % number) for number in range(5)]


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, rows in (("train", ROWS[:12] + ROWS[:1]), ("dev", ROWS[12:])):
        (folder / (name + ".tsv")).write_text(
            "".join("%s\t%s\n" % row for row in [("label", "text_a")] + rows), encoding="utf-8")
    return str(folder)


def test_all_files_are_read_and_a_text_counts_once(data_dir):
    assert sorted(folds.read_all(data_dir)) == sorted(ROWS)


def test_every_text_is_tested_once_and_never_trained_on_in_its_fold():
    tested = []
    for parts in folds.divide(ROWS, 5, seed=1):
        assert sorted(sum(parts.values(), [])) == sorted(ROWS)
        assert not set(parts["test"]) & set(parts["train"] + parts["dev"])
        assert parts["train"] and parts["dev"]
        tested += parts["test"]
    assert sorted(tested) == sorted(ROWS)


def test_folds_keep_the_shares_of_the_labels():
    for parts in folds.divide(ROWS, 5, seed=1):
        counts = collections.Counter(label for label, _ in parts["test"])
        assert counts["b"] == 1 and counts["a"] in (2, 3)


def test_the_seed_decides_the_folds():
    first, again, other = (list(folds.divide(ROWS, 5, seed)) for seed in (1, 1, 2))
    assert first == again and first != other


def test_a_label_with_fewer_texts_than_folds_is_refused():
    with pytest.raises(UserError, match="6 folds: label b has only 5 texts"):
        next(folds.divide(ROWS, 6, seed=1))


def test_the_folders_hold_what_the_commands_read(data_dir, tmp_path, forks):
    result = forks.run("experiments.folds", "--data_dir=" + data_dir, "--output_dir=%s" % (tmp_path / "folds"),
                       "--num_folds=2")
    assert result.code == 0, result.err
    for number in (1, 2):
        path = str(tmp_path / "folds" / ("fold_%d" % number) / "test.tsv")
        assert {row.labels for row in read_rows(path, labels_from_data(path))} == {("a",), ("b",)}
