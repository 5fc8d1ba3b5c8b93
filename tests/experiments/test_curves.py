import os

import pytest

from experiments import curves
from experiments import figures
from experiments import folds
from tasks.classification_data import choose_splits

COUNTS = {"common": 60, "rare": 4}
TRAIN = [(label, "%s text %d" % (label, number)) for label, count in COUNTS.items() for number in range(count)]


@pytest.fixture
def data_dir(tmp_path):
    folds.write(str(tmp_path / "data"), {"train": TRAIN, "dev": [("rare", "dev")], "test": [("common", "test")]})
    return str(tmp_path / "data")


def read(folder):
    return figures.read_labelled(*choose_splits(folder))


def test_a_tenth_of_the_labels_has_some_of_each_class_and_the_other_files_as_they_are(data_dir, tmp_path):
    train, dev, test = read(curves.labelled_part(data_dir, 0.1, str(tmp_path / "part")))
    assert [sum(label == name for label, _ in train) for name in COUNTS] == [6, 1]
    assert set(train) < set(TRAIN) and len(set(train)) == 7
    assert (dev, test) == ([("rare", "dev")], [("common", "test")])
    again = read(curves.labelled_part(data_dir, 0.1, str(tmp_path / "again")))
    assert again == [train, dev, test]
    assert curves.labelled_part(data_dir, 1.0, str(tmp_path / "all")) == data_dir


def test_unlabelled_texts_are_multiples_each_in_the_next_as_far_as_there_are_some(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    for number, path in enumerate(paths):
        with open(path, "w") as stream:
            stream.write("".join("text %d\n" % place for place in range(25 * number, 25 * number + 30)))  # 5 in both
    found = curves.unlabelled_parts(paths, 10, str(tmp_path / "parts"))
    assert list(found) == [0, 1, 2, 4]  # 55 texts are no 80
    texts = {}
    for multiple, parts in found.items():
        texts[multiple] = [line for part in parts for line in open(part).read().splitlines()]
        assert len(set(texts[multiple])) == len(texts[multiple]) == 10 * multiple
    assert set(texts[1]) < set(texts[2]) < set(texts[4]) and texts[1] != sorted(texts[1])


def test_points_are_drawn_and_told(tmp_path):
    points = [{"share": share, "multiple": multiple, "unlabelled": 10 * multiple, "accuracy_mean": 0.75,
               "accuracy_sd": 0.01, "macro_f1_mean": 0.5, "macro_f1_sd": 0.0} for share in curves.SHARES
              for multiple in (0, 8)]
    assert curves.as_rows(points)[2] == ["10 %", "80 (8x)", "0.7500", "0.0100", "0.5000", "0.0000"]
    curves.plot(points, 0.9, str(tmp_path / "amounts.png"))
    assert os.path.getsize(str(tmp_path / "amounts.png")) > 5000
