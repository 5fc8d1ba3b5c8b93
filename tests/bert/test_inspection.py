import collections
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given, settings, strategies

from bert import inspection
from bert import masking
from bert import tfrecord
from bert import tokenization
from bert.examples import MaskedLmSerializer, varint
from tests import commands
from tests import graphs
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2

CHARS = "聚氯乙烯是一种树脂铁它很硬"
VOCAB = list(tokenization.SPECIAL_TOKENS) + list(CHARS) + ["pvc", "##u"]
PAD, UNK, CLS, SEP, MASK = range(5)


def ids(text):
    return [VOCAB.index(token) for token in text.split()]


def example(**features):
    """The bytes of a tf.train.Example: lists of int, float or bytes."""
    built = {}
    for name, values in features.items():
        if values and isinstance(values[0], float):
            built[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        elif values and isinstance(values[0], bytes):
            built[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        else:
            built[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Example(features=tf.train.Features(feature=built)).SerializeToString()


def text(length=3, **more):
    """A record of a text of so many tokens."""
    return example(**dict(dict(input_ids=[CLS] + [6] * (length - 2) + [SEP], input_mask=[1] * length), **more))


def masked_text(**more):
    """A text with a masked, a replaced and a kept token."""
    return example(**dict(dict(
        input_ids=ids("[CLS] 聚 [MASK] 乙 烯 铁 脂 [SEP]") + [PAD] * 2, input_mask=[1] * 8 + [0] * 2,
        segment_ids=[0] * 6 + [1] * 2 + [0] * 2, masked_lm_positions=[2, 5, 6, 0],
        masked_lm_ids=ids("氯 树 脂") + [PAD], masked_lm_weights=[1.0, 1.0, 1.0, 0.0]), **more))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return tmp_path


def write(path, *records):
    path.write_bytes(tfrecord.frame(records))
    return str(path)


def inspect(folder, *words):
    """Runs the command in `folder`: commands.Result."""
    process = subprocess.run(
        [sys.executable, "-m", "bert.inspection"] + list(words), cwd=str(folder), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=commands.environment(PYTHONPATH=commands.CHECKOUT, PYTHONIOENCODING="utf-8"))
    return commands.Result(process.returncode, process.stdout.decode("utf-8"), process.stderr.decode("utf-8"))


def cells(line):
    """The columns of a line of the table."""
    return re.split(" {2,}", line)


def describe(record):
    return inspection.describe("a", 7, record, VOCAB, "vocab.txt")


def error_of(record):
    with pytest.raises(UserError) as caught:
        describe(record)
    return str(caught.value)


# ---- the wire format

INT64 = strategies.integers(-2 ** 63, 2 ** 63 - 1) | strategies.integers(-2, 200)
FEATURE = (strategies.lists(INT64) | strategies.lists(strategies.floats(width=32, allow_nan=False), min_size=1)
           | strategies.lists(strategies.binary(max_size=5), min_size=1))
FEATURES = strategies.dictionaries(strategies.text(max_size=5), FEATURE, max_size=5)


@settings(max_examples=300, deadline=None)
@given(FEATURES)
def test_examples_are_read_as_the_protobuf_library_wrote_them(features):
    found = inspection.features_of(example(**features))
    assert {name: inspection.decode_feature(feature) for name, feature in found.items()} == features


@settings(max_examples=300, deadline=None)
@given(strategies.lists(INT64), strategies.lists(strategies.floats(width=32, allow_nan=False)), strategies.booleans())
def test_numbers_are_read_however_they_were_packed(integers, floats, packed):
    def field(tag, content):
        return tag + varint(len(content)) + content

    def feature(kind, tag, numbers):
        together = field(b"\x0a", b"".join(numbers))
        one_by_one = b"".join(tag + number for number in numbers)
        return field(kind, together if packed else one_by_one + together)

    int64_list = feature(b"\x1a", b"\x08", [varint(number % 2 ** 64) for number in integers])
    float_list = feature(b"\x12", b"\x0d", [np.float32(number).tobytes() for number in floats])
    for encoded, kind in ((int64_list, "int64_list"), (float_list, "float_list")):
        expected = getattr(tf.train.Feature.FromString(encoded), kind).value
        assert inspection.decode_feature(encoded) == list(expected)


@settings(max_examples=500, deadline=None)
@given(strategies.binary(max_size=40) | FEATURES.flatmap(lambda features: strategies.binary(max_size=3).map(
    lambda more: example(**features)[:-1] + more)))
def test_other_bytes_are_refused_or_read_but_never_crash(record):
    try:
        for feature in inspection.features_of(record).values():
            inspection.decode_feature(feature)
    except ValueError as error:
        assert "not a tf.train.Example" in str(error)


@pytest.mark.parametrize("record", [b"\x0a", b"\x0a\x05ab", b"\x0b", b"\xff" * 11, b"\x08" + b"\x80" * 10 + b"\1",
                                    b"\x0d12", b"\x08"], ids=repr)
def test_a_message_that_is_cut_off_is_refused(record):
    with pytest.raises(ValueError):
        inspection.features_of(record)


def test_half_a_float_is_refused():
    with pytest.raises(ValueError, match="not a tf.train.Example"):
        inspection.decode_feature(b"\x12\x05\x0a\x03abc")


def test_fields_nobody_knows_are_passed_over():
    strange = b"\x10\x96\x01" + b"\x19" + b"\xff" * 8 + b"\x25" + b"\xff" * 4 + b"\x2a\x02ab"
    record = text()
    among_entries = b"\x0a" + varint(len(strange)) + strange  # more of the same message
    assert inspection.features_of(strange + record + among_entries) == inspection.features_of(record)
    assert inspection.decode_feature(strange + b"\x1a\x03\x0a\x01\x07") == [7]


# ---- count

def test_lengths_predictions_and_padding_are_counted(folder):
    path = write(folder / "a", text(3), text(4), text(12), masked_text())
    shard = inspection.count_file(path)
    assert (shard.records, shard.num_bytes, shard.error) == (4, os.path.getsize(path), None)
    assert shard.sizes == {(3, 3, 0): 1, (4, 4, 0): 1, (12, 12, 0): 1, (8, 10, 3): 1}
    assert inspection.figures(shard.sizes) == (3, 4, 6.75, 12, 0.75, pytest.approx(2 / 29))


def test_figures_are_those_of_numpy():
    draw = np.random.RandomState(1)
    sizes = [(real, real + draw.randint(9), draw.randint(5)) for real in draw.randint(1, 60, size=501).tolist()]
    real, positions, predictions = np.array(sizes).T
    assert inspection.figures(collections.Counter(sizes)) == pytest.approx((
        real.min(), np.median(real), real.mean(), real.max(), predictions.mean(),
        1 - real.sum() / positions.sum()))


def test_records_made_by_the_other_command_are_whole(folder, forks):
    lines = [CHARS[start:start + length] for start, length in ((0, 3), (1, 8), (2, 10), (0, 11), (4, 5))]
    (folder / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    made = forks.run(
        "bert.create_pretraining_data", "--input_file=%s" % (folder / "a.txt"),
        "--output_file=%s" % (folder / "padded"), "--vocab_file=%s" % (folder / "vocab.txt"), "--num_shards=2",
        "--max_seq_length=16", "--max_predictions_per_seq=4", "--masked_lm_prob=0.3", "--dupe_factor=20",
        "--num_workers=1")
    assert made.code == 0, made.err
    shards = [inspection.count_file(str(folder / ("padded-0000%d-of-00002" % number))) for number in range(2)]
    assert shards[0].sizes + shards[1].sizes == {
        (5, 16, 2): 20, (7, 16, 2): 20, (10, 16, 3): 20, (12, 16, 4): 20, (13, 16, 4): 20}
    result = inspect(folder, "count", "--input_file=padded-*")
    assert [cells(line)[9:] for line in result.out.splitlines()] == [[], ["whole"], ["whole"], ["2 of 2 whole"]]
    assert cells(result.out.splitlines()[3])[:9] == [
        "all", "100", "{:,}".format(sum(shard.num_bytes for shard in shards)), "5", "10", "9.4", "13", "3.00",
        "41.2 %"]
    assert result.code == 0
    shown = inspect(folder, "show", "--input_file=padded-*", "--vocab_file=vocab.txt", "--num_records=100")
    texts = [re.sub(r"\S+[→=]", "", line.strip(" ")) for line in shown.out.splitlines() if "[CLS]" in line]
    assert sorted(texts) == sorted("[CLS] %s [SEP]" % " ".join(line) for line in lines for _ in range(20))


def test_unpadded_records_are_counted(folder):
    lengths, counts = np.array([3, 40, 17]), np.array([1, 6, 0])
    masked = masking.Masked(np.full([3, 40], 300, np.int32), np.tile(np.arange(6), [3, 1]),
                            np.full([3, 6], 20000, np.int32), counts)
    records = MaskedLmSerializer(40, 6, pad=False).serialize(masked, lengths)
    sizes = inspection.count_file(write(folder / "a", *records)).sizes
    assert sizes == {(3, 3, 1): 1, (40, 40, 6): 1, (17, 17, 0): 1}


def test_records_without_a_mask_have_no_padding(folder):
    record = example(input_ids=[CLS, 300, 20000, SEP], word_starts=[1, 1, 0, 1])
    assert inspection.count_file(write(folder / "a", record)).sizes == {(4, 4, 0): 1}
    assert inspection.describe("a", 0, record, ["x"] * 30000, "v").splitlines() == [
        "a: record 0: 4 tokens, 0 predictions, not padded", "  x | x x | x"]


def test_what_stands_before_the_damage_is_counted(folder):
    whole = tfrecord.frame([text(3), text(4), text(5)])
    for size in range(len(whole) + 1):
        (folder / "a").write_bytes(whole[:size])
        shard = inspection.count_file(str(folder / "a"))
        ends = [len(tfrecord.frame([text(3), text(4), text(5)][:number])) for number in range(4)]
        assert shard.records == sum(shard.sizes.values()) == max(n for n in range(4) if ends[n] <= size)
        assert (shard.error is None) == (size in ends)


def test_progress_adds_up_to_the_bytes(folder, monkeypatch):
    monkeypatch.setattr(inspection, "FLUSH_BYTES", 100)
    path = write(folder / "a", *[text(9)] * 50)
    for size in (None, 1001):
        with open(path, "r+b") as stream:
            stream.truncate(size or os.path.getsize(path))
        told = []
        inspection.count_file(path, True, told.append)
        assert sum(told) == os.path.getsize(path) and len(told) > 5


def test_each_file_has_its_verdict_and_damage_is_an_error(folder):
    whole = tfrecord.frame([text(3), text(5)])
    flipped = bytearray(whole)
    flipped[-10] ^= 1
    contents = {"a": whole, "b": whole[:-1], "c": bytes(flipped), "d": b"", "e": b"a text\n" * 9}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    result = inspect(folder, "count", "--input_file=[a-e]")
    rows = [cells(line) for line in result.out.splitlines()]
    second = len(tfrecord.frame([text(3)]))
    assert rows == [
        ["file", "records", "bytes", "tokens min", "median", "mean", "max", "predictions", "padding"],
        ["a", "2", str(len(whole)), "3", "3", "4.0", "5", "0.00", "0.0 %", "whole"],
        ["b", "1", str(len(whole) - 1), "3", "3", "3.0", "3", "0.00", "0.0 %",
         "record 1 at byte %d: cut off in the data; the file is damaged: make it again" % second],
        ["c", "1", str(len(whole)), "3", "3", "3.0", "3", "0.00", "0.0 %",
         "record 1 at byte %d: checksum of the data is wrong; the file is damaged: make it again" % second],
        ["d", "0", "0"] + ["-"] * 6 + ["whole"],
        ["e", "0", "63"] + ["-"] * 6 + ["record 0 at byte 0: checksum of the length is wrong; not a TFRecord "
                                        "file, or a damaged one: make it again"],
        ["all", "4", str(3 * len(whole) + 62), "3", "3", "3.5", "5", "0.00", "0.0 %", "2 of 5 whole"]]
    assert (result.code, result.err.splitlines()[-1]) == (
        1, "inspection.py: error: --input_file=[a-e]: 3 of 5 files cannot be used; b: record 1 at byte %d: cut "
           "off in the data; the file is damaged: make it again" % second)


@pytest.mark.parametrize("records, message", [
    ([text(), example(label_ids=[1])], "a: record 1: no input_ids, or empty ones; count --nolengths takes any record"),
    ([example(input_ids=[], input_mask=[])],
     "a: record 0: no input_ids, or empty ones; count --nolengths takes any record"),
    ([text(), text(), b"a line of text"], "a: record 2: not a tf.train.Example; count --nolengths takes any record"),
    ([example(input_mask=[1])], "a: record 0: no input_ids, or empty ones; count --nolengths takes any record"),
])
def test_records_of_other_things_are_told_or_counted_without_lengths(folder, monkeypatch, records, message):
    monkeypatch.chdir(folder)
    write(folder / "a", *records)
    shard = inspection.count_file("a")
    assert str(shard.error) == message
    assert shard.records == sum(shard.sizes.values()) == len(records) - 1
    assert inspection.count_file("a", lengths=False) == inspection.Shard(
        "a", os.path.getsize("a"), len(records), {}, None)


def test_without_lengths_only_records_and_bytes_are_told(folder):
    write(folder / "a", *[b"anything"] * 1234)
    result = inspect(folder, "count", "--input_file=a", "--nolengths")
    assert (result.code, [cells(line) for line in result.out.splitlines()]) == (
        0, [["file", "records", "bytes"], ["a", "1,234", "29,616", "whole"]])


# ---- show

def test_predictions_show_what_is_read_and_what_stood_there():
    assert describe(masked_text()).splitlines() == [
        "a: record 7: 8 tokens, 3 predictions, padded to 10",
        "  [CLS] 聚 [MASK]→氯 乙 烯 铁→树 脂=脂 [SEP]",
        "  segment_ids: 0 x 6, 1 x 2, 0 x 2"]


def test_whole_words_stand_between_bars():
    starts = [1, 1, 0, 0, 0, 1, 0, 1, -1, -1]
    assert describe(masked_text(word_starts=starts)).splitlines()[1:] == [
        "  [CLS] | 聚 [MASK]→氯 乙 烯 | 铁→树 脂=脂 | [SEP]", "  segment_ids: 0 x 6, 1 x 2, 0 x 2"]
    # Of another length they cannot be shown in the text, and are seen to be wrong.
    assert describe(text(word_starts=[1, 0])).splitlines()[1:] == ["  [CLS] 氯 [SEP]", "  word_starts: 1, 0"]


def test_labels_and_any_further_features_are_shown():
    record = text(label_ids=[-1], source=["网页".encode("utf-8"), b"\xff"], score=[0.5, 0.5], none=[])
    assert describe(record).splitlines() == [
        "a: record 7: 3 tokens, 0 predictions, not padded", "  [CLS] 氯 [SEP]",
        "  label_ids: -1", "  none: empty", "  score: 0.5 x 2", "  source: 网页, \\xff"]


def test_the_first_and_the_last_token_of_the_vocabulary_are_shown():
    assert describe(text(4, input_ids=[0, len(VOCAB) - 1, 5, SEP])).splitlines()[1] == "  [PAD] ##u 聚 [SEP]"


@pytest.mark.parametrize("record, message", [
    (text(4, input_ids=[CLS, len(VOCAB), 5, SEP]),
     "id 20 is not in vocab.txt, which has 20 tokens; give the vocabulary the records were made with as --vocab_file"),
    (masked_text(masked_lm_ids=[5, -1, 6, 0]),
     "id -1 is not in vocab.txt, which has 20 tokens; give the vocabulary the records were made with as --vocab_file"),
    (text(4, input_mask=[1] * 5), "input_ids has 4 values and input_mask 5; make the records again"),
    (masked_text(masked_lm_positions=[2, 8, 6, 0]),
     "a prediction at position 8, where no token is; make the records again"),
    (masked_text(masked_lm_positions=[2, 3, 10, 0]),
     "a prediction at position 10, where no token is; make the records again"),
    (masked_text(input_ids=[1.0] * 10), "input_ids holds other things than integers; make the records again"),
    (example(label_ids=[1]), "no input_ids, or empty ones; count --nolengths takes any record"),
    (b"a line of text", "not a tf.train.Example; count --nolengths takes any record"),
], ids=["ids", "label ids", "mask", "padding", "beyond", "kind", "no text", "no example"])
def test_a_record_that_cannot_be_shown_is_named(record, message):
    assert error_of(record) == "a: record 7: " + message


def test_records_are_chosen_over_all_files(folder):
    write(folder / "a", text(3), text(4))
    write(folder / "b")
    write(folder / "c", text(5), text(6))
    result = inspect(folder, "show", "--input_file=[a-c]", "--vocab_file=vocab.txt", "--start=1", "--num_records=2")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "a: record 1: 4 tokens, 0 predictions, not padded", "  [CLS] 氯 氯 [SEP]", "",
        "c: record 0: 5 tokens, 0 predictions, not padded", "  [CLS] 氯 氯 氯 [SEP]"]


def test_records_before_the_damage_are_shown(folder):
    (folder / "a").write_bytes(tfrecord.frame([text(), text()])[:-1])
    result = inspect(folder, "show", "--input_file=a", "--vocab_file=vocab.txt")
    assert result.code == 1 and result.out.startswith("a: record 0: 3 tokens") and "record 1" not in result.out
    assert result.err == ("inspection.py: error: a: record 1 at byte %d: cut off in the data; the file is damaged: "
                          "make it again\n" % len(tfrecord.frame([text()])))


# ---- the command

@pytest.mark.parametrize("words, message", [
    (["count", "--input_file=none*"], "--input_file=none*: no such file"),
    (["show", "--input_file=a", "--vocab_file=vocab.txt", "--start=1"],
     "--start=1: a has no such record; the action count tells how many there are"),
    (["show", "--input_file=a", "--vocab_file=none"], "none: No such file or directory"),
    (["show", "--input_file=vocab.txt", "--vocab_file=vocab.txt"],
     "vocab.txt: record 0 at byte 0: checksum of the length is wrong; not a TFRecord file, or a damaged one: make "
     "it again"),
    (["look"], "look: the first argument must be one of: count, show; --help tells more"),
], ids=["no file", "start", "vocabulary", "no records", "action"])
def test_errors_are_told_in_one_line(folder, words, message):
    write(folder / "a", text())
    result = inspect(folder, *words)
    assert (result.code, result.out, result.err) == (1, "", "inspection.py: error: %s\n" % message)


def test_help_is_worth_reading_and_no_error(folder):
    for words in (["--help"], ["count", "--help"], ["show", "--help"]):
        result = inspect(folder, *words)
        assert (result.code, result.err) == (0, "")
        assert "python -m bert.inspection show --input_file=" in result.out
        assert ("--start:" in result.out) == (words[0] == "show")


def test_tensorflow_is_not_imported(folder):
    code = "import sys, bert.inspection; sys.exit('tensorflow' in sys.modules or 'google.protobuf' in sys.modules)"
    assert subprocess.call([sys.executable, "-c", code], cwd=commands.CHECKOUT) == 0
