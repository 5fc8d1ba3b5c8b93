"""Copies of a text in which words are masked or replaced: pure functions, random numbers passed in.

Tang et al. 2019 (arXiv 1903.12136, section "Data Augmentation for Distillation"). For each word X is drawn evenly
from [0, 1): below p_mask the word becomes [MASK], else below p_mask + p_pos another word with its tag, drawn as often
as it stands in some texts. Then, with p_ng, the copy is cut to n words in a row, n drawn evenly from 1 to 5. Copies
of a text that are the same are one. Of a pair the first text is changed, the second, and both, in turns.

What the paper does not say, to our knowledge, and is decided here: the word drawn may be the very one that stood
there; a text of fewer than n words stays whole; a copy that is the text itself is a duplicate too; punctuation is a
word with a tag, white space is no word and stays where it is.

Letters: W words of a text, N copies of it. A piece is a pair (text or None, white space behind it), None for [MASK];
a copy of a text is a list of pieces.
"""

import collections

import numpy as np

from bert import tokenization

FATES, SUBSTITUTES, NGRAMS = range(3)  # sites of `draws.Draws`

# space: the white space behind it, "" mostly.
Word = collections.namedtuple("Word", "text tag space")

Rules = collections.namedtuple("Rules", [
    "mask_prob",   # of a word, to become [MASK]
    "pos_prob",    # of a word, to be replaced by one with its tag
    "ngram_prob",  # of a copy, to be cut
    "max_ngram",   # words that stay of one that is cut, at most
])


def words_of(tagged):
    """(word, tag) pairs whose words joined are a text -> list of `Word`; white space before the first is lost."""
    words = []
    for text, tag in tagged:
        if not text.isspace():
            words.append(Word(text, tag, ""))
        elif words:
            words[-1] = words[-1]._replace(space=words[-1].space + text)
    return words


def plain(words):
    """A text's words as pieces that nothing has happened to."""
    return [(word.text, word.space) for word in words]


class Lexicon:
    """The words with each tag, and how often each stands in some texts."""

    def __init__(self, counts):
        """Args: counts: dict of (word, tag) -> how often, at least 1."""
        by_tag = {}
        for (text, tag), count in sorted(counts.items()):  # so that the order of counting changes nothing
            texts, numbers = by_tag.setdefault(tag, ([], []))
            texts.append(text)
            numbers.append(count)
        self._by_tag = {tag: (texts, np.cumsum(numbers)) for tag, (texts, numbers) in by_tag.items()}

    def word(self, tag, draw):
        """A word with the tag, each as likely as it is frequent among them; None where no word has it.

        Args:
          draw: evenly drawn from [0, 1).
        """
        if tag not in self._by_tag:
            return None
        texts, ends = self._by_tag[tag]
        return texts[np.searchsorted(ends, draw * ends[-1], side="right")]


def copies(words, lexicon, rules, draws):
    """Copies of a text.

    Args:
      words: list of W `Word`, at least one.
      lexicon: `Lexicon`; a word whose tag it does not have stays.
      rules: `Rules`.
      draws: `draws.Draws` of N streams, one a copy.

    Returns:
      (N copies, Counter of "words", "masked" and "replaced" in all of them, before they are cut).
    """
    fates = draws.uniform(FATES, len(words))  # [N, W]
    substitutes = draws.uniform(SUBSTITUTES, len(words))
    masked = fates < rules.mask_prob
    replaced = ~masked & (fates < rules.mask_prob + rules.pos_prob)
    counts = collections.Counter(words=fates.size, masked=int(masked.sum()))
    made = []
    for copy, (start, end) in enumerate(_cuts(len(words), rules, draws)):
        pieces = plain(words)
        for place in np.flatnonzero(masked[copy]):
            pieces[place] = (None, words[place].space)
        for place in np.flatnonzero(replaced[copy]):
            text = lexicon.word(words[place].tag, substitutes[copy, place])
            if text is not None:
                pieces[place] = (text, words[place].space)
                counts["replaced"] += 1
        made.append(pieces[start:end])
    return made, counts


def _cuts(num_words, rules, draws):
    """Yields (start, end), what stays of each copy."""
    for cut, size, place in draws.uniform(NGRAMS, 3):
        if cut < rules.ngram_prob:
            size = min(1 + int(size * rules.max_ngram), num_words)
            start = int(place * (num_words - size + 1))
            yield start, start + size
        else:
            yield 0, num_words


def alternate(original, made):
    """Copies of a pair: the first text changed, the second, both, in turns; of a single text, the copies.

    Args:
      original: list of one or two unchanged texts, each a list of pieces.
      made: list of the N copies of each of them.

    Returns:
      list of N lists of one or two copies.
    """
    if len(original) == 1:
        return [[copy] for copy in made[0]]
    first, second = original
    return [[(a, second), (first, b), (a, b)][number % 3] for number, (a, b) in enumerate(zip(*made))]


def fields_of(row):
    """The keys of a .jsonl row.

    Args:
      row: one or two copies.

    Returns:
      dict of "text_a", for a pair "text_b", and "mask_token" where something is masked: "[MASK]", in more brackets
      where the text has that itself.
    """
    masks = sum(text is None for copy in row for text, _ in copy)
    mark = tokenization.MASK
    while masks and sum(_join(copy, mark).count(mark) for copy in row) > masks:
        mark = "[%s]" % mark
    fields = {name: _join(copy, mark) for name, copy in zip(("text_a", "text_b"), row)}
    return dict(fields, mask_token=mark) if masks else fields


def _join(copy, mark):
    return "".join((mark if text is None else text) + space for text, space in copy).strip()


def distinct(original, rows):
    """The rows that are neither the original nor one before: list of dicts.

    Args:
      original: what `fields_of` gives for the unchanged row.
      rows: dicts, of `fields_of`.
    """
    seen, kept = {_key(original)}, []
    for row in rows:
        if _key(row) not in seen:
            seen.add(_key(row))
            kept.append(row)
    return kept


def _key(fields):
    return tuple(sorted(fields.items()))
