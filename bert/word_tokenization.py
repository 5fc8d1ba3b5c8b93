"""Text -> words -> ids: a basic tokenizer that lower-cases and splits at white space.

Chinese has no spaces, so jieba puts them in. It is the tokenizer of the undistilled student in Li et al. 2021 (4.3.1);
`tasks.word_vocabulary` makes its vocabulary of the training file alone.

    tokenizer = WordTokenizer("words.txt")
    tokens = tokenizer.tokenize("苹果手机 很好用")     # 苹果 手机 很 好 [UNK], say
"""

from bert.tokenization import UNK
from bert.tokenization import convert_by_vocab
from bert.tokenization import convert_to_unicode
from bert.tokenization import load_vocab
from bert.words import Segmenter


class BasicWordTokenizer:
    """Text to words; a mark is one, a control character too."""

    def __init__(self, do_lower_case=True):
        """Loads jieba. Args: do_lower_case: whether to lower-case; accents stay."""
        self.do_lower_case = do_lower_case
        self._segmenter = Segmenter()

    def tokenize(self, text):
        """str or UTF-8 bytes -> list of words."""
        # Case decides where jieba cuts, so it goes afterwards.
        spaced = " ".join(self._segmenter.cut(convert_to_unicode(text)))
        return (spaced.lower() if self.do_lower_case else spaced).split()


class WordTokenizer:
    """Text to words of a vocabulary, with the interface of `FullTokenizer`: any other word is [UNK]."""

    def __init__(self, vocab_file, do_lower_case=True):
        """Raises UserError when the vocabulary is not usable, see `load_vocab`."""
        self.vocab = load_vocab(vocab_file)
        self.inv_vocab = {number: token for token, number in self.vocab.items()}
        self.basic_tokenizer = BasicWordTokenizer(do_lower_case)

    def tokenize(self, text):
        """str or UTF-8 bytes -> list of tokens."""
        return [word if word in self.vocab else UNK for word in self.basic_tokenizer.tokenize(text)]

    def convert_tokens_to_ids(self, tokens):
        return convert_by_vocab(self.vocab, tokens)

    def convert_ids_to_tokens(self, ids):
        return convert_by_vocab(self.inv_vocab, ids)
