"""Masks drawn while records are read: the rules of `masking`, as a graph of TensorFlow's core operations.

A text's masks are decided by (seed, its number), whatever texts are beside it. The random numbers are the
streams of `draws`, so what is drawn here for a key is what `masking` draws for it.

Letters: N texts, S tokens, W words, P predictions. A word's place is counted from 0 in its text.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from bert import draws
from bert import masking

PADDING = -1  # in `word_starts` past a text's end, where a 0 would be a token inside a word


def mask(input_ids, word_starts, rules, seed, numbers):
    """Chooses words of each text and replaces what stands there.

    Args:
      input_ids: int32 [N, S], with [CLS] and [SEP], anything past a text's end.
      word_starts: int32 [N, S], 1 at a word's first token, else 0; `PADDING` past a text's end.
      rules: `masking.Rules`.
      seed: int from 0 to 2^63 - 1.
      numbers: int64 [N], not below 0; texts of one number have the same masks.

    Returns:
      dict of the features that records with masks have: "input_ids", "input_mask", "segment_ids" int32 [N, S];
      "masked_lm_positions" (ascending), "masked_lm_ids" int32 [N, P] and "masked_lm_weights" float32 [N, P], all
      0 past a text's predictions.
    """
    within = tf.not_equal(word_starts, PADDING)
    stream = _Draws(seed, numbers)
    chosen = _choose(input_ids, within, tf.equal(word_starts, 1), rules, stream)
    positions, real = _positions(chosen)
    label_ids = tf.where(real, tf.gather(input_ids, positions, batch_dims=1), tf.zeros_like(positions))
    new_ids = _replacements(label_ids, rules, stream)
    masked_ids = tf.tensor_scatter_nd_update(
        input_ids, tf.where(chosen), tf.boolean_mask(new_ids, real))  # both by text, then by position
    return {"input_ids": masked_ids, "input_mask": tf.cast(within, tf.int32),
            "segment_ids": tf.zeros_like(input_ids), "masked_lm_positions": positions,
            "masked_lm_ids": label_ids, "masked_lm_weights": tf.cast(real, tf.float32)}


# ---- what is chosen

def _choose(input_ids, within, starts, rules, stream):
    """The tokens that are predicted: bool [N, S].

    Args:
      input_ids: int32 [N, S].
      within: bool [N, S], True up to a text's end.
      starts: bool [N, S], True at a word's first token.
      rules: `masking.Rules`.
      stream: _Draws.
    """
    candidates = within
    for special in rules.never:
        candidates &= tf.not_equal(input_ids, special)
    counts = _how_many(within, candidates, rules)
    words = _choose_words(candidates, _divided(starts, candidates) & within, counts, rules.max_ngram, stream)
    return tf.where(tf.reduce_any(words, axis=1), words, _choose_tokens(candidates, counts, stream))


def _how_many(within, candidates, rules):
    """How many tokens of each text are wanted: int32 [N], at least 1 where a token may be chosen."""
    lengths, most = (tf.reduce_sum(tf.cast(tokens, tf.int32), axis=1) for tokens in (within, candidates))
    # In float64, or other products would be halves; those go to the even number, as in `np.rint`.
    wanted = tf.cast(tf.round(tf.cast(lengths, tf.float64) * rules.probability), tf.int32)
    return tf.minimum(tf.clip_by_value(wanted, 1, rules.max_predictions), most)


def _choose_tokens(candidates, counts, stream):
    """bool [N, S], as many of each text's candidates as `counts` says, all equally likely."""
    ranked = _lowest_first(candidates, stream.bits(masking.PLACES, tf.shape(candidates)[1]))
    lowest = tf.nn.top_k(ranked, tf.maximum(tf.reduce_max(counts), 1)).values
    last = tf.gather_nd(lowest, _in_rows(tf.maximum(counts, 1) - 1))
    return candidates & (ranked >= last[:, tf.newaxis])


def _divided(starts, candidates):
    """bool [N, S]: `starts`, and a new word at the beginning and wherever candidates begin or end."""
    behind_others = tf.pad(tf.logical_not(candidates), [[0, 0], [1, 0]], constant_values=True)[:, :-1]
    return starts | tf.logical_not(candidates) | behind_others


def _choose_words(candidates, starts, counts, max_ngram, stream):
    """Draws spans of whole words, see `masking.choose_words`.

    Args:
      candidates: bool [N, S], the tokens that may be chosen.
      starts: bool [N, S], True at a word's first token; a word has only candidates or none.
      counts: int32 [N], tokens to be chosen at most.
      max_ngram: words of a span at most.
      stream: _Draws.

    Returns:
      bool [N, S]; all False in a text of which no word fits.
    """
    word_of = tf.cumsum(tf.cast(starts, tf.int32), axis=1) - 1
    sizes = _sizes(word_of, candidates)
    num_words = tf.shape(sizes)[1]
    ranked = _lowest_first(starts & candidates, stream.bits(masking.WORDS, tf.shape(starts)[1]))
    # Past a text's words stand some of them again, which cannot be taken then either.
    order = tf.nn.top_k(ranked, num_words).indices
    firsts = tf.gather(word_of, order, batch_dims=1)
    lengths = tf.gather(_span_lengths(max_ngram, tf.shape(starts)[1], stream), order, batch_dims=1)

    def some_word_fits(rank, left, sizes):
        return (rank < num_words) & tf.reduce_any((sizes > 0) & (sizes <= left[:, tf.newaxis]))

    def draw(rank, left, sizes):
        first, length = firsts[:, rank], lengths[:, rank]
        goes_on = tf.ones_like(first, tf.bool)
        # Behind the last word comes the last again, which is taken already.
        for place in range(max_ngram):
            word = _in_rows(tf.minimum(first + place, num_words - 1))
            size = tf.gather_nd(sizes, word)
            goes_on &= (place < length) & (size > 0) & (size <= left)
            taken = tf.where(goes_on, size, tf.zeros_like(size))
            left -= taken
            sizes = tf.tensor_scatter_nd_sub(sizes, word, taken)
        return rank + 1, left, sizes

    # What is taken has size 0 from then on, as what may not be chosen has from the start.
    _, _, rest = tf.while_loop(some_word_fits, draw, (0, counts, sizes))
    return candidates & tf.gather(tf.not_equal(rest, sizes), word_of, batch_dims=1)


def _sizes(word_of, candidates):
    """How many candidates each word has: int32 [N, W]; word_of: int32 [N, S], the word of each token."""
    texts, width = tf.shape(word_of)[0], tf.shape(word_of)[1]
    segments = tf.range(texts)[:, tf.newaxis] * width + word_of
    sizes = tf.math.unsorted_segment_sum(tf.cast(candidates, tf.int32), segments, texts * width)
    return tf.reshape(sizes, [texts, width])[:, :tf.reduce_max(word_of) + 1]


def _span_lengths(max_ngram, width, stream):
    """Words of the span that begins at a token: int32 [N, width], n with weight max_ngram + 1 - n."""
    weights = np.arange(max_ngram, 0, -1)
    drawn = stream.uniform(masking.SPANS, width)[:, :, tf.newaxis]
    return 1 + tf.reduce_sum(tf.cast(drawn >= np.cumsum(weights[:-1]) / weights.sum(), tf.int32), axis=2)


def _lowest_first(allowed, numbers):
    """int64, what `tf.nn.top_k` sorts from the lowest number to the highest, seen as uint64; others last."""
    return tf.where(allowed, tf.bitwise.bitwise_xor(numbers, tf.int64.max), tf.fill(tf.shape(numbers), tf.int64.min))


def _in_rows(places):
    """One place in each row, int32 [N], as the indices of `tf.gather_nd`: int32 [N, 2]."""
    return tf.stack([tf.range(tf.size(places)), places], axis=1)


# ---- what is put there

def _positions(chosen):
    """Places of the chosen tokens, ascending and 0 past a text's count: int32 [N, P]; which are real: bool [N, P]."""
    width, counts = tf.shape(chosen)[1], tf.reduce_sum(tf.cast(chosen, tf.int32), axis=1)
    from_end = tf.cast(chosen, tf.int32) * tf.range(width, 0, -1)
    real = tf.sequence_mask(counts)
    positions = width - tf.nn.top_k(from_end, tf.shape(real)[1]).values
    return tf.where(real, positions, tf.zeros_like(positions)), real


def _replacements(label_ids, rules, stream):
    """What stands in the place of each prediction: int32 [N, P]."""
    width = tf.shape(label_ids)[1]
    fate = stream.uniform(masking.FATES, width)
    others = tf.gather(rules.substitutes, stream.integers(masking.SUBSTITUTES, len(rules.substitutes), width))
    replaced = tf.where(fate < masking.MASKED_SHARE + masking.RANDOM_SHARE, others, label_ids)
    return tf.where(fate < masking.MASKED_SHARE, tf.fill(tf.shape(label_ids), rules.mask_id), replaced)


# ---- random numbers

# Products of uint64 are not in TF 1.15: here they are int64, whose sums and products wrap around alike.

class _Draws:
    """`draws.Draws` of the keys `draws.keys_of(seed, numbers)`, as a graph: the same numbers."""

    def __init__(self, seed, numbers):
        """Args: as in `mask`."""
        self._keys = _mix(tf.bitwise.bitwise_xor(numbers, _signed(draws.keys_of(seed)[0])) + _signed(draws.STEP))

    def bits(self, site, width):
        """int64 [N, width]."""
        places = tf.range(1, tf.cast(width, tf.int64) + 1, dtype=tf.int64) + (site << 32)
        return _mix(self._keys[:, tf.newaxis] + places * _signed(draws.STEP))

    def uniform(self, site, width):
        """Evenly from [0, 1): float64 [N, width]."""
        return tf.cast(_shift(self.bits(site, width), 11), tf.float64) * 2.0 ** -53

    def integers(self, site, limit, width):
        """Evenly from 0 to `limit` - 1: int64 [N, width]."""
        return tf.cast(self.uniform(site, width) * limit, tf.int64)


def _mix(numbers):
    for shift, factor in zip(draws.SHIFTS, draws.FACTORS):
        numbers = tf.bitwise.bitwise_xor(numbers, _shift(numbers, int(shift))) * _signed(factor)
    return tf.bitwise.bitwise_xor(numbers, _shift(numbers, int(draws.SHIFTS[-1])))


def _shift(numbers, places):
    """Shifts right; zeros come in from the left, where a shift of int64 brings its sign."""
    shifted = tf.bitwise.right_shift(numbers, tf.constant(places, tf.int64))
    return tf.bitwise.bitwise_and(shifted, (1 << 64 - places) - 1)


def _signed(number):
    """uint64 -> the int64 of the same bits."""
    return int(np.uint64(number).astype(np.int64))
