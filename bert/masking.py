"""Token ids -> masked ids and what is to be predicted: pure functions, random numbers passed in.

A share of each text's tokens is chosen; of the chosen, 80 % become [MASK], 10 % another token drawn
from the vocabulary, 10 % stay. All texts of a call are masked together.

Tokens are chosen one by one, or whole words, or spans of a few consecutive words (MacBERT, arXiv 2004.13922, sec. 3).

Letters: N texts, S tokens, K at most as many predictions as wanted a text, W words of the text that has most.
"""

import collections
import re

import numpy as np

from bert import tokenization

MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1

PLACES, FATES, SUBSTITUTES, WORDS, SPANS = range(5)  # sites of `draws.Draws`; callers' own begin at CALLERS
CALLERS = 16
MAX_LENGTH = 1 << 16  # tokens of a text: a place has 16 bits
LOW_BITS = np.uint64(MAX_LENGTH - 1)

Rules = collections.namedtuple("Rules", [
    "probability",      # share of a text's tokens that is chosen, [CLS] and [SEP] counted as Google does
    "max_predictions",  # at most so many a text
    "mask_id",
    "never",            # ids that are never chosen: [CLS], [SEP], [PAD]
    "substitutes",      # int32, what a random token is drawn from: all but special and unused ones
    "max_ngram",        # a span holds 1 to so many words; with 4: 40, 30, 20 and 10 % of them, as far as they fit
], defaults=[1])

Masked = collections.namedtuple("Masked", [
    "input_ids",    # int32 [N, S]
    "positions",    # int64 [N, K], ascending; 0 past a text's count
    "label_ids",    # int32 [N, K], what stood there; 0 past a text's count
    "counts",       # int64 [N], predictions of each text
])


def rules_for(vocab, probability=0.15, max_predictions=20, max_ngram=1):
    """The `Rules` for a vocabulary (dict of token -> id)."""
    never = tuple(vocab[token] for token in (tokenization.CLS, tokenization.SEP, tokenization.PAD))
    substitutes = [number for token, number in vocab.items()
                   if token not in tokenization.SPECIAL_TOKENS and not re.match(r"\[unused\d+\]$", token)]
    return Rules(probability, max_predictions, vocab[tokenization.MASK], never,
                 np.array(substitutes or [vocab[tokenization.UNK]], np.int32), max_ngram)


def mask(input_ids, lengths, rules, draws, word_starts=None):
    """Chooses positions and replaces what stands there.

    Args:
      input_ids: int32 [N, S], with [CLS] and [SEP], anything past a text's length.
      lengths: int [N], at most S.
      rules: `Rules`.
      draws: `draws.Draws` of N streams; a text's stream decides its masks, whatever texts are beside it.
      word_starts: bool [N, S], True at the first token of each word: whole words are chosen. None: every token is
        a word of its own.

    Returns:
      `Masked`. With words, a text may have fewer predictions than tokens are wanted, see `choose_words`; never none
      where a token may be chosen: where every word is longer than what is wanted, tokens are chosen one by one.
    """
    candidates = _may_be_chosen(input_ids, lengths, rules)
    counts = how_many(lengths, candidates, rules)
    if word_starts is None and rules.max_ngram == 1:
        return replace(input_ids, choose(candidates, counts, draws), counts, rules, draws)
    if word_starts is None:
        word_starts = np.ones_like(candidates)
    chosen = choose_words(candidates, counts, word_starts, rules.max_ngram, draws)
    without = ~chosen.any(axis=1)
    if without.any():
        single = choose(candidates, np.where(without, counts, 0), draws)
        texts, places = np.nonzero(_real(np.where(without, counts, 0), single.shape[1]))
        chosen[texts, single[texts, places]] = True
    positions, counts = _positions(chosen)
    return replace(input_ids, positions, counts, rules, draws)


def how_many(lengths, candidates, rules):
    """How many tokens of each text are chosen: int64 [N], at least 1 where a token may be chosen."""
    wanted = np.rint(np.asarray(lengths) * rules.probability).astype(np.int64)
    return np.minimum(np.clip(wanted, 1, rules.max_predictions), candidates.sum(axis=1))


def choose(candidates, counts, draws):
    """Draws `counts` different positions from the candidates of each text, all equally likely.

    Args:
      candidates: bool [N, S].
      counts: int64 [N], at most the candidates of the text.
      draws: `draws.Draws` of N streams.

    Returns:
      int64 [N, K], as `positions` in `Masked`.
    """
    width = candidates.shape[1]
    most = counts.max() if len(counts) else 0
    # The place stands in the low bits of its random number, so that sorting numbers brings the places along.
    numbers = draws.bits(PLACES, width) & ~LOW_BITS | np.arange(width, dtype=np.uint64)
    numbers = np.where(candidates, numbers, ~np.uint64(0))
    lowest = np.sort(np.partition(numbers, most - 1, axis=1)[:, :most], axis=1) if most else numbers[:, :0]
    chosen = _real(counts, most)
    positions = np.sort(np.where(chosen, (lowest & LOW_BITS).astype(np.int64), width), axis=1)
    return np.where(chosen, positions, 0)


def choose_words(candidates, counts, word_starts, max_ngram, draws):
    """Draws whole words, in random order, until `counts` tokens of each text are reached.

    From each word drawn a span goes on over the words behind it. It ends before a word that would make it longer than
    was drawn for it, is chosen already, holds a token that is no candidate, or does not fit into what is left of
    `counts`; where that is the first word, it is passed over and the next one drawn. So there are never more than
    `counts`, and fewer where no word of the length that is left remains.

    Args:
      candidates: bool [N, S]; one that is none parts the words before and behind it.
      counts: int64 [N].
      word_starts: bool [N, S].
      max_ngram: int, words of a span at most.
      draws: `draws.Draws` of N streams.

    Returns:
      bool [N, S].
    """
    starts = _divided(word_starts, candidates)
    word_of = np.cumsum(starts, axis=1) - 1
    order = _random_order(starts & candidates, word_of, draws)
    # One word more than there are, of no token: what follows a text's last word.
    num_texts, width = len(starts), starts.sum(axis=1).max(initial=0) + 1
    sizes = np.bincount((word_of + np.arange(num_texts)[:, np.newaxis] * width).ravel(), minlength=num_texts * width)
    texts, places = np.nonzero(starts)
    words = word_of[texts, places]
    free = np.zeros([num_texts, width], bool)
    free[texts, words] = candidates[texts, places]
    spans = np.ones([num_texts, width], np.int64)
    if max_ngram > 1:
        spans[texts, words] = _span_sizes(max_ngram, starts.shape[1], draws)[texts, places]
    taken = _take_spans(order, sizes.reshape(free.shape), free, spans, counts, max_ngram)
    return np.take_along_axis(taken, word_of, axis=1)


def _divided(word_starts, candidates):
    """`word_starts`, and a new word wherever candidates begin or end; what is no candidate, is a word each."""
    starts = word_starts | ~candidates
    starts[:, 1:] |= ~candidates[:, :-1]
    starts[:, :1] = True
    return starts


def _random_order(first_tokens, word_of, draws):
    """The words to be drawn, in their order.

    Args:
      first_tokens: bool [N, S], of the words to be drawn.
      word_of: int64 [N, S], the number of each token's word.
      draws: `draws.Draws` of N streams.

    Returns:
      int64 [N, W]; -1 past a text's words.
    """
    numbers = draws.bits(WORDS, first_tokens.shape[1]) & ~LOW_BITS | word_of.astype(np.uint64)
    numbers = np.sort(np.where(first_tokens, numbers, ~np.uint64(0)), axis=1)
    num_words = first_tokens.sum(axis=1)
    width = num_words.max(initial=0)
    return np.where(_real(num_words, width), (numbers[:, :width] & LOW_BITS).astype(np.int64), -1)


def _span_sizes(max_ngram, width, draws):
    """int64 [N, width], words of the span that begins there: n with a weight of `max_ngram` + 1 - n."""
    weights = np.arange(max_ngram, 0, -1)
    borders = np.cumsum(weights) / weights.sum()
    return 1 + np.searchsorted(borders[:-1], draws.uniform(SPANS, width), side="right")


def _take_spans(order, sizes, free, spans, counts, max_ngram):
    """Takes spans, word by word, as long as there is room.

    Args:
      order: int64 [N, W], the words in which spans begin; -1 past a text's words.
      sizes: int64 [N, V], tokens of each word.
      free: bool [N, V], words that may be taken.
      spans: int64 [N, V], words of the span that begins in a word.
      counts: int64 [N], tokens to be taken at most.
      max_ngram: int, the longest span.

    Returns:
      bool [N, V], the words taken.
    """
    left, taken = counts.copy(), np.zeros_like(free)
    for words in order.T:
        texts = np.flatnonzero((left > 0) & (words >= 0))
        word = words[texts]
        span = spans[texts, word]
        for behind in range(max_ngram):
            fits = free[texts, word] & ~taken[texts, word] & (sizes[texts, word] <= left[texts]) & (behind < span)
            texts, word, span = texts[fits], word[fits], span[fits]
            taken[texts, word] = True
            left[texts] -= sizes[texts, word]
            word = word + 1
    return taken


def _positions(chosen):
    """bool [N, S] -> (int64 [N, K], int64 [N]), as `positions` and `counts` in `Masked`."""
    counts = chosen.sum(axis=1)
    texts, places = np.nonzero(chosen)
    positions = np.zeros([len(chosen), counts.max(initial=0)], np.int64)
    positions[texts, np.arange(len(texts)) - np.repeat(np.cumsum(counts) - counts, counts)] = places
    return positions, counts


def replace(input_ids, positions, counts, rules, draws):
    """Puts [MASK], a random token or the same token at the chosen positions; returns `Masked`."""
    chosen = _real(counts, positions.shape[1])
    label_ids = np.where(chosen, np.take_along_axis(input_ids, positions, axis=1), 0).astype(np.int32)
    fate = draws.uniform(FATES, positions.shape[1])
    others = rules.substitutes[draws.integers(SUBSTITUTES, len(rules.substitutes), positions.shape[1])]
    new_ids = np.where(fate < MASKED_SHARE, rules.mask_id,
                       np.where(fate < MASKED_SHARE + RANDOM_SHARE, others, label_ids))
    masked_ids = np.array(input_ids, np.int32)
    texts = np.nonzero(chosen)[0]
    masked_ids[texts, positions[chosen]] = new_ids[chosen]
    return Masked(masked_ids, positions, label_ids, counts)


def _may_be_chosen(input_ids, lengths, rules):
    candidates = _real(lengths, input_ids.shape[1])
    for special in rules.never:
        candidates &= input_ids != special
    return candidates


def _real(lengths, width):
    """bool [N, width], True within each text's length."""
    return np.arange(width) < np.asarray(lengths)[:, np.newaxis]
