"""Documents that are the same as an earlier one of the corpus, or nearly so, found on disk in little memory.

A worker signs documents (`Signer`), the signatures of all workers are collected (`SignatureFiles`), and each
document is then looked up by its place (`Dropped`).

exact: a hash of the text without its white space, 128 bits; among 10^9 documents the chance of one false match is
about 10^-21.

near: MinHash (Broder 1997) over shingles of 5 letters or digits, lower-cased. Documents meet when all 8 values of
one of 16 bands are equal, and the later one is dropped when at least `threshold` is estimated of their Jaccard
similarity:

    Jaccard similarity                  0.5    0.6    0.7    0.75   0.8    0.85   0.9    0.95
    they meet, 1 - (1 - s^8)^16         0.06   0.24   0.61   0.82   0.95   0.994  0.9999 1.0
    dropped at the threshold of 0.8     0.000  0.000  0.005  0.09   0.50   0.94   0.9996 1.0

Letters: N documents, W words of a signature.
"""

import hashlib
import os
import re

import numpy as np

from bert.draws import keys_of
from training.command import UserError

SHINGLE = 5
# With fewer letters a single changed one leaves nothing in common: such documents match when they are the same.
MIN_LETTERS = 2 * SHINGLE
PERMUTATIONS = 128
BANDS = {"exact": 1, "near": 16}
WORDS = {"exact": 2, "near": BANDS["near"] + PERMUTATIONS // 8}
MINHASH_SEED = 1

PART_BYTES = 16 << 20  # sorted in memory at a time, which takes about four times as much
PAIRS = 1 << 13  # compared at a time
# Of one band value, documents unlike each other that later ones are compared with: it bounds the time where very
# many share a part of a form but are not alike.
MAX_LEADERS = 16

HASH, PLACE, ROW = range(3)  # columns of a band's entries, uint64 [N, 3]; row: number of the document in the files
ENTRY_BYTES = 3 * 8


class Signer:
    """Documents to signatures; the same ones in every process."""

    def __init__(self, kind):
        """Args: kind: "exact" or "near".

        Raises:
          UserError: another kind.
        """
        if kind not in BANDS:
            raise UserError("%s: no kind of duplicates; choose one of: %s" % (kind, ", ".join(sorted(BANDS))))
        self._sign = _exact_hashes if kind == "exact" else _MinHashes()

    def signatures(self, texts):
        """The signatures of documents, made of the hashes of its bands and then a sketch to compare in bytes.

        Args:
          texts: list of str, N documents.

        Returns:
          uint64 [N, W].
        """
        return self._sign(texts)


def _exact_hashes(texts):
    """128 bits of each text without its white space: uint64 [N, 2]."""
    digests = (hashlib.blake2b("".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=16).digest()
               for text in texts)
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)


class _MinHashes:
    """Signs by MinHash."""

    def __init__(self):
        # Here, as it takes half a second: it loads most of SciPy.
        from datasketch import MinHash

        self._class = MinHash
        self._permutations = MinHash(PERMUTATIONS, MINHASH_SEED).permutations

    def __call__(self, texts):
        """Hashes of the bands, and the low 8 bits of each minimum (Li and Koenig 2010): uint64 [N, W]."""
        minima = np.array([self._minima(values) for values in _shingles(texts)], np.uint64)
        bands = minima.reshape(len(texts), BANDS["near"], PERMUTATIONS // BANDS["near"])
        sketch = minima.astype(np.uint8).reshape(len(texts), PERMUTATIONS)
        return np.concatenate([keys_of(*np.moveaxis(bands, 2, 0)), sketch.view("<u8")], axis=1)

    def _minima(self, values):
        """Each permutation's minimum over 32-bit values (int array): uint64 [PERMUTATIONS]."""
        found = self._class(PERMUTATIONS, MINHASH_SEED, hashfunc=int, permutations=self._permutations)
        for start in range(0, len(values), 1 << 10):  # a whole long document would take 100 MB
            found.update_batch(values[start:start + (1 << 10)].tolist())
        return found.hashvalues


def _shingles(texts):
    """The 32-bit hashes of each text's shingles: N uint64 arrays, none empty.

    For a text of fewer than `MIN_LETTERS` letters they are the parts of its exact hash, so that 32 bits are never
    all that tells two documents apart.
    """
    letters = [_letters(text) for text in texts]
    padded = "".join(letters) + "\0" * (SHINGLE - 1)
    codes = np.frombuffer(padded.encode("utf-32-le", "surrogatepass"), np.uint32)
    hashes = keys_of(*(codes[place:len(codes) - SHINGLE + 1 + place] for place in range(SHINGLE))) >> np.uint64(32)
    exact = _exact_hashes(texts).view("<u4").astype(np.uint64)
    ends = np.cumsum([len(piece) for piece in letters])
    return [parts if len(piece) < MIN_LETTERS else hashes[end - len(piece):end - SHINGLE + 1]
            for piece, end, parts in zip(letters, ends, exact)]


def _letters(text):
    """Lower-cased, without white space, punctuation and symbols."""
    return re.sub(r"[\W_]+", "", text.lower())


class SignatureFiles:
    """The signatures of a corpus in a folder, 25 bytes a document (exact) or 265 (near), while searched 24 more.

    Memory is bounded by `PART_BYTES`. What grows with the corpus is mapped from files, so that the kernel can take
    it back: 1 byte a document, 8 for one that is dropped.
    """

    def __init__(self, folder, kind, threshold=0.8):
        """Args:
          folder: that is there and empty.
          kind: of the `Signer`.
          threshold: from 0 to 1, the Jaccard similarity near duplicates have at least; the bands find few below 0.7.
        """
        self._folder = folder
        self._bands = BANDS[kind]
        self._sketch_bytes = 8 * (WORDS[kind] - BANDS[kind])
        # Unlike values have the low 8 bits in common one time in 256.
        share = 1.0 if kind == "exact" else threshold + (1.0 - threshold) / 256
        self._min_equal = share * self._sketch_bytes

    def add(self, places, signatures):
        """Appends documents; in which order and in what company does not matter.

        Args:
          places: uint64 [N], keys of the documents, each once; of duplicates the one with the lowest key stays.
          signatures: uint64 [N, W].
        """
        columns = {"places": places, "sketches": signatures[:, self._bands:]}
        columns.update((_band_name(band), signatures[:, band]) for band in range(self._bands))
        for name, values in columns.items():
            with open(self._path(name), "ab") as stream:
                stream.write(np.ascontiguousarray(values, np.uint64).tobytes())

    def duplicates(self):
        """Finds the documents to drop.

        Band after band: of the documents with one value, each in the order of their places is dropped when it is
        similar to an earlier one that stayed so far, and then takes no part in the bands to come. What it was
        similar to may itself be dropped by a later band: a chain of documents, each similar to the next, keeps at
        least its first.

        Where entries of one value alone are more than `PART_BYTES`, they are first thinned out in pieces; they meet
        across pieces only if that leaves at most half of them.

        Returns:
          Path of a file of sorted uint64, the places.
        """
        path = self._path("dropped")
        open(path, "wb").close()
        if os.path.exists(self._path("places")) and os.path.getsize(self._path("places")):
            dropped = np.memmap(self._path("flags"), bool, "w+", shape=os.path.getsize(self._path("places")) // 8)
            with open(self._path("sketches"), "rb") as sketches:
                for band in range(self._bands):
                    for part in self._split(self._entries(band, dropped), HASH, len(dropped)):
                        self._thin_file(part, sketches, dropped)
                        os.remove(part)
            self._write(path, dropped)
        return path

    def _path(self, name):
        return os.path.join(self._folder, name)

    def _entries(self, band, dropped):
        """Yields the entries of the documents not dropped, in blocks."""
        for start, places in self._blocks("places"):
            rows = start + np.flatnonzero(~dropped[start:start + len(places)])
            hashes = _read(self._path(_band_name(band)), start, len(places))
            yield np.stack([hashes[rows - start], places[rows - start], rows.astype(np.uint64)], axis=1)

    def _blocks(self, name):
        """Yields (number of the first, uint64 array) of a column of the files."""
        size = max(1, PART_BYTES // ENTRY_BYTES // 2)
        for start in range(0, os.path.getsize(self._path(name)) // 8, size):
            yield start, _read(self._path(name), start, size)

    def _split(self, blocks, column, total):
        """Divides entries by a column's value into files that fit into memory.

        Args:
          blocks: iterable of entries.
          column: HASH or PLACE.
          total: int, how many entries there are, or a few more.

        Returns:
          The files' paths; those without an entry are left out.
        """
        count = -(-2 * total * ENTRY_BYTES // PART_BYTES)  # twice what is needed: they are not quite equal
        found = {}
        for entries in blocks:
            part = keys_of(total, entries[:, column]) % np.uint64(count)
            order = np.argsort(part)
            ends = np.cumsum(np.bincount(part.astype(np.int64), minlength=count))
            for number, own in enumerate(np.split(entries[order], ends[:-1])):
                if len(own):
                    found[number] = self._path("part-%d-%d" % (column, number))
                    with open(found[number], "ab") as stream:
                        stream.write(own.tobytes())
        return [found[number] for number in sorted(found)]

    def _thin_file(self, path, sketches, dropped):
        """Drops the duplicates among the entries of a file, which it changes."""
        entries = os.path.getsize(path) // ENTRY_BYTES
        while entries * ENTRY_BYTES > PART_BYTES:
            pieces = self._split(_entry_blocks(path), PLACE, entries)
            os.remove(path)
            for piece in pieces:
                left = self._thin(_read_entries(piece), sketches, dropped)
                os.remove(piece)
                with open(path, "ab") as stream:
                    stream.write(left.tobytes())
            before, entries = entries, os.path.getsize(path) // ENTRY_BYTES
            if entries > before // 2:
                return
        self._thin(_read_entries(path), sketches, dropped)

    def _thin(self, entries, sketches, dropped):
        """Drops duplicates; returns the entries that are left, uint64 [N, 3].

        Args:
          entries: uint64 [N, 3].
          sketches: binary stream.
          dropped: bool array, by row; set where a document is dropped.
        """
        entries = entries[np.lexsort((entries[:, PLACE], entries[:, HASH]))]
        waiting = entries
        for _ in range(MAX_LEADERS):
            first = np.concatenate([[True], waiting[1:, HASH] != waiting[:-1, HASH]])
            leader = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))
            others = np.flatnonzero(~first)
            if not len(others):
                break
            rows = waiting[:, ROW].astype(np.int64)
            similar = self._similar(sketches, rows[leader[others]], rows[others])
            dropped[rows[others[similar]]] = True
            waiting = waiting[others[~similar]]
        return entries[~dropped[entries[:, ROW].astype(np.int64)]]

    def _similar(self, sketches, left, right):
        """Whether the documents of two rows are similar; left, right: int64 [N]; returns bool [N]."""
        found = np.empty(len(left), bool)
        for start in range(0, len(left), PAIRS):
            own = slice(start, start + PAIRS)
            equal = self._read_sketches(sketches, left[own]) == self._read_sketches(sketches, right[own])
            found[own] = np.count_nonzero(equal, axis=1) >= self._min_equal
        return found

    def _read_sketches(self, sketches, rows):
        # Not by memory map: pages read that way would count as the process's until the file is in memory.
        rows, places = np.unique(rows, return_inverse=True)
        size = self._sketch_bytes
        read = b"".join(os.pread(sketches.fileno(), size, row * size) for row in rows.tolist())
        return np.frombuffer(read, np.uint8).reshape(-1, size)[places]

    def _write(self, path, dropped):
        """Writes the places of the dropped rows, sorted."""
        with open(path, "ab") as stream:
            for start, places in self._blocks("places"):
                stream.write(places[dropped[start:start + len(places)]].tobytes())
        if os.path.getsize(path):
            found = np.memmap(path, np.uint64, "r+")
            found.sort()
            found.flush()


def _band_name(band):
    return "band-%d" % band


def _read(path, start, count):
    """At most `count` uint64 of a file, from the one numbered `start`."""
    with open(path, "rb") as stream:
        stream.seek(8 * start)
        return np.fromfile(stream, np.uint64, count)


def _read_entries(path):
    return np.fromfile(path, np.uint64).reshape(-1, 3)


def _entry_blocks(path):
    """Yields the entries of a file in blocks."""
    size = 3 * max(1, PART_BYTES // ENTRY_BYTES // 2)
    for start in range(0, os.path.getsize(path) // 8, size):
        yield _read(path, start, size).reshape(-1, 3)


class Dropped:
    """The documents to drop, looked up on disk."""

    def __init__(self, path):
        """Args: path: what `SignatureFiles.duplicates` returned."""
        self._places = np.memmap(path, np.uint64, "r") if os.path.getsize(path) else np.empty(0, np.uint64)

    def __len__(self):
        return len(self._places)

    def contains(self, places):
        """Whether documents are to be dropped: uint64 [N] -> bool [N]."""
        places = np.asarray(places, np.uint64)
        if not len(self):
            return np.zeros(len(places), bool)
        found = np.searchsorted(self._places, places)
        return self._places[np.minimum(found, len(self) - 1)] == places
