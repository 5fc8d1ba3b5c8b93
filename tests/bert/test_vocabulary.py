import collections
import os
import subprocess
import sys

import pytest

from bert import tokenization
from bert import vocabulary
from tests import peer

TEXT = "聚氯乙烯 PVC 管\n聚乙烯 PE 管 pvc\n\n一种PVC-U管，耐酸。\n"


def run(folder, *arguments):
    """The command in `folder`: (exit code, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "bert.vocabulary"] + list(arguments), cwd=str(folder), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True,
        env=dict(os.environ, PYTHONPATH=peer.CHECKOUT, PYTHONIOENCODING="utf-8"))
    return done.returncode, done.stdout, done.stderr


def build(folder, *arguments):
    return run(folder, "build", "--input_file=a.txt", "--output_file=vocab.txt", *arguments)


def write(folder, content=TEXT, name="a.txt"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


def read_tokens(folder):
    return (folder / "vocab.txt").read_bytes().decode("utf-8").split("\n")[:-1]


# ---- what is chosen

def choose(words, room):
    tokens = vocabulary.choose_tokens(collections.Counter(words), len(vocabulary.FIRST_TOKENS) + room)
    assert tokens[:len(vocabulary.FIRST_TOKENS)] == vocabulary.FIRST_TOKENS
    return tokens[len(vocabulary.FIRST_TOKENS):]


def test_the_first_tokens_are_those_of_googles_chinese_vocabulary():
    assert len(vocabulary.FIRST_TOKENS) == 104
    assert [vocabulary.FIRST_TOKENS[number] for number in (0, 1, 99, 100, 101, 102, 103)] == [
        "[PAD]", "[unused1]", "[unused99]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_characters_come_by_count_and_equal_ones_by_code_point():
    assert choose({"酸": 2, "b": 5, "a": 2, "碱": 9}, 10) == ["碱", "b", "a", "酸"]


def test_a_character_of_words_stands_there_twice_to_spell_them():
    assert choose({"ab": 1, "a": 1, "酸": 3}, 10) == ["酸", "a", "##a", "b", "##b"]


def test_words_seen_more_than_once_fill_what_room_is_left():
    words = {"ab": 3, "abb": 2, "ba": 3, "aaa": 1}
    assert choose(words, 10) == ["a", "##a", "b", "##b", "ab", "ba", "abb"]
    assert choose(words, 5) == ["a", "##a", "b", "##b", "ab"]


def test_what_does_not_fit_is_left_out():
    assert choose({"酸": 3, "ab": 2}, 2) == ["酸"]
    assert choose({"酸": 3, "碱": 2}, 1) == ["酸"]


def test_a_word_that_is_unknown_at_any_rate_takes_no_room():
    assert choose({"x" * 201: 9, "酸": 1}, 10) == ["酸"]


def test_the_share_spelled_counts_words_as_often_as_they_occur():
    words = collections.Counter({"酸": 6, "ab": 3, "油": 1})
    assert vocabulary.share_spelled(words, ["酸", "a", "##b", "[UNK]"]) == 0.9


# ---- the command

def test_the_vocabulary_spells_the_corpus_and_can_be_loaded(tmp_path):
    write(tmp_path)
    code, out, err = build(tmp_path)
    assert (code, "Traceback" in err) == (0, False)
    tokens = read_tokens(tmp_path)
    assert out == ("vocab.txt: %d tokens; 100.000 %% of the corpus's words can be spelled with them\n"
                   % len(tokens))
    tokenizer = tokenization.FullTokenizer(str(tmp_path / "vocab.txt"))
    assert list(tokenizer.vocab) == tokens
    assert tokenizer.tokenize("pvc乙酸up") == ["pvc", "乙", "酸", "u", "##p"]
    assert "[UNK]" not in tokenizer.tokenize(TEXT)


def test_the_same_words_give_the_same_bytes_in_whatever_order(tmp_path):
    found = []
    for number, content in enumerate([TEXT, TEXT, "\n".join(reversed(TEXT.splitlines()))]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, content)
        assert build(folder)[0] == 0
        found.append((folder / "vocab.txt").read_bytes())
    assert found[0] == found[1] == found[2]


def test_case_is_kept_when_asked(tmp_path):
    write(tmp_path)
    assert build(tmp_path, "--nodo_lower_case")[0] == 0
    assert {"P", "p", "PVC"} <= set(read_tokens(tmp_path))


def test_several_files_are_one_corpus(tmp_path):
    write(tmp_path, "酸\n")
    write(tmp_path, "碱\n", "b1.txt")
    write(tmp_path, "盐\n", "b2.txt")
    assert run(tmp_path, "build", "--input_file=a.txt,b*.txt", "--output_file=vocab.txt")[0] == 0
    assert read_tokens(tmp_path)[104:] == sorted("酸碱盐")


@pytest.mark.parametrize("arguments, said", [
    (["--help"], "build: counts the words"), (["build", "--help"], "--vocab_size")])
def test_help_is_worth_reading_and_no_error(tmp_path, arguments, said):
    code, out, err = run(tmp_path, *arguments)
    assert (code, err) == (0, "")
    assert said in out


@pytest.mark.parametrize("content, arguments, message", [
    (TEXT, ["--input_file=b.txt"], "--input_file=b.txt: no such file"),
    (b"a\n\xcb\xe1\n", [], "a.txt:2: not UTF-8 at byte 1 of the line; convert the file (iconv -f GB18030 -t "
                           "UTF-8 when it is in a Chinese encoding)"),
    ("\n \n\u200b\n", [], "--input_file=a.txt: no text to make a vocabulary of"),
    (TEXT, ["--vocab_size=104"], "flag --vocab_size=104: 104 is not integer >= 105; --help lists the flags"),
    (TEXT, ["--vocab_sise=200"], "Unknown command line flag 'vocab_sise'. Did you mean: vocab_size ?; "
                                 "--help lists the flags"),
    (TEXT, ["more.txt"], "more.txt: not a flag; every argument is given as --name=value"),
    (TEXT, ["--output_file=a.txt"], "--output_file=a.txt: is read as input too; choose another name"),
    (TEXT, ["--output_file=a.txt/vocab.txt"], "a.txt: File exists"),
], ids=["missing", "encoding", "empty", "value", "flag", "argument", "overwriting", "folder"])
def test_an_error_is_one_line_and_leaves_nothing(tmp_path, content, arguments, message):
    write(tmp_path, content)
    code, out, err = build(tmp_path, *arguments)
    assert (code, out) == (1, "")
    assert err.replace(str(tmp_path) + "/", "").splitlines()[-1] == "vocabulary.py: error: " + message
    # Before it, at most the progress bar.
    assert all(line.startswith("text:") for line in err.splitlines()[:-1] if line)
    assert os.listdir(str(tmp_path)) == ["a.txt"]


@pytest.mark.parametrize("arguments", [[], ["bild"], ["build"]])
def test_what_is_missing_or_misspelled_is_told_in_one_line(tmp_path, arguments):
    code, out, err = run(tmp_path, *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("vocabulary.py: error: ")
