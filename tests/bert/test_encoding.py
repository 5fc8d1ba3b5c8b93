import os
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from bert.encoding import CONTINUES, UNALIGNED, Encoder
from bert.tokenization import FullTokenizer
from tests import graphs
from tests import peer

SHARED = os.path.join(os.path.dirname(peer.CHECKOUT), "shared", "data")
# Words, pieces, marks that combine, spaces of all kinds, both sigmas, what disappears, what decomposes.
TEMPTING = "中文氯Aaé\u0301\u0308\u200bΣσς.,'’·，。（）～１Ａ\u3000\u00a0\u2028\u0085\t\r\n\0\ufffd\u1fef豈가がﾊﾟ😀𠀀 "


@pytest.fixture(scope="module", params=[True, False], ids=["lower", "cased"])
def pair(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list("中文氯aAbé.,'，。（）～１σς") + [
        "##a", "##b", "##中", "ab", "##σ", "##ς", "豈", "\u30cf", "e"]
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tokenizer = FullTokenizer(str(path), do_lower_case=request.param)
    return tokenizer, Encoder(tokenizer)


def check(tokenizer, encoder, sentences):
    ids, ends = encoder.encode(sentences)
    assert ids.dtype == np.int32 and len(ends) == len(sentences)
    found = [part.tolist() for part in np.split(ids, ends[:-1])] if sentences else []
    for sentence, part in zip(sentences, found):
        assert part == tokenizer.convert_tokens_to_ids(tokenizer.tokenize(sentence)), ascii(sentence)


@settings(max_examples=500, deadline=None)
@given(sentences=strategies.lists(strategies.one_of(
    strategies.text(strategies.characters(blacklist_categories=[])), strategies.text(TEMPTING)), max_size=4))
def test_every_string_is_encoded_as_by_the_tokenizer(pair, sentences):
    check(*pair, sentences)


@graphs.ON_REFERENCE
def test_every_code_point_is_encoded_as_by_the_tokenizer_wherever_it_stands(pair):
    for first in range(0, sys.maxunicode + 1, 4096):
        chars = [chr(code) for code in range(first, first + 4096)]
        # Nine of ten are unassigned or for private use: those stand many together.
        vague = "".join(char for char in chars if unicodedata.category(char) in ("Cn", "Co"))
        pieces = [char for char in chars if unicodedata.category(char) not in ("Cn", "Co")]
        pieces += [vague[start:start + 64] for start in range(0, len(vague), 64)]
        check(*pair, ["a%sb %s中%s。" % (piece, piece, piece) for piece in pieces])


def test_no_sentences_are_no_tokens(pair):
    ids, ends = pair[1].encode([])
    assert len(ids) == len(ends) == 0


def test_remembered_words_are_forgotten_in_time(pair, monkeypatch):
    tokenizer, _ = pair
    monkeypatch.setattr("bert.tokenization.MAX_CACHED_WORDS", 3)
    check(tokenizer, Encoder(tokenizer), ["a b ab ba a b ab ba bb"] * 2)


# ---- places

@settings(max_examples=500, deadline=None)
@given(sentences=strategies.lists(strategies.one_of(
    strategies.text(strategies.characters(blacklist_categories=[])), strategies.text(TEMPTING)), max_size=4))
def test_a_sentence_cut_at_the_place_of_a_token_begins_with_that_token(pair, sentences):
    tokenizer, encoder = pair
    ids, ends = encoder.encode(sentences)
    same_ids, same_ends, places = encoder.encode_with_places(sentences)
    assert same_ids.tolist() == ids.tolist() and same_ends.tolist() == ends.tolist() and len(places) == len(ids)
    starts = [0] + ends[:-1].tolist() if sentences else []
    for sentence, start, end in zip(sentences, starts, ends):
        tokens = tokenizer.convert_ids_to_tokens(ids[start:end].tolist())
        known = [place for place in places[start:end].tolist() if place >= 0]
        assert known == sorted(set(known))
        for token, place in zip(tokens, places[start:end].tolist()):
            assert (place == CONTINUES) == token.startswith("##")
            assert place < 0 or tokenizer.tokenize(sentence[place:])[0] == token, ascii(sentence)


@pytest.mark.parametrize("sentence, tokens, expected", [
    ("中文 。中", "中 文 。 中", [0, 1, 3, 4]),
    (" 中\n文", "中 文", [1, 3]),
    ("中ab文", "中 ab 文", [0, 1, 3]),
    ("文abb中", "文 ab ##b 中", [0, 1, CONTINUES, 4]),
    ("中-ea,中", "中 [UNK] e ##a , 中", [0, 1, 2, CONTINUES, 4, 5]),
    ("中zz文", "中 [UNK] 文", [0, 1, 3]),
    ("\u200bab中", "ab 中", [0, 3]),                                  # what vanishes, at the front of a run
    ("中\u200b文", "中 文", [0, 2]),                                  # a run of no token
    ("文ab\u00b7abb\u00a0a中", "文 ab [UNK] ab ##b a 中",             # a run of four words
     [0, 1, UNALIGNED, UNALIGNED, CONTINUES, UNALIGNED, 9]),
    ("", "", []),
])
def test_places_are_those_of_the_characters(pair, sentence, tokens, expected):
    tokenizer, encoder = pair
    ids, ends, places = encoder.encode_with_places(["中", sentence, "文"])
    assert tokenizer.convert_ids_to_tokens(ids.tolist()) == ["中"] + tokens.split() + ["文"]
    assert places.tolist() == [0] + expected + [0]
    assert ends.tolist() == [1, 1 + len(expected), 2 + len(expected)]


def test_a_capital_sigma_costs_its_own_sentence_the_places_only(pair):
    tokenizer, encoder = pair
    lower = tokenizer.basic_tokenizer.do_lower_case
    sentences = ["文a", "中Σa abb", "ab文"]
    ids, ends, places = encoder.encode_with_places(sentences)
    check(tokenizer, encoder, sentences)
    assert places[:2].tolist() == [0, 1] and places[-2:].tolist() == [0, 2]
    middle = places[ends[0]:ends[1]].tolist()
    assert middle[-1] == CONTINUES and (middle[0] == UNALIGNED) == lower
    assert all(place in (UNALIGNED, CONTINUES) for place in middle) == lower


def test_no_sentences_have_no_places(pair):
    assert [len(values) for values in pair[1].encode_with_places([])] == [0, 0, 0]


# ---- real text

@pytest.mark.skipif(not os.path.isdir(SHARED), reason="needs the shared data")
@pytest.mark.parametrize("name", ["corpus/chemical_regulations.txt", "tasks/hazard_class/dev.tsv"])
def test_real_text_is_encoded_as_by_the_tokenizer(name):
    tokenizer = FullTokenizer(os.path.join(SHARED, "vocab.txt"))
    with open(os.path.join(SHARED, name), encoding="utf-8") as stream:
        check(tokenizer, Encoder(tokenizer), stream.read().split("\n")[:20000])
