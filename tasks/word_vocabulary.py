"""Makes the vocabulary of --tokenizer=words from the texts of a training file, and of no other.

    python -m tasks.word_vocabulary --input_file=data/train.tsv --output_file=words.txt
    python -m tasks.word_vocabulary --input_file=data/train.tsv --output_file=words.txt --vocab_size=10000

Words are found by jieba and lower-cased. [PAD] [UNK] [CLS] [SEP] [MASK] come first, then the words, the most frequent
first and equal ones by code point, so the same texts give the same bytes. The number of lines is printed: it is the
'vocab_size' of the JSON of a model that reads them.
"""

import collections

from absl import flags

from bert import corpus
from bert import coverage
from bert.tokenization import SPECIAL_TOKENS
from bert.word_tokenization import BasicWordTokenizer
from tasks import text_files
from training import command
from training import files
from training import progress
from training.command import UserError


def define_flags():
    flags.DEFINE_string("input_file", None, "The training texts (.tsv, .csv, .jsonl, or .txt: one a line); "
                        "several, comma-separated, with * and ?.", required=True)
    flags.DEFINE_string("output_file", None, "The vocabulary to write, one word a line.", required=True)
    flags.DEFINE_integer("vocab_size", 30000, "Lines at most; the rarest words are left out.",
                         lower_bound=len(SPECIAL_TOKENS) + 1)
    flags.DEFINE_integer("min_count", 2, "How often a word must occur. With 1, and room for all, no word of the "
                         "training texts is [UNK], and a model does not learn what to make of it.", lower_bound=1)
    flags.DEFINE_bool("do_lower_case", True, "Lower-case the words; as the model that reads them.")
    flags.DEFINE_enum("errors", "stop", ["stop", "skip"], "At a row that cannot be used: stop and name it, or skip "
                      "it and count.")


def main():
    values = flags.FLAGS
    input_files = files.matching_files(values.input_file, "input_file")
    corpus.check_outputs([values.output_file], input_files)
    bad_rows = text_files.BadRows(values.errors)
    words = count_words(input_files, BasicWordTokenizer(values.do_lower_case), bad_rows)
    tokens = choose_tokens(words, values.vocab_size, values.min_count)
    if len(tokens) == len(SPECIAL_TOKENS):
        raise UserError("--input_file=%s: no word occurs --min_count=%d times; give more texts or a lower number"
                        % (values.input_file, values.min_count))
    files.write_text(values.output_file, "".join(token + "\n" for token in tokens))
    unknown = sum(words.values()) - sum(words[token] for token in tokens)
    print('{}: {} tokens, to be "vocab_size": {} in the model\'s JSON; {:.2%} of the words are [UNK], {:,} rows left '
          'out'.format(values.output_file, len(tokens), len(tokens), unknown / sum(words.values()), bad_rows.count))


def count_words(input_files, tokenizer, bad_rows):
    """Counter of the words of all texts.

    Args:
      input_files: list of names.
      tokenizer: has tokenize(text).
      bad_rows: `text_files.BadRows`.

    Raises:
      UserError: as `text_files.read_rows`.
    """
    words = collections.Counter()
    with progress.bar(None, "words", " texts") as shown:
        for path in input_files:
            for row in text_files.read_rows(path, bad_rows=bad_rows):
                words.update(tokenizer.tokenize(row.text_a))
                words.update(tokenizer.tokenize(row.text_b or ""))
                shown.update()
    return words


def choose_tokens(words, vocab_size, min_count):
    """The tokens of a vocabulary, in order of their ids.

    Args:
      words: Counter of words.
      vocab_size: tokens at most.
      min_count: rarer words are left out.
    """
    frequent = {word: count for word, count in words.items() if count >= min_count}
    return (list(SPECIAL_TOKENS) + coverage.by_count(frequent))[:vocab_size]


if __name__ == "__main__":
    command.run(main, define_flags)
