"""Random numbers for many things at once, each with a stream of its own that its key alone decides.

The streams are those of SplitMix64 (Steele, Lea and Flood 2014, fig. 19), one a row: what a row draws does not
depend on which rows are drawn beside it, so the work can be divided in any way.
"""

import numpy as np

STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, near 2^64 / golden ratio
FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


class Draws:
    """The random numbers of N streams, drawn side by side.

    A site names what is drawn: each has 2^32 numbers of every stream for itself, so that how many another site
    takes, which may depend on the rows beside a row, moves none of its.
    """

    def __init__(self, keys):
        """Args: keys: uint64 [N], see `keys_of`."""
        self._keys = np.asarray(keys, np.uint64)

    def bits(self, site, width):
        """The site's first `width` numbers of each stream: uint64 [N, width]; site: int from 0."""
        places = np.arange(1, width + 1, dtype=np.uint64) + np.uint64(site << 32)
        return _mix(self._keys[:, np.newaxis] + places * STEP)

    def uniform(self, site, width):
        """`bits`, evenly from [0, 1): float64 [N, width]."""
        return (self.bits(site, width) >> np.uint64(11)) * 2.0 ** -53

    def integers(self, site, limit, width):
        """`bits`, evenly from 0 to `limit` - 1: int64 [N, width]."""
        return (self.uniform(site, width) * limit).astype(np.int64)


def keys_of(*parts):
    """Keys of streams, from what the streams are for.

    Args:
      parts: int from 0 to 2^64 - 1, or integer arrays that broadcast with each other; their order counts.

    Returns:
      uint64, of the parts' common shape.
    """
    keys = np.zeros(1, np.uint64)
    for part in parts:
        keys = _mix((keys ^ np.asarray(part).astype(np.uint64)) + STEP)
    return keys


def _mix(numbers):
    """Permutes uint64 so that each bit of a number depends on all; wraps around where it overflows."""
    numbers = numbers ^ numbers >> SHIFTS[0]
    numbers *= FACTORS[0]
    numbers ^= numbers >> SHIFTS[1]
    numbers *= FACTORS[1]
    numbers ^= numbers >> SHIFTS[2]
    return numbers
