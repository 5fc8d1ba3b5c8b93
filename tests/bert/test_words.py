import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from bert import words
from bert.encoding import Encoder
from bert.tokenization import FullTokenizer
from bert.words import Segmenter
from bert.words import Tagger
from tests import graphs
from tests import peer
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2

SHARED = os.path.join(os.path.dirname(peer.CHECKOUT), "shared", "data")
CHARS = "苹果手机很好用我在买了聚氯乙烯丙二管材的氧化α恤，。、·-,&+.%()"
PIECES = ["pvc", "p", "##v", "##c", "u", "un", "##aff", "##able", "n", "t", "1", "2", "98", "5", "usb"]
TEMPTING = "苹果手机聚氯乙烯管材的恤PVC-Ut1,2- 　\u00a0·é\u0301\u200bΣ。，\n𠀀α"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list(CHARS) + PIECES
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tokenizer = FullTokenizer(str(path))
    encoder = Encoder(tokenizer)
    encoder.tokens = lambda ids: tokenizer.convert_ids_to_tokens(ids.tolist())
    return encoder


@pytest.fixture(scope="module")
def plain():
    return Segmenter()


def with_dictionary(tmp_path, *lines):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return Segmenter(str(path))


def words_in(encoder, segmenter, *sentences):
    """The words of each sentence, the tokens of a word joined by `|`; and how many tokens are unaligned."""
    ids, ends, places = encoder.encode_with_places(list(sentences))
    starts, unaligned = segmenter.word_starts(list(sentences), ends, places)
    assert starts.dtype == bool and starts.shape == ids.shape
    parts = [(" " if start else "|") + token for start, token in zip(starts, encoder.tokens(ids))]
    return ["".join(parts[start:end])[1:] for start, end in zip([0] + ends[:-1].tolist(), ends)], unaligned


# ---- what is a word

@pytest.mark.parametrize("sentence, expected", [
    ("我在手机", "我 在 手|机"),
    ("聚氯乙烯管材", "聚|氯|乙|烯 管|材"),                      # four characters
    ("苹果，手机。", "苹|果 ， 手|机 。"),
    ("苹果 手机　好", "苹|果 手|机 好"),
    ("苹 果", "苹 果"),                                        # white space ends a word
    ("unaffable", "un|##aff|##able"),
    ("苹果unaffable手机", "苹|果 un|##aff|##able 手|机"),
    ("PVC管材", "pvc 管|材"),
    ("PVC-U", "pvc - u"),
    ("T恤", "t|恤"),                                           # mixed
    ("98.5%", "98|.|5|%"),
    ("", ""),
    ("　", ""),
])
def test_the_tokens_of_a_word_are_found(encoder, plain, sentence, expected):
    assert words_in(encoder, plain, sentence) == ([expected], 0)
    assert words_in(encoder, plain, "好", sentence, "手机") == (["好", expected, "手|机"], 0)


def test_a_line_end_in_a_sentence_ends_a_word_like_any_white_space(encoder, plain):
    assert words_in(encoder, plain, "苹\n果", "手机") == (["苹 果", "手|机"], 0)


def test_no_word_goes_from_one_sentence_into_the_next(encoder, plain):
    assert words_in(encoder, plain, "苹", "果", "", "p", "vc") == (["苹", "果", "", "p", "[UNK]"], 0)


def test_no_sentences_have_no_words(plain):
    starts, unaligned = plain.word_starts([], np.zeros([0], np.int64), np.zeros([0], np.int64))
    assert starts.shape == (0,) and unaligned == 0


def test_a_latin_word_is_whole_even_where_the_segmenter_cuts_it(encoder, tmp_path):
    segmenter = with_dictionary(tmp_path, "vc管材 100000")
    assert segmenter._jieba.lcut("PVC管材pvc管材") == ["PVC", "管材", "p", "vc管材"]
    assert words_in(encoder, segmenter, "pvc管材") == (["pvc|管|材"], 0)


def test_tokens_without_a_place_are_words_of_their_own_and_counted(encoder, plain):
    # One run: é, ·, unaffable, ·, t. jieba has "t恤" for one word, but begins none at its own token's place.
    assert words_in(encoder, plain, "苹果p\u00b7unaffable\u00b7T恤苹果") == (
        ["苹|果 p · un|##aff|##able · t 恤 苹|果"], 4)


def test_a_sentence_with_a_capital_sigma_has_words_of_one_token(encoder, plain):
    assert words_in(encoder, plain, "苹果\u03a3unaffable", "苹果") == (["苹 果 [UNK]", "苹|果"], 3)
    assert words_in(encoder, plain, "苹果 \u03a3 unaffable") == (["苹 果 [UNK] un|##aff|##able"], 4)


@settings(max_examples=300, deadline=None)
@given(sentences=strategies.lists(strategies.one_of(
    strategies.text(strategies.characters(blacklist_categories=["Cs"])), strategies.text(TEMPTING)), max_size=4))
def test_words_are_whole_pieces_within_sentences_for_any_text(encoder, plain, sentences):
    ids, ends, places = encoder.encode_with_places(sentences)
    starts, unaligned = plain.word_starts(sentences, ends, places)
    tokens = encoder.tokens(ids)
    assert starts.shape == ids.shape and 0 <= unaligned <= len(ids)
    assert all(starts[start] for start, end in zip([0] + ends.tolist(), ends) if start < end)
    assert not any(start and token.startswith("##") for start, token in zip(starts, tokens))
    # Each alone has the words it has among the others.
    alone = [words_in(encoder, plain, sentence)[0][0] for sentence in sentences]
    assert words_in(encoder, plain, *sentences)[0] == alone


@pytest.mark.skipif(not os.path.isdir(SHARED), reason="needs the shared data")
def test_in_real_text_words_begin_where_jiebas_do(plain):
    encoder = Encoder(FullTokenizer(os.path.join(SHARED, "vocab.txt")))
    with open(os.path.join(SHARED, "corpus", "chemical_regulations.txt"), encoding="utf-8") as stream:
        sentences = [line.rstrip("\n") for line, _ in zip(stream, range(1000))]
    _, ends, places = encoder.encode_with_places(sentences)
    starts, unaligned = plain.word_starts(sentences, ends, places)
    assert unaligned < 1e-3 * len(starts) and 0.4 < starts.mean() < 0.8
    for sentence, start, end in zip(sentences, [0] + ends.tolist(), ends):
        begins = set(np.cumsum([0] + [len(word) for word in plain._jieba.cut(sentence)]).tolist())
        for begin, place in zip(starts[start:end], places[start:end].tolist()):
            assert place < 0 or begin == (place in begins)


@pytest.mark.parametrize("text, expected", [
    ("苹果手机很好用，PVC管材", "苹果|手机|很|好|用|，|PVC|管材"),
    ("苹果 \u3000T恤\n", "苹果| |\u3000|T恤|\n"),
    ("é𠀀α", "é|𠀀|α"),
    ("", ""),
])
def test_a_text_is_cut_into_words_that_joined_are_the_text(plain, text, expected):
    assert "|".join(plain.cut(text)) == expected


def test_a_term_of_the_user_dictionary_is_cut_out_whole(tmp_path):
    segmenter = with_dictionary(tmp_path, "1,2-丙二烯", "果，手")
    assert segmenter.cut("苹果，手机1,2-丙二烯") == ["苹", "果，手", "机", "1,2-丙二烯"]


# ---- how it is found

def test_a_block_is_segmented_once_and_forgotten_in_time(encoder, monkeypatch):
    segmenter, seen = Segmenter(), []
    cut = segmenter._jieba.cut
    monkeypatch.setattr(segmenter._jieba, "cut", lambda block: seen.append(block) or cut(block))
    for _ in range(2):
        assert words_in(encoder, segmenter, "苹果，手机，苹果")[0] == ["苹|果 ， 手|机 ， 苹|果"]
    assert seen == ["苹果", "手机"]
    monkeypatch.setattr(words, "MAX_CACHED_BLOCKS", 2)
    assert words_in(encoder, segmenter, "好，苹果，手机")[0] == ["好 ， 苹|果 ， 手|机"]
    assert len(segmenter._cache) <= 2


def test_an_endless_block_is_cut_and_keeps_its_words(encoder, plain):
    # jieba alone takes minutes for it.
    found, = words_in(encoder, plain, "苹果" * 100000)[0]
    assert found == " ".join(["苹|果"] * 100000)


def test_only_a_segmenter_loads_jieba_and_it_prints_and_leaves_nothing(tmp_path):
    code = ("import sys; from bert import words; assert 'jieba' not in sys.modules; "
            "words.Segmenter()._jieba.lcut('苹果')")
    done = subprocess.run([sys.executable, "-c", code], cwd=peer.CHECKOUT, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=dict(os.environ, TMPDIR=str(tmp_path)))
    assert done.returncode == 0 and done.stdout == b""
    assert not os.listdir(str(tmp_path))


def test_a_broken_file_in_the_temporary_folder_is_not_read(tmp_path, monkeypatch, caplog):
    import tempfile
    (tmp_path / "jieba.cache").write_bytes(b"broken")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with caplog.at_level(logging.DEBUG):
        assert Segmenter()._jieba.lcut("苹果手机") == ["苹果", "手机"]
    assert not caplog.records and (tmp_path / "jieba.cache").read_bytes() == b"broken"


# ---- user dictionaries

def test_a_word_of_the_user_dictionary_is_one(encoder, plain, tmp_path):
    sentence = "我买了PVC-U管材，很好用的氧化丙二"
    assert words_in(encoder, plain, sentence)[0] == ["我 买 了 pvc - u 管|材 ， 很 好 用 的 氧|化 丙|二"]
    segmenter = with_dictionary(tmp_path, "PVC-U管材 5 n", "好用的", "氧化丙二 n")
    assert words_in(encoder, segmenter, sentence) == (["我 买 了 pvc|-|u|管|材 ， 很 好|用|的 氧|化|丙|二"], 0)
    # Nobody else's words have changed.
    assert words_in(encoder, plain, sentence)[0] == ["我 买 了 pvc - u 管|材 ， 很 好 用 的 氧|化 丙|二"]


def test_a_word_with_marks_at_which_jieba_cuts_is_one(encoder, tmp_path):
    segmenter = with_dictionary(tmp_path, "1,2-丙二", "1,2-丙二烯", "α-烯", "(苹", "𠀀果")
    assert words_in(encoder, segmenter, "苹果1,2-丙二烯和1,2-丙二", "α-烯1，2", "(苹果", "1,2") == (
        ["苹|果 1|,|2|-|丙|二|烯 [UNK] 1|,|2|-|丙|二", "α|-|烯 1 ， 2", "(|苹 果", "1 , 2"], 0)


def test_words_with_marks_do_not_overlap_and_may_touch(encoder, tmp_path):
    segmenter = with_dictionary(tmp_path, "苹，果", "果，手", "手，机")
    assert words_in(encoder, segmenter, "苹，果，手，机", "苹，果手，机") == (
        ["苹|，|果 ， 手|，|机", "苹|，|果 手|，|机"], 0)


@pytest.mark.parametrize("content, expected", [
    (b"\xef\xbb\xbf\xe8\x8b\xb9 5 n\r\n\r\n  \n\xe6\x9e\x9c n\n\xe6\x89\x8b 7", [
        ("苹", "5", "n"), ("果", None, "n"), ("手", "7", None)]),
    (b"100\n", [("100", None, None)]),
    (b"", []),
])
def test_a_user_dictionary_is_jiebas(tmp_path, content, expected):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    assert words.read_user_dict(str(path)) == expected


@pytest.mark.parametrize("line", [
    "苹果 n 5", "苹果 5 5", "苹果\t5", "苹 果 5 n", "苹果 5.0", "苹果  5", "苹果 5 N", "苹果 -5"])
def test_a_line_of_another_form_is_named(tmp_path, line):
    with pytest.raises(UserError, match=r"words\.txt:2: .* not a word, its frequency"):
        with_dictionary(tmp_path, "手机", line, "好")


def test_a_line_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "words.txt").write_bytes("手机\n".encode() + "苹果 5".encode("gb18030"))
    with pytest.raises(UserError, match=r"words\.txt:2: not UTF-8 at byte 3 of the line; convert the file"):
        Segmenter(str(tmp_path / "words.txt"))


def test_a_missing_user_dictionary_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt: No such file or directory; "):
        Segmenter(str(tmp_path / "none.txt"))


def test_a_folder_is_no_user_dictionary(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        Segmenter(str(tmp_path))


# ---- parts of speech

@pytest.fixture(scope="module")
def tagger():
    return Tagger()


def test_words_have_the_tags_of_jieba(tagger):
    assert tagger.tag("苹果手机，我买了 PVC") == [
        ("苹果", "n"), ("手机", "n"), ("，", "x"), ("我", "r"), ("买", "v"), ("了", "ul"), (" ", "x"), ("PVC", "eng")]


@settings(max_examples=200, deadline=None)
@given(strategies.text(max_size=40) | strategies.text(alphabet=TEMPTING, max_size=40))
def test_tagged_words_joined_are_the_text(tagger, text):
    assert "".join(word for word, _ in tagger.tag(text)) == text


def test_words_of_a_user_dictionary_have_their_tags(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("聚氯乙烯管 9 nz\n丙二醇酯\n1,2-二氯乙烷 5 nr\nα-蒎烯\n手机\n", encoding="utf-8")
    tagged = Tagger(str(path)).tag("聚氯乙烯管和丙二醇酯，1,2-二氯乙烷α-蒎烯手机")
    assert tagged == [("聚氯乙烯管", "nz"), ("和", "c"), ("丙二醇酯", words.UNTAGGED), ("，", "x"),
                      ("1,2-二氯乙烷", "nr"), ("α-蒎烯", words.UNTAGGED), ("手机", "n")]


def test_a_tagger_finds_where_words_begin_too(encoder, tagger):
    assert words_in(encoder, tagger, "苹果，手机。") == (["苹|果 ， 手|机 。"], 0)
