"""The TFRecord file format, without TensorFlow.

A file is its records one after the other, each framed as

    length of the data       uint64, little-endian
    checksum of the length   uint32
    data
    checksum of the data     uint32

A checksum is the CRC-32C of the bytes, rotated and shifted so that a record may hold checksums of its own.
"""

import array
import functools
import itertools
import os
import struct

import google_crc32c

from training import files
from training.command import UserError

UINT64, UINT32 = struct.Struct("<Q"), struct.Struct("<I")
CHECKSUM = UINT32.size
HEADER = UINT64.size + CHECKSUM
MASK_DELTA = 0xA282EAD8
READ_BUFFER = 1 << 20  # bytes
MANIFEST_END = ".json"  # of the file that says what records were made from


class Damaged(UserError):
    """A file that is not whole records.

    Attributes:
      record: how many whole records stand before the damage.
      offset: the byte where the damaged record begins.
      what: "cut off in the header", "checksum of the length", "cut off in the data" or
        "checksum of the data".
    """

    def __init__(self, path, record, offset, what):
        # Text or a compressed file fails at its first eight bytes.
        advice = ("the file is damaged: make it again" if record or "data" in what
                  else "not a TFRecord file, or a damaged one: make it again")
        super().__init__("%s: record %d at byte %d: %s; %s" % (path, record, offset, _told(what), advice))
        self.path, self.record, self.offset, self.what = path, record, offset, what

    def __reduce__(self):
        # Else an error from a worker could not be put together again, and the worker would seem killed.
        return Damaged, (self.path, self.record, self.offset, self.what)


def matching_files(patterns, flag, optional=False):
    """Like `training.files.matching_files`, without the .json files that stand beside records and match too."""
    matching = files.matching_files(patterns, flag, optional)
    found = [name for name in matching if not name.endswith(MANIFEST_END)]
    if matching and not found:
        raise UserError("--%s=%s: no such file but %s ones" % (flag, patterns, MANIFEST_END))
    return found


def frame(records):
    """The bytes of a file, or of a part of one, that holds the records (list of bytes)."""
    pieces = []
    for record in records:
        pieces += (_header(len(record)), record, UINT32.pack(_checksum(record)))
    return b"".join(pieces)


def read(path):
    """Yields the records of a file as bytes, one in memory at a time; each is verified before.

    Raises:
      Damaged: at the first record that is not whole. A length is believed only when its checksum is right
        and the file has so many bytes left.
    """
    with open(path, "rb", READ_BUFFER) as stream:
        size = left = os.fstat(stream.fileno()).st_size
        number = 0
        while left:
            header = stream.read(HEADER)
            if len(header) < HEADER:
                raise Damaged(path, number, size - left, "cut off in the header")
            length, = UINT64.unpack_from(header)
            if header != _header(length):
                raise Damaged(path, number, size - left, "checksum of the length")
            framed = HEADER + length + CHECKSUM
            record = stream.read(length) if framed <= left else b""
            checksum = stream.read(CHECKSUM)
            # The second is true of a file that became shorter while it was read.
            if framed > left or len(checksum) < CHECKSUM:
                raise Damaged(path, number, size - left, "cut off in the data")
            if checksum != UINT32.pack(_checksum(record)):
                raise Damaged(path, number, size - left, "checksum of the data")
            yield record
            left -= framed
            number += 1


def count_records(path):
    """How many records a file holds, by the lengths alone: nothing is verified.

    Raises:
      UserError: the file ends inside a record.
    """
    return sum(1 for _ in _offsets(path))


def read_at(path, numbers):
    """Some records of a file, verified, without those between them.

    Args:
      path: the file; that its lengths are read once is all that is kept of it.
      numbers: which records, counted from 0.

    Returns:
      list of bytes, in the order of `numbers`.

    Raises:
      UserError: a record is damaged.
    """
    offsets, found = _all_offsets(path, os.path.getmtime(path)), []
    with open(path, "rb") as stream:
        for number in numbers:
            stream.seek(offsets[number] + HEADER)
            record = stream.read(offsets[number + 1] - offsets[number] - HEADER - CHECKSUM)
            if stream.read(CHECKSUM) != UINT32.pack(_checksum(record)):
                raise Damaged(path, number, offsets[number], "checksum of the data")
            found.append(record)
    return found


@functools.lru_cache(maxsize=1 << 10)
def _all_offsets(path, _modified):
    """Where each record begins, and the end of the file: array of int64."""
    return array.array("q", itertools.chain(_offsets(path), [os.path.getsize(path)]))


def _offsets(path):
    """Yields where each record begins."""
    size, position, count = os.path.getsize(path), 0, 0
    with open(path, "rb") as stream:
        while position < size:
            stream.seek(position)
            length = stream.read(UINT64.size)
            begin = position
            position += HEADER + CHECKSUM + (UINT64.unpack(length)[0] if len(length) == UINT64.size else size)
            if position > size:
                raise UserError("%s: record %d is cut off; the file is damaged: make it again" % (path, count))
            yield begin
            count += 1


def _told(what):
    return what + " is wrong" if what.startswith("checksum") else what


@functools.lru_cache(maxsize=1 << 16)
def _header(length):
    packed = UINT64.pack(length)
    return packed + UINT32.pack(_checksum(packed))


def _checksum(content):
    """The masked CRC-32C of bytes."""
    value = google_crc32c.value(content)
    return (value >> 15 | value << 17) + MASK_DELTA & 0xFFFFFFFF
