"""Word vectors in word2vec's text format, and tables with fewer columns.

A row is a word and its numbers, with spaces between them, in UTF-8. A first line of two integers, how many rows and
how many numbers in each, may stand above. word2vec, fastText (.vec) and GloVe (without that line) write it.

Letters: N tokens found, V vocabulary, D width of the vectors, E width of the reduced ones.
"""

import gzip
import zlib

import numpy as np

from training.command import UserError


def read(path, vocabulary):
    """The vectors of tokens that stand in the file as words, spelled the same.

    Of a word that stands twice the first row counts. A word may hold spaces, as some files have it: the last D fields
    of a row are its numbers.

    Args:
      path: the file; .gz is unpacked.
      vocabulary: dict of token -> id.

    Returns:
      (ids int [N], ascending; vectors float32 [N, D]).

    Raises:
      UserError: a row with too few numbers, or with others than finite ones; not UTF-8; not as many rows as the first
        line says; a broken .gz; or no token found. The file, and the line where one is at fault, are named.
    """
    found = {}
    for number, word, numbers in _rows(path):
        token = vocabulary.get(word)
        if token is not None and token not in found:
            found[token] = _vector(numbers, path, number)
    if not found:
        raise UserError("%s: none of its words is one of the %d tokens; is it in word2vec's text format, UTF-8?"
                        % (path, len(vocabulary)))
    ids = sorted(found)
    return np.array(ids), np.stack([found[token] for token in ids])


def _rows(path):
    """Yields (number of the line, word, list of D numbers as bytes)."""
    announced = width = None
    rows = 0
    for number, line in enumerate(_lines(path), start=1):
        if number == 1:
            fields = line.split()
            if len(fields) == 2 and all(map(bytes.isdigit, fields)):
                announced, width = map(int, fields)
                continue
        width = width or len(line.split()) - 1
        fields = line.rsplit(None, width)
        if len(fields) <= max(width, 1):
            raise UserError("%s:%d: %d fields where a word and %s are needed"
                            % (path, number, len(fields), "%d numbers" % width if width > 0 else "numbers"))
        rows += 1
        yield number, _decode(fields[0], path, number), fields[1:]
    if announced is not None and rows != announced:
        raise UserError("%s:1: %d rows are announced, and %d are there; was the file cut off?"
                        % (path, announced, rows))


def _lines(path):
    with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as stream:
        try:
            yield from stream
        except (EOFError, OSError, zlib.error) as error:
            raise UserError("%s: cannot be unpacked: %s" % (path, error))


def _decode(word, path, number):
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError("%s:%d: the word is not UTF-8; convert the file" % (path, number))


def _vector(numbers, path, number):
    try:
        vector = np.array([float(value) for value in numbers], np.float32)
    except ValueError as error:
        raise UserError("%s:%d: %s" % (path, number, error))
    if not np.isfinite(vector).all():
        raise UserError("%s:%d: a number is not finite" % (path, number))
    return vector


def reduce(table, width):
    """The table with fewer columns whose rows have nearest to the same inner products.

    They are the rows' coordinates along the eigenvectors of X^T X with the largest eigenvalues: principal components
    without taking the mean away, which is X's truncated singular value decomposition and so the best of its rank for
    X X^T (Eckart and Young 1936). The mean stays because what reads the table back has no bias: a masked-LM head
    multiplies by it, and the embedding term maps it by a matrix alone.

    Args:
      table: float [V, D].
      width: E, at most D; D returns the table as it is.

    Returns:
      float32 [V, E], the column of the largest values first; the largest weight in each eigenvector is positive.
    """
    table = np.asarray(table)
    if width == table.shape[1]:
        return table.astype(np.float32)
    wide = table.astype(np.float64)
    _, directions = np.linalg.eigh(wide.T.dot(wide))  # ascending
    directions = directions[:, ::-1][:, :width]
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(width)]
    return wide.dot(directions * np.where(largest < 0, -1.0, 1.0)).astype(np.float32)
