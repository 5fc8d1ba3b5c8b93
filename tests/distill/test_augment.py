import glob
import json
import os
import signal
import time

import pytest

from bert.words import Tagger
from tests import commands
from tests import graphs
from tests import tiny

pytestmark = graphs.ON_TENSORFLOW_2

# Of characters that jieba knows: it takes a millisecond for each that it does not.
SENTENCES = ["酒店房间不大，但是服务很好。", "苹果手机很好用！我买了 两个", "早餐一般, 价格太贵", "好"]


@pytest.fixture(scope="module")
def tagger():
    return Tagger()


@pytest.fixture
def augment(forks, tmp_path):
    """Runs the command on texts.txt; --input_file and --output_file may be given anew."""
    tiny.write_lines(tmp_path / "texts.txt", SENTENCES)

    def run(*flags, output="out.jsonl", **more):
        return forks.run("distill.augment", "--input_file=%s" % (tmp_path / "texts.txt"),
                         "--output_file=%s" % (tmp_path / output), "--num_workers=1", *flags, **more)
    return run


@pytest.fixture
def by_masked_lm(forks, teacher, world, tmp_path):
    def run(*flags):
        return forks.run("distill.augment", "--method=masked_lm", "--input_file=" + world.unlabeled,
                         "--output_file=%s" % (tmp_path / "out.txt"), "--teacher_checkpoint=" + teacher.folder,
                         "--max_seq_length=%d" % tiny.MAX_LENGTH, *flags)
    return run


def rows(tmp_path, name="out.jsonl"):
    return [json.loads(line) for line in commands.read(str(tmp_path), name).splitlines()]


def succeeded(result):
    assert result.code == 0, result.err
    return result


def error(result):
    """The message of a command that failed with one line."""
    assert result.code == 1 and result.out == ""
    prefix = "augment.py: error: "
    *before, last, end = result.err.split("\n")
    assert last.startswith(prefix) and end == "", result.err
    assert all("texts/s" in line or not line for line in before), result.err
    return last[len(prefix):]


# ---- words and corpus

def test_copies_are_written_and_counted(augment, tmp_path):
    result = succeeded(augment("--method=words", "--num_copies=50"))
    found = rows(tmp_path)
    first, second = result.out.splitlines()
    assert first == "%s: texts 4, copies %d; duplicates %d, left out" % (
        tmp_path / "out.jsonl", len(found), 200 - len(found))
    assert second.startswith("of the words ") and second.endswith(" % replaced")
    assert len({json.dumps(row) for row in found}) > 60
    assert all(("mask_token" in row) == ("[MASK]" in row["text_a"]) for row in found)
    assert not {row["text_a"] for row in found} & set(SENTENCES[:3])


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_processes(augment, tmp_path):
    tiny.write_lines(tmp_path / "texts.txt", SENTENCES * 110 + ["酒店"])  # several chunks
    contents = []
    for number, flags in enumerate((["--num_workers=1"], ["--num_workers=3"], ["--random_seed=2"])):
        succeeded(augment("--method=words", "--num_copies=3", *flags, output="%d.jsonl" % number))
        contents.append(commands.read(str(tmp_path), "%d.jsonl" % number))
    assert contents[0] == contents[1] != contents[2]


def test_words_come_from_the_corpus_with_the_same_part_of_speech(augment, tmp_path, tagger):
    corpus = tiny.write_lines(tmp_path / "corpus.txt", ["飞机 ；"])
    result = succeeded(augment("--method=corpus", "--corpus_file=" + corpus, "--pos_prob=1", output="out.txt"))
    known = dict((tag, word) for word, tag in tagger.tag(commands.read(corpus).strip()) if not word.isspace())
    expected = ["".join(word if word.isspace() else known.get(tag, word) for word, tag in tagger.tag(text)).strip()
                for text in SENTENCES]
    assert set(known) == {"n", "x"}
    assert commands.read(str(tmp_path), "out.txt").splitlines() == [
        new for old, new in zip(SENTENCES, expected) if new != old]
    assert "of the words 0.0 % masked, " in result.out


def test_every_word_of_a_copy_stands_in_the_input_with_the_tag_of_the_word_it_replaces(augment, tmp_path, tagger):
    succeeded(augment("--method=words", "--mask_prob=0", "--ngram_prob=0", "--pos_prob=1", "--num_copies=5"))
    tagged = [[pair for pair in tagger.tag(text) if not pair[0].isspace()] for text in SENTENCES]
    forms = []
    for words in tagged:
        forms.append([{word for of in tagged for word, other in of if other == tag} for _, tag in words])

    def fits(text, choices):
        """Whether a text is one of each choice, in their order."""
        ends = {0}
        for choice in choices:
            ends = {end + len(word) for end in ends for word in choice if text.startswith(word, end)}
        return len(text) in ends

    for row in rows(tmp_path):
        assert any(fits("".join(row["text_a"].split()), choices) for choices in forms)


def test_a_text_s_copies_do_not_depend_on_the_files_behind_it(augment, tmp_path):
    other = tiny.write_lines(tmp_path / "u.txt", ["飞机"])
    corpus = "--corpus_file=" + tiny.write_lines(tmp_path / "corpus.txt", ["飞机，汽车！火车。跑步"])
    flags = ("--method=corpus", corpus, "--pos_prob=0.5")
    succeeded(augment(*flags, output="1.txt"))
    succeeded(augment(*flags, "--input_file=%s,%s" % (tmp_path / "texts.txt", other), output="2.txt"))
    assert commands.read(str(tmp_path), "2.txt").startswith(commands.read(str(tmp_path), "1.txt"))


@pytest.mark.parametrize("name, lines", [
    ("a.tsv", ["label\ttext_a\ttext_b", "1\t酒店，房间\t苹果，手机"]),
    ("a.csv", ["text_a,text_b", "酒店，房间,苹果，手机"]),
    ("a.jsonl", ['{"text_b": "苹果，手机", "text_a": "酒店，房间", "label": ["x"]}'])])
def test_of_a_pair_one_text_or_both_are_changed_whatever_the_format(augment, tmp_path, name, lines):
    pairs = tiny.write_lines(tmp_path / name, lines)
    succeeded(augment("--method=words", "--input_file=" + pairs, "--mask_prob=1", "--pos_prob=0", "--ngram_prob=0",
                      "--num_copies=4"))
    assert [(row["text_a"], row["text_b"]) for row in rows(tmp_path)] == [
        ("[MASK]" * 3, "苹果，手机"), ("酒店，房间", "[MASK]" * 3), ("[MASK]" * 3, "[MASK]" * 3)]


def test_a_line_break_in_a_text_is_none_in_a_txt_file(augment, tmp_path):
    path = tiny.write_lines(tmp_path / "a.jsonl", [json.dumps({"text_a": "酒店\n房间\r\n很小"})])
    corpus = tiny.write_lines(tmp_path / "corpus.txt", ["飞机"])
    succeeded(augment("--method=corpus", "--corpus_file=" + corpus, "--input_file=" + path, "--pos_prob=1",
                      "--num_copies=1", output="out.txt"))
    assert commands.read(str(tmp_path), "out.txt") == "飞机 飞机  很小\n"


def test_rows_that_cannot_be_used_may_be_left_out(augment, tmp_path):
    path = tiny.write_lines(tmp_path / "a.tsv", ["text_a", "酒店很好", "a\tb"])
    result = succeeded(augment("--method=words", "--input_file=" + path, "--errors=skip"))
    assert result.out.splitlines()[-1].startswith("rows left out 1, the first: %s:3: 2 columns where 1 is" % path)


def test_a_student_can_be_distilled_on_what_was_written(forks, augment, world, teacher_classifier, tmp_path):
    succeeded(augment("--method=words", "--input_file=" + world.unlabeled, "--num_copies=2"))
    result = succeeded(forks.run(
        "run_distill.py", "--task=classification", "--data_dir=" + world.task,
        "--unlabeled_file=%s" % (tmp_path / "out.jsonl"), "--teacher_checkpoint=" + teacher_classifier.folder,
        "--student_config_file=" + world.student, "--output_dir=%s" % (tmp_path / "run"), "--do_train",
        "--num_train_steps=1", "--layer_map=1:1,2:3"))
    assert "out.jsonl: %d texts" % len(rows(tmp_path)) in result.out


# ---- masked_lm

def test_a_masked_lm_replaces_characters_and_nothing_else(by_masked_lm, world, tmp_path):
    result = succeeded(by_masked_lm("--num_copies=3", "--replace_prob=0.3"))
    assert "of the tokens " in result.out
    texts = commands.read(world.unlabeled).splitlines()
    copies = commands.read(str(tmp_path), "out.txt").splitlines()
    assert len(texts) < len(copies) <= 3 * len(texts)
    by_length = {}
    for text in texts:
        by_length.setdefault(len(text), []).append(text)
    for copy in copies:
        assert set(copy) <= set(tiny.CHARACTERS)
        assert any(sum(old != new for old, new in zip(text, copy)) <= 0.5 * len(text) + 3
                   for text in by_length[len(copy)])


def test_a_masked_lm_gives_the_same_bytes_again_and_others_with_another_seed(by_masked_lm, tmp_path):
    contents = []
    for flags in ([], [], ["--random_seed=2"], ["--unit=character"]):
        succeeded(by_masked_lm("--num_copies=2", *flags))
        contents.append(commands.read(str(tmp_path), "out.txt"))
    assert contents[0] == contents[1]
    assert len(set(contents)) == 3


@pytest.mark.parametrize("flags, message", [
    (["--teacher_checkpoint=nowhere"], "--teacher_checkpoint=nowhere: no such folder, and no checkpoint (nowhere.index "
                                       "is missing)"),
    (["--top_k=1000"], "--top_k=1000: {folder}/vocab.txt has 149 Chinese characters"),
    (["--max_seq_length=64"], "--max_seq_length: the model takes 32 tokens a text at most "
                              "('max_position_embeddings'), not 64"),
    (["--num_workers=2"], "--num_workers=2: not for --method=masked_lm"),
    (["--corpus_file=x"], "--corpus_file=x: not for --method=masked_lm"),
    (["--user_dict=x", "--unit=character"], "--user_dict=x: of no use with --unit=character"),
    (["--top_k=0"], "flag --top_k=0: 0 is not a positive integer; --help lists the flags"),
])
def test_what_is_wrong_with_a_masked_lm_is_told_in_one_line(by_masked_lm, teacher, tmp_path, flags, message):
    assert error(by_masked_lm(*flags)) == message.format(folder=teacher.folder)
    assert os.listdir(str(tmp_path)) == []


def test_a_fine_tuned_model_without_a_masked_lm_head_is_refused(by_masked_lm, teacher_classifier, tmp_path):
    message = error(by_masked_lm("--teacher_checkpoint=" + teacher_classifier.folder))
    assert message.startswith("%s: no masked-LM head" % os.path.join(teacher_classifier.folder, "best", "model.ckpt"))
    assert os.listdir(str(tmp_path)) == []


# ---- what is wrong

@pytest.mark.parametrize("flags, output, message", [
    (["--method=words"], "out.txt", "--output_file={folder}/out.txt: a .txt file cannot hold the token [MASK]; name a "
                                    ".jsonl file, or mask nothing (--mask_prob=0)"),
    (["--method=words"], "out.tsv", "--output_file={folder}/out.tsv: the name must end in .txt or .jsonl"),
    (["--method=words", "--mask_prob=0"], "texts.txt",
     "--output_file={folder}/texts.txt: is read as input too; choose another name"),
    (["--method=corpus"], "out.txt", "--corpus_file: --method=corpus needs it"),
    (["--method=corpus", "--corpus_file=nowhere.txt"], "out.txt", "--corpus_file=nowhere.txt: no such file"),
    (["--method=words", "--corpus_file=x"], "out.jsonl", "--corpus_file=x: not for --method=words"),
    (["--method=words", "--top_k=3"], "out.jsonl", "--top_k=3: not for --method=words"),
    (["--method=words", "--mask_prob=0.6", "--pos_prob=0.5"], "out.jsonl",
     "--mask_prob=0.6: with --pos_prob=0.5 more than 1; a word is masked, replaced or neither"),
    (["--method=words", "--pos_prob=0", "--mask_prob=0", "--ngram_prob=0"], "out.jsonl",
     "--input_file={folder}/texts.txt: no copy differs from its text; raise the probabilities or --num_copies"),
    (["--method=words", "--input_file=nowhere.txt"], "out.jsonl", "--input_file=nowhere.txt: no such file"),
])
def test_what_is_wrong_is_told_in_one_line_and_nothing_is_written(augment, tmp_path, flags, output, message):
    assert error(augment(*flags, output=output)) == message.format(folder=tmp_path)
    assert os.listdir(str(tmp_path)) == ["texts.txt"]
    assert commands.read(str(tmp_path), "texts.txt").splitlines() == SENTENCES


@pytest.mark.parametrize("name, lines, message", [
    ("a.txt", ["", " "], "{path}: no text to use"),
    ("a.tsv", ["text_a", "酒店\t1"], "{path}:2: 2 columns where 1 is needed (text_a); --errors=skip leaves such rows "
                                     "out and counts them"),
    ("a.tsv", ["text_a\ttext_b", "酒店\t房间"],
     "{path}:2: a pair, and --output_file={folder}/out.txt cannot hold pairs; name a .jsonl file"),
    ("a.jsonl", ['{"text_a": "[MASK]", "mask_token": "[MASK]"}'],
     "{path}:1: is a copy already (mask_token); give the texts that copies were made from"),
])
def test_a_text_that_cannot_be_used_is_told_by_file_and_line(augment, tmp_path, name, lines, message):
    path = tiny.write_lines(tmp_path / name, lines)
    result = augment("--method=words", "--mask_prob=0", "--input_file=" + path, output="out.txt")
    assert error(result) == message.format(path=path, folder=tmp_path)
    assert not (tmp_path / "out.txt").exists()


def test_a_run_that_is_killed_leaves_the_old_file(tmp_path):
    texts = tiny.write_lines(tmp_path / "in" / "texts.txt", SENTENCES * 500)
    output = tiny.write_lines(tmp_path / "out" / "out.jsonl", ["old"])
    process = commands.start("distill.augment", "--method=words", "--input_file=" + texts, "--num_copies=200",
                             "--output_file=" + output, "--num_workers=1")
    temporary = output + ".tmp-%d" % process.pid
    try:
        while not (os.path.exists(temporary) and os.path.getsize(temporary)):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    assert commands.read(output) == "old\n"
    assert set(glob.glob(str(tmp_path / "out" / "*"))) == {output, temporary}


def test_help_shows_examples_and_ends_well(forks):
    result = forks.run("distill.augment", "--help")
    assert result.code == 0
    assert "python -m distill.augment --method=masked_lm" in result.out and "--top_k" in result.out
