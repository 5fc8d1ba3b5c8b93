import json
import os
import random

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import records
from bert.tokenization import FullTokenizer
from bert.word_tokenization import WordTokenizer
from tasks import classification_data
from tasks.classification_data import Featurizer
from tasks.classification_data import Split
from tasks.classification_data import choose_splits
from tasks.classification_data import cross_validation
from tasks.classification_data import find_splits
from tasks.classification_data import prepare_records
from tasks.text_files import Labels
from training.command import UserError

SHARED_TASK = os.path.join(
    os.path.dirname(__file__), "..", "..", "..", "shared", "data", "tasks", "chnsenticorp")
LABELS = Labels(["0", "1"])
PAD, UNK, CLS, SEP = range(4)


class Letters:
    """A tokenizer whose tokens are letters: a is 4, b is 5, ...; anything else is unknown."""

    def __init__(self, letters="abcdefghijklmnopqrstuvwxyz"):
        self.vocab = {token: number for number, token in enumerate(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + list(letters))}

    def tokenize(self, text):
        return [letter if letter in self.vocab else "[UNK]" for letter in text if letter != " "]

    def convert_tokens_to_ids(self, tokens):
        return [self.vocab[token] for token in tokens]


def ids(letters):
    return Letters().convert_tokens_to_ids(letters)


def error_of(function, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


def write_task(folder, **rows_by_name):
    """Writes TSV files of a folder, each from a list of (label, text)."""
    for name, rows in rows_by_name.items():
        text = "label\ttext_a\n" + "".join("%s\t%s\n" % row for row in rows)
        (folder / (name + ".tsv")).write_text(text, encoding="utf-8")
    return str(folder)


def many_rows(number, seed=0):
    draw = random.Random(seed)
    return [(draw.randrange(2), "".join(draw.choices("abcdefghij ?", k=draw.randrange(1, 12))) + "z")
            for _ in range(number)]


def read_records(path):
    return [{name: list(feature.int64_list.value) for name, feature in
             tf.train.Example.FromString(record).features.feature.items()}
            for record in tf.io.tf_record_iterator(path)]


# Splits

def test_dev_selects_and_test_is_reported(tmp_path):
    splits = choose_splits(write_task(tmp_path, train=[], dev=[], test=[]))
    assert [split.name for split in splits] == ["train", "dev", "test"]
    assert splits.describe() == "trained on train.tsv, selected on dev.tsv, reported on test.tsv"


@pytest.mark.parametrize("reported", ["dev", "test"])
def test_a_tenth_of_train_selects_where_one_file_is_missing(tmp_path, reported):
    rows = [("0", "text %d" % number) for number in range(1000)]
    folder = write_task(tmp_path, train=rows, **{reported: [("0", "a")]})
    splits = choose_splits(folder, seed=3)
    assert splits.report.name == reported and splits.select.name == "held_out"
    train, select = ([row.text_a for row in split.rows(LABELS)] for split in splits[:2])
    assert sorted(train + select) == sorted(text for _, text in rows)
    assert 70 <= len(select) <= 130
    assert splits.describe() == (
        "trained on 9/10 of train.tsv (seed 3), selected on 1/10 of train.tsv (seed 3), reported on %s.tsv"
        % reported)
    again = [row.text_a for row in choose_splits(folder, seed=3).select.rows(LABELS)]
    other = [row.text_a for row in choose_splits(folder, seed=4).select.rows(LABELS)]
    assert again == select and other != select


def test_equal_texts_stay_on_one_side(tmp_path):
    rows = [("0", "text %d" % (number % 50)) for number in range(500)]
    splits = choose_splits(write_task(tmp_path, train=rows, dev=[]))
    train, select = ({row.text_a for row in split.rows(LABELS)} for split in splits[:2])
    assert select and not train & select


def test_labels_do_not_move_a_text_to_another_fold(tmp_path):
    write_task(tmp_path, train=[("0", "text %d" % number) for number in range(100)])
    path = str(tmp_path / "train.tsv")
    labelled = {row.text_a for row in Split("train", path, (0,), 10).rows(LABELS)}
    unlabelled = {row.text_a for row in Split("train", path, tuple(range(1, 10)), 10).rows()}
    assert len(labelled) + len(unlabelled) == 100 and not labelled & unlabelled


def test_cross_validation_reports_every_text_once(tmp_path):
    write_task(tmp_path, train=[("0", "text %d" % number) for number in range(200)])
    reported = []
    for splits in cross_validation(str(tmp_path / "train.tsv"), 5, seed=1):
        parts = [{row.text_a for row in split.rows(LABELS)} for split in splits]
        assert len(set.union(*parts)) == sum(map(len, parts)) == 200
        assert len(parts[0]) > len(parts[2]) > len(parts[1])
        reported += parts[2]
    assert len(reported) == len(set(reported)) == 200


def test_what_is_missing_or_double_is_said(tmp_path):
    folder = str(tmp_path)
    assert error_of(find_splits, folder + "/x") == "--data_dir=%s/x: no such folder" % folder
    assert error_of(find_splits, folder) == (
        "--data_dir=%s: none of train.tsv, train.csv, train.jsonl is there" % folder)
    (tmp_path / "train.csv").write_text("")
    assert error_of(choose_splits, folder) == (
        "--data_dir=%s: neither dev nor test is there to measure on; "
        "move some rows of train.csv to a file dev.csv" % folder)
    (tmp_path / "train.jsonl").write_text("")
    assert error_of(find_splits, folder) == (
        "%s/train.jsonl: train.csv is there too; keep one of them" % folder)


def test_a_folder_gives_its_files(tmp_path):
    for name in ("train.tsv", "dev.jsonl", "test.csv", "notes.csv", "dev.txt"):
        (tmp_path / name).write_text("")
    assert {name: os.path.basename(path) for name, path in find_splits(str(tmp_path)).items()} == {
        "train": "train.tsv", "dev": "dev.jsonl", "test": "test.csv"}


# Features

def test_one_text_stands_between_cls_and_sep():
    features, counts = Featurizer(Letters(), 10).features("ab 酸")
    assert features == {"input_ids": [CLS] + ids("ab") + [UNK, SEP],
                        "input_mask": [1] * 5, "segment_ids": [0] * 5}
    assert counts == {"tokens": 3, "tokens_cut": 0, "tokens_unknown": 1}


def test_the_second_text_has_segment_one():
    features, _ = Featurizer(Letters(), 10).features("ab", "c")
    assert features["input_ids"] == [CLS] + ids("ab") + [SEP] + ids("c") + [SEP]
    assert features["segment_ids"] == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("truncation, kept", [
    ("head", "abcdefgh"), ("tail", "efghijkl"), ("head_tail", "abghijkl")])
def test_truncation_keeps_what_it_says(truncation, kept):
    features, counts = Featurizer(Letters(), 10, truncation).features("abcdefghijkl")
    assert features["input_ids"] == [CLS] + ids(kept) + [SEP]
    assert counts["tokens"] == 12 and counts["tokens_cut"] == 4


def test_unknown_tokens_are_counted_in_what_is_cut_away_too():
    assert Featurizer(Letters(), 4).features("ab?c?")[1]["tokens_unknown"] == 2


@pytest.mark.parametrize("truncation", classification_data.TRUNCATIONS)
def test_a_text_that_fits_is_kept_whole(truncation):
    features, counts = Featurizer(Letters(), 10, truncation).features("abcdefgh")
    assert features["input_ids"] == [CLS] + ids("abcdefgh") + [SEP]
    assert counts["tokens_cut"] == 0


def test_head_tail_of_510_tokens_is_128_and_382():
    text = "a" * 128 + "b" * 200 + "c" * 382
    features, _ = Featurizer(Letters(), 512, "head_tail").features(text)
    assert features["input_ids"] == [CLS] + ids("a" * 128 + "c" * 382) + [SEP]


@pytest.mark.parametrize("text_a, text_b, kept_a, kept_b", [
    ("abcdefgh", "xy", "abcde", "xy"),    # room 7: only the longer is cut
    ("xy", "abcdefgh", "xy", "abcde"),
    ("abcdefgh", "stuvwxyz", "abcd", "stu"),  # equal: the second gives way
])
def test_of_a_pair_the_longer_is_cut_first(text_a, text_b, kept_a, kept_b):
    features, counts = Featurizer(Letters(), 10).features(text_a, text_b)
    assert features["input_ids"] == [CLS] + ids(kept_a) + [SEP] + ids(kept_b) + [SEP]
    assert len(features["segment_ids"]) == 10
    assert counts["tokens_cut"] == len(text_a + text_b) - 7


def test_pairs_are_cut_where_truncation_says():
    features, _ = Featurizer(Letters(), 10, "tail").features("abcdefgh", "xy")
    assert features["input_ids"] == [CLS] + ids("defgh") + [SEP] + ids("xy") + [SEP]


@pytest.fixture
def chinese(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "mask", "房", "间"]),
                    encoding="utf-8")
    return FullTokenizer(str(path))


@pytest.mark.parametrize("text, mask_token, tokens", [
    ("房[MASK]间", None, "房 [ mask ] 间"),
    ("房[MASK]间", "[MASK]", "房 [MASK] 间"),
    ("[MASK][MASK]间", "[MASK]", "[MASK] [MASK] 间"),
    ("房 [MASK]", "[MASK]", "房 [MASK]"),
    ("[MASK]", "[MASK]", "[MASK]"),
    ("[MASK]房[[MASK]]", "[[MASK]]", "[ mask ] 房 [MASK]"),
])
def test_only_what_a_row_calls_its_mask_token_is_one(chinese, text, mask_token, tokens):
    features, counts = Featurizer(chinese, 20).features(text, mask_token=mask_token)
    assert chinese.convert_ids_to_tokens(features["input_ids"]) == ["[CLS]"] + tokens.split() + ["[SEP]"]
    assert counts["tokens"] == len(tokens.split())


def test_both_texts_of_a_pair_may_hold_masks(chinese):
    features, _ = Featurizer(chinese, 20).features("房[MASK]", "[MASK]间", "[MASK]")
    assert chinese.convert_ids_to_tokens(features["input_ids"]) == "[CLS] 房 [MASK] [SEP] [MASK] 间 [SEP]".split()
    assert features["segment_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_settings_that_cannot_be_are_refused():
    assert error_of(Featurizer, Letters(), 2).startswith("--max_seq_length=2: must be at least 3")
    message = error_of(Featurizer, Letters(), 9, "middle")
    assert message == "--truncation=middle: must be one of head, tail, head_tail"
    tokenizer = Letters()
    del tokenizer.vocab["[SEP]"]
    assert error_of(Featurizer, tokenizer, 9) == "--vocab_file: the vocabulary has no [SEP]"


# Records

@pytest.fixture
def prepare(tmp_path):
    """prepare_records on train.tsv of tmp_path, with what a test does not care about filled in."""
    def call(split=None, tokenizer=None, length=6, truncation="head", labels=LABELS, **kwargs):
        split = split or Split("train", str(tmp_path / "train.tsv"))
        featurizer = Featurizer(tokenizer or Letters(), length, truncation)
        return prepare_records(split, str(tmp_path / "run"), featurizer, labels, **kwargs)
    return call


def test_records_hold_the_rows_in_their_order(tmp_path, prepare):
    write_task(tmp_path, train=[("1", "ab"), ("0", "abcdef"), ("1", "酸")])
    made = prepare()
    assert made.path == str(tmp_path / "run" / "records" / "train.tfrecord")
    assert read_records(made.path) == [
        {"input_ids": [CLS] + ids(text) + [SEP], "input_mask": [1] * (len(text) + 2),
         "segment_ids": [0] * (len(text) + 2), "label_ids": [label]}
        for text, label in (("ab", 1), ("abcd", 0), (["[UNK]"], 1))]
    assert made.counts == {"texts": 3, "tokens": 9, "tokens_cut": 2, "tokens_unknown": 1,
                           "rows_left_out": 0, "labels": [1, 2]}
    assert made.describe() == ("train.tsv: 3 texts, 3.0 tokens a text, 22.2% of the text cut away, "
                               "11.11% [UNK], 0 rows left out")


def test_records_hold_the_masks_of_rows_that_have_some(tmp_path, prepare, chinese):
    path = tmp_path / "more.jsonl"
    path.write_text('{"text_a": "房[MASK]", "mask_token": "[MASK]"}\n{"text_a": "房[MASK]"}\n', encoding="utf-8")
    made = prepare(Split("more", str(path)), chinese, labelled=False)
    assert [record["input_ids"] for record in read_records(made.path)] == [[2, 8, 4, 3], [2, 8, 5, 7, 6, 3]]


def test_the_input_fn_reads_the_records(tmp_path, prepare):
    write_task(tmp_path, train=[("1", "ab"), ("0", "abcd")])
    input_fn = records.evaluation_input_fn([prepare().path], records.CLASSIFICATION_FEATURES, 2)
    with tf.Graph().as_default(), tf.Session() as session:
        batch = session.run(tf.data.make_one_shot_iterator(input_fn()).get_next())
    np.testing.assert_array_equal(batch["input_mask"], [[1, 1, 1, 1, 0, 0], [1] * 6])
    np.testing.assert_array_equal(batch["label_ids"], [[1], [0]])


def test_texts_without_labels_have_no_label(tmp_path, prepare):
    (tmp_path / "reviews.txt").write_text("ab\ncd\n")
    write_task(tmp_path, train=[("unknown", "ab")])
    for name in ("reviews.txt", "train.tsv"):
        made = prepare(Split(name[:-4], str(tmp_path / name)), labelled=False)
        assert {tuple(record["label_ids"]) for record in read_records(made.path)} == {(records.NO_LABEL,)}
        assert made.counts["labels"] == [0, 0]


def test_several_labels_become_zeros_and_ones(tmp_path, prepare):
    labels = Labels(["x", "y", "tokens"], separator=";")
    write_task(tmp_path, train=[("y;x", "ab"), ("", "cd"), ("tokens;tokens", "e")])
    made = prepare(labels=labels)
    assert [record["label_ids"] for record in read_records(made.path)] == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert made.counts["labels"] == [1, 1, 1] and made.counts["tokens"] == 5


def test_skipped_rows_are_counted(tmp_path, prepare):
    write_task(tmp_path, train=[("1", "ab"), ("1", ""), ("7", "cd")])
    assert "train.tsv:3: text_a is empty" in error_of(prepare)
    made = prepare(errors="skip")
    assert made.counts["texts"] == 1 and made.counts["rows_left_out"] == 2


def test_a_file_without_rows_is_an_error_and_leaves_nothing(tmp_path, prepare):
    write_task(tmp_path, train=[])
    assert error_of(prepare) == "%s: no row to use" % (tmp_path / "train.tsv")
    write_task(tmp_path, train=[("7", "a")])
    message = error_of(prepare, errors="skip")
    assert "; 1 left out, the first: %s:2: label" % (tmp_path / "train.tsv") in message
    assert os.listdir(str(tmp_path / "run" / "records")) == []


def test_records_are_made_once(tmp_path, prepare):
    write_task(tmp_path, train=[("1", "ab"), ("0", "cd")])
    first = prepare()
    before = os.stat(first.path).st_mtime_ns
    second = prepare()
    assert (first.reused, second.reused) == (False, True)
    assert second.counts == first.counts and os.stat(first.path).st_mtime_ns == before
    assert second.describe().endswith("(records reused)")


def test_records_that_have_lost_their_end_are_refused_though_what_is_left_is_whole(tmp_path, prepare):
    write_task(tmp_path, train=[("1", "ab"), ("0", "cd")])
    path = prepare().path
    size = os.path.getsize(path)
    os.truncate(path, 0)
    assert error_of(prepare) == "%s: damaged, 0 bytes of %d; remove it, and it is made again" % (path, size)
    os.remove(path)
    assert not prepare().reused and os.path.getsize(path) == size


@pytest.mark.parametrize("change", [
    {"length": 7}, {"truncation": "tail"}, {"tokenizer": Letters("abcd")}, {"labels": Labels(["1", "0"])},
    {"labels": Labels(["0", "1"], separator=",")}, {"labelled": False}, {"errors": "skip"},
], ids=lambda change: next(iter(change)))
def test_records_are_made_anew_when_a_setting_changes(tmp_path, prepare, change):
    write_task(tmp_path, train=[("1", "ab"), ("0", "cd")])
    prepare()
    assert not prepare(**change).reused
    assert prepare(**change).reused


def test_records_are_made_anew_when_letters_are_no_longer_lowered(tmp_path, prepare):
    (tmp_path / "vocab.txt").write_text(
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\nph\nPH\n值\n[MASK]\n", encoding="utf-8")
    write_task(tmp_path, train=[("1", "PH值")])
    ids_by_case = {}
    for do_lower_case in (True, False):
        made = prepare(tokenizer=FullTokenizer(str(tmp_path / "vocab.txt"), do_lower_case))
        assert not made.reused
        ids_by_case[do_lower_case] = read_records(made.path)[0]["input_ids"]
    assert ids_by_case == {True: [CLS, 4, 6, SEP], False: [CLS, 5, 6, SEP]}


def test_records_are_made_anew_when_tokens_are_words(tmp_path, prepare):
    (tmp_path / "vocab.txt").write_text(
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n苹\n果\n苹果\n[MASK]\nUSB\nusb\n", encoding="utf-8")
    write_task(tmp_path, train=[("1", "苹果USB")])
    for make, lower, expected in (
            (FullTokenizer, True, [4, 5, 9]), (WordTokenizer, True, [6, 9]), (WordTokenizer, False, [6, 8])):
        made = prepare(tokenizer=make(str(tmp_path / "vocab.txt"), lower))
        assert not made.reused
        assert read_records(made.path)[0]["input_ids"] == [CLS] + expected + [SEP]


def test_records_are_made_anew_when_the_data_or_the_folds_change(tmp_path, prepare):
    write_task(tmp_path, train=[("1", "text %d" % number) for number in range(40)])
    path = str(tmp_path / "train.tsv")
    prepare()
    for split in (Split("train", path, (0, 1), 4), Split("train", path, (1, 2), 4),
                  Split("train", path, (1, 2), 4, 5)):
        assert not prepare(split).reused
    write_task(tmp_path, train=[("1", "other %d" % number) for number in range(40)])
    assert not prepare(split).reused


def test_a_run_cut_short_leaves_no_counts_beside_other_records(tmp_path, prepare, monkeypatch):
    write_task(tmp_path, train=[("1", "ab")])
    beside = prepare().path.replace(".tfrecord", ".json")
    monkeypatch.setattr(records, "write_records", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(length=7)
    assert not os.path.exists(beside)


def test_many_processes_write_the_bytes_of_one(tmp_path, prepare, monkeypatch):
    write_task(tmp_path, train=many_rows(700))
    one = prepare()
    alone = open(one.path, "rb").read()
    for name, value in (("PARALLEL_ROWS", 100), ("CHUNK_ROWS", 30), ("BLOCK_CHUNKS", 3)):
        monkeypatch.setattr(classification_data, name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    os.remove(one.path)
    log, tokenize = tmp_path / "log", Letters.tokenize
    monkeypatch.setattr(Letters, "tokenize", lambda self, text: (
        log.open("a").write("%d\n" % os.getpid()), tokenize(self, text))[1])
    many = prepare()
    workers = set(log.read_text().split())
    assert workers and str(os.getpid()) not in workers
    assert open(many.path, "rb").read() == alone
    assert many.counts == one.counts


def test_a_bad_row_far_down_stops_the_workers_too(tmp_path, prepare, monkeypatch):
    write_task(tmp_path, train=many_rows(300) + [("7", "a")])
    for name, value in (("PARALLEL_ROWS", 100), ("CHUNK_ROWS", 30), ("BLOCK_CHUNKS", 3)):
        monkeypatch.setattr(classification_data, name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert "train.tsv:302: label" in error_of(prepare)
    assert os.listdir(str(tmp_path / "run" / "records")) == []


def test_what_the_records_were_made_from_can_be_read(tmp_path, prepare):
    write_task(tmp_path, train=[("1", "ab")])
    with open(prepare().path.replace(".tfrecord", ".json")) as stream:
        stored = json.load(stream)
    assert stored["key"]["max_seq_length"] == 6 and stored["key"]["labels"] == ["0", "1"]
    assert stored["counts"]["texts"] == 1


@pytest.mark.skipif(not os.path.isdir(SHARED_TASK), reason="needs the shared task files")
def test_a_real_task_is_read_whole():
    splits = choose_splits(SHARED_TASK)
    assert sum(1 for split in splits for _ in split.rows(LABELS)) == 9600 + 1200
