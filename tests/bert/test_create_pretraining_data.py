import collections
import errno
import glob
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import corpus
from bert import create_pretraining_data as creation
from bert import encoding
from bert import local_runner
from bert import records
from bert import tfrecord
from bert import tokenization
from tests import peer
from training.command import UserError

CHARS = "".join(chr(0x4E00 + number) for number in range(300))
SPECIAL = list(tokenization.SPECIAL_TOKENS)
FIRST_WORD = len(SPECIAL)
VOCAB = SPECIAL + list(CHARS)
PAD, UNK, CLS, SEP, MASK = range(FIRST_WORD)
SETTINGS = dict(do_lower_case=True, max_seq_length=16, max_predictions_per_seq=4, masked_lm_prob=0.15,
                random_seed=1, dupe_factor=10, samples="sentence", masking="static", do_whole_word_mask=False,
                user_dict=None, max_ngram=1, pad=True, dedup="none", text_key=None, document_per_line=False,
                split_sentences=False, errors="stop")


def sentence(start, length):
    """Consecutive characters, so that every piece of it shows from where it was cut."""
    return "".join(CHARS[(start + number) % len(CHARS)] for number in range(length))


def documents(number, sentences=4, length=8):
    """Text whose sentences are all different."""
    return "\n\n".join(
        "\n".join(sentence(7 * (document * sentences + place), length) for place in range(sentences))
        for document in range(number)) + "\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return tmp_path


def create(folder, text, num_shards=1, num_workers=1, **settings):
    """`creation.create` on a.txt in `folder`: (counts, names of the shards)."""
    (folder / "a.txt").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    output = str(folder / "out" / "a.tfrecord")
    shards = creation.shard_names(output, num_shards)
    counts = creation.create(
        [str(folder / "a.txt")], shards, creation.manifest_name(output),
        creation.Settings(vocab_file=str(folder / "vocab.txt"), **dict(SETTINGS, **settings)), num_workers)
    return counts, shards


def read(shards):
    """The records: list of dict of name -> list."""
    found = []
    for shard in shards:
        for record in tf.io.tf_record_iterator(shard):
            features = tf.train.Example.FromString(record).features.feature
            found.append({name: list((feature.float_list if feature.WhichOneof("kind") == "float_list"
                                      else feature.int64_list).value) for name, feature in features.items()})
    return found


def unmasked(record):
    """The text of a record: its tokens between [CLS] and [SEP], as they were."""
    ids = list(record["input_ids"])
    for position, label, weight in zip(*(record[name] for name in records.PREDICTIONS)):
        if weight:
            ids[position] = label
    length = sum(record["input_mask"])
    assert ids[0] == CLS and ids[length - 1] == SEP and not any(ids[length:])
    return "".join(VOCAB[number] for number in ids[1:length - 1])


def contents(folder):
    """dict of every visible file in `folder` -> its bytes."""
    return {name: open(name, "rb").read() for name in glob.glob(str(folder / "*")) if os.path.isfile(name)}


# ---- the format

def test_names_kinds_and_lengths_are_googles(folder):
    _, shards = create(folder, documents(3))
    record = next(tf.io.tf_record_iterator(shards[0]))
    features = tf.train.Example.FromString(record).features.feature
    assert {name: (feature.WhichOneof("kind"), len(feature.int64_list.value or feature.float_list.value))
            for name, feature in features.items()} == {
        "input_ids": ("int64_list", 16), "input_mask": ("int64_list", 16), "segment_ids": ("int64_list", 16),
        "masked_lm_positions": ("int64_list", 4), "masked_lm_ids": ("int64_list", 4),
        "masked_lm_weights": ("float_list", 4), "next_sentence_labels": ("int64_list", 1)}


def test_padding_is_zero_and_the_mask_tells_it(folder):
    _, shards = create(folder, sentence(0, 5) + "\n" + sentence(50, 14))
    for record in read(shards):
        length = len(unmasked(record)) + 2
        assert record["input_mask"] == [1] * length + [0] * (16 - length)
        assert record["segment_ids"] == [0] * 16 and record["next_sentence_labels"] == [0]
        count = {7: 1, 16: 2}[length]
        assert record["masked_lm_weights"] == [1.0] * count + [0.0] * (4 - count)
        assert record["masked_lm_positions"][count:] == record["masked_lm_ids"][count:] == [0] * (4 - count)


def test_googles_script_and_ours_write_the_same_form(folder):
    (folder / "a.txt").write_text(documents(20), encoding="utf-8")
    googles = str(folder / "google.tfrecord")
    peer.run_google_script(
        "create_pretraining_data", "--input_file=" + str(folder / "a.txt"), "--output_file=" + googles,
        "--vocab_file=" + str(folder / "vocab.txt"), "--max_seq_length=16", "--max_predictions_per_seq=4",
        "--dupe_factor=1")
    theirs, ours = read([googles]), read(create(folder, documents(20))[1])
    assert theirs and ours

    def form(record):
        return sorted((name, len(values), type(values[0])) for name, values in record.items())

    assert all(form(record) == form(ours[0]) for record in theirs + ours)
    names = records.MASKED_LM_FEATURES
    with tf.Graph().as_default(), tf.Session() as session:
        parsed = session.run(records.parse(list(tf.io.tf_record_iterator(googles)), names))
    for name in names:
        assert parsed[name].tolist() == [record[name] for record in theirs]


# ---- samples

def test_every_sentence_is_a_sample_ten_times_over(folder):
    counts, shards = create(folder, documents(20))
    found = collections.Counter(unmasked(record) for record in read(shards))
    assert found == {line: 10 for line in documents(20).split("\n") if line}
    assert (counts["documents"], counts["sentences"], counts["instances"]) == (20, 80, 800)


def test_each_copy_is_masked_anew(folder):
    _, shards = create(folder, sentence(0, 14), dupe_factor=100)
    positions = {tuple(record["masked_lm_positions"][:2]) for record in read(shards)}
    assert len(positions) > 50  # of 91 pairs, 100 draws


def test_special_tokens_are_never_masked_and_shares_are_80_10_10(folder):
    _, shards = create(folder, documents(20, length=14), dupe_factor=100, max_predictions_per_seq=2)
    fates = collections.Counter()
    for record in read(shards):
        for position, label, weight in zip(*(record[name] for name in records.PREDICTIONS)):
            assert weight == 1.0 and 0 < position < 15 and label >= FIRST_WORD
            now = record["input_ids"][position]
            assert now >= MASK
            fates["masked" if now == MASK else "kept" if now == label else "other"] += 1
    total = sum(fates.values())
    assert total == 16000
    assert fates["masked"] / total == pytest.approx(0.8, abs=0.016)
    assert fates["kept"] / total == pytest.approx(0.1, abs=0.012)


def test_a_long_sentence_loses_tokens_at_both_ends_at_random(folder):
    counts, shards = create(folder, sentence(0, 34), dupe_factor=400)
    starts = []
    for record in read(shards):
        text = unmasked(record)
        starts.append(CHARS.index(text[0]))
        assert text == sentence(starts[-1], 14)
    # 20 tokens are lost, each at the front with probability 1/2: mean 10, variance 5.
    assert np.mean(starts) == pytest.approx(10, abs=5 * (5 / 400) ** 0.5)
    assert np.var(starts) == pytest.approx(5, abs=1.8)
    assert counts["instances"] == 400


def test_a_sentence_that_just_fits_is_whole(folder):
    _, shards = create(folder, sentence(0, 14))
    assert {unmasked(record) for record in read(shards)} == {sentence(0, 14)}


def test_packed_samples_are_full_and_go_on_where_the_last_one_ended(folder):
    text = "\n".join(sentence(start, 10) for start in (0, 10, 20)) + "\n\n" + sentence(200, 5)
    _, shards = create(folder, text, samples="packed", dupe_factor=3)
    assert collections.Counter(unmasked(record) for record in read(shards)) == {
        sentence(0, 14): 3, sentence(14, 14): 3, sentence(28, 2): 3, sentence(200, 5): 3}


def test_packed_samples_lose_no_token(folder):
    counts, shards = create(folder, documents(9, sentences=7, length=23), samples="packed", dupe_factor=1)
    assert sum(len(unmasked(record)) for record in read(shards)) == counts["tokens"] == 9 * 7 * 23


def test_sentences_without_a_token_are_left_out(folder):
    counts, shards = create(folder, "\u200b\n" + sentence(0, 3) + "\n\n\u200b\n")
    assert {unmasked(record) for record in read(shards)} == {sentence(0, 3)}
    assert counts["sentences"] == 1


def test_documents_and_copies_are_shuffled_together(folder):
    lines = documents(50, sentences=1).strip().split("\n\n")
    _, shards = create(folder, "\n\n".join(lines), num_shards=2)
    order = [lines.index(unmasked(record)) for record in read(shards)]
    # 500 records, truly shuffled: the correlation with the place has a standard deviation of 0.045, and of
    # 499 pairs of neighbours 9 are copies of one text.
    assert abs(np.corrcoef(np.arange(len(order)), order)[0, 1]) < 0.2
    assert np.sum(np.diff(order) == 0) < 30


# ---- the same bytes

def test_the_seed_decides_every_byte_whatever_the_number_of_workers(folder, monkeypatch):
    monkeypatch.setattr(corpus, "CELL_BYTES", 2000)
    monkeypatch.setattr(corpus, "WINDOW_BYTES", 500)
    monkeypatch.setattr(local_runner, "BATCH_BYTES", 300)
    monkeypatch.setattr(local_runner, "BUCKET_BYTES", 2000)
    found = []
    for workers, seed in ((1, 1), (3, 1), (1, 2)):
        _, shards = create(folder, documents(30), 2, workers, random_seed=seed)
        found.append([open(name, "rb").read() for name in shards])
        for name in glob.glob(str(folder / "out" / "*")):
            os.remove(name)
    assert found[0] == found[1]
    assert found[0][0] != found[2][0] and found[0][1] != found[2][1]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_the_work(folder, monkeypatch, num_workers):
    log, encode = folder / "log", encoding.Encoder.encode
    monkeypatch.setattr(encoding.Encoder, "encode", lambda self, sentences: (
        log.open("a").write("%d\n" % os.getpid()), encode(self, sentences))[1])
    create(folder, documents(30), num_workers=num_workers)
    processes = set(log.read_text().split())
    assert str(os.getpid()) not in processes and 1 <= len(processes) <= num_workers


# ---- whole files

def test_all_records_are_in_the_shards_once(folder):
    counts, shards = create(folder, documents(20), num_shards=3)
    assert [os.path.basename(name) for name in shards] == ["a.tfrecord-0000%d-of-00003" % n for n in range(3)]
    assert sum(map(tfrecord.count_records, shards)) == counts["instances"] == 800
    assert min(map(tfrecord.count_records, shards)) > 200
    assert sorted(os.listdir(str(folder / "out"))) == sorted(
        [os.path.basename(name) for name in shards] + ["a.tfrecord.json"])


def test_more_shards_than_records_leave_some_empty(folder):
    counts, shards = create(folder, sentence(0, 3), num_shards=5, dupe_factor=1)
    assert sorted(map(tfrecord.count_records, shards)) == [0, 0, 0, 0, 1]


def test_named_shards_may_stand_anywhere(folder):
    names = creation.shard_names("%s/x/1,%s/y/2" % (folder, folder), 1)
    (folder / "a.txt").write_text(documents(20), encoding="utf-8")
    settings = creation.Settings(vocab_file=str(folder / "vocab.txt"), **SETTINGS)
    arguments = [str(folder / "a.txt")], names, creation.manifest_name(names[0]), settings
    assert creation.create(*arguments)["instances"] == sum(map(tfrecord.count_records, names)) == 800
    assert creation.create(*arguments) is None


@pytest.mark.parametrize("output_file, num_shards, message", [
    ("a,,b", 1, "--output_file=a,,b: an empty name, or one name twice"),
    ("a,a", 1, "--output_file=a,a: an empty name, or one name twice"),
    ("a,b", 3, "--num_shards=3: --output_file names 2 shards; give one of the two flags"),
    (",".join(map(str, range(513))), 1, "--output_file: 513 names; at most 512 shards can be made"),
])
def test_shards_that_cannot_be_are_refused(output_file, num_shards, message):
    with pytest.raises(UserError) as caught:
        creation.shard_names(output_file, num_shards)
    assert str(caught.value) == message


def test_finished_shards_are_left_alone(folder):
    create(folder, documents(5), num_shards=2)
    before = {name: os.stat(name).st_mtime_ns for name in glob.glob(str(folder / "out" / "*"))}
    assert create(folder, documents(5), num_shards=2)[0] is None
    assert {name: os.stat(name).st_mtime_ns for name in glob.glob(str(folder / "out" / "*"))} == before


@pytest.mark.parametrize("change", [
    {"num_shards": 3}, {"random_seed": 2}, {"dupe_factor": 9}, {"max_seq_length": 17}, {"samples": "packed"},
    {"max_predictions_per_seq": 5}, {"masked_lm_prob": 0.2}, {"do_lower_case": False}, {"text": documents(6)},
], ids=lambda change: next(iter(change)))
def test_shards_are_made_anew_when_anything_changes(folder, change):
    create(folder, documents(5), num_shards=2)
    counts, shards = create(folder, **dict({"text": documents(5), "num_shards": 2}, **change))
    assert counts is not None
    # Shards of the earlier run would be read together with these.
    expected = [os.path.basename(name) for name in shards] + ["a.tfrecord.json"]
    assert sorted(os.listdir(str(folder / "out"))) == sorted(expected)


def test_shards_of_an_earlier_format_are_made_anew(folder, monkeypatch):
    monkeypatch.setattr(creation, "FORMAT", creation.FORMAT - 1)
    create(folder, documents(5))
    monkeypatch.undo()
    assert create(folder, documents(5))[0] is not None


def test_shards_are_made_anew_when_one_is_gone_or_cut(folder):
    _, shards = create(folder, documents(5), num_shards=2)
    first = contents(folder / "out")
    os.remove(shards[1])
    assert create(folder, documents(5), num_shards=2)[0] is not None
    with open(shards[0], "ab") as stream:
        stream.truncate(100)
    assert create(folder, documents(5), num_shards=2)[0] is not None
    assert contents(folder / "out") == first


@pytest.mark.parametrize("text", [documents(3).encode("utf-8") + b"\xcb\xe1", "\n\n\u200b\n"],
                         ids=["encoding", "empty"])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_leaves_what_was_there(folder, text, num_workers):
    with pytest.raises(UserError):
        create(folder, text, num_workers=num_workers)
    assert os.listdir(str(folder / "out")) == []
    create(folder, documents(5))
    before = contents(folder / "out")
    with pytest.raises(UserError):
        create(folder, text, num_workers=num_workers)
    assert contents(folder / "out") == before


def test_nothing_that_is_read_is_overwritten(folder):
    (folder / "a.txt").write_text(documents(2), encoding="utf-8")
    settings = creation.Settings(vocab_file=str(folder / "vocab.txt"), **SETTINGS)
    for name in ("a.txt", "vocab.txt"):
        before = (folder / name).read_bytes()
        with pytest.raises(UserError, match="is read as input too"):
            creation.create([str(folder / "a.txt")], [str(folder / name)], str(folder / "a.json"), settings)
        assert (folder / name).read_bytes() == before


@pytest.mark.parametrize("content", ["{}", "[]", '{"made_from": 1, "shards": {}, "mine": 1}', "text"])
def test_a_file_that_only_has_the_manifests_name_is_not_lost(folder, content):
    (folder / "out").mkdir()
    (folder / "out" / "a.tfrecord.json").write_text(content)
    with pytest.raises(UserError, match="a.tfrecord.json"):
        create(folder, documents(2))
    assert (folder / "out" / "a.tfrecord.json").read_text() == content


class Died(BaseException):
    """In place of a kill."""


def dying_at(call, function):
    """`function`, dying at its call number `call`."""
    calls = []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise Died()
        return function(*arguments)

    return dying


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_run_killed_between_two_shards_redoes_only_the_others(folder, monkeypatch, num_workers):
    monkeypatch.setattr(local_runner, "BUCKET_BYTES", 2000)
    _, shards = create(folder, documents(30), num_shards=3)
    expected = contents(folder / "out")
    create(folder, documents(30), num_shards=3, random_seed=2)
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(local_runner, "_join", dying_at(2, local_runner._join))
        create(folder, documents(30), num_shards=3, num_workers=num_workers)
    done, = contents(folder / "out")
    assert contents(folder / "out")[done] == expected[done]
    written = os.stat(done).st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(local_runner, "_spill", None)  # the text is not read again
        assert create(folder, documents(30), num_shards=3)[0]["predictions"] == 2400
    assert contents(folder / "out") == expected and os.stat(done).st_mtime_ns == written
    assert len(os.listdir(str(folder / "out"))) == 4


def test_a_run_killed_while_it_reads_begins_again(folder, monkeypatch):
    create(folder, documents(30))
    expected = contents(folder / "out")
    create(folder, documents(5))
    before = contents(folder / "out")
    left = folder / "out" / ".a.tfrecord.making"
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(local_runner.shutil, "rmtree", lambda *_, **__: None)  # a kill clears nothing away
        patch.setattr(local_runner, "_over_ranges", dying_at(1, None))
        create(folder, documents(30))
    (left / "00000-1").write_bytes(b"half of what was to be written")
    assert contents(folder / "out") == before
    create(folder, documents(30))
    assert contents(folder / "out") == expected and not left.exists()


def test_what_another_job_left_is_not_taken_up(folder, monkeypatch):
    create(folder, documents(30))
    expected = contents(folder / "out")
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(local_runner, "_join", dying_at(1, None))
        create(folder, documents(5), num_shards=2)
    create(folder, documents(30))
    assert contents(folder / "out") == expected
    assert len(os.listdir(str(folder / "out"))) == len(expected)


def test_shards_of_a_job_that_was_not_finished_do_not_stand_beside_those_of_another(folder, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(local_runner, "_join", dying_at(3, local_runner._join))
        create(folder, documents(30), num_shards=4)
    assert len(contents(folder / "out")) == 2
    _, shards = create(folder, documents(30), num_shards=3)
    assert sorted(contents(folder / "out")) == sorted(shards + [str(folder / "out" / "a.tfrecord.json")])


def test_a_full_disk_is_told_and_what_is_done_stays(folder, monkeypatch):
    create(folder, documents(30), num_shards=2)
    expected = contents(folder / "out")
    create(folder, documents(5), num_shards=2)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(local_runner.shutil, "copyfileobj", full)
        with pytest.raises(UserError, match="out: the disk is full; make room and run the same command again"):
            create(folder, documents(30), num_shards=2)
    assert contents(folder / "out") == {}
    with monkeypatch.context() as patch:
        patch.setattr(local_runner, "_spill", None)
        create(folder, documents(30), num_shards=2)
    assert contents(folder / "out") == expected


# ---- texts as they come

@pytest.mark.parametrize("text, expected", [
    ("\ufeff%s\r\n\r\n%s\r\n", 2), ("%s\x00\n\x00\n\n%s", 2), ("\n\n \n%s\n\n\n\n%s\n\n", 2)],
    ids=["windows", "nul", "blank"])
def test_marks_and_line_ends_are_no_text(folder, text, expected):
    counts, shards = create(folder, text % (sentence(0, 3), sentence(9, 4)), dupe_factor=1)
    assert sorted(map(unmasked, read(shards))) == sorted([sentence(0, 3), sentence(9, 4)])
    assert counts["documents"] == expected


def test_a_document_of_one_character_is_a_sample_with_one_prediction(folder):
    _, shards = create(folder, CHARS[5], dupe_factor=3)
    assert [(unmasked(record), sum(record["masked_lm_weights"])) for record in read(shards)] == [(CHARS[5], 1)] * 3


@pytest.mark.parametrize("samples, instances", [("sentence", 1), ("packed", -(-3400000 // 14))])
def test_a_line_of_ten_megabytes_is_a_sentence(folder, samples, instances):
    counts, _ = create(folder, CHARS[:100] * 34000, samples=samples, dupe_factor=1)
    assert (counts["sentences"], counts["tokens"], counts["instances"]) == (1, 3400000, instances)


def test_bad_lines_are_left_out_on_request(folder):
    text = sentence(0, 5).encode("utf-8") + b"\n\xff\n" + sentence(9, 6).encode("utf-8")
    counts, shards = create(folder, text, errors="skip", dupe_factor=1)
    assert sorted(map(unmasked, read(shards))) == sorted([sentence(0, 5), sentence(9, 6)])
    assert counts["bad_lines"] == 1


def test_rows_of_json_lines_give_the_records_of_their_text(folder):
    lines = [json.dumps({"body": "%s。%s" % (sentence(0, 5), sentence(20, 6))})]
    _, shards = create(folder, "\n".join(lines), text_key="body", split_sentences=True, dupe_factor=1)
    found = sorted(len(unmasked(record)) for record in read(shards))
    assert found[0] == 6 and found[1] == len(sentence(0, 5) + "[UNK]")


# ---- duplicates

POSTING = sentence(0, 200)


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("dedup, left", [("none", 4), ("exact", 3), ("near", 2)])
def test_of_duplicates_the_first_document_stays(folder, dedup, left, num_workers):
    texts = [POSTING, sentence(100, 90), POSTING + "  ", POSTING[:150] + CHARS[0] + POSTING[151:]]
    counts, shards = create(folder, "\n\n".join(texts), dedup=dedup, dupe_factor=1, max_seq_length=256,
                            max_predictions_per_seq=20, num_workers=num_workers)
    kept = (texts[:2] + texts[3:] + texts[2:3])[:left]
    assert sorted(map(unmasked, read(shards))) == sorted(text.strip() for text in kept)
    assert (counts["documents"], counts["duplicates"]) == (4, 4 - left)


# ---- whole words, other records

WORDS = ["聚氯乙烯", "乙烯", "PVC-U"]


@pytest.fixture
def terms(folder):
    """A folder whose vocabulary and user dictionary know `WORDS`."""
    (folder / "vocab.txt").write_text("\n".join(SPECIAL + list("聚氯乙烯的和") + ["pvc", "-", "u"]), encoding="utf-8")
    (folder / "terms.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return folder


def test_whole_words_are_masked_together_and_predicted_as_plain_tokens(terms):
    text = "聚氯乙烯的PVC-U和乙烯"
    counts, shards = create(terms, text, do_whole_word_mask=True, user_dict=str(terms / "terms.txt"),
                            max_seq_length=32, dupe_factor=300, masked_lm_prob=0.3)
    words = [{1, 2, 3, 4}, {5}, {6, 7, 8}, {9}, {10, 11}]
    seen = set()
    for record in read(shards):
        chosen = {place for place, weight in zip(record["masked_lm_positions"], record["masked_lm_weights"]) if weight}
        assert chosen and all(word <= chosen or not word & chosen for word in words)
        seen.update(place for place in chosen)
    assert seen == set(range(1, 12))
    assert (counts["words"], counts["tokens"], counts["unaligned_tokens"]) == (5, 11, 0)


def test_words_stay_whole_where_a_sentence_is_cut(terms):
    _, shards = create(terms, "的" + "聚氯乙烯" * 30, do_whole_word_mask=True, user_dict=str(terms / "terms.txt"),
                       dupe_factor=20, masked_lm_prob=0.3)
    for record in read(shards):
        chosen = [place for place, weight in zip(record["masked_lm_positions"], record["masked_lm_weights"]) if weight]
        assert len(chosen) == 4 or 1 in chosen or 14 in chosen


def test_records_without_padding_hold_the_same(folder):
    padded, unpadded = (read(create(folder, documents(20), pad=pad)[1]) for pad in (True, False))
    for long, short in zip(padded, unpadded):
        assert len(short["input_ids"]) == len(short["input_mask"]) == len(short["segment_ids"]) == sum(
            long["input_mask"])
        for name, values in short.items():
            assert long[name] == values + [0] * (len(long[name]) - len(values))


def test_records_to_be_masked_later_hold_tokens_and_word_starts_once(terms):
    _, shards = create(terms, "聚氯乙烯的PVC-U\n乙烯", masking="dynamic", do_whole_word_mask=True, dupe_factor=1,
                       user_dict=str(terms / "terms.txt"))
    found = {"".join((SPECIAL + list("聚氯乙烯的和") + ["pvc", "-", "u"])[number] for number in record["input_ids"]):
             record["word_starts"] for record in read(shards) if set(record) == {"input_ids", "word_starts"}}
    assert found == {"[CLS]聚氯乙烯的pvc-u[SEP]": [1, 1, 0, 0, 0, 1, 1, 0, 0, 1], "[CLS]乙烯[SEP]": [1, 1, 0, 1]}


def test_without_whole_words_every_token_begins_one(folder):
    _, shards = create(folder, sentence(0, 5), masking="dynamic", dupe_factor=1)
    assert [record["word_starts"] for record in read(shards)] == [[1] * 7]


# ---- the command

def command(folder, *arguments):
    environment = dict(os.environ, PYTHONPATH=peer.CHECKOUT, PYTHONIOENCODING="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "bert.create_pretraining_data", "--input_file=a.txt",
         "--vocab_file=vocab.txt", "--output_file=out/a.tfrecord"] + list(arguments), cwd=str(folder),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


def finish(process):
    out, err = process.communicate()
    return process.returncode, out, err


ERRORS = {
    "missing": (["--input_file=b.txt,c*.txt"], "--input_file=b.txt: no such file"),
    "vocabulary": (["--vocab_file=none.txt"], "none.txt: No such file or directory"),
    "encoding": (["--input_file=bad.txt"],
                 "bad.txt:1: not UTF-8 at byte 1 of the line, 1 of the text; convert the file (iconv -f GB18030 -t "
                 "UTF-8 when it is in a Chinese encoding)"),
    "folder": (["--input_file=."], ".: Is a directory"),
    "words": (["--user_dict=a.txt"], "--user_dict: has no effect without --do_whole_word_mask; add it"),
    "dynamic": (["--masking=dynamic", "--max_ngram=2"],
                "--max_ngram: masks are drawn when the records are read; give it to run_pretraining.py"),
    "forms": (["--text_key=t", "--document_per_line"],
              "--document_per_line: not needed with --text_key, a row is a document; leave it out"),
    "empty": (["--input_file=empty.txt"], "empty.txt: no text to make samples of"),
    "value": (["--samples=pairs"],
              "flag --samples=pairs: value should be one of <sentence|packed>; --help lists the flags"),
    "range": (["--dupe_factor=0"],
              "flag --dupe_factor=0: 0 is not a positive integer; --help lists the flags"),
    "flag": (["--dupe_facter=2"],
             "Unknown command line flag 'dupe_facter'. Did you mean: dupe_factor ?; --help lists the flags"),
    "shards": (["--output_file=out/1,out/2", "--num_shards=3"],
               "--num_shards=3: --output_file names 2 shards; give one of the two flags"),
}


def test_errors_are_told_in_one_line_and_leave_nothing(folder):
    (folder / "a.txt").write_text(documents(2), encoding="utf-8")
    (folder / "bad.txt").write_bytes(b"\xcb\xe1\n")
    (folder / "empty.txt").write_text("\n\n")
    # Together: most of a command's time is its start.
    running = {name: command(folder, *arguments) for name, (arguments, _) in ERRORS.items()}
    for name, process in running.items():
        code, out, err = finish(process)
        *before, last = err.splitlines()
        assert (code, out, last) == (1, "", "create_pretraining_data.py: error: " + ERRORS[name][1])
        assert all(line.startswith("samples:") for line in before if line), name
    assert glob.glob(str(folder / "out" / "*")) + glob.glob(str(folder / "out" / ".*")) == []


def test_help_is_worth_reading_and_no_error(folder):
    code, out, err = finish(command(folder, "--help"))
    assert (code, err) == (0, "")
    assert "--samples=packed:" in out and "--dupe_factor:" in out


def test_the_command_says_what_it_did_and_then_that_it_is_finished(folder):
    (folder / "a.txt").write_text(documents(20) + "\n油" + sentence(0, 3), encoding="utf-8")
    code, out, _ = finish(command(folder, "--num_shards=2", "--max_seq_length=16", "--num_workers=2"))
    assert (code, out.splitlines()) == (0, [
        "documents 21, sentences 81, tokens 644", "[UNK] 0.16 % of the tokens",
        "instances 810, of 10.0 tokens on average, predictions 1610",
        "padding 37.8 % of the positions: sentences are shorter than --max_seq_length; --samples=packed or --pad=false "
        "has less",
        "shards 2: out/a.tfrecord-00000-of-00002 ... out/a.tfrecord-00001-of-00002"])
    before = contents(folder / "out")
    code, out, err = finish(command(folder, "--num_shards=2", "--max_seq_length=16", "--num_workers=1"))
    assert (code, err, out) == (
        0, "", "out/a.tfrecord: finished, 2 of 2 shards are there; nothing to do (delete out/a.tfrecord.json "
               "to make them again)\n")
    assert contents(folder / "out") == before
    manifest = json.loads((folder / "out" / "a.tfrecord.json").read_text())
    assert manifest["counts"]["instances"] == 810


def test_a_killed_run_leaves_neither_files_nor_workers_and_can_be_repeated(folder):
    (folder / "a.txt").write_text(documents(30000), encoding="utf-8")
    process = command(folder, "--num_workers=2", "--max_seq_length=16")
    wait_for(lambda: len(children(process.pid)) == 2 or process.poll() is not None)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    process.stderr.close()
    assert len(workers) == 2
    wait_for(lambda: not any(is_running(worker) for worker in workers))
    assert glob.glob(str(folder / "out" / "*")) == []
    create(folder, documents(20), dupe_factor=1)
    assert sorted(os.listdir(str(folder / "out"))) == ["a.tfrecord", "a.tfrecord.json"]


def test_the_command_does_without_tensorflow(folder):
    (folder / "a.txt").write_text(documents(2), encoding="utf-8")
    (folder / "tensorflow.py").write_text("raise ImportError('TensorFlow is not to be loaded')")
    assert finish(command(folder, "--do_whole_word_mask", "--dedup=near"))[0] == 0


def wait_for(condition, seconds=30):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end
        time.sleep(0.02)


def stat_fields(process):
    """(state, parent, ...) of a process; empty when there is none."""
    try:
        with open("/proc/%s/stat" % process) as stream:
            return stream.read().rpartition(")")[2].split()
    except OSError:
        return []


def children(parent):
    return [int(process) for process in os.listdir("/proc")
            if process.isdigit() and stat_fields(process)[1:2] == [str(parent)]]


def is_running(process):
    return stat_fields(process)[:1] not in ([], ["Z"])
