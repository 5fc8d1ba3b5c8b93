"""Many sentences -> token ids in one array: what `FullTokenizer` gives, without a loop over characters.

A Chinese character or a punctuation mark is a token whatever stands beside it, so its id is looked up in a table
by its code point, for all characters of a text at once. What is left between them, runs of Latin letters, digits
and everything unusual, goes to the `FullTokenizer`, whose answers are remembered.
"""

import unicodedata

import numpy as np

from bert import tokenization

SPACE, WORD = -1, -2  # in the table: ends a word and is no token; part of a word

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
        self._words = {}

    def encode(self, sentences):
        """Token ids of sentences.

        Args:
          sentences: list of str.

        Returns:
          (ids int32 [T], those of all sentences one after another; ends int64 [N], where each sentence's end).
        """
        text = "".join(sentence.replace("\n", " ") + "\n" for sentence in sentences)
        if self._tokenizer.basic_tokenizer.do_lower_case and CAPITAL_SIGMA in text:
            return self._one_by_one(sentences)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        found = self._table[np.minimum(codes, TABLE_SIZE - 1)]
        starts, stops = _runs(found == WORD)
        words = [self._word(text[start:stop]) for start, stop in zip(starts.tolist(), stops.tolist())]
        sizes = (found >= 0).astype(np.int64)
        sizes[starts] = [len(word) for word in words]
        ends = np.cumsum(sizes)
        ids = np.empty(sizes.sum(), np.int32)
        alone = found >= 0
        ids[ends[alone] - 1] = found[alone]
        if words:
            _put(ids, ends[starts], words)
        return ids, ends[codes == ord("\n")]

    def _word(self, word):
        ids = self._words.get(word)
        if ids is None:
            if len(self._words) >= tokenization.MAX_CACHED_WORDS:
                self._words.clear()
            ids = self._words[word] = self._tokenizer.convert_tokens_to_ids(self._tokenizer.tokenize(word))
        return ids

    def _one_by_one(self, sentences):
        encoded = [self._tokenizer.convert_tokens_to_ids(self._tokenizer.tokenize(sentence)) for sentence in sentences]
        ids = np.array([number for sentence in encoded for number in sentence], np.int32)
        return ids, np.cumsum([len(sentence) for sentence in encoded])


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
