"""A WordPiece vocabulary for Chinese text: made, measured, or fitted to a domain.

    python -m bert.vocabulary build --input_file='corpus/*.txt' --output_file=vocab.txt --vocab_size=8000
    python -m bert.vocabulary coverage --input_file='corpus/*.txt' --vocab_file=vocab.txt
    python -m bert.vocabulary extend --input_file='corpus/*.txt' --vocab_file=vocab.txt --output_file=domain.txt

Each reads a corpus, in the forms that `bert.create_pretraining_data` reads, and counts its words; a Chinese character
or a punctuation mark is a word. --help behind an action lists its flags.

build: writes a vocabulary laid out as Google's Chinese one: [PAD] with id 0, 99 [unusedN] slots, [UNK] [CLS] [SEP]
[MASK], then the characters, then whole words. The most frequent come first; the same corpus gives the same bytes.

coverage: tells which words of the corpus become [UNK]: their share, the most frequent unknown characters with a
place where each stands, longer words, and the names of the chemical elements that the vocabulary lacks.

extend: writes the vocabulary anew with characters in its [unusedN] slots, from the first slot on: the unknown ones
of the corpus, the most frequent first. No other token moves and none is added at the end, so a checkpoint for the
old vocabulary loads with the new one; what it knows of a filled slot is nothing until it is trained further.
Only characters that are words by themselves are added: Chinese ones, punctuation, a letter or sign that stands
alone. One slot makes each of them known; the µ inside 5µm would need a form of its own, `##µ`, and stays unknown.
"""

import collections
import re
import sys

from absl import flags

from bert import corpus
from bert import coverage
from bert import tokenization
from training import command
from training import files
from training.command import UserError

FIRST_TOKENS = (
    [tokenization.PAD] + ["[unused%d]" % number for number in range(1, 100)]
    + [tokenization.UNK, tokenization.CLS, tokenization.SEP, tokenization.MASK])
SLOT = re.compile(r"\[unused\d+\]")
CHARACTERS_SHOWN = 40   # of those without a slot


# ---- build

def define_build_flags():
    _define_corpus_flags()
    flags.DEFINE_string("output_file", None, "The vocabulary to write, one token a line.")
    flags.DEFINE_integer("vocab_size", 8000, "Tokens at most; fewer when the corpus has no more.",
                         lower_bound=len(FIRST_TOKENS) + 1)
    flags.mark_flag_as_required("output_file")


def build():
    values = flags.FLAGS
    input_files = files.matching_files(values.input_file, "input_file")
    corpus.check_outputs([values.output_file], input_files)
    words = _count(input_files, values).words
    tokens = choose_tokens(words, values.vocab_size)
    files.write_text(values.output_file, "".join(token + "\n" for token in tokens))
    print("%s: %d tokens; %.3f %% of the corpus's words can be spelled with them"
          % (values.output_file, len(tokens), 100 * (1 - coverage.share_unknown(words, set(tokens)))))


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
    for char in coverage.by_count(count_characters(usable)):
        forms = [char, "##" + char] if char in in_words else [char]
        if len(tokens) + len(forms) > vocab_size:
            return tokens
        tokens += forms
    return tokens + coverage.by_count(long_words)[:vocab_size - len(tokens)]


def count_characters(words):
    """Counter of the characters in counted words."""
    characters = collections.Counter()
    for word, count in words.items():
        for char in word:
            characters[char] += count
    return characters


# ---- coverage

def define_coverage_flags():
    _define_corpus_flags()
    flags.DEFINE_string("vocab_file", None, "The vocabulary to measure, one token a line.")
    flags.DEFINE_integer("top", 20, "Unknown characters shown, the most frequent.", lower_bound=0)
    flags.mark_flag_as_required("vocab_file")


def measure():
    values = flags.FLAGS
    input_files = files.matching_files(values.input_file, "input_file")
    vocab = tokenization.load_vocab(values.vocab_file)
    _print(coverage.report(_count(input_files, values), vocab, values.top))


# ---- extend

def define_extend_flags():
    _define_corpus_flags()
    flags.DEFINE_string("vocab_file", None, "The vocabulary with [unusedN] slots; stays as it is.")
    flags.DEFINE_string("output_file", None, "The vocabulary to write.")
    flags.DEFINE_integer("min_count", 2, "How often a character must occur to be added.", lower_bound=1)
    flags.DEFINE_bool("add_elements", False,
                      "Add the missing ones among the names of the 118 chemical elements, too, however rare.")
    flags.DEFINE_integer("num_slots", None, "Slots filled at most; what is left over then, the rarest, is printed. "
                         "Without this flag all may be filled, and too few of them are an error.", lower_bound=1)
    flags.mark_flags_as_required(["vocab_file", "output_file"])


def extend():
    values = flags.FLAGS
    input_files = files.matching_files(values.input_file, "input_file")
    corpus.check_outputs([values.output_file], input_files + [values.vocab_file])
    vocab = tokenization.load_vocab(values.vocab_file)
    slots = free_slots(vocab)
    check_num_slots(values.num_slots, slots, values.vocab_file)
    words = _count(input_files, values).words
    wanted = choose_characters(words, vocab, values.min_count, values.add_elements)
    if values.num_slots is None:
        check_room(wanted, slots, values)
    room = values.num_slots or len(slots)
    added, left_out = wanted[:room], wanted[room:]
    content = fill_slots(files.read_bytes(values.vocab_file), vocab, dict(zip(slots, added)))
    files.write_bytes(values.output_file, content)
    _print([
        "%s: %d of %d [unusedN] slots filled%s" % (
            values.output_file, len(added), len(slots), ": " + " ".join(added) if added else ""),
        "[UNK]: %s before, %s after" % (
            coverage.tell_unknown(words, vocab), coverage.tell_unknown(words, set(vocab).union(added)))]
        + (["left out: %s" % _some(left_out)] if left_out else []))


def free_slots(vocab):
    """The [unusedN] tokens, in the order of their ids."""
    return [token for token in vocab if SLOT.fullmatch(token)]


def choose_characters(words, vocab, min_count, add_elements):
    """The characters to be added, the most frequent first.

    Args:
      words: Counter of words.
      vocab: tokens.
      min_count: rarer ones are left out.
      add_elements: whether the missing names of elements come in too, whatever their count.
    """
    wanted = {char: count for char, count in coverage.unknown_characters(words, vocab).items() if count >= min_count}
    if add_elements:
        wanted.update((char, words[char]) for char in coverage.missing_elements(vocab))
    return coverage.by_count(wanted)


def check_num_slots(num_slots, slots, vocab_file):
    """Raises UserError when more slots are asked for than there are."""
    if num_slots is not None and num_slots > len(slots):
        raise UserError("--num_slots=%d: %s has %d [unusedN] slots; give a lower number"
                        % (num_slots, vocab_file, len(slots)))


def check_room(characters, slots, values):
    """Raises UserError when there are fewer slots than characters; it names those that do not fit."""
    if len(characters) <= len(slots):
        return
    if slots:
        remedy = "raise --min_count=%d%s, or accept what fits with --num_slots=%d" % (
            values.min_count, ", leave out --add_elements" if values.add_elements else "", len(slots))
    else:
        remedy = "give a vocabulary with slots, such as Google's or one of the action build"
    raise UserError("%s: %d [unusedN] slots for %d characters, none for %s; %s" % (
        values.vocab_file, len(slots), len(characters), _some(characters[len(slots):]), remedy))


def fill_slots(content, vocab, filled):
    """A vocabulary file's bytes with tokens in place of others; nothing else changes.

    Args:
      content: bytes of the file.
      vocab: dict of token -> id.
      filled: dict of slot -> token.
    """
    lines = content.split(b"\n")
    for slot, token in filled.items():
        lines[vocab[slot]] = lines[vocab[slot]].replace(slot.encode("utf-8"), token.encode("utf-8"))
    return b"\n".join(lines)


# ---- what the actions share

def _define_corpus_flags():
    flags.DEFINE_string("input_file", None, "Text files, comma-separated, with * and ?.")
    flags.DEFINE_bool("do_lower_case", True, "Lower-case the text and drop accents.")
    corpus.define_format_flags()
    flags.mark_flag_as_required("input_file")


def _count(input_files, values):
    """`Counts` of a corpus; one without a word is refused."""
    counts = coverage.count_words(input_files, values.do_lower_case, corpus.format_of(values))
    if counts.bad_lines:
        print("bad lines %d, left out" % counts.bad_lines)
    if not counts.words:
        raise UserError("--input_file=%s: no text in it; give files with at least one sentence" % values.input_file)
    return counts


def _some(characters):
    more = len(characters) - CHARACTERS_SHOWN
    return " ".join(characters[:CHARACTERS_SHOWN]) + (" and %d more" % more if more > 0 else "")


def _print(lines):
    # A terminal that is not UTF-8 lacks the very characters that this is about.
    sys.stdout.reconfigure(errors="backslashreplace")
    print("\n".join(lines))


if __name__ == "__main__":
    command.run_action({
        "build": (build, define_build_flags),
        "coverage": (measure, define_coverage_flags),
        "extend": (extend, define_extend_flags)})
