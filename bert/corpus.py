"""Text files -> documents: one sentence a line, a blank line between documents, UTF-8.

Read as a stream; a byte order mark and Windows line ends are no part of the text.
"""

import codecs
import collections
import os

from training.command import UserError

# A longer document is read as several, cut at a sentence's end, so that a file without blank lines
# neither fills the memory nor keeps a single process busy.
MAX_DOCUMENT_BYTES = 1 << 16

Document = collections.namedtuple("Document", [
    "file_index",   # the file's place in the sorted list
    "offset",       # of its first sentence in the file, in bytes
    "sentences",    # str, none blank
    "num_bytes",    # from the end of the document before it to its own
    "continues",    # whether it is the rest of a longer one
])


def check_outputs(outputs, inputs):
    """Raises UserError when a file to be written is one that is to be read."""
    read = set(map(os.path.realpath, inputs))
    for path in outputs:
        if os.path.realpath(path) in read:
            raise UserError("--output_file=%s: is read as input too; choose another name" % path)


def read_documents(files):
    """Yields the `Document`s of the files in their order; those without a sentence are left out.

    Raises:
      UserError: not UTF-8; the message names file and line.
    """
    for index, path in enumerate(files):
        yield from _read_file(index, path)


def _read_file(index, path):
    sentences, start, end, done, continues = [], 0, 0, 0, False
    for number, offset, line in _lines(path):
        end = offset + len(line)
        sentence = _decode(line, path, number).strip()
        if sentence:
            start = start if sentences else offset
            sentences.append(sentence)
        if sentences and (not sentence or end - start >= MAX_DOCUMENT_BYTES):
            yield Document(index, start, sentences, end - done, continues)
            sentences, done, continues = [], end, True
        if not sentence:
            continues = False
    if sentences:
        yield Document(index, start, sentences, end - done, continues)


def _lines(path):
    with open(path, "rb") as stream:
        offset = 0
        for number, line in enumerate(stream, start=1):
            yield number, offset, line
            offset += len(line)


def _decode(line, path, number):
    if number == 1 and line.startswith(codecs.BOM_UTF8):
        line = b" " * len(codecs.BOM_UTF8) + line[len(codecs.BOM_UTF8):]
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError("%s:%d: not UTF-8 at byte %d of the line; convert the file (iconv -f GB18030 -t "
                        "UTF-8 when it is in a Chinese encoding)" % (path, number, error.start + 1))
