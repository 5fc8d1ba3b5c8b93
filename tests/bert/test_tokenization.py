import os
import sys
import unicodedata

import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from bert import tokenization
from bert.tokenization import BasicTokenizer
from bert.tokenization import FullTokenizer
from bert.tokenization import WordpieceTokenizer
from tests import graphs
from tests import peer
from training.command import UserError

SHARED = os.path.join(peer.CHECKOUT, "..", "shared", "data")
REAL_TEXTS = ("corpus/chemical_regulations.txt", "unlabeled/reviews.txt", "tasks/recruitment/dev.tsv",
              "tasks/hazard_class/dev.tsv")
needs_shared = pytest.mark.skipif(not os.path.isdir(SHARED), reason="needs the shared data")
both_cases = pytest.mark.parametrize("do_lower_case", [True, False])

SPECIAL = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"
PIECES = ("a b ab ##a ##b ##ab abc ##c 酸 ##酸 é e ##e σ ##σ ##ς ς ##σα Σ ##Σ i ##i ` = ! ! , 。 - 1 ##1 12 "
          "\u0307 ##\u0307 ss ##s s pvc ##vc p 가 ᄀ ##ᅡ unwanted ##want ##ed un runn ##ing").split()

# What the rules treat each in its own way: white space, controls, joiners, sigmas, marks of several combining
# classes, what lower-casing or decomposing makes longer or into punctuation, wide and CJK characters.
TRICKY = ("abcABC12 \t\n\r\v\f\x00\x1c\x85\u00a0\u1680\u2003\u2028\u2029\u3000\ufeff\ufffd\u00ad"
          "\u200b\u200d\ue000"
          "ΣσςΑα.'’:·İıßẞéÉÅÅΩK\u0300\u0301\u0323\u0327\u0345\u0489\u0592\u05bf\u0e38\u0f71\u0f74\u302a\u16ff0"
          "\u1fef\u2260\u226e\u226f;`^$~-–。,!、「」酸锶䶵豈\U00020000\U0002b740\U0002f800ぱカガ가한ǅ\U0001f600\ud83d")

words = st.text(st.sampled_from(TRICKY), max_size=12)
texts = st.one_of(
    st.text(max_size=40),
    st.text(st.sampled_from(TRICKY), max_size=40),
    st.text(st.characters(blacklist_categories=()), max_size=40),
    st.lists(st.one_of(words, st.sampled_from(PIECES)), max_size=12).map("".join))
thorough = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_bytes((SPECIAL + "".join(piece + "\n" for piece in sorted(set(PIECES)))).encode("utf-8"))
    return str(path)


@pytest.fixture(scope="module")
def pairs(vocab_file):
    """Our tokenizer and Google's, by do_lower_case."""
    google = peer.google_tokenization()
    return {lower: (FullTokenizer(vocab_file, lower), google.FullTokenizer(vocab_file, lower))
            for lower in (True, False)}


def write_vocab(tmp_path, content):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def error_of(function, *args):
    with pytest.raises(UserError) as caught:
        function(*args)
    return str(caught.value)


# ---- the same results as Google's

@both_cases
def test_every_string_is_cut_into_googles_tokens(pairs, do_lower_case):
    ours, googles = pairs[do_lower_case]

    @thorough
    @given(texts)
    def check(text):
        assert ours.tokenize(text) == googles.tokenize(text)
        assert ours.basic_tokenizer.tokenize(text) == googles.basic_tokenizer.tokenize(text)

    check()


@both_cases
def test_every_byte_string_is_cut_into_googles_tokens(pairs, do_lower_case):
    ours, googles = pairs[do_lower_case]

    @thorough
    @given(st.one_of(st.binary(max_size=60), texts.map(lambda text: text.encode("utf-8", "replace")[:-1])))
    def check(text):
        assert ours.tokenize(text) == googles.tokenize(text)

    check()


@graphs.ON_TENSORFLOW_2
@both_cases
def test_every_code_point_alone_and_in_a_word_is_cut_as_by_google(pairs, do_lower_case):
    ours, googles = (tokenizer.basic_tokenizer for tokenizer in pairs[do_lower_case])
    for start in range(0, sys.maxunicode + 1, 4096):
        chars = [chr(code) for code in range(start, start + 4096)]
        # Nine of ten are unassigned or for private use: those stand in one long word together.
        vague = [char for char in chars if unicodedata.category(char) in ("Cn", "Co")]
        text = "".join(vague) + " " + " ".join(
            "%s a%sb" % (char, char) for char in chars if unicodedata.category(char) not in ("Cn", "Co"))
        assert ours.tokenize(text) == googles.tokenize(text), "U+%04X ..." % start


def test_words_are_cut_into_googles_pieces(vocab_file):
    vocab = tokenization.load_vocab(vocab_file)
    google = peer.google_tokenization()
    ours = WordpieceTokenizer(vocab, unk_token="[SEP]", max_input_chars_per_word=7)
    googles = google.WordpieceTokenizer(vocab, unk_token="[SEP]", max_input_chars_per_word=7)

    @thorough
    @given(st.one_of(st.text(st.sampled_from("abc酸 \u2028#"), max_size=30),
                     st.lists(st.sampled_from(PIECES + [" "]), max_size=10).map("".join)))
    def check(text):
        assert ours.tokenize(text) == googles.tokenize(text)
        assert ours.tokenize(text.encode("utf-8")) == googles.tokenize(text)

    check()


@needs_shared
@both_cases
def test_real_text_is_cut_into_googles_tokens(do_lower_case):
    vocab_file = os.path.join(SHARED, "vocab.txt")
    ours = FullTokenizer(vocab_file, do_lower_case)
    googles = peer.google_tokenization().FullTokenizer(vocab_file, do_lower_case)
    assert ours.vocab == googles.vocab and ours.inv_vocab == googles.inv_vocab
    for name in REAL_TEXTS:
        with open(os.path.join(SHARED, name), encoding="utf-8") as stream:
            for line in stream.read(60000).splitlines():
                tokens = ours.tokenize(line)
                assert tokens == googles.tokenize(line)
                ids = ours.convert_tokens_to_ids(tokens)
                assert ids == googles.convert_tokens_to_ids(tokens)
                assert ours.convert_ids_to_tokens(ids) == tokens


def test_text_is_bytes_or_str_as_in_googles(pairs):
    google = peer.google_tokenization()
    for text in ("酸", "酸".encode("utf-8"), b"\xe9\x85\xb8\xcb a", b""):
        assert tokenization.convert_to_unicode(text) == google.convert_to_unicode(text)
    for module in (tokenization, google):
        with pytest.raises(ValueError):
            module.convert_to_unicode(5)


# ---- the rules, without the peer

def test_final_sigma_depends_on_its_own_word_alone():
    assert BasicTokenizer().tokenize("ΟΔΟΣ ΟΔΟΣ.Α Σ ΑΣ酸") == ["οδος", "οδοσ", ".", "α", "σ", "ας", "酸"]


def test_accents_go_only_with_lower_casing():
    assert BasicTokenizer(True).tokenize("Ünïcode É") == ["unicode", "e"]
    assert BasicTokenizer(False).tokenize("Ünïcode É") == ["Ünïcode", "É"]


def test_chinese_characters_and_punctuation_are_words():
    assert BasicTokenizer().tokenize("聚氯乙烯PVC-U(1.5%)") == list("聚氯乙烯") + [
        "pvc", "-", "u", "(", "1", ".", "5", "%", ")"]


def test_the_longest_piece_wins_from_the_left(vocab_file):
    # The longest start is kept even where a shorter one would have left a rest that is a piece.
    tokenizer = FullTokenizer(vocab_file)
    assert tokenizer.tokenize("RUNNING abca unwanted abcb unwantedx 酸") == [
        "runn", "##ing", "abc", "##a", "unwanted", "abc", "##b", "[UNK]", "酸"]


def test_a_word_over_200_characters_is_unknown(vocab_file):
    tokenizer = FullTokenizer(vocab_file)
    assert tokenizer.tokenize("a" * 200) == ["a"] + ["##a"] * 199
    assert tokenizer.tokenize("a" * 201) == ["[UNK]"]


def test_full_caches_begin_anew_and_change_nothing(vocab_file, monkeypatch):
    monkeypatch.setattr(tokenization, "MAX_CACHED_WORDS", 2)
    tokenizer = FullTokenizer(vocab_file)
    assert [tokenizer.tokenize(text) for text in ("ab a abc ab", "ab")] == [["ab", "a", "abc", "ab"], ["ab"]]
    assert len(tokenizer.wordpiece_tokenizer.pieces) <= 2


def test_an_unknown_token_or_id_is_a_key_error(vocab_file):
    tokenizer = FullTokenizer(vocab_file)
    with pytest.raises(KeyError, match="油"):
        tokenizer.convert_tokens_to_ids(["油"])
    with pytest.raises(KeyError):
        tokenizer.convert_ids_to_tokens([-1])


# ---- vocabularies

def test_ids_count_the_lines_whatever_their_ends(tmp_path):
    content = SPECIAL.replace("\n", "\r\n") + "\x85a\n\u2028\n 酸"
    vocab = tokenization.load_vocab(write_vocab(tmp_path, content))
    assert list(vocab.items())[5:] == [("a", 5), ("", 6), ("酸", 7)]


@pytest.mark.parametrize("content, message", [
    ("", ":1: empty; a vocabulary has one token a line"),
    (SPECIAL + "a\nb\na\n", ":8: a stands already in line 6; a token may stand once only"),
    (SPECIAL + "\n\n", ":7: the empty token stands already in line 6; a token may stand once only"),
    (SPECIAL.encode("utf-8") + b"a\xcb\xe1\n", ":6: not UTF-8 at byte 2 of the line; convert the file"),
    ("[PAD]\n[UNK]\n[SEP]\n",
     ":3: ends without [CLS], [MASK]; every BERT vocabulary has a line for each of "
     "[PAD] [UNK] [CLS] [SEP] [MASK]"),
])
def test_what_is_no_vocabulary_is_refused_with_its_line(tmp_path, content, message):
    path = write_vocab(tmp_path, content)
    assert error_of(tokenization.load_vocab, path) == path + message
