import collections
import gzip
import os
import subprocess
import sys

import pytest

from bert import coverage
from bert import tokenization
from bert import vocabulary
from tests import graphs
from tests import peer

pytestmark = graphs.ON_TENSORFLOW_2

TEXT = "聚氯乙烯 PVC 管\n聚乙烯 PE 管 pvc\n\n一种PVC-U管，耐酸。\n"


def run(folder, *arguments, encoding="utf-8"):
    """The command in `folder`: (exit code, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "bert.vocabulary"] + list(arguments), cwd=str(folder), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True,
        env=dict(os.environ, PYTHONPATH=peer.CHECKOUT, PYTHONIOENCODING=encoding))
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


# ---- build

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
    (["--help"], "build: writes a vocabulary"), (["build", "--help"], "--vocab_size"),
    (["coverage", "--help"], "--top: Unknown characters shown"), (["extend", "--help"], "--[no]add_elements")])
def test_help_is_worth_reading_and_no_error(tmp_path, arguments, said):
    code, out, err = run(tmp_path, *arguments)
    assert (code, err) == (0, "")
    assert said in out


@pytest.mark.parametrize("content, arguments, message", [
    (TEXT, ["--input_file=b.txt"], "--input_file=b.txt: no such file"),
    (b"a\n\xcb\xe1\n", [], "a.txt:2: not UTF-8 at byte 1 of the line, 3 of the text; convert the file (iconv "
                           "-f GB18030 -t UTF-8 when it is in a Chinese encoding); --errors=skip leaves such lines "
                           "out"),
    ("\n \n\u200b\n", [], "--input_file=a.txt: no text in it; give files with at least one sentence"),
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


@pytest.mark.parametrize("arguments", [[], ["bild"], ["build"], ["coverage"], ["extend"]])
def test_what_is_missing_or_misspelled_is_told_in_one_line(tmp_path, arguments):
    code, out, err = run(tmp_path, *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("vocabulary.py: error: ")


# ---- coverage

# 锶 four times, 肼 three, — twice, 砜 and ⅶ once are unknown.
SLOTTED = ["[PAD]", "[unused1]", "[unused2]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "酸", "管", "a", "##b",
           "[unused7]", "，", "x"]
CHEMISTRY = "锶酸，肼——\n锶锶 Ⅶ 管\n\n锶肼肼砜 ab 5µm\n"


def write_slotted(folder, tokens=SLOTTED, name="vocab.txt", end="\n"):
    write(folder, "".join(token + end for token in tokens), name)


def measure(folder, *arguments):
    return run(folder, "coverage", "--input_file=a.txt", "--vocab_file=vocab.txt", *arguments)


def test_coverage_tells_what_is_unknown_and_where_it_stands(tmp_path):
    write(tmp_path, CHEMISTRY)
    write_slotted(tmp_path)
    code, out, err = measure(tmp_path, "--top=2")
    assert (code, "Traceback" in err) == (0, False)
    lines = out.splitlines()
    assert lines[:6] == [
        "2 documents, 3 sentences, 16 words (a Chinese character or a punctuation mark is one)",
        "[UNK]: 12 of 16 words (75.000 %)",
        "",
        "Unknown characters: 5, 11 times in all; the most frequent:",
        "         4  锶  U+9536  锶酸，肼——",
        "         3  肼  U+80BC  锶酸，肼——"]
    assert lines[7] == "Unknown words of several characters: 1, 1 times in all; the most frequent: 5µm 1"
    assert lines[9:11] == ["Names of the elements: 118 of 118 are missing from the vocabulary",
                           "  in the corpus: 锶 4"]


def test_coverage_of_a_vocabulary_made_of_the_corpus_is_whole(tmp_path):
    write(tmp_path, CHEMISTRY)
    assert build(tmp_path)[0] == 0
    code, out, _ = measure(tmp_path)
    assert code == 0
    assert "[UNK]: 0 of 16 words (0.000 %)" in out
    assert "Unknown characters: 0, 0 times in all\n" in out


def test_what_the_terminal_cannot_show_is_no_error(tmp_path):
    write(tmp_path, CHEMISTRY)
    write_slotted(tmp_path)
    for action in (["coverage"], ["extend", "--output_file=new.txt"]):
        code, out, _ = run(tmp_path, *action, "--input_file=a.txt", "--vocab_file=vocab.txt", encoding="ascii")
        assert (code, "\\u9536" in out) == (0, True)


# ---- extend

def extend(folder, *arguments):
    return run(folder, "extend", "--input_file=a.txt", "--vocab_file=vocab.txt", "--output_file=new.txt", *arguments)


def new_tokens(folder):
    return (folder / "new.txt").read_bytes().decode("utf-8").split("\n")[:-1]


def test_slots_are_filled_by_count_and_nothing_else_moves(tmp_path):
    write(tmp_path, CHEMISTRY)
    write_slotted(tmp_path)
    code, out, err = extend(tmp_path)
    assert (code, "Traceback" in err) == (0, False)
    assert new_tokens(tmp_path) == [
        "[PAD]", "锶", "肼", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "酸", "管", "a", "##b", "—", "，", "x"]
    assert out == ("new.txt: 3 of 3 [unusedN] slots filled: 锶 肼 —\n"
                   "[UNK]: 12 of 16 words (75.000 %) before, 3 of 16 words (18.750 %) after\n")


def test_the_tokenizer_emits_what_was_added_and_is_unknown_as_often_as_promised(tmp_path):
    write(tmp_path, CHEMISTRY)
    write_slotted(tmp_path, SLOTTED + ["[unused8]", "[unused9]"])
    code, out, _ = extend(tmp_path, "--min_count=1")
    assert (code, "1 of 16 words (6.250 %) after" in out) == (0, True)
    tokens = tokenization.FullTokenizer(str(tmp_path / "new.txt")).tokenize(CHEMISTRY)
    assert set("锶肼砜—ⅶ") <= set(tokens)
    assert tokens.count("[UNK]") == 1  # 5µm


@pytest.mark.parametrize("action", ["build", "coverage", "extend"])
def test_a_corpus_is_read_in_the_forms_that_records_are_made_of(tmp_path, action):
    rows = ['{"body": "铯和铯。铯"}', '{"title": "无"}', '{"body": "铯"}']
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode("utf-8")))
    (tmp_path / "vocab.txt").write_text("\n".join(SLOTTED + ["和", "。"]) + "\n", encoding="utf-8")
    arguments = [action, "--input_file=a.jsonl.gz", "--text_key=body"]
    arguments += ["--vocab_file=vocab.txt"] if action != "build" else []
    arguments += ["--output_file=new.txt"] if action != "coverage" else []
    code, _, err = run(tmp_path, *arguments)
    assert code == 1 and "a.jsonl.gz:2: no text under the key body; --text_key names another" in err
    code, out, _ = run(tmp_path, *arguments, "--errors=skip")
    assert code == 0 and out.startswith("bad lines 1, left out\n")
    if action == "coverage":
        assert "2 documents, 2 sentences, 6 words" in out and "4  铯  U+94EF" in out
    else:
        assert "铯" in (tmp_path / "new.txt").read_text(encoding="utf-8").split("\n")


def test_a_vocabulary_with_free_slots_left_can_be_extended_again(tmp_path):
    write(tmp_path, CHEMISTRY)
    write_slotted(tmp_path)
    assert extend(tmp_path, "--min_count=3")[0] == 0
    assert new_tokens(tmp_path)[11] == "[unused7]"
    os.replace(str(tmp_path / "new.txt"), str(tmp_path / "vocab.txt"))
    assert extend(tmp_path)[0] == 0
    assert new_tokens(tmp_path)[1:3] + new_tokens(tmp_path)[11:12] == ["锶", "肼", "—"]


def test_the_bytes_around_the_slots_stay(tmp_path):
    write(tmp_path, CHEMISTRY)
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(SLOTTED).encode("utf-8"))
    assert extend(tmp_path)[0] == 0
    assert (tmp_path / "new.txt").read_bytes() == (
        (tmp_path / "vocab.txt").read_bytes().replace(b"[unused1]", "锶".encode("utf-8"))
        .replace(b"[unused2]", "肼".encode("utf-8")).replace(b"[unused7]", "—".encode("utf-8")))


def test_the_order_of_the_text_does_not_matter_to_the_bytes(tmp_path):
    found = []
    for number, content in enumerate(["砜肼锶\n", "锶砜\n肼\n"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, content)
        write_slotted(folder)
        assert extend(folder, "--min_count=1")[0] == 0
        found.append((folder / "new.txt").read_bytes())
    assert found[0] == found[1]


def test_elements_are_added_only_on_request_and_however_rare(tmp_path):
    write(tmp_path, "肼锶镉肼锶肼\n")
    slots = ["[unused%d]" % number for number in range(200)]
    write_slotted(tmp_path, vocabulary.FIRST_TOKENS[100:] + ["[PAD]", "镧"] + slots)
    assert extend(tmp_path)[0] == 0
    assert new_tokens(tmp_path)[6:9] == ["肼", "锶", "[unused2]"]
    code, out, _ = extend(tmp_path, "--add_elements")
    assert (code, "118 of 200 [unusedN] slots filled: 肼 锶 镉 " in out) == (0, True)
    assert set(coverage.ELEMENTS) <= set(new_tokens(tmp_path))
    assert new_tokens(tmp_path)[124] == "[unused118]"


def test_too_few_slots_are_refused_with_what_does_not_fit(tmp_path):
    write(tmp_path, CHEMISTRY)
    write_slotted(tmp_path)
    code, out, err = extend(tmp_path, "--min_count=1")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == (
        "vocabulary.py: error: vocab.txt: 3 [unusedN] slots for 5 characters, none for ⅶ 砜; raise --min_count=1, or "
        "accept what fits with --num_slots=3")
    assert sorted(os.listdir(str(tmp_path))) == ["a.txt", "vocab.txt"]


def test_a_long_list_of_what_does_not_fit_is_cut_short(tmp_path):
    write(tmp_path, CHEMISTRY)
    write_slotted(tmp_path)
    code, _, err = extend(tmp_path, "--add_elements")
    assert code == 1
    assert "slots for 120 characters, none for 钆 " not in err
    assert " and 77 more; raise --min_count=2, leave out --add_elements, or accept" in err


def test_fewer_slots_are_filled_when_asked_and_the_rest_is_told(tmp_path):
    write(tmp_path, CHEMISTRY)
    write_slotted(tmp_path)
    code, out, _ = extend(tmp_path, "--num_slots=2", "--min_count=1")
    assert code == 0
    assert out.splitlines()[0] == "new.txt: 2 of 3 [unusedN] slots filled: 锶 肼"
    assert out.splitlines()[1:] == ["[UNK]: 12 of 16 words (75.000 %) before, 5 of 16 words (31.250 %) after",
                                    "left out: — ⅶ 砜"]
    assert new_tokens(tmp_path)[11] == "[unused7]"


def test_a_vocabulary_that_lacks_nothing_comes_out_as_it_is(tmp_path):
    write(tmp_path, "酸管\n")
    write_slotted(tmp_path, [token for token in SLOTTED if "unused" not in token])
    code, out, _ = extend(tmp_path)
    assert (code, out.splitlines()[0]) == (0, "new.txt: 0 of 0 [unusedN] slots filled")
    assert (tmp_path / "new.txt").read_bytes() == (tmp_path / "vocab.txt").read_bytes()


@pytest.mark.parametrize("content, tokens, arguments, message", [
    (CHEMISTRY, [token for token in SLOTTED if "unused" not in token], [],
     "vocab.txt: 0 [unusedN] slots for 3 characters, none for 锶 肼 —; give a vocabulary with slots, such as Google's "
     "or one of the action build"),
    (CHEMISTRY, SLOTTED, ["--num_slots=4"], "--num_slots=4: vocab.txt has 3 [unusedN] slots; give a lower number"),
    (" \n\n", SLOTTED, [], "--input_file=a.txt: no text in it; give files with at least one sentence"),
    (CHEMISTRY, SLOTTED, ["--output_file=vocab.txt"],
     "--output_file=vocab.txt: is read as input too; choose another name"),
    (CHEMISTRY, SLOTTED, ["--output_file=a.txt"], "--output_file=a.txt: is read as input too; choose another name"),
    (CHEMISTRY, SLOTTED, ["--vocab_file=v.txt"], "v.txt: No such file or directory"),
    (CHEMISTRY, SLOTTED[4:], [], "vocab.txt:10: ends without [PAD], [UNK]; every BERT vocabulary has a line for each "
                                 "of [PAD] [UNK] [CLS] [SEP] [MASK]"),
], ids=["no slots", "more than there are", "empty", "vocabulary", "text", "missing", "no vocabulary"])
def test_extend_tells_an_error_in_one_line_and_changes_nothing(tmp_path, content, tokens, arguments, message):
    write(tmp_path, content)
    write_slotted(tmp_path, tokens)
    before = (tmp_path / "vocab.txt").read_bytes()
    code, out, err = extend(tmp_path, *arguments)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "vocabulary.py: error: " + message
    assert sorted(os.listdir(str(tmp_path))) == ["a.txt", "vocab.txt"]
    assert (tmp_path / "vocab.txt").read_bytes() == before


@pytest.mark.parametrize("content, arguments, message", [
    ("\n", [], "--input_file=a.txt: no text in it; give files with at least one sentence"),
    (CHEMISTRY, ["--top=-1"], "flag --top=-1: -1 is not a non-negative integer; --help lists the flags"),
    (CHEMISTRY, ["--vocab_file=v.txt"], "v.txt: No such file or directory"),
], ids=["empty", "value", "missing"])
def test_coverage_tells_an_error_in_one_line(tmp_path, content, arguments, message):
    write(tmp_path, content)
    write_slotted(tmp_path)
    code, out, err = measure(tmp_path, *arguments)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "vocabulary.py: error: " + message
