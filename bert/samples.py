"""Documents as token ids -> samples [CLS] ... [SEP], all of a batch of documents at once.

Letters: T tokens of all documents, D documents, L sentences, N samples, S tokens of the longest sample.
"""

import collections

import numpy as np

from bert.draws import Draws

# Each [N]. start, length: of the sample's tokens among the T, not cut yet; document: the place of its document;
# number: its place among the samples of the document.
Samples = collections.namedtuple("Samples", "start length document number")


def sentences(ends, num_sentences):
    """One sample a sentence; those without a token are left out.

    Args:
      ends: int64 [L], where each sentence ends among the tokens.
      num_sentences: int64 [D], sentences of each document.

    Returns:
      `Samples`.
    """
    start = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    document = np.repeat(np.arange(len(num_sentences)), num_sentences)
    number = _places(num_sentences)
    some = ends > start
    return Samples(start[some], (ends - start)[some], document[some], number[some])


def packed(ends, num_sentences, room):
    """A document's tokens in samples of `room`, cut wherever one ends; the last holds what is left.

    Args:
      ends, num_sentences: as in `sentences`.
      room: int.

    Returns:
      `Samples`.
    """
    document_ends = np.concatenate([[0], ends])[np.cumsum(num_sentences)]
    starts = np.concatenate([[0], document_ends[:-1]])
    pieces = -(-(document_ends - starts) // room)
    document, number = np.repeat(np.arange(len(pieces)), pieces), _places(pieces)
    start = starts[document] + number * room
    return Samples(start, np.minimum(room, document_ends[document] - start), document, number)


def _places(counts):
    """0, 1, ... for each count, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def shorten(start, length, room, keys, site):
    """Cuts samples to `room` tokens.

    Tokens are lost one by one, each at the front or the back as a coin decides, so the number lost at the front
    is binomial.

    Args:
      start, length: int64 [N].
      room: int.
      keys: uint64 [N], of the samples' random streams.
      site: int, of the coins.

    Returns:
      start and length, cut.
    """
    start = start.copy()
    for sample in np.flatnonzero(length > room).tolist():
        excess = int(length[sample]) - room
        coins = Draws(keys[sample:sample + 1]).bits(site, -(-excess // 64))
        start[sample] += np.unpackbits(coins.view(np.uint8))[:excess].sum(dtype=np.int64)
    return start, np.minimum(length, room)


def rows(ids, start, length, cls_id, sep_id):
    """The samples with their special tokens.

    Args:
      ids: int32 [T].
      start, length: int64 [N], lengths above 0.
      cls_id, sep_id: int.

    Returns:
      int32 [N, S], 0 past a sample's `length` + 2 tokens.
    """
    width = length.max() if len(length) else 0
    places = start[:, np.newaxis] + np.arange(width)
    within = np.arange(width) < length[:, np.newaxis]
    found = np.zeros([len(start), width + 2], np.int32)
    found[:, 1:-1][within] = ids[places[within]]
    found[:, 0] = cls_id
    found[np.arange(len(start)), length + 1] = sep_id
    return found
