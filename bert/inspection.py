"""Looks into TFRecord files: are they whole, how many records do they hold, and what stands in them.

    python -m bert.inspection count --input_file='records/corpus.tfrecord-*'
    python -m bert.inspection show --input_file='records/corpus.tfrecord-*' --vocab_file=vocab.txt

count: reads every byte and verifies every checksum. Prints for each file, and for all together, the records,
bytes, real tokens a record (shortest, median, mean, longest; [CLS] and [SEP] counted), predictions a record,
the share of the positions that is padding, and "whole" or the damage; of a damaged file, what stands before
the damage is counted. Exit code 1 when a file is damaged.

    python -m bert.inspection count --input_file='backup/*' --nolengths      # any TFRecord files; the fastest

show: prints records as text, the first three or those from --start on.

    python -m bert.inspection show --input_file=corpus.tfrecord --vocab_file=vocab.txt --start=100 --num_records=1

    corpus.tfrecord: record 100: 10 tokens, 3 predictions, padded to 128
      [CLS] 聚 [MASK]→氯 乙 烯 铁→树 脂=脂 很 硬 [SEP]

A position that is predicted shows what the model reads and what stood there: [MASK]→氯 is masked, 铁→树 is a
random substitute, 脂=脂 was kept. With `word_starts` (1 where a word begins), | stands between words.
Whatever else a record holds (segments, labels, features of your own) follows, a name a line; 0 x 10 is ten
times 0, and the label -1 is none.
"""

import collections
import functools
import itertools
import os
import struct

from absl import flags

from training import command
from bert import tfrecord
from bert import tokenization
from training import progress
from training.command import UserError

# The tag of a protobuf field is its number and the kind of its bytes: here those of tf.train.Example.
FEATURES = ENTRY = KEY = PACKED = 0x0A
VALUE = 0x12
BYTES_LIST, FLOAT_LIST, INT64_LIST = 0x0A, 0x12, 0x1A
ONE_FLOAT, ONE_INT64 = 0x0D, 0x08

SHOWN_IN_TEXT = ("input_ids", "input_mask", "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
NO_EXAMPLE = "not a tf.train.Example; count --nolengths takes any record"
NO_TEXT = "no input_ids, or empty ones; count --nolengths takes any record"

FLUSH_BYTES = 1 << 20  # between two movements of the progress bar
CACHED = 1 << 14  # features whose bytes repeat: masks of one length, weights of one count

Shard = collections.namedtuple("Shard", [
    "path",
    "num_bytes",
    "records",      # whole ones, those before the damage
    "sizes",        # Counter of (real tokens, positions, predictions) of a record; empty when not measured
    "error",        # UserError, or None for a whole file
])


def define_input_flag():
    flags.DEFINE_string("input_file", None, "TFRecord files, comma-separated, with * and ?.")
    flags.mark_flag_as_required("input_file")


def define_count_flags():
    define_input_flag()
    flags.DEFINE_bool("lengths", True, "Measure tokens, predictions and padding too; --nolengths only verifies "
                      "and counts, which is several times faster and serves for records of any content.")


def define_show_flags():
    define_input_flag()
    flags.DEFINE_string("vocab_file", None, "The vocabulary the records were made with, one token a line.")
    flags.DEFINE_integer("num_records", 3, "How many records.", lower_bound=1)
    flags.DEFINE_integer("start", 0, "The first one, counted from 0 over all files.", lower_bound=0)
    flags.mark_flag_as_required("vocab_file")


def count():
    values = flags.FLAGS
    shards = count_files(tfrecord.matching_files(values.input_file, "input_file"), values.lengths)
    print(table(shards, values.lengths))
    errors = [shard.error for shard in shards if shard.error]
    if errors:
        raise UserError("--input_file=%s: %d of %d files cannot be used; %s"
                        % (values.input_file, len(errors), len(shards), errors[0]))


def show():
    values = flags.FLAGS
    vocabulary = list(tokenization.load_vocab(values.vocab_file))
    names = tfrecord.matching_files(values.input_file, "input_file")
    chosen = itertools.islice(numbered_records(names), values.start, values.start + values.num_records)
    separator = ""
    for path, number, record in chosen:
        print(separator + describe(path, number, record, vocabulary, values.vocab_file))
        separator = "\n"
    if not separator:
        raise UserError("--start=%d: %s has no such record; the action count tells how many there are"
                        % (values.start, values.input_file))


# ---- count

def count_files(paths, lengths=True):
    """Reads all of the files: list of `Shard`.

    Args:
      paths: TFRecord files.
      lengths: whether the records are measured.
    """
    with progress.bar(sum(map(os.path.getsize, paths)), "records", "B") as shown:
        return [count_file(path, lengths, shown.update) for path in paths]


def count_file(path, lengths=True, progress=lambda num_bytes: None):
    """Reads a file to its end or its damage: `Shard`.

    Args:
      path: TFRecord file.
      lengths: whether the records are measured; one without `input_ids` is then an error.
      progress: function of the bytes read since its last call.
    """
    num_bytes, sizes, error = os.path.getsize(path), collections.Counter(), None
    number = end = told = 0
    try:
        for record in tfrecord.read(path):
            if lengths:
                sizes[size_of(record)] += 1
            number += 1
            end += tfrecord.HEADER + len(record) + tfrecord.CHECKSUM
            if end - told >= FLUSH_BYTES:
                progress(end - told)
                told = end
    except UserError as caught:
        error = caught
    except ValueError as caught:
        error = UserError("%s: record %d: %s" % (path, number, caught))
    progress(num_bytes - told)
    return Shard(path, num_bytes, number, sizes, error)


def size_of(record):
    """(real tokens, positions, predictions) of a record.

    Raises:
      ValueError: it has no `input_ids`.
    """
    features = features_of(record)
    if "input_mask" in features:
        real, positions = _count_numbers(features["input_mask"])
    else:
        real = positions = len(decode_feature(features.get("input_ids", b"")))
    if not positions or "input_ids" not in features:
        raise ValueError(NO_TEXT)
    predicted, _ = _count_numbers(features.get("masked_lm_weights", b""))
    return real, positions, predicted


@functools.lru_cache(maxsize=CACHED)
def _count_numbers(feature):
    """(how many numbers of a Feature are not zero, how many there are)."""
    numbers = decode_feature(feature)
    return len(numbers) - numbers.count(0), len(numbers)


def table(shards, lengths=True):
    """The shards, and all of them together, as lines with columns."""
    rows = [("file", "records", "bytes")
            + (("tokens min", "median", "mean", "max", "predictions", "padding") if lengths else ()) + ("",)]
    rows += [_row(shard, lengths) + (_verdict(shard),) for shard in shards]
    if len(shards) > 1:
        together = Shard("all", sum(shard.num_bytes for shard in shards), sum(shard.records for shard in shards),
                         sum((shard.sizes for shard in shards), collections.Counter()), None)
        damaged = sum(shard.error is not None for shard in shards)
        rows.append(_row(together, lengths) + ("%d of %d whole" % (len(shards) - damaged, len(shards)),))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(_aligned(row, widths) for row in rows)


def _aligned(row, widths):
    name, *numbers = (word.rjust(width) for word, width in zip(row[:-1], widths))
    return "  ".join([name.strip().ljust(widths[0])] + numbers + [row[-1]]).rstrip()


def _verdict(shard):
    if not shard.error:
        return "whole"
    message = str(shard.error)
    return message[len(shard.path) + 2:] if message.startswith(shard.path + ": ") else message


def _row(shard, lengths):
    row = (shard.path, "{:,}".format(shard.records), "{:,}".format(shard.num_bytes))
    if not lengths:
        return row
    if not shard.sizes:
        return row + ("-",) * 6
    shortest, median, mean, longest, predicted, padding = figures(shard.sizes)
    return row + ("%d" % shortest, "%d" % median, "%.1f" % mean, "%d" % longest, "%.2f" % predicted,
                  "%.1f %%" % (100 * padding))


def figures(sizes):
    """What a Counter of (real tokens, positions, predictions) of at least one record comes to.

    Returns:
      (fewest, lower median, mean, most) real tokens and mean predictions of a record, and the share of all
      positions that is padding.
    """
    tokens, positions, predicted = collections.Counter(), 0, 0
    for (real, width, count), times in sizes.items():
        tokens[real] += times
        positions += width * times
        predicted += count * times
    total, records = sum(real * times for real, times in tokens.items()), sum(tokens.values())
    return (min(tokens), _median(tokens), total / records, max(tokens), predicted / records,
            1 - total / positions)


def _median(counts):
    left = (sum(counts.values()) + 1) // 2
    for key in sorted(counts):
        left -= counts[key]
        if left <= 0:
            return key


# ---- show

def numbered_records(paths):
    """Yields (path, number in the file, record) of all files."""
    for path in paths:
        for number, record in enumerate(tfrecord.read(path)):
            yield path, number, record


def describe(path, number, record, vocabulary, vocab_file):
    """A record as text of several lines.

    Args:
      path, number: where it stands.
      record: the bytes of a tf.train.Example.
      vocabulary: list of tokens by id.
      vocab_file: its name, for messages.

    Raises:
      UserError: no text in it, numbers that do not fit each other, or ids that are not in the vocabulary.
    """
    try:
        features = {name: decode_feature(value) for name, value in features_of(record).items()}
        features.setdefault("input_mask", [1] * len(features.get("input_ids", ())))  # without one: no padding
        _check(features, vocabulary, vocab_file)
    except ValueError as error:
        raise UserError("%s: record %d: %s" % (path, number, error))
    width, places, predicted = len(features["input_ids"]), real_places(features), predictions(features)
    words = [_position(vocabulary[features["input_ids"][place]],
                       vocabulary[predicted[place]] if place in predicted else None) for place in places]
    others = [name for name in sorted(features) if name not in SHOWN_IN_TEXT]
    if len(features.get("word_starts", ())) == width:
        words = _with_bars(words, [features["word_starts"][place] for place in places])
        others.remove("word_starts")
    title = "%s: record %d: %s, %s, %s" % (
        path, number, _counted(len(places), "token"), _counted(len(predicted), "prediction"),
        "padded to %d" % width if width > len(places) else "not padded")
    return "\n  ".join([title, " ".join(words)] + ["%s: %s" % (name, _values(features[name])) for name in others])


def real_places(features):
    """The positions that are no padding."""
    return [place for place, real in enumerate(features["input_mask"]) if real]


def predictions(features):
    """dict of position -> id that stood there; weights of 0 are padding."""
    columns = [features.get("masked_lm_" + name, ()) for name in ("positions", "ids", "weights")]
    return {position: number for position, number, weight in zip(*columns) if weight}


def _check(features, vocabulary, vocab_file):
    """Raises a ValueError for a text that cannot be shown."""
    if not features.get("input_ids"):
        raise ValueError(NO_TEXT)
    for name in ("input_ids", "input_mask", "masked_lm_positions", "masked_lm_ids"):
        if not all(isinstance(value, int) for value in features.get(name, ())):
            raise ValueError("%s holds other things than integers; make the records again" % name)
    if len(features["input_ids"]) != len(features["input_mask"]):
        raise ValueError("input_ids has %d values and input_mask %d; make the records again"
                         % (len(features["input_ids"]), len(features["input_mask"])))
    predicted = predictions(features)
    stray = set(predicted).difference(real_places(features))
    if stray:
        raise ValueError("a prediction at position %d, where no token is; make the records again" % min(stray))
    for number in itertools.chain(features["input_ids"], predicted.values()):
        if not 0 <= number < len(vocabulary):
            raise ValueError("id %d is not in %s, which has %d tokens; give the vocabulary the records were made "
                             "with as --vocab_file" % (number, vocab_file, len(vocabulary)))


def _position(read, stood):
    """A position as text; stood: None where nothing is predicted."""
    if stood is None:
        return read
    return "%s%s%s" % (read, "=" if read == stood else "→", stood)


def _with_bars(words, starts):
    shown = []
    for place, (word, start) in enumerate(zip(words, starts)):
        shown += ["|", word] if start and place else [word]
    return shown


def _values(values):
    """Numbers as text; what repeats is written once: 0 x 10, 1 x 6."""
    runs = [(value, len(list(group))) for value, group in itertools.groupby(values)]
    return ", ".join("%s x %d" % (_value(value), times) if times > 1 else _value(value)
                     for value, times in runs) or "empty"


def _value(value):
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else "%s" % value


def _counted(number, what):
    return "%d %s%s" % (number, what, "" if number == 1 else "s")


# ---- tf.train.Example: the inverse of bert/examples.py, without the protobuf library

def features_of(example):
    """The bytes of a tf.train.Example -> dict of name -> the bytes of a Feature.

    Raises:
      ValueError: other bytes.
    """
    found = {}
    for tag, features in _fields(example):
        if tag == FEATURES:
            found.update(_entry(entry) for tag, entry in _fields(features) if tag == ENTRY)
    return found


@functools.lru_cache(maxsize=CACHED)
def _entry(entry):
    """(name, the bytes of a Feature)."""
    fields = dict(_fields(entry))
    return fields.get(KEY, b"").decode("utf-8", "backslashreplace"), fields.get(VALUE, b"")


def decode_feature(feature):
    """The bytes of a Feature -> list of int, float or bytes.

    Raises:
      ValueError: other bytes.
    """
    values = []
    for kind, content in _fields(feature):
        if kind in DECODERS:
            values = DECODERS[kind](content)
    return values


def _bytes_list(content):
    return [value for tag, value in _fields(content) if tag == PACKED]


def _float_list(content):
    packed = b"".join(value for tag, value in _fields(content) if tag in (PACKED, ONE_FLOAT))
    if len(packed) % 4:
        raise ValueError(NO_EXAMPLE)
    return list(struct.unpack("<%df" % (len(packed) // 4), packed))


def _int64_list(content):
    values = []
    for tag, value in _fields(content):
        if tag == ONE_INT64:
            values.append(_signed(value))
        elif tag == PACKED and value.isascii():  # each number is one byte
            values += value
        elif tag == PACKED:
            place = 0
            while place < len(value):
                number, place = _varint(value, place)
                values.append(_signed(number))
    return values


DECODERS = {BYTES_LIST: _bytes_list, FLOAT_LIST: _float_list, INT64_LIST: _int64_list}


def _fields(message):
    """Yields (tag, int for a varint and bytes for all else) of a protobuf message.

    Raises:
      ValueError: bytes that are none.
    """
    place, size = 0, len(message)
    while place < size:
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            content, place = _varint(message, place)
            yield tag, content
            continue
        if kind == 2:
            length, place = _varint(message, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(NO_EXAMPLE)
        if length > size - place:
            raise ValueError(NO_EXAMPLE)
        yield tag, message[place:place + length]
        place += length


def _varint(message, place):
    """The number in seven bits a byte, the lowest first, and the place behind it."""
    number = shift = 0
    try:
        while message[place] >= 0x80:
            number |= (message[place] & 0x7F) << shift
            place += 1
            shift += 7
            if shift > 63:
                raise ValueError(NO_EXAMPLE)
    except IndexError:
        raise ValueError(NO_EXAMPLE)
    return number | message[place] << shift, place + 1


def _signed(number):
    """The int64 that 64 bits are."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


if __name__ == "__main__":
    command.run_action({"count": (count, define_count_flags), "show": (show, define_show_flags)})
