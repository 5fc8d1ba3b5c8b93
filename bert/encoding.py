"""Many sentences -> token ids in one array: what `FullTokenizer` gives, without a loop over characters.

A Chinese character or a punctuation mark is a token whatever stands beside it, so its id is looked up in a table
by its code point, for all characters of a text at once. What is left between them, runs of Latin letters, digits
and everything unusual, goes to the `FullTokenizer`, whose answers are remembered.
"""

import itertools
import unicodedata

import numpy as np

from bert import tokenization

SPACE, WORD = -1, -2  # in the table: ends a word and is no token; part of a word
UNALIGNED, CONTINUES = -1, -2  # for a place: not known; the token goes on the word of the one before it

# Blocks whose Chinese characters and punctuation are in the table. All others are left to the tokenizer: what
# they become may depend on their neighbours.
TABLE_BLOCKS = ((0x20, 0x7F), (0x2010, 0x2028), (0x3000, 0x3030), (0x4E00, 0xA000), (0xFF00, 0xFF70))
TABLE_SIZE = 0x10000  # a code point past it is part of a word

# Where it ends a word it is lower-cased to another letter; whether it does is decided over punctuation, too.
CAPITAL_SIGMA = "\u03a3"


class Encoder:
    """Sentences to ids."""

    def __init__(self, tokenizer):
        """Args: tokenizer: `FullTokenizer`, which defines what comes out."""
        self._tokenizer = tokenizer
        self._table = _table(tokenizer)
        self._goes_on = np.array([token.startswith("##") for token in tokenizer.vocab])
        self._words = {}

    def encode(self, sentences):
        """Token ids of sentences.

        Args:
          sentences: list of str.

        Returns:
          (ids int32 [T], those of all sentences one after another; ends int64 [N], where each sentence's end).
        """
        return self._encode(sentences, False)[:2]

    def encode_with_places(self, sentences):
        """Like `encode`, and where in its sentence each token begins.

        The place of a single character, and of the first token of a run, is the index in the sentence of the
        character it was found at; what vanishes, an accent or a control character, may stand first in a run. A
        piece that goes on a word of `FullTokenizer` has `CONTINUES` instead. Where a run holds several words, the
        later ones have `UNALIGNED`: what a run becomes is not traced back to its characters. So have all words of
        a sentence with a capital sigma when the tokenizer lower-cases.

        Returns:
          (ids, ends, places int64 [T]).
        """
        return self._encode(sentences, True)

    def _encode(self, sentences, with_places):
        """(ids, ends, places or None)."""
        if not self._tokenizer.basic_tokenizer.do_lower_case or not any(CAPITAL_SIGMA in text for text in sentences):
            return self._at_once(sentences, with_places)
        parts = [self._one_by_one(list(part), with_places) if sigma else self._at_once(list(part), with_places)
                 for sigma, part in itertools.groupby(sentences, lambda sentence: CAPITAL_SIGMA in sentence)]
        all_ids, all_ends, all_places = zip(*parts)
        before = np.cumsum([0] + [len(ids) for ids in all_ids])
        ends = np.concatenate([ends + start for ends, start in zip(all_ends, before)])
        return np.concatenate(all_ids), ends, np.concatenate(all_places) if with_places else None

    def _at_once(self, sentences, with_places):
        text = "".join(sentence.replace("\n", " ") + "\n" for sentence in sentences)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        found = self._table[np.minimum(codes, TABLE_SIZE - 1)]
        starts, stops = _runs(found == WORD)
        words = [self._word(text[start:stop]) for start, stop in zip(starts.tolist(), stops.tolist())]
        alone = found >= 0
        sizes = alone.astype(np.int64)
        sizes[starts] = [len(word) for word in words]
        ends = np.cumsum(sizes)
        ids = np.empty(sizes.sum(), np.int32)
        ids[ends[alone] - 1] = found[alone]
        if words:
            _put(ids, ends[starts], words)
        line_ends = np.flatnonzero(codes == ord("\n"))
        places = self._places(ids, sizes, ends, line_ends) if with_places else None
        return ids, ends[line_ends], places

    def _places(self, ids, sizes, ends, line_ends):
        """As in `encode_with_places`.

        Args:
          ids: int32 [T].
          sizes: int64 [C], how many tokens each character of the joined text begins.
          ends: int64 [C], their sums.
          line_ends: int64 [N], where among the characters each sentence ends.

        Returns:
          int64 [T].
        """
        places = np.where(self._goes_on[ids], CONTINUES, UNALIGNED)
        begins = np.flatnonzero(sizes)
        line_starts = np.concatenate([[0], line_ends + 1])
        in_line = np.arange(len(sizes)) - np.repeat(line_starts[:-1], np.diff(line_starts))
        places[ends[begins] - sizes[begins]] = in_line[begins]
        return places

    def _word(self, word):
        ids = self._words.get(word)
        if ids is None:
            if len(self._words) >= tokenization.MAX_CACHED_WORDS:
                self._words.clear()
            ids = self._words[word] = self._tokenizer.convert_tokens_to_ids(self._tokenizer.tokenize(word))
        return ids

    def _one_by_one(self, sentences, with_places):
        encoded = [self._tokenizer.convert_tokens_to_ids(self._tokenizer.tokenize(sentence)) for sentence in sentences]
        ids = np.array([number for sentence in encoded for number in sentence], np.int32)
        places = np.where(self._goes_on[ids], CONTINUES, UNALIGNED) if with_places else None
        return ids, np.cumsum([len(sentence) for sentence in encoded]), places


def _table(tokenizer):
    """int32 [TABLE_SIZE]: a code point's id, or SPACE or WORD."""
    table = np.full(TABLE_SIZE, WORD, np.int32)
    for first, end in TABLE_BLOCKS:
        for code in range(first, end):
            char = chr(code)
            if tokenization.is_chinese(char) or tokenization.is_punctuation(char):
                piece, = tokenizer.tokenize(char)
                table[code] = tokenizer.vocab[piece]
            elif unicodedata.category(char) == "Zs":
                table[code] = SPACE
    table[[ord(char) for char in "\t\n\r"]] = SPACE
    return table


def _runs(flags):
    """Where runs of True start and stop: two int64 arrays."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return edges[::2], edges[1::2]


def _put(ids, ends, words):
    """Writes the ids of each word so that they end at `ends`."""
    sizes = np.array([len(word) for word in words])
    places = np.arange(sizes.sum()) + np.repeat(ends - np.cumsum(sizes), sizes)
    ids[places] = np.fromiter((number for word in words for number in word), np.int32, len(places))
