"""Text -> WordPiece tokens -> ids, with the results of Google's `tokenization.py` for every string.

    tokenizer = FullTokenizer("vocab.txt")
    tokens = tokenizer.tokenize("聚氯乙烯 PVC-U")         # 聚 氯 乙 烯 pvc - u
    ids = tokenizer.convert_tokens_to_ids(tokens)

Which characters are letters, marks or punctuation is what the running Python's `unicodedata` says,
as in Google's code. Nothing here needs TensorFlow.
"""

import collections
import unicodedata

from training.command import UserError

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

MAX_WORD_CHARS = 200  # a longer word is [UNK]
MAX_CACHED_WORDS = 1 << 18

# Chinese to BERT: CJK ideographs; kana and hangul are written in words.
CHINESE_BLOCKS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))


def convert_to_unicode(text):
    """A str as it is; bytes decoded as UTF-8 with undecodable bytes left out.

    Raises:
      ValueError: neither str nor bytes.
    """
    if isinstance(text, str):
        return text
    if isinstance(text, bytes):
        return text.decode("utf-8", "ignore")
    raise ValueError("text must be str or bytes, not %s" % type(text))


def load_vocab(vocab_file):
    """Reads a vocabulary: one token a line, the first has id 0.

    Returns:
      OrderedDict of token -> id.

    Raises:
      UserError: empty, not UTF-8, a token twice, or one of `SPECIAL_TOKENS` missing.
    """
    vocab = collections.OrderedDict()
    with open(vocab_file, "rb") as stream:
        # Lines end at \n alone: U+2028 and \x85 may be tokens of the vocabulary.
        for number, line in enumerate(stream, start=1):
            try:
                token = line.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise UserError("%s:%d: not UTF-8 at byte %d of the line; convert the file"
                                % (vocab_file, number, error.start + 1))
            if token in vocab:
                raise UserError("%s:%d: %s stands already in line %d; a token may stand once only"
                                % (vocab_file, number, token or "the empty token", vocab[token] + 1))
            vocab[token] = number - 1
    if not vocab:
        raise UserError("%s:1: empty; a vocabulary has one token a line" % vocab_file)
    missing = [token for token in SPECIAL_TOKENS if token not in vocab]
    if missing:
        raise UserError("%s:%d: ends without %s; every BERT vocabulary has a line for each of %s"
                        % (vocab_file, len(vocab), ", ".join(missing), " ".join(SPECIAL_TOKENS)))
    return vocab


def convert_by_vocab(vocab, items):
    """Looks up each item; a KeyError names one that is missing."""
    return [vocab[item] for item in items]


def convert_tokens_to_ids(vocab, tokens):
    return convert_by_vocab(vocab, tokens)


def convert_ids_to_tokens(inv_vocab, ids):
    return convert_by_vocab(inv_vocab, ids)


def whitespace_tokenize(text):
    return text.split()


class FullTokenizer:
    """Text to WordPieces of a vocabulary: `BasicTokenizer`, then `WordpieceTokenizer`."""

    def __init__(self, vocab_file, do_lower_case=True):
        """Raises UserError when the vocabulary is not usable, see `load_vocab`."""
        self.vocab = load_vocab(vocab_file)
        self.inv_vocab = {number: token for token, number in self.vocab.items()}
        self.basic_tokenizer = BasicTokenizer(do_lower_case=do_lower_case)
        self.wordpiece_tokenizer = WordpieceTokenizer(vocab=self.vocab)

    def tokenize(self, text):
        """str or UTF-8 bytes -> list of tokens."""
        pieces = self.wordpiece_tokenizer.pieces
        return [piece for word in self.basic_tokenizer.tokenize(text) for piece in pieces[word]]

    def convert_tokens_to_ids(self, tokens):
        return convert_by_vocab(self.vocab, tokens)

    def convert_ids_to_tokens(self, ids):
        return convert_by_vocab(self.inv_vocab, ids)


class BasicTokenizer:
    """Text to words: a word ends at white space, at punctuation, and around each Chinese character."""

    def __init__(self, do_lower_case=True):
        """Args: do_lower_case: whether to lower-case and to drop accents (nonspacing marks)."""
        self.do_lower_case = do_lower_case

    def tokenize(self, text):
        """str or UTF-8 bytes -> list of words.

        Works on the whole text at once: white space is neither cased nor skipped when Python looks
        for a final sigma, and nothing composes with it, so the words come out as if one by one.
        """
        text = convert_to_unicode(text).translate(_SPACED)
        if self.do_lower_case:
            text = unicodedata.normalize("NFD", text.lower()).translate(_PUNCTUATION_AND_NO_MARKS)
        else:
            text = text.translate(_PUNCTUATION)
        return text.split()


class WordpieceTokenizer:
    """A word to pieces: from its start, always the longest piece in the vocabulary.

    `unaffable` -> `un ##aff ##able`, say; a word with a part in no piece, or over
    `max_input_chars_per_word` characters, is `unk_token`.
    """

    def __init__(self, vocab, unk_token=UNK, max_input_chars_per_word=MAX_WORD_CHARS):
        """Args: vocab: tokens; must not change later."""
        self.vocab = vocab
        self.unk_token = unk_token
        self.max_input_chars_per_word = max_input_chars_per_word
        self.pieces = _Cache(self._cut)
        self._longest = max(map(len, vocab), default=0)

    def tokenize(self, text):
        """Words separated by white space (str or UTF-8 bytes) -> list of pieces."""
        words = whitespace_tokenize(convert_to_unicode(text))
        return [piece for word in words for piece in self.pieces[word]]

    def _cut(self, word):
        if len(word) > self.max_input_chars_per_word:
            return (self.unk_token,)
        pieces = []
        start, prefix = 0, ""
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                piece = prefix + word[start:end]
                if piece in self.vocab:
                    break
            else:
                return (self.unk_token,)
            pieces.append(piece)
            start, prefix = end, "##"
        return tuple(pieces)


class _Cache(dict):
    """A function's answers, begun anew when there are `MAX_CACHED_WORDS` of them."""

    def __init__(self, function):
        super().__init__()
        self._function = function

    def __missing__(self, key):
        if len(self) >= MAX_CACHED_WORDS:
            self.clear()
        value = self[key] = self._function(key)
        return value


def is_chinese(char):
    return any(first <= ord(char) <= last for first, last in CHINESE_BLOCKS)


def is_punctuation(char):
    # All of ASCII that is neither letter nor digit counts, "$" and "^" too, which Unicode calls symbols.
    if "!" <= char <= "~":
        return not char.isalnum()
    return unicodedata.category(char).startswith("P")


# The three tables hold what becomes of a code point; they fill themselves as text is read.

def _spaced(code):
    """Without control characters, white space as a space, Chinese characters as words."""
    char = chr(code)
    if char in "\t\n\r" or unicodedata.category(char) == "Zs":
        return " "
    if code == 0xFFFD or unicodedata.category(char) in ("Cc", "Cf"):
        return ""
    return " %s " % char if is_chinese(char) else char


def _punctuation(code):
    """Punctuation as words."""
    char = chr(code)
    return " %s " % char if is_punctuation(char) else char


def _punctuation_and_no_marks(code):
    """Punctuation as words, without accents."""
    return "" if unicodedata.category(chr(code)) == "Mn" else _punctuation(code)


_SPACED = _Cache(_spaced)
_PUNCTUATION = _Cache(_punctuation)
_PUNCTUATION_AND_NO_MARKS = _Cache(_punctuation_and_no_marks)
