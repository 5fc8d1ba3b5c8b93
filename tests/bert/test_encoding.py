import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from bert.encoding import Encoder
from bert.tokenization import FullTokenizer
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


def test_every_code_point_is_encoded_as_by_the_tokenizer_wherever_it_stands(pair):
    for first in range(0, sys.maxunicode + 1, 4096):
        chars = [chr(code) for code in range(first, first + 4096)]
        check(*pair, ["a%sb %s中%s。" % (char, char, char) for char in chars])


def test_no_sentences_are_no_tokens(pair):
    ids, ends = pair[1].encode([])
    assert len(ids) == len(ends) == 0


def test_remembered_words_are_forgotten_in_time(pair, monkeypatch):
    tokenizer, _ = pair
    monkeypatch.setattr("bert.tokenization.MAX_CACHED_WORDS", 3)
    check(tokenizer, Encoder(tokenizer), ["a b ab ba a b ab ba bb"] * 2)


@pytest.mark.skipif(not os.path.isdir(SHARED), reason="needs the shared data")
@pytest.mark.parametrize("name", ["corpus/chemical_regulations.txt", "tasks/hazard_class/dev.tsv"])
def test_real_text_is_encoded_as_by_the_tokenizer(name):
    tokenizer = FullTokenizer(os.path.join(SHARED, "vocab.txt"))
    with open(os.path.join(SHARED, name), encoding="utf-8") as stream:
        check(tokenizer, Encoder(tokenizer), stream.read().split("\n")[:20000])
