import collections
import os

import pytest

from bert.tokenization import SPECIAL_TOKENS
from bert.word_tokenization import WordTokenizer
from tasks import word_vocabulary
from tests import commands
from tests import graphs
from tests import tiny

pytestmark = graphs.ON_TENSORFLOW_2

SPECIAL = list(SPECIAL_TOKENS)
TRAIN = [("好", "苹果手机 USB"), ("坏", "苹果，苹果 usb 手机"), ("坏", "管材")]


@pytest.fixture
def make(tmp_path, forks):
    """Runs the command on `TRAIN`, or as the flags say; returns (the file's tokens or None, Result)."""
    def run(*flags):
        source = tiny.write_tsv(tmp_path / "train.tsv", TRAIN)
        target = str(tmp_path / "words.txt")
        result = forks.run("tasks.word_vocabulary", "--input_file=" + source, "--output_file=" + target, *flags)
        return commands.read(target).split("\n")[:-1] if os.path.exists(target) else None, result

    return run


def test_frequent_words_come_first_and_equal_ones_by_code_point():
    words = collections.Counter({"乙": 2, "b": 2, "甲": 5, "a": 1})
    assert word_vocabulary.choose_tokens(words, 100, 1) == SPECIAL + ["甲", "b", "乙", "a"]


def test_rare_words_and_those_past_the_size_are_left_out():
    words = collections.Counter({"乙": 2, "b": 2, "甲": 5, "a": 1})
    assert word_vocabulary.choose_tokens(words, 100, 2) == SPECIAL + ["甲", "b", "乙"]
    assert word_vocabulary.choose_tokens(words, 7, 1) == SPECIAL + ["甲", "b"]


def test_the_vocabulary_is_of_the_texts_alone_and_its_size_is_told(make, tmp_path):
    tokens, result = make("--min_count=1")
    assert result.code == 0, result.err
    assert tokens == SPECIAL + ["苹果", "usb", "手机", "管材", "，"]  # no label, no header
    assert result.out == ("%s: 10 tokens, to be \"vocab_size\": 10 in the model's JSON; 0.00%% of the words are [UNK], "
                          "0 rows left out\n" % (tmp_path / "words.txt"))


def test_a_word_seen_once_is_unknown_unless_asked_for(make, tmp_path):
    tokens, result = make()
    assert tokens == SPECIAL + ["苹果", "usb", "手机"] and "22.22% of the words are [UNK]" in result.out
    tokenizer = WordTokenizer(str(tmp_path / "words.txt"))
    assert tokenizer.tokenize("管材USB") == ["[UNK]", "usb"]


def test_words_of_dev_alone_are_unknown(make, tmp_path):
    tiny.write_tsv(tmp_path / "dev.tsv", [("好", "聚氯乙烯 聚氯乙烯 聚氯乙烯")])
    make("--min_count=1")
    assert WordTokenizer(str(tmp_path / "words.txt")).tokenize("聚氯乙烯苹果") == ["[UNK]", "苹果"]


def test_the_same_texts_give_the_same_bytes_in_whatever_order(make, tmp_path):
    first = make("--min_count=1")[0]
    other = tiny.write_tsv(tmp_path / "other.tsv", list(reversed(TRAIN)))
    # A new Python hashes str anew.
    result = commands.run("tasks.word_vocabulary", "--input_file=" + other, "--min_count=1",
                          "--output_file=%s" % (tmp_path / "words.txt"), PYTHONHASHSEED="7")
    assert result.code == 0, result.err
    assert commands.read(str(tmp_path / "words.txt")).split("\n")[:-1] == first


def test_both_texts_of_a_pair_count(make, tmp_path):
    path = tiny.write_lines(tmp_path / "pairs.jsonl", ['{"label": 1, "text_a": "苹果", "text_b": "手机"}'] * 2)
    assert make("--input_file=" + path)[0] == SPECIAL + ["手机", "苹果"]


def test_case_is_kept_when_asked(make):
    assert {"USB", "usb"} <= set(make("--nodo_lower_case", "--min_count=1")[0])


def test_a_bad_row_is_named_or_left_out_and_counted(make, tmp_path):
    path = tiny.write_lines(tmp_path / "bad.tsv", ["label\ttext_a", "1\t苹果", "one column", "1\t苹果"])
    tokens, result = make("--input_file=" + path)
    assert tokens is None and "bad.tsv:3: 1 column where 2 are needed" in result.err
    tokens, result = make("--input_file=" + path, "--errors=skip")
    assert tokens == SPECIAL + ["苹果"] and "1 rows left out" in result.out


@pytest.mark.parametrize("flags, message", [
    (["--input_file=/absent.tsv"], "--input_file=/absent.tsv: no such file"),
    (["--min_count=9"], "no word occurs --min_count=9 times; give more texts or a lower number"),
    (["--output_file={folder}/train.tsv"], "train.tsv: is read as input too; choose another name"),
    (["--vocab_size=5"], "--vocab_size=5: 5 is not integer >= 6")])
def test_an_error_is_one_line_and_leaves_nothing(make, tmp_path, flags, message):
    tokens, result = make(*[flag.format(folder=tmp_path) for flag in flags])
    assert (result.code, result.out, tokens) == (1, "", None)
    last = [line for line in result.err.splitlines() if line][-1]
    assert last.startswith("word_vocabulary.py: error: ") and message in last and "Traceback" not in result.err
    assert os.listdir(str(tmp_path)) == ["train.tsv"]
