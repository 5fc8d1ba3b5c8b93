"""Text files -> documents, read as streams, in ranges that can be shared out.

Plain text, UTF-8: one sentence a line, a blank line between documents, or every line a document. JSON lines: every
row a document, the lines of one of its values its sentences. Either may be compressed by gzip (.gz). A byte order
mark and Windows line ends are no part of the text.

A file is divided into cells of `CELL_BYTES`, and a document belongs to the cell it begins in. Where a document
reaches a cell that no blank line comes shortly before (`WINDOW_BYTES`), it is cut, and goes on as another there: a file
without blank lines neither fills the memory nor keeps a single process busy. Who reads a cell learns from the window
before it how it begins, so cells can be read by anybody in any order.
"""

import codecs
import collections
import gzip
import json
import os
import re
import zlib

from absl import flags

from training.command import UserError

CELL_BYTES = 1 << 18
WINDOW_BYTES = 1 << 16      # less than a cell, more than a blank line
MAX_LINE_BYTES = 1 << 26
GZIP_END = ".gz"

# A sentence ends behind 。！？； and what closes a quotation or a bracket there.
SENTENCE = re.compile("[^。！？；]*[。！？；]+[”’」』）》】]*|[^。！？；]+")

Format = collections.namedtuple("Format", [
    "text_key",             # of JSON lines; None for plain text
    "document_per_line",    # plain text whose every line is a document
    "split_sentences",      # whether lines are cut into sentences at 。！？；
    "errors",               # "stop" at a line that cannot be read, or "skip" and count it
])
PLAIN = Format(None, False, False, "stop")

Range = collections.namedtuple("Range", [
    "file_index",   # the file's place in the list
    "path",
    "start",        # in bytes
    "end",          # None: all of a compressed file
    "num_bytes",    # in the file, to show progress
])

Document = collections.namedtuple("Document", [
    "file_index",
    "offset",       # of its first line in the (decompressed) file, in bytes
    "sentences",    # str, none blank
    "continues",    # whether it is the rest of a longer one
])


def define_format_flags():
    """The flags of how texts are read, see `format_of`."""
    flags.DEFINE_string("text_key", None, "The input is JSON lines, one document a line, its text under this key.")
    flags.DEFINE_bool("document_per_line", False, "Every line of the input is a document.")
    flags.DEFINE_bool("split_sentences", False, "Cut lines into sentences at 。！？；.")
    flags.DEFINE_enum("errors", "stop", ["stop", "skip"], "At a line that is not UTF-8 or not the JSON asked for: "
                      "stop, or leave it out and count it.")


def format_of(values):
    """The `Format` that the flags ask for."""
    if values.text_key is not None and values.document_per_line:
        raise UserError("--document_per_line: not needed with --text_key, a row is a document; leave it out")
    return Format(values.text_key, values.document_per_line, values.split_sentences, values.errors)


def check_outputs(outputs, inputs):
    """Raises UserError when a file to be written is one that is to be read."""
    read = set(map(os.path.realpath, inputs))
    for path in outputs:
        if os.path.realpath(path) in read:
            raise UserError("--output_file=%s: is read as input too; choose another name" % path)


def ranges(files, size_of=os.path.getsize):
    """The `Range`s of files; together they hold every document once."""
    found = []
    for index, path in enumerate(files):
        size = size_of(path)
        if path.endswith(GZIP_END):
            found.append(Range(index, path, 0, None, size))
            continue
        for start in range(0, size, CELL_BYTES):
            end = min(start + CELL_BYTES, size)
            found.append(Range(index, path, start, end, end - start))
    return found


def read_documents(files, form=PLAIN, on_bytes=None, counts=None):
    """Yields the `Document`s of files in their order; errors as `RangeReader`'s.

    Args:
      files: list of names.
      form: `Format`.
      on_bytes: called with the number of bytes read since the call before.
      counts: Counter, to whose "bad_lines" the lines left out are added.
    """
    for part in ranges(files):
        reader, told = RangeReader(part, form), 0
        for document in reader:
            yield document
            if on_bytes:
                on_bytes(reader.bytes_read - told)
                told = reader.bytes_read
        if on_bytes:
            on_bytes(part.num_bytes - told)
        if counts is not None:
            counts["bad_lines"] += reader.bad_lines


class RangeReader:
    """Iterates, once, over the documents that begin in a range; those without a sentence are left out.

    `bytes_read` says how far it is, `bad_lines` how many lines were left out.
    """

    def __init__(self, part, form=PLAIN, open_file=open):
        """Args: part: `Range`; form: `Format`; open_file: called with a name and "rb"."""
        self._part, self._form, self._open = part, form, open_file
        self.bytes_read = self.bad_lines = 0

    def __iter__(self):
        """Yields `Document`s.

        Raises:
          UserError: not UTF-8, not a JSON object with a text under the key, a line over `MAX_LINE_BYTES` or a
            broken compressed file; file, line and byte are named. The first two can be skipped.
        """
        with self._open(self._part.path, "rb") as raw:
            yield from self._documents(self._text_of(raw), raw)

    def _text_of(self, raw):
        return gzip.GzipFile(fileobj=raw) if self._part.end is None else raw

    def _documents(self, stream, raw):
        by_line = self._form.document_per_line or self._form.text_key is not None
        for document in (self._rows if by_line else self._between_blank_lines)(stream):
            self.bytes_read = min(raw.tell() - self._part.start, self._part.num_bytes)
            yield document
        self.bytes_read = self._part.num_bytes

    def _rows(self, stream):
        """A document for every line that begins in the range."""
        for offset, line in self._lines(stream, self._part.start):
            if self._ended(offset):
                return
            sentences = self._sentences(offset, line)
            if sentences:
                yield Document(self._part.file_index, offset, sentences, False)

    def _between_blank_lines(self, stream):
        """Documents that blank lines or cuts stand between.

        Reading begins in the window before the range: what is at hand where the range begins, and is not cut there,
        is left to the reader of the cell it began in.
        """
        start = self._part.start
        sentences, begin, continues = [], 0, False
        previous = max(0, start - WINDOW_BYTES)
        blank = None  # where the last blank line began
        for offset, line in self._lines(stream, previous):
            cell = offset // CELL_BYTES * CELL_BYTES
            if previous < cell and (blank is None or blank < cell - WINDOW_BYTES):
                if sentences and begin >= start:
                    yield Document(self._part.file_index, begin, sentences, continues)
                sentences, continues = [], True
            if self._ended(offset) and not (sentences and begin >= start):
                return
            previous = offset
            found = self._sentences(offset, line)
            if found:
                begin = begin if sentences else offset
                sentences = sentences + found
            elif found is not None:
                if sentences and begin >= start:
                    yield Document(self._part.file_index, begin, sentences, continues)
                sentences, continues, blank = [], False, offset
        if sentences and begin >= start:
            yield Document(self._part.file_index, begin, sentences, continues)

    def _ended(self, offset):
        return self._part.end is not None and offset >= self._part.end

    def _lines(self, stream, position):
        """Yields (offset, line) for every line that begins at `position` or later."""
        if position:
            stream.seek(position - 1)
            room = self._part.end - position + 1
            skipped = stream.readline(room)
            if len(skipped) == room and not skipped.endswith(b"\n"):
                return  # one line fills the range
            position += len(skipped) - 1
        try:
            for line in iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b""):
                if len(line) > MAX_LINE_BYTES:
                    raise UserError("%s: longer than %d MiB; write one sentence a line"
                                    % (self._place(position), MAX_LINE_BYTES >> 20))
                yield position, line
                position += len(line)
        except (EOFError, OSError, zlib.error) as error:
            if self._part.end is not None:
                raise
            raise UserError("%s: damaged behind byte %d of its text: %s; compress the file again"
                            % (self._part.path, position, error))

    def _sentences(self, offset, line):
        """The sentences of a line: list of str, empty for a blank line; None for one that is skipped."""
        try:
            text = self._text(offset, line)
        except UserError:
            if self._form.errors != "skip":
                raise
            self.bad_lines += self._part.start <= offset and not self._ended(offset)
            return None
        pieces = text.split("\n")
        if self._form.split_sentences:
            pieces = [sentence for piece in pieces for sentence in SENTENCE.findall(piece)]
        return [piece.strip() for piece in pieces if piece.strip()]

    def _text(self, offset, line):
        if not offset and line.startswith(codecs.BOM_UTF8):
            line = b" " * len(codecs.BOM_UTF8) + line[len(codecs.BOM_UTF8):]
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(
                "%s: not UTF-8 at byte %d of the line, %d of the text; convert the file (iconv -f GB18030 -t UTF-8 "
                "when it is in a Chinese encoding); --errors=skip leaves such lines out"
                % (self._place(offset), error.start + 1, offset + error.start + 1))
        return self._value(offset, text) if text and self._form.text_key is not None else text

    def _value(self, offset, row):
        """The text under the key of a JSON object."""
        try:
            value = json.loads(row)
        except ValueError as error:
            raise UserError("%s: not JSON: %s; a .jsonl file has one object a line; --errors=skip leaves such rows out"
                            % (self._place(offset), error))
        if not isinstance(value, dict) or not isinstance(value.get(self._form.text_key), str):
            raise UserError("%s: no text under the key %s; --text_key names another, --errors=skip leaves such rows out"
                            % (self._place(offset), self._form.text_key))
        return value[self._form.text_key]

    def _place(self, offset):
        """file:line; counted here, where a reader of ranges needs it first."""
        with self._open(self._part.path, "rb") as raw:
            stream, lines, left = self._text_of(raw), 1, offset
            while left:
                block = stream.read(min(left, CELL_BYTES))
                lines += block.count(b"\n")
                left -= len(block)
        return "%s:%d" % (self._part.path, lines)
