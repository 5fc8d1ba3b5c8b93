"""A WordPiece vocabulary for Chinese text.

    python -m bert.vocabulary build --input_file='corpus/*.txt' --output_file=vocab.txt --vocab_size=8000

build: counts the words of a corpus (UTF-8, one sentence a line) and writes the vocabulary, laid out as
Google's Chinese one: [PAD] with id 0, 99 [unusedN] slots, [UNK] [CLS] [SEP] [MASK], then the characters,
then whole words. The most frequent come first; the same corpus gives the same bytes.
"""

import collections
import os
import sys

from absl import flags
from tqdm import tqdm

from bert import corpus
from bert import tokenization
from training import command
from training import files
from training.command import UserError

FIRST_TOKENS = (
    [tokenization.PAD] + ["[unused%d]" % number for number in range(1, 100)]
    + [tokenization.UNK, tokenization.CLS, tokenization.SEP, tokenization.MASK])


def define_build_flags():
    flags.DEFINE_string("input_file", None, "Text files, comma-separated, with * and ?.")
    flags.DEFINE_string("output_file", None, "The vocabulary to write, one token a line.")
    flags.DEFINE_integer("vocab_size", 8000, "Tokens at most; fewer when the corpus has no more.",
                         lower_bound=len(FIRST_TOKENS) + 1)
    flags.DEFINE_bool("do_lower_case", True, "Lower-case the text and drop accents.")
    flags.mark_flags_as_required(["input_file", "output_file"])


def build():
    values = flags.FLAGS
    input_files = files.matching_files(values.input_file, "input_file")
    corpus.check_outputs([values.output_file], input_files)
    words = count_words(input_files, values.do_lower_case)
    if not words:
        raise UserError("--input_file=%s: no text to make a vocabulary of" % values.input_file)
    tokens = choose_tokens(words, values.vocab_size)
    files.write_text(values.output_file, "".join(token + "\n" for token in tokens))
    print("%s: %d tokens; %.3f %% of the corpus's words can be spelled with them"
          % (values.output_file, len(tokens), 100 * share_spelled(words, tokens)))


def count_words(input_files, do_lower_case=True):
    """Counter of the words `BasicTokenizer` finds; Chinese characters and punctuation are words.

    Raises:
      UserError: input that is not UTF-8.
    """
    tokenizer = tokenization.BasicTokenizer(do_lower_case)
    words = collections.Counter()
    total = sum(os.path.getsize(name) for name in input_files)
    with tqdm(total=total, desc="text", unit="B", unit_scale=True, file=sys.stderr,
              mininterval=0.2 if sys.stderr.isatty() else 10) as progress:
        for document in corpus.read_documents(input_files):
            for sentence in document.sentences:
                words.update(tokenizer.tokenize(sentence))
            progress.update(document.num_bytes)
    return words


def choose_tokens(words, vocab_size):
    """The tokens of a vocabulary, in order of their ids.

    After `FIRST_TOKENS` come the characters by count. One that occurs in words of several characters
    stands there twice, `x` and `##x`, so that such words can be spelled. What room is left holds whole
    words seen more than once, by count.

    Args:
      words: Counter of words.
      vocab_size: tokens at most.
    """
    usable = {word: count for word, count in words.items() if len(word) <= tokenization.MAX_WORD_CHARS}
    long_words = {word: count for word, count in usable.items() if len(word) > 1 and count > 1}
    in_words = {char for word in usable if len(word) > 1 for char in word}
    tokens = list(FIRST_TOKENS)
    for char in by_count(count_characters(usable)):
        forms = [char, "##" + char] if char in in_words else [char]
        if len(tokens) + len(forms) > vocab_size:
            return tokens
        tokens += forms
    return tokens + by_count(long_words)[:vocab_size - len(tokens)]


def count_characters(words):
    """Counter of the characters in counted words."""
    characters = collections.Counter()
    for word, count in words.items():
        for char in word:
            characters[char] += count
    return characters


def by_count(counts):
    """The keys, the largest count first, equal counts in the order of their code points."""
    return sorted(counts, key=lambda key: (-counts[key], key))


def share_spelled(words, tokens):
    """The share of the counted words that is not [UNK]."""
    wordpiece = tokenization.WordpieceTokenizer(set(tokens))
    known = sum(count for word, count in words.items() if wordpiece.pieces[word] != (tokenization.UNK,))
    return known / sum(words.values())


if __name__ == "__main__":
    command.run_action({"build": (build, define_build_flags)})
