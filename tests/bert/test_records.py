import collections
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import records
from tests.bert.record_texts import LENGTHS
from tests.bert.record_texts import example
from tests.bert.record_texts import labelled
from tests.bert.record_texts import unmasked
from tests.bert.record_texts import write
from tests.bert.record_texts import evaluate
from tests.bert.record_texts import assert_same
from tests.bert.record_texts import error_of


# ---- writing

def test_equal_examples_are_equal_bytes():
    features = example(3, 5, 2)
    backwards = collections.OrderedDict(reversed(list(features.items())))
    assert records.serialize(features) == records.serialize(backwards)


def test_weights_are_floats_and_everything_else_integers():
    features = tf.train.Example.FromString(records.serialize(example(3, 5, 2))).features.feature
    for name, values in example(3, 5, 2).items():
        kind = "float_list" if name == "masked_lm_weights" else "int64_list"
        assert features[name].WhichOneof("kind") == kind
        assert list(getattr(features[name], kind).value) == values


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = str(tmp_path / "a")

    def broken():
        yield b"one"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        records.write_records(path, broken())
    assert os.listdir(str(tmp_path)) == []
    assert records.write_records(path, [b"one", b"two"]) == 2
    with pytest.raises(RuntimeError):
        records.write_records(path, broken())
    assert list(tf.io.tf_record_iterator(path)) == [b"one", b"two"] and os.listdir(str(tmp_path)) == ["a"]


# ---- looking at the first records

def test_records_tell_whether_they_hold_masks(files, unmasked_files, tmp_path):
    assert records.without_masks(unmasked_files)
    assert not records.without_masks(files)
    assert not records.without_masks([write(tmp_path / "a", [])])
    both = dict(unmasked(0, 5), **example(0, 5, 2))
    assert not records.without_masks([write(tmp_path / "b", [both])])


def test_records_with_and_without_masks_are_not_read_together(files, unmasked_files):
    assert error_of(records.without_masks, unmasked_files[:1] + files[:1]) == (
        "%s: records without masks, and those of %s have masks; give files of one kind"
        % (unmasked_files[0], files[0]))


def test_the_longest_of_the_first_records_is_found(monkeypatch, tmp_path):
    path = write(tmp_path / "a", [unmasked(number, length) for number, length in enumerate((3, 9, 5, 12))])
    assert records.longest_of_first([path]) == 12
    monkeypatch.setattr(records, "FIRST_RECORDS", 3)
    assert records.longest_of_first([path]) == 9


def test_records_without_texts_are_refused(tmp_path):
    path = write(tmp_path / "a", [])
    assert error_of(records.longest_of_first, [path]) == path + ": no records"
    path = write(tmp_path / "b", [unmasked(0, 5), {"label_ids": [1]}])
    assert error_of(records.longest_of_first, [path]) == path + ": record 1 has no input_ids"
    path = write(tmp_path / "c", [dict(unmasked(0, 5), word_starts=[1])])
    assert error_of(records.longest_of_first, [path]).startswith(
        path + ": record 0 has 5 input_ids and 1 word_starts; ")


# ---- parsing

def parsed(examples, names, then=lambda features: features):
    return evaluate(lambda: then(records.parse([records.serialize(values) for values in examples], names)))


def test_padded_and_unpadded_records_are_read_alike():
    names = records.MASKED_LM_FEATURES
    unpadded = [example(number, length, 1) for number, length in enumerate(LENGTHS)]
    padded = [example(number, length, 1, padded_to=9, most=3) for number, length in enumerate(LENGTHS)]
    assert parsed(padded, names)["input_ids"].shape == (3, 9)
    for examples in (unpadded, padded, [unpadded[0], padded[1], unpadded[2]]):
        assert_same([parsed(examples, names, records.trim)], [parsed(unpadded, names)])


def test_each_text_is_padded_to_the_longest():
    found = parsed([example(number, length) for number, length in enumerate(LENGTHS)], records.SEQUENCE)
    assert found["input_ids"].tolist() == [[1000, 2, 2, 2], [1001, 2, 2, 0], [1002, 2, 0, 0]]
    assert found["input_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert found["segment_ids"].tolist() == [[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]


def test_types_are_those_promised():
    found = parsed([example(0, 3, 1)], records.MASKED_LM_FEATURES)
    assert set(found) == set(records.MASKED_LM_FEATURES)
    for name, values in found.items():
        assert values.dtype == (np.float32 if name == "masked_lm_weights" else np.int32)


def test_trimming_keeps_labels_and_the_longest_text():
    texts = [labelled(0, 3, [1, 0, 1, 0, 1]), labelled(1, 2, [0] * 5)]
    names = records.CLASSIFICATION_FEATURES
    assert_same([parsed(texts, names, records.trim)], [parsed(texts, names)])


def test_totals_count_texts_tokens_predictions_and_labels():
    masked = [example(number, length, 2, padded_to=9, most=3) for number, length in enumerate(LENGTHS)]
    classified = [labelled(0, 4, [1]), labelled(1, 2, [records.NO_LABEL]), labelled(2, 1, [0])]
    several = [labelled(0, 4, [1, 0]), labelled(1, 2, [records.NO_LABEL] * 2), labelled(2, 1, [0, 0])]
    for examples, names, expected in (
            (masked, records.MASKED_LM_FEATURES,
             {"total_examples": 3, "total_tokens": 9, "total_predictions": 6}),
            (classified, records.CLASSIFICATION_FEATURES,
             {"total_examples": 3, "total_tokens": 7, "total_labels": 2}),
            (several, records.CLASSIFICATION_FEATURES,
             {"total_examples": 3, "total_tokens": 7, "total_labels": 2})):
        found = parsed(examples, names, records.totals)
        assert found == expected
        assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
