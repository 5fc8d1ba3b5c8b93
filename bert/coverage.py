"""How well a vocabulary covers a corpus: the words that become [UNK], and the names of the elements.

Words are those of `BasicTokenizer`: a Chinese character or a punctuation mark is one, lower-cased and without
accents when asked. So what is counted is what the vocabulary is asked for, not what stands in the file.
"""

import collections
import os
import unicodedata

from bert import corpus
from bert import tokenization
from training import progress

# The Chinese names of the chemical elements by atomic number, 1 to 118. Nine of those from 104 on lie past
# U+FFFF.
ELEMENTS = (
    "氢氦锂铍硼碳氮氧氟氖钠镁铝硅磷硫氯氩钾钙钪钛钒铬锰铁钴镍铜锌镓锗砷硒溴氪铷锶钇锆铌钼锝钌铑钯银镉铟锡锑碲碘氙"
    "铯钡镧铈镨钕钷钐铕钆铽镝钬铒铥镱镥铪钽钨铼锇铱铂金汞铊铅铋钋砹氡钫镭锕钍镤铀镎钚镅锔锫锎锿镄钔锘铹"
    "𬬻𬭊𬭳𬭛𬭶鿏𫟼𬬭鿔鿭𫓧镆𫟷鿬鿫")

EXAMPLE_CHARS = 20      # of an example on each side of the character
LONG_WORDS_SHOWN = 10
LONG_WORD_CHARS = 30    # shown of a longer word

Counts = collections.namedtuple("Counts", [
    "documents",
    "sentences",
    "words",        # Counter of words
    "examples",     # a word of one character -> the first place it stands at, cut out of its sentence
    "bad_lines",    # left out
])


def count_words(input_files, do_lower_case=True, form=corpus.PLAIN):
    """`Counts` of a corpus; memory grows with the words that differ, examples with the characters that do.

    Args:
      input_files: list of names.
      do_lower_case: as of `BasicTokenizer`.
      form: `corpus.Format`.

    Raises:
      UserError: input that cannot be read, see `corpus.RangeReader`.
    """
    tokenizer = tokenization.BasicTokenizer(do_lower_case)
    words, examples, left_out = collections.Counter(), {}, collections.Counter()
    documents = sentences = 0
    with progress.bar(sum(os.path.getsize(name) for name in input_files), "text", "B") as shown:
        for document in corpus.read_documents(input_files, form, shown.update, left_out):
            documents += not document.continues
            sentences += len(document.sentences)
            for sentence in document.sentences:
                known = len(words)
                found = tokenizer.tokenize(sentence)
                words.update(found)
                if len(words) > known:
                    _add_examples(examples, set(found), sentence, tokenizer)
    return Counts(documents, sentences, words, examples, left_out["bad_lines"])


def _add_examples(examples, words, sentence, tokenizer):
    for word in words:
        if len(word) == 1 and word not in examples:
            examples[word] = _surroundings(sentence, _place(word, sentence, tokenizer))


def _place(char, sentence, tokenizer):
    """Where a character stands, if need be in a form (upper case, accented) that the tokenizer turns into it."""
    place = sentence.find(char)
    if place < 0:
        place = next((place for place, raw in enumerate(sentence) if char in tokenizer.tokenize(raw)), 0)
    return place


def _surroundings(sentence, place):
    """The sentence around a place, in one line; what is invisible there is left out."""
    start, end = max(place - EXAMPLE_CHARS, 0), place + 1 + EXAMPLE_CHARS
    shown = "".join(" " if unicodedata.category(char) in ("Cc", "Cf") else char for char in sentence[start:end])
    return ("…" if start else "") + " ".join(shown.split()) + ("…" if end < len(sentence) else "")


def by_count(counts):
    """The keys, the largest count first, equal counts in the order of their code points."""
    return sorted(counts, key=lambda key: (-counts[key], key))


def unknown_words(words, vocab):
    """Counter of the words that are [UNK].

    Args:
      words: Counter of words.
      vocab: tokens; what `in` works on.
    """
    pieces = tokenization.WordpieceTokenizer(vocab).pieces
    return collections.Counter({
        word: count for word, count in words.items() if pieces[word] == (tokenization.UNK,)})


def unknown_characters(words, vocab):
    """Counter of the words of one character that are [UNK]: those that a token of their own makes known."""
    return collections.Counter({word: count for word, count in words.items() if len(word) == 1 and word not in vocab})


def missing_elements(vocab):
    """The names of elements that are no token, by atomic number."""
    return [char for char in ELEMENTS if char not in vocab]


def share_unknown(words, vocab):
    """The share of the counted words that is [UNK]; a word counts as often as it occurs."""
    return sum(unknown_words(words, vocab).values()) / sum(words.values())


def tell_unknown(words, vocab):
    """How many of the counted words are [UNK], to be printed."""
    return "{:,} of {:,} words ({:.3f} %)".format(
        sum(unknown_words(words, vocab).values()), sum(words.values()), 100 * share_unknown(words, vocab))


def report(counts, vocab, top):
    """What `vocab` does not cover, as lines to print.

    Args:
      counts: `Counts` with at least one word.
      vocab: dict of token -> id.
      top: characters shown.
    """
    unknown = unknown_words(counts.words, vocab)
    characters = unknown_characters(counts.words, vocab)
    return [
        "{:,} documents, {:,} sentences, {:,} words (a Chinese character or a punctuation mark is one)".format(
            counts.documents, counts.sentences, sum(counts.words.values())),
        "[UNK]: " + tell_unknown(counts.words, vocab),
        *_character_lines(characters, counts.examples, top),
        *_word_lines(unknown - characters),
        *_element_lines(counts.words, missing_elements(vocab))]


def _character_lines(characters, examples, top):
    lines = ["", "Unknown characters: {:,}, {:,} times in all{}".format(
        len(characters), sum(characters.values()), "; the most frequent:" if characters and top else "")]
    for char in by_count(characters)[:top]:
        lines.append("{:>10,}  {}  U+{:04X}  {}".format(characters[char], char, ord(char), examples[char]))
    return lines


def _word_lines(words):
    shown = [_with_count(word, words) for word in by_count(words)[:LONG_WORDS_SHOWN]]
    return ["", "Unknown words of several characters: {:,}, {:,} times in all{}".format(
        len(words), sum(words.values()), "; the most frequent: " + ", ".join(shown) if shown else "")]


def _element_lines(words, missing):
    seen = by_count({char: words[char] for char in missing if char in words})
    return [
        "", "Names of the elements: %d of %d are missing from the vocabulary" % (len(missing), len(ELEMENTS)),
        "  in the corpus: " + (", ".join(_with_count(char, words) for char in seen) or "none"),
        "  not in it: " + (" ".join(char for char in missing if char not in words) or "none")]


def _with_count(word, words):
    shown = word if len(word) <= LONG_WORD_CHARS else word[:LONG_WORD_CHARS] + "…"
    return "{} {:,}".format(shown, words[word])
