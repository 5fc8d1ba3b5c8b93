"""Files of rows that get something added: read row by row, written again with predictions.

Formats, by the end of the name before `.gz`: `.txt` (one text a line), `.tsv` and `.csv` (with a header), `.jsonl` (one
object a line), `.tfrecord` (`tf.train.Example`s with the text as bytes, or with ids as in training). UTF-8. What a row
holds besides its text stays as it is.
"""

import collections
import contextlib
import csv
import gzip
import io
import json
import os
import shutil
import tempfile

import tensorflow.compat.v1 as tf

from bert import tfrecord
from bert.records import SEQUENCE
from tasks import text_files
from training.command import UserError

LABEL, PROBABILITY, PROBABILITIES = "predicted_label", "probability", "probabilities"
GZIP_END = ".gz"

# place: line, or record, from 1; texts: tuple of one or two str, or a dict of `records.SEQUENCE` -> list of int [S];
# None where the row cannot be used; content: what `Format.write` needs of it; problem: why it cannot be used.
Row = collections.namedtuple("Row", "place texts content problem", defaults=(None,))

# read: function of (path, columns) -> iterator of Row, the header first where there is one, as (0, None, header);
# write: function of (stream, content, Prediction or None, names of the labels).
Format = collections.namedtuple("Format", "read write")


def format_of(path):
    """The `Format` of a file's name; UserError for another."""
    extension = os.path.splitext(path[:-len(GZIP_END)] if path.endswith(GZIP_END) else path)[1]
    if extension not in FORMATS:
        raise UserError("%s: the name must end in one of %s, with or without .gz" % (path, " ".join(sorted(FORMATS))))
    return FORMATS[extension]


def opened_to_write(path, name):
    """A binary stream to `path`, compressed as the name says."""
    stream = open(path, "wb")
    # Neither name nor time in it: the same rows give the same bytes.
    return gzip.GzipFile("", "wb", fileobj=stream, mtime=0) if name.endswith(GZIP_END) else stream


def _opened(path):
    return gzip.open(path) if path.endswith(GZIP_END) else open(path, "rb")


def _lines(path):
    """Yields (number, bytes without the line's end) of each line not blank."""
    with _opened(path) as stream:
        try:
            for number, line in enumerate(stream, start=1):
                line = line[3:] if number == 1 and line.startswith(b"\xef\xbb\xbf") else line
                if line.strip():
                    yield number, line.rstrip(b"\r\n")
        except (OSError, EOFError) as error:
            raise UserError("%s: cannot be unpacked: %s" % (path, error))


def _decoded(path):
    """Yields (number, str, problem) of each line not blank."""
    for number, line in _lines(path):
        try:
            yield number, line.decode("utf-8"), None
        except UnicodeDecodeError as error:
            shown = line.decode("utf-8", "backslashreplace")
            yield number, shown, "not UTF-8: byte %d of the line is 0x%02x" % (error.start + 1, line[error.start])


def _read_txt(path, columns):
    del columns
    for number, text, problem in _decoded(path):
        yield Row(number, None if problem else (text.strip(),), text, problem)


def _write_txt(stream, text, prediction, names):
    del names
    stream.write(("%s\t%.4f\t%s\n" % (prediction.label, prediction.probabilities.max(), text)).encode("utf-8"))


def _read_table(rows, path, columns):
    """Rows of a table, the header first; rows: iterator of (number, list of str or None, what to show, problem).

    Raises:
      UserError: there is no header, a column that is needed is not there, or one that is added is.
    """
    _, header, _, problem = next(rows, (1, [], "", "empty"))
    if problem:
        raise UserError("%s:1: %s" % (path, problem))
    for column in columns:
        if column not in header:
            raise UserError("%s:1: column %s is missing; there are %s" % (path, column, ", ".join(header)))
    for column in (LABEL, PROBABILITY):
        if column in header:
            raise UserError("%s:1: column %s is there already; rename it" % (path, column))
    places = [header.index(column) for column in columns]
    yield Row(0, None, header)
    for number, fields, shown, problem in rows:
        if not problem and len(fields) != len(header):
            problem = "%d columns where %d are needed" % (len(fields), len(header))
        if problem:
            yield Row(number, None, shown, problem)
        else:
            yield Row(number, tuple(fields[place] for place in places), fields)


def _read_tsv(path, columns):
    lines = ((number, text.split("\t"), text, problem) for number, text, problem in _decoded(path))
    return _read_table(lines, path, columns)


def _write_tsv(stream, fields, prediction, names):
    del names
    added = _added(prediction)
    stream.write(("\t".join([*fields, *added]) + "\n").encode("utf-8"))


def _added(prediction):
    """What two columns get; of None, their names."""
    return (LABEL, PROBABILITY) if prediction is None else (
        prediction.label, "%.4f" % prediction.probabilities.max())


def _csv_rows(path):
    with _opened(path) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        for line, fields in text_files.csv_rows(text, path):
            if isinstance(fields, csv.Error):
                yield line, None, "", "not CSV: %s" % fields
                continue
            fields = [value.replace(text_files.NUL_STAND_IN, "\0") for value in fields]
            shown = ",".join(fields).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            broken = any("\udc80" <= char <= "\udcff" for char in "".join(fields))
            yield line, fields, shown, "not UTF-8" if broken else None


def _read_csv(path, columns):
    return _read_table(_csv_rows(path), path, columns)


def _write_csv(stream, fields, prediction, names):
    del names
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([*fields, *_added(prediction)])
    stream.write(text.getvalue().encode("utf-8"))


def _read_jsonl(path, columns):
    for number, text, problem in _decoded(path):
        found = None
        if not problem:
            try:
                found = json.loads(text)
                problem = _json_problem(found, columns)
            except (ValueError, RecursionError) as error:
                problem = "not JSON: %s" % error
        yield Row(number, None, text, problem) if problem else Row(
            number, tuple(found[column] for column in columns if found.get(column) is not None), found)


def _json_problem(found, columns):
    if not isinstance(found, dict):
        return "not an object"
    if found.get(columns[0]) is None:
        return "key %s is missing" % columns[0]
    for column in columns:
        if found.get(column) is not None and not isinstance(found[column], str):
            return "%s is not a string" % column
    for name in (LABEL, PROBABILITIES):
        if name in found:
            return "key %s is there already" % name
    try:
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return "half a surrogate pair"
    return None


def _write_jsonl(stream, found, prediction, names):
    probabilities = {name: round(float(value), 6) for name, value in zip(names, prediction.probabilities)}
    row = dict(found, **{LABEL: prediction.label, PROBABILITIES: probabilities})
    stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8"))


def _read_tfrecord(path, columns):
    with _unpacked(path) as unpacked:
        for number, record in enumerate(tfrecord.read(unpacked), start=1):
            example = tf.train.Example()
            try:
                example.ParseFromString(record)
                yield Row(number, _given(example.features.feature, columns), example)
            except Exception as error:  # the protobuf library has an error of its own in each version
                yield Row(number, None, "", "no tf.train.Example with the text in %s or ids in %s: %s" % (
                    columns[0], SEQUENCE[0], error))


@contextlib.contextmanager
def _unpacked(path):
    """The name of a file that can be read from any place: itself, or what is packed in it."""
    if not path.endswith(GZIP_END):
        yield path
        return
    with tempfile.NamedTemporaryFile() as target:
        try:
            with gzip.open(path) as stream:
                shutil.copyfileobj(stream, target)
        except (OSError, EOFError) as error:
            raise UserError("%s: cannot be unpacked: %s" % (path, error))
        target.flush()
        yield target.name


def _given(features, columns):
    """The texts of an example, else its ids without padding; ValueError where there is neither."""
    if columns[0] in features:
        return tuple(features[column].bytes_list.value[0].decode("utf-8") for column in columns if column in features)
    ids = features[SEQUENCE[0]].int64_list.value if SEQUENCE[0] in features else ()
    if not ids:
        raise ValueError("there are %s" % ", ".join(sorted(features)))
    mask = features[SEQUENCE[1]].int64_list.value if SEQUENCE[1] in features else [1] * len(ids)
    length = sum(mask)
    segments = features[SEQUENCE[2]].int64_list.value if SEQUENCE[2] in features else [0] * len(ids)
    return dict(zip(SEQUENCE, (list(ids)[:length], [1] * length, list(segments)[:length])))


def _write_tfrecord(stream, example, prediction, names):
    del names
    example.features.feature[LABEL].bytes_list.value.append(prediction.label.encode("utf-8"))
    example.features.feature[PROBABILITIES].float_list.value.extend(prediction.probabilities.tolist())
    stream.write(tfrecord.frame([example.SerializeToString(deterministic=True)]))


FORMATS = {".txt": Format(_read_txt, _write_txt), ".tsv": Format(_read_tsv, _write_tsv),
           ".csv": Format(_read_csv, _write_csv), ".jsonl": Format(_read_jsonl, _write_jsonl),
           ".tfrecord": Format(_read_tfrecord, _write_tfrecord)}
