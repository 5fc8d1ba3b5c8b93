"""Token ids -> masked ids and what is to be predicted: pure functions, random numbers passed in.

A share of each text's tokens is chosen; of the chosen, 80 % become [MASK], 10 % another token drawn
from the vocabulary, 10 % stay. All texts of a call are masked together.

Letters: N texts, S tokens, K at most as many predictions as wanted a text.
"""

import collections
import re

import numpy as np

from bert import tokenization

MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1

PLACES, FATES, SUBSTITUTES = range(3)  # sites of `draws.Draws`; callers' own begin at CALLERS
CALLERS = 16
MAX_LENGTH = 1 << 16  # tokens of a text: a place has 16 bits
LOW_BITS = np.uint64(MAX_LENGTH - 1)

Rules = collections.namedtuple("Rules", [
    "probability",      # share of a text's tokens that is chosen, [CLS] and [SEP] counted as Google does
    "max_predictions",  # at most so many a text
    "mask_id",
    "never",            # ids that are never chosen: [CLS], [SEP], [PAD]
    "substitutes",      # int32 [W], what a random token is drawn from: all but special and unused ones
])

Masked = collections.namedtuple("Masked", [
    "input_ids",    # int32 [N, S]
    "positions",    # int64 [N, K], ascending; 0 past a text's count
    "label_ids",    # int32 [N, K], what stood there; 0 past a text's count
    "counts",       # int64 [N], predictions of each text
])


def rules_for(vocab, probability=0.15, max_predictions=20):
    """The `Rules` for a vocabulary (dict of token -> id)."""
    never = tuple(vocab[token] for token in (tokenization.CLS, tokenization.SEP, tokenization.PAD))
    substitutes = [number for token, number in vocab.items()
                   if token not in tokenization.SPECIAL_TOKENS and not re.match(r"\[unused\d+\]$", token)]
    return Rules(probability, max_predictions, vocab[tokenization.MASK], never,
                 np.array(substitutes or [vocab[tokenization.UNK]], np.int32))


def mask(input_ids, lengths, rules, draws):
    """Chooses positions and replaces what stands there.

    Args:
      input_ids: int32 [N, S], with [CLS] and [SEP], anything past a text's length.
      lengths: int [N], at most S.
      rules: `Rules`.
      draws: `draws.Draws` of N streams; a text's stream decides its masks, whatever texts are beside it.

    Returns:
      `Masked`.
    """
    candidates = _may_be_chosen(input_ids, lengths, rules)
    counts = how_many(lengths, candidates, rules)
    return replace(input_ids, choose(candidates, counts, draws), counts, rules, draws)


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
