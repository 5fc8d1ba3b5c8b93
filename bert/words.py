"""Where Chinese words begin: which tokens of a sentence begin one, for whole-word masking; or the words themselves.

A tokenizer makes every Chinese character a token; jieba says which characters are one word. The two are aligned by
the places of characters in the text, so words have any length and Latin letters and digits may be part of them.

A user dictionary is jieba's: UTF-8, a line `word [frequency] [tag]`, parts separated by one space. jieba itself never
joins characters other than Chinese ones (U+4E00 to U+9FD5), ASCII letters and digits and +#&._%- to a word. A word
of the dictionary with others, `1,2-二氯乙烷` or `α-蒎烯`, is found all the same: wherever it stands, the longest
first; its frequency does not matter. Words are found as they are written: `pvc-u` is not `PVC-U`.
"""

import itertools
import re

import numpy as np

from bert.encoding import CONTINUES, UNALIGNED
from training.command import UserError

ENTRY = re.compile(r"(\S+)(?: ([0-9]{1,15}))?(?: ([a-z]+))?")

# Text without a mark or a space of so many characters is cut: jieba's time grows with the square of its length.
MAX_BLOCK = 1 << 10
MAX_CACHED_BLOCKS = 1 << 18

UNTAGGED = "n"  # the tag of a user's word that has none: a noun, as most terms are

BEGINS, GOES_ON = b"\1", b"\0"  # of a character, whether a word begins there


class Segmenter:
    """Finds words; holds jieba's dictionary, about 80 MB, which takes half a second to load."""

    def __init__(self, user_dict=None):
        """Loads the dictionaries.

        Args:
          user_dict: file name, or None. The word of an entry with frequency 0 is split by every segmenter of the
            process: jieba keeps these in one place.

        Raises:
          UserError: as `read_user_dict`.
        """
        self._entries = read_user_dict(user_dict) if user_dict else []
        # Not at the top: loading takes time and memory that only whole words are worth.
        import jieba
        self._blocks = jieba.re_han_default
        self._jieba = jieba.Tokenizer()
        # Not `initialize`: it would believe a file in the temporary folder that anybody may have written.
        self._jieba.FREQ, self._jieba.total = self._jieba.gen_pfdict(self._jieba.get_dict_file())
        self._jieba.initialized = True
        self._terms = set()
        for word, frequency, tag in self._entries:
            if self._blocks.fullmatch(word):
                self._jieba.add_word(word, frequency, tag)
            else:
                self._terms.add(word)
        self._term_sizes = sorted({len(term) for term in self._terms}, reverse=True)
        self._term_heads = re.compile("|".join(map(re.escape, sorted({term[0] for term in self._terms}))))
        self._cache = {}

    def cut(self, text):
        """The words of a text as list of str, which joined are the text.

        Each character that jieba puts into no word, white space first of all, stands for itself.
        """
        places = np.flatnonzero(self._begins(text + "\n")).tolist()
        return [text[start:end] for start, end in zip(places, places[1:])]

    def word_starts(self, sentences, ends, places):
        """Which tokens begin a word.

        A token goes on the word before it when it is a `##` piece, or when no segmented word begins at its place.
        So a run of Latin letters is one word at least, wherever jieba would cut it, and white space ends a word.
        Tokens without a place are words of their own, each with its `##` pieces.

        Args:
          sentences, ends, places: as given to, and returned by, `Encoder.encode_with_places`.

        Returns:
          (bool [T]; int, how many tokens have no place).
        """
        begins = self._begins("".join(sentence.replace("\n", " ") + "\n" for sentence in sentences))
        lengths = np.array([len(sentence) + 1 for sentence in sentences], np.int64)
        offsets = np.repeat(np.cumsum(lengths) - lengths, np.diff(ends, prepend=0))
        starts = begins[np.maximum(places, 0) + offsets]
        unaligned = places == UNALIGNED
        wordwise = np.flatnonzero(places != CONTINUES)
        after_unaligned = wordwise[1:][unaligned[wordwise[:-1]]]
        starts[unaligned] = starts[after_unaligned] = True
        starts[places == CONTINUES] = False
        return starts, int(unaligned.sum())

    def _begins(self, text):
        """bool [len(text)]: whether a word begins at a character of the text, which ends with a line end."""
        # `split` gives, in turns, what stands between blocks and a block; between them each character is a word.
        parts = self._blocks.split(text)
        flags = [BEGINS * len(part) for part in parts]
        flags[1::2] = [self._of_block(block) for block in parts[1::2]]
        begins = np.frombuffer(b"".join(flags), bool).copy()
        for start, end in self._term_spans(text):
            begins[start:end] = False
            begins[[start, end]] = True
        return begins

    def _of_block(self, block):
        """The flags of a block's characters."""
        flags = self._cache.get(block)
        if flags is None:
            if len(self._cache) >= MAX_CACHED_BLOCKS:
                self._cache.clear()
            words = (word for start in range(0, len(block), MAX_BLOCK)
                     for word in self._jieba.cut(block[start:start + MAX_BLOCK]))
            flags = self._cache[block] = b"".join([BEGINS + GOES_ON * (len(word) - 1) for word in words])
        return flags

    def _term_spans(self, text):
        """Yields where terms that jieba cannot find stand: pairs (start, end), none overlapping."""
        if not self._terms:
            return
        done = 0
        for head in self._term_heads.finditer(text):
            start = head.start()
            if start >= done:
                ends = (start + size for size in self._term_sizes if text[start:start + size] in self._terms)
                done = next(ends, start)
                if done > start:
                    yield start, done


class Tagger(Segmenter):
    """Finds words and what part of speech each is, by jieba.posseg; several times slower than a `Segmenter`."""

    def __init__(self, user_dict=None):
        """As `Segmenter`; a word of the user dictionary without a tag has jieba's, or `UNTAGGED`."""
        super().__init__(user_dict)
        from jieba import posseg
        self._posseg = posseg.POSTokenizer(self._jieba)
        self._posseg.makesure_userdict_loaded()
        self._tags = self._posseg.word_tag_tab
        for word, _, tag in self._entries:
            self._tags[word] = tag or self._tags.get(word, UNTAGGED)

    def tag(self, text):
        """The words of a text, white space among them: list of (word, tag), whose words joined are the text."""
        tagged, done = [], 0
        for start, end in itertools.chain(self._term_spans(text), [(len(text), len(text))]):
            tagged.extend((pair.word, pair.flag) for pair in self._posseg.cut(text[done:start]))
            if end > start:
                tagged.append((text[start:end], self._tags[text[start:end]]))
            done = end
        return tagged


def read_user_dict(path):
    """Reads a user dictionary.

    Returns:
      list of (word, frequency, tag), the last two str or None.

    Raises:
      UserError: missing, not UTF-8, or a line that is not `word [frequency] [tag]`.
    """
    try:
        with open(path, "rb") as stream:
            lines = stream.read().split(b"\n")
    except OSError as error:
        raise UserError("%s: %s; a user dictionary is a file with one word a line" % (path, error.strerror))
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            line = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError("%s:%d: not UTF-8 at byte %d of the line; convert the file"
                            % (path, number, error.start + 1))
        entry = ENTRY.fullmatch(line)
        if entry:
            entries.append(entry.groups())
        elif line:
            raise UserError("%s:%d: %s: not a word, its frequency (a whole number) and its tag (small letters), the "
                            "last two optional, with one space between; a word holds no white space"
                            % (path, number, ascii(line) if not line.isprintable() else line))
    return entries
