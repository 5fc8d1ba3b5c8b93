import collections

import pytest

from bert import corpus
from bert import coverage
from bert import tokenization

VOCAB = {token: number for number, token in enumerate(
    ["[UNK]", "酸", "a", "##b", "##µ", "氢"])}


def count(tmp_path, content, do_lower_case=True):
    (tmp_path / "a.txt").write_bytes(content.encode("utf-8"))
    return coverage.count_words([str(tmp_path / "a.txt")], do_lower_case)


def report(words, top=20, examples=None):
    examples = examples or {word: "e" for word in words}
    return coverage.report(coverage.Counts(1, 1, collections.Counter(words), examples, 0), VOCAB, top)


# ---- the elements

def test_there_are_118_elements_and_each_is_a_word_that_is_itself():
    assert (len(coverage.ELEMENTS), len(set(coverage.ELEMENTS))) == (118, 118)
    for do_lower_case in (True, False):
        words = tokenization.BasicTokenizer(do_lower_case).tokenize(coverage.ELEMENTS)
        assert words == list(coverage.ELEMENTS)


@pytest.mark.parametrize("number, code", [
    (1, 0x6C22), (2, 0x6C26), (6, 0x78B3), (8, 0x6C27), (10, 0x6C16), (18, 0x6C29), (26, 0x94C1),
    (36, 0x6C2A), (39, 0x9487), (40, 0x9506), (47, 0x94F6), (54, 0x6C19), (57, 0x9567), (71, 0x9565),
    (72, 0x94EA), (79, 0x91D1), (86, 0x6C21), (92, 0x94C0), (103, 0x94F9), (104, 0x2CB3B), (105, 0x2CB4A),
    (106, 0x2CB73), (107, 0x2CB5B), (108, 0x2CB76), (109, 0x9FCF), (110, 0x2B7FC), (111, 0x2CB2D), (112, 0x9FD4),
    (113, 0x9FED), (114, 0x2B4E7), (115, 0x9546), (116, 0x2B7F7), (117, 0x9FEC), (118, 0x9FEB)])
def test_elements_stand_at_their_atomic_number(number, code):
    assert ord(coverage.ELEMENTS[number - 1]) == code


# ---- counting

def test_documents_sentences_and_words_are_counted(tmp_path):
    counts = count(tmp_path, "酸 AB。\n酸\n\n\nab\n")
    assert (counts.documents, counts.sentences) == (2, 3)
    assert counts.words == {"酸": 2, "ab": 2, "。": 1}


def test_progress_is_told_in_bytes_of_the_text(tmp_path, capsys):
    count(tmp_path, "酸\n" * 500)
    assert "100%" in capsys.readouterr().err


def test_a_document_that_is_read_in_parts_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "CELL_BYTES", 30)
    monkeypatch.setattr(corpus, "WINDOW_BYTES", 10)
    content = "\n".join(["句子"] * 40) + "\n\n酸\n"
    (tmp_path / "a.txt").write_bytes(content.encode("utf-8"))
    assert sum(document.continues for document in corpus.read_documents([str(tmp_path / "a.txt")])) > 0
    counts = count(tmp_path, content)
    assert (counts.documents, counts.sentences) == (2, 41)


def test_an_example_is_the_first_place_cut_to_what_surrounds_it(tmp_path):
    long = "酸" * 30 + "锶" + "管" * 30
    examples = count(tmp_path, "头\n" + long + "\n锶\n").examples
    assert examples["锶"] == "…" + "酸" * 20 + "锶" + "管" * 20 + "…"
    assert examples["头"] == "头"


def test_only_characters_have_examples(tmp_path):
    assert set(count(tmp_path, "酸 pvc x\n").examples) == {"酸", "x"}


@pytest.mark.parametrize("char, word", [("Ⅶ", "ⅶ"), ("Ä", "a"), ("\uf90a", "金")])
def test_the_example_shows_what_stands_in_the_text_for_the_word(tmp_path, char, word):
    line = "。" * 100 + char
    assert count(tmp_path, line).examples[word] == "…" + "。" * 20 + char


def test_an_example_is_one_line_without_what_is_invisible(tmp_path):
    assert count(tmp_path, "a\x1b[31m\t\u2028 \u202e锶\n").examples["锶"] == "a [31m 锶"


# ---- what is unknown

def test_unknown_words_keep_their_counts():
    words = collections.Counter({"酸": 6, "ab": 3, "油": 1, "ba": 2})
    assert coverage.unknown_words(words, VOCAB) == {"油": 1, "ba": 2}
    assert coverage.unknown_characters(words, VOCAB) == {"油": 1}
    assert coverage.share_unknown(words, VOCAB) == 0.25
    assert coverage.tell_unknown(words, VOCAB) == "3 of 12 words (25.000 %)"


def test_a_word_that_is_too_long_is_unknown_but_no_character():
    words = collections.Counter({"a" + "b" * 200: 2})
    assert coverage.unknown_words(words, VOCAB) == words
    assert coverage.unknown_characters(words, VOCAB) == {}


def test_the_report_shows_the_most_frequent_characters_and_equal_ones_by_code_point():
    lines = report({"锶": 2, "油": 1234, "肼": 2, "酸": 9}, top=2)
    assert lines[3:7] == [
        "Unknown characters: 3, 1,238 times in all; the most frequent:",
        "     1,234  油  U+6CB9  e", "         2  肼  U+80BC  e", ""]
    assert report({"锶": 2}, top=0)[3:5] == ["Unknown characters: 1, 2 times in all", ""]


def test_the_report_tells_longer_words_in_brief():
    words = {"w%02d" % number: 100 - number for number in range(20)}
    line, = [line for line in report(dict(words, **{"y" * 50: 500})) if line.startswith("Unknown words")]
    assert line.startswith("Unknown words of several characters: 21, 2,310 times in all; the most frequent: "
                           + "y" * 30 + "… 500, w00 100, ")
    assert line.endswith(", w08 92")


def test_the_report_tells_which_missing_elements_the_text_needs():
    lines = report({"锶": 2, "铟": 3, "氢": 9, "酸": 1})
    assert lines[-3:-1] == [
        "Names of the elements: 117 of 118 are missing from the vocabulary", "  in the corpus: 铟 3, 锶 2"]
    assert lines[-1].startswith("  not in it: 氦 锂 铍 ")
    assert len(lines[-1].split(": ")[1].split()) == 115
