"""Texts of given lengths, for contenders that are compared with each other."""

import numpy as np


def drawn(batches, vocab_size):
    """Random ids, the same in every process.

    Args:
      batches: list of lists of int, the lengths of each batch's texts.
      vocab_size: V.

    Returns:
      list of (ids int32 [B, S], mask int32 [B, S]), each padded to its longest text.
    """
    random, found = np.random.RandomState(0), []
    for lengths in batches:
        mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int32)
        found.append((random.randint(1, vocab_size, mask.shape).astype(np.int32) * mask, mask))
    return found
