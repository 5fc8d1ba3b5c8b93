import collections
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import records
from tests import graphs
from tests import peer
from tests.bert.creation import CHARS, FIRST_WORD, MASK, SPECIAL, create, documents, read, sentence, unmasked

pytestmark = graphs.ON_TENSORFLOW_2


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
