"""Labelled text files, and the names of their labels.

Formats, by the end of the name, all UTF-8: `.tsv` (header, no quoting), `.csv` (header, RFC 4180),
`.jsonl` (one object a line), `.txt` (one text a line, no labels). Columns and keys are label, text_a
and, for pairs, text_b. Blank lines, a byte order mark and Windows line ends do no harm.

An object of a .jsonl file may have the key mask_token too: what stands in its texts for the token [MASK].
Without it nothing does, and "[MASK]" in a text is brackets and letters like any others.
"""

import collections
import csv
import json
import os
import re
import sys

from bert.records import NO_LABEL
from training.command import UserError

COLUMNS = ("label", "text_a", "text_b")
KEYS = COLUMNS + ("mask_token",)
NUL_STAND_IN = "\udc00"  # no byte is read as this one

# line: int, from 1. labels: tuple of str; None where not read. text_b: None where there is one text.
# mask_token: what stands for [MASK] in the texts; None: nothing does.
Row = collections.namedtuple("Row", "line labels text_a text_b mask_token", defaults=[None])


class BadRows:
    """What happens to rows that cannot be used: `stop` at the first, or `skip` and count them."""

    def __init__(self, errors="stop"):
        if errors not in ("stop", "skip"):
            raise UserError("--errors=%s: must be stop or skip" % errors)
        self._stop = errors == "stop"
        self.count = 0
        self.first = None

    def reject(self, path, line, problem):
        message = "%s:%d: %s" % (path, line, problem)
        if self._stop:
            raise UserError("%s; --errors=skip leaves such rows out and counts them" % message)
        self.count += 1
        self.first = self.first or message


class _BadRow(Exception):
    """A row that cannot be used; the message says why."""


def read_rows(path, labels=None, bad_rows=None):
    """Yields the rows of a file, one at a time.

    Args:
      path: a .tsv, .csv, .jsonl or .txt file.
      labels: `Labels` that each row's must be among; None reads the texts alone.
      bad_rows: `BadRows`, by default one that stops.

    Raises:
      UserError: the file or its header cannot be read, or a row cannot (with file and line).
    """
    bad_rows = bad_rows or BadRows()
    if labels is None:
        return _rows(path, False, None, bad_rows)
    return _known_labels(path, _rows(path, True, labels.separator, bad_rows), labels, bad_rows)


def _rows(path, labelled, separator, bad_rows):
    extension = os.path.splitext(path)[1]
    if extension not in _FORMATS:
        raise UserError("%s: the name must end in one of %s" % (path, " ".join(sorted(_FORMATS))))
    if extension == ".txt" and labelled:
        raise UserError("%s: a .txt file has no labels; use .tsv, .csv or .jsonl" % path)
    raw_rows, parse = _FORMATS[extension](path, labelled)
    for line, raw in raw_rows:
        try:
            row = _row(line, parse(raw), labelled, separator)
        except _BadRow as problem:
            bad_rows.reject(path, line, problem)
        else:
            yield row


def _known_labels(path, rows, labels, bad_rows):
    for row in rows:
        unknown = [name for name in row.labels if name not in labels]
        if unknown:
            bad_rows.reject(path, row.line, 'label "%s" is not among the %d of %s' % (
                _shorten(unknown[0]), len(labels.names), labels.source))
        else:
            yield row


def _row(line, fields, labelled, separator):
    """One `Row` from a dict of column -> value, checked."""
    for name in ("text_a", "text_b", "mask_token"):
        if name in fields and not fields[name].strip():
            raise _BadRow("%s is empty" % name)
    labels = _split_labels(fields["label"], separator) if labelled else None
    return Row(line, labels, fields["text_a"], fields.get("text_b"), fields.get("mask_token"))


def _split_labels(value, separator):
    """A label column's value -> tuple of names; it may be empty where several are allowed."""
    if separator is None:
        if isinstance(value, list):
            raise _BadRow("a list of labels where one is needed; --label_separator allows several")
        names = [value]
    elif isinstance(value, list):
        names = value
    else:
        names = value.split(separator) if value.strip() else []
    names = [name.strip() for name in names]
    for name in names:
        if not name:
            raise _BadRow("the label is empty")
        if len(name.splitlines()) > 1:  # labels.txt holds one a line
            raise _BadRow("the label has a line break")
    return tuple(names)


def _lines(path):
    """Yields (number, text) of each line not blank; bytes that are not UTF-8 become surrogates."""
    # Only \n ends a line: a text may hold U+2028, U+0085 and the like.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, line.rstrip("\r\n")


def _check_characters(text, place):
    """Refuses what was not UTF-8, and NUL.

    Args:
      text: str as read with `surrogateescape`.
      place: what the text is, for the message.
    """
    bad = re.search("[\0\ud800-\udfff]", text)
    if not bad:
        return
    code = ord(bad.group())
    if code == 0:
        raise _BadRow("%s has a NUL character" % place)
    if not 0xDC80 <= code <= 0xDCFF:  # only JSON can spell these
        raise _BadRow("%s has half a surrogate pair, \\u%04x" % (place, code))
    before = text[:bad.start()].encode("utf-8", "surrogateescape")
    raise _BadRow("not UTF-8: byte %d of %s is 0x%02x" % (len(before) + 1, place, code - 0xDC00))


def _open_tsv(path, labelled):
    lines = _lines(path)
    columns = _header(path, ((line, text.split("\t")) for line, text in lines), "<TAB>", labelled)

    def parse(text):
        _check_characters(text, "the line")
        return _by_column(text.split("\t"), columns, "<TAB>")

    return lines, parse


def _open_csv(path, labelled):
    rows = _csv_rows(path)
    columns = _header(path, rows, ",", labelled)

    def parse(fields):
        if isinstance(fields, csv.Error):
            raise _BadRow("not CSV: %s" % fields)
        named = _by_column(fields, columns, ",")
        named = {name: value.replace(NUL_STAND_IN, "\0") for name, value in named.items()}
        for name, value in named.items():
            _check_characters(value, name)
        return named

    return rows, parse


def _csv_rows(path):
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        yield from csv_rows(stream, path)


def csv_rows(stream, path):
    """Yields (number of its first line, fields or csv.Error) of each row that is not blank.

    Args:
      stream: of text, opened with newline=""; bytes that are not UTF-8 may be surrogates in it.
      path: its name, for messages.

    Raises:
      UserError: a quoted field is not closed.
    """
    csv.field_size_limit(sys.maxsize)
    # Python 3.7's reader stops in the middle of a row at a NUL; what becomes of the stand-in is the caller's to say.
    reader = csv.reader((line.replace("\0", NUL_STAND_IN) for line in stream), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                # It swallowed the rest of the file, so it is not one row to be left out.
                raise UserError('%s:%d: a " opens here and nothing closes it' % (path, line))
            fields = error
        if isinstance(fields, csv.Error) or "".join(fields).strip():
            yield line, fields


def _header(path, rows, separator, labelled):
    """Takes the first row and returns its column names, checked."""
    form = separator.join(("label", "text_a[%stext_b]" % separator))
    line, names = next(rows, (1, ()))
    try:
        if isinstance(names, csv.Error):
            raise _BadRow("not CSV: %s" % names)
        _check_characters(separator.join(names), "the line")
    except _BadRow as problem:
        raise UserError("%s:%d: %s" % (path, line, problem))
    names = [name.strip() for name in names]
    for name in names:
        if name not in COLUMNS:
            raise UserError('%s:%d: unknown column "%s"; the first line must be the header %s'
                            % (path, line, _shorten(name), form))
        if names.count(name) > 1:
            raise UserError("%s:%d: column %s stands twice" % (path, line, name))
    for name in ("label", "text_a") if labelled else ("text_a",):
        if name not in names:
            raise UserError("%s:%d: column %s is missing; the first line must be the header %s"
                            % (path, line, name, form))
    return names


def _by_column(fields, columns, separator):
    if len(fields) != len(columns):
        raise _BadRow("%d column%s where %d %s needed (%s)" % (
            len(fields), "" if len(fields) == 1 else "s",
            len(columns), "is" if len(columns) == 1 else "are", separator.join(columns)))
    return dict(zip(columns, fields))


def _open_jsonl(path, labelled):
    def parse(text):
        _check_characters(text, "the line")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _BadRow("not JSON: %s" % error)
        if not isinstance(found, dict):
            raise _BadRow('not an object like {"label": "1", "text_a": "..."}')
        for key in found:
            if key not in KEYS:
                raise _BadRow('unknown key "%s"; the keys are %s'
                              % (_shorten(key), ", ".join(KEYS)))
        found = {key: value for key, value in found.items() if value is not None}
        for key in ("label", "text_a") if labelled else ("text_a",):
            if key not in found:
                raise _BadRow("key %s is missing" % key)
        for key in set(KEYS[1:]) & set(found):
            if not isinstance(found[key], str):
                raise _BadRow("%s is not a string" % key)
            _check_characters(found[key], key)
        if labelled:
            found["label"] = _json_label(found["label"])
        return found

    return _lines(path), parse


def _json_label(value):
    if isinstance(value, list):
        return [_json_label(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _BadRow("a label must be a string or an integer, or a list of them")
    _check_characters(str(value), "label")
    return str(value)


def _open_txt(path, labelled):
    del labelled

    def parse(text):
        _check_characters(text, "the line")
        return {"text_a": text}

    return _lines(path), parse


# (path, labelled) -> iterator of (line, raw row), function of a raw row -> dict of column -> value.
_FORMATS = {".tsv": _open_tsv, ".csv": _open_csv, ".jsonl": _open_jsonl, ".txt": _open_txt}


def _shorten(text):
    return text if len(text) <= 30 else text[:30] + "..."


class Labels:
    """The names of the classes, in the order of their ids.

    Attributes:
      names: list of str.
      separator: what stands between several labels of a text; None where each text has just one.
      source: the file they come from, for messages.
    """

    def __init__(self, names, separator=None, source="labels.txt"):
        self.names = list(names)
        self.separator = separator or None
        self.source = source
        self._ids = {name: number for number, name in enumerate(self.names)}

    def __contains__(self, name):
        return name in self._ids

    def ids(self, names):
        """What `label_ids` holds for a text.

        Args:
          names: the text's labels; None for a text without.

        Returns:
          [its id], or with a separator the classes' zeros and ones [C]; all `NO_LABEL` for None.
        """
        if self.separator is None:
            return [NO_LABEL if names is None else self._ids[names[0]]]
        if names is None:
            return [NO_LABEL] * len(self.names)
        return [int(name in names) for name in self.names]


def labels_from_file(path, separator=None):
    """Reads a labels.txt, one label a line, ids in the order of the lines."""
    names = []
    for line, text in _lines(path):
        try:
            _check_characters(text, "the line")
        except _BadRow as problem:
            raise UserError("%s:%d: %s" % (path, line, problem))
        names.append(text.strip())
        if names[-1] in names[:-1]:
            raise UserError('%s:%d: label "%s" stands twice' % (path, line, _shorten(names[-1])))
    return _enough(Labels(names, separator, path))


def labels_from_data(path, separator=None, errors="stop"):
    """Collects the labels of a file; integers in numerical order, anything else by code point."""
    rows = _rows(path, True, separator or None, BadRows(errors))
    names = sorted({name for row in rows for name in row.labels})
    if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
        names.sort(key=int)
    return _enough(Labels(names, separator, path))


def _enough(labels):
    needed = 2 if labels.separator is None else 1
    if len(labels.names) < needed:
        raise UserError("%s: %d different labels, at least %d are needed" % (
            labels.source, len(labels.names), needed))
    return labels
