"""A vocabulary without rows that nobody needs, for small models: fewer rows, the same tokens.

A row that no text leads to can go without any change: half of a Chinese BERT's vocabulary are pieces such as `##氯`,
and a Chinese character is always a word of its own. To go further, rows that are rare in some texts may go too; their
tokens are then cut into smaller pieces, or become [UNK].
"""

import collections

from bert.tokenization import SPECIAL_TOKENS
from training.command import UserError

SEEN = "seen"


def emitted(tokenizer):
    """The tokens that some text leads to, and the special ones: list, in the order of their ids.

    Args:
      tokenizer: `FullTokenizer`.
    """
    words = tokenizer.basic_tokenizer.tokenize
    special = set(SPECIAL_TOKENS)

    def in_some_word(token):
        if token.startswith("##") and len(token) > 2:
            # Behind another letter, it must stay as it is and be one word with that.
            return words("a" + token[2:]) == ["a" + token[2:]]
        return words(token) == [token]

    return [token for token in tokenizer.vocab if token in special or in_some_word(token)]


def frequent(tokenizer, texts, limit):
    """Those of `emitted` that are the most frequent in some texts.

    Args:
      tokenizer: `FullTokenizer`.
      texts: str.
      limit: how many tokens at most, the special ones counted; None: all that occur.
    """
    counts = collections.Counter(token for text in texts for token in tokenizer.tokenize(text))
    others = [token for token in emitted(tokenizer) if token not in SPECIAL_TOKENS and counts[token]]
    room = len(others) if limit is None else limit - len(SPECIAL_TOKENS)
    # Of equal ones those with lower ids: sorting keeps their order.
    kept = set(sorted(others, key=lambda token: -counts[token])[:room]).union(SPECIAL_TOKENS)
    return [token for token in tokenizer.vocab if token in kept]


def check(prune_vocab):
    """Raises UserError for another value than `choose` takes."""
    if prune_vocab != SEEN and not (prune_vocab.isdigit() and int(prune_vocab) > len(SPECIAL_TOKENS)):
        raise UserError("--prune_vocab=%s: a number of tokens above %d, or %s" % (
            prune_vocab, len(SPECIAL_TOKENS), SEEN))


def choose(tokenizer, prune_vocab, texts):
    """The tokens that --prune_vocab keeps: "" for `emitted`, "seen" or a number for `frequent`.

    Args:
      tokenizer: `FullTokenizer`.
      prune_vocab: the flag.
      texts: what is counted.
    """
    if not prune_vocab:
        return emitted(tokenizer)
    return frequent(tokenizer, texts, None if prune_vocab == SEEN else int(prune_vocab))
