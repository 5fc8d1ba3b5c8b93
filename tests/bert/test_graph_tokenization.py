"""The tokenizer in the graph against `FullTokenizer`: not one string may differ."""

import glob
import os
import random
import sys
import unicodedata

import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given, settings, strategies

from bert import code_points
from bert.graph_tokenization import GraphTokenizer
from bert.tokenization import FullTokenizer, MAX_WORD_CHARS
from tests import graphs
from training import graph_mode  # noqa: F401

# Words, pieces, marks that combine, spaces of all kinds, both sigmas, what disappears, what decomposes, what is cased.
TEMPTING = ("中文氯Aaéb\u0301\u0308\u200bΣσς.,'’·，。（）～１Ａ\u3000\u00a0\u2028\u0085\t\r\n\0\ufffd\u1fef豈가がﾊﾟ😀𠀀 "
            "\u302e\u302f\U0001d165\U0001d16d\U0001d15e\u0903\u0901\u0f73İǅⅧⓐʰ\u0345\u00ad·:")
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list("中文氯aAbé.,'，。（）～１σς") + [
    "##a", "##b", "##中", "ab", "##σ", "##ς", "豈", "\u30cf", "e", "##", "##ab", "##aba", "abab"]


class Pair:
    """A `FullTokenizer`, and a session with it as a graph."""

    def __init__(self, vocab_file, lower):
        self.tokenizer = FullTokenizer(vocab_file, lower)
        with tf.Graph().as_default() as graph:
            texts = tf.placeholder(tf.string, [None])
            found = GraphTokenizer(self.tokenizer.vocab, lower).tokenize(texts)
            initialize = tf.tables_initializer()
        self.session = tf.Session(graph=graph)
        self.session.run(initialize)
        self._run = self.session.make_callable(found, [texts])

    def check(self, texts):
        """Texts: list of str or bytes."""
        ids, text = self._run([tf.compat.as_bytes(text) for text in texts])
        for number, one in enumerate(texts):
            expected = self.tokenizer.convert_tokens_to_ids(self.tokenizer.tokenize(one))
            assert ids[text == number].tolist() == expected, ascii(one)


@pytest.fixture(scope="module", params=[True, False], ids=["lower", "cased"])
def pair(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    made = Pair(str(path), request.param)
    yield made
    made.session.close()


@graphs.ON_TENSORFLOW_2
@settings(max_examples=400, deadline=None)
@given(texts=strategies.lists(strategies.one_of(
    strategies.text(strategies.characters(blacklist_categories=["Cs"])), strategies.text(TEMPTING),
    strategies.text("ab中"), strategies.binary()), max_size=4))
def test_every_string_is_cut_as_by_the_tokenizer(pair, texts):
    pair.check(texts)


def test_every_code_point_is_cut_as_by_the_tokenizer_wherever_it_stands(pair):
    assigned = [chr(code) for code in range(sys.maxunicode + 1)
                if unicodedata.category(chr(code)) not in code_points.UNCHANGED]
    # The others are alike, so many of them stand together.
    others = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cn", "Co")]
    pair.check(["a".join(others[first:first + 60]) for first in range(0, len(others), 60)])
    for context in ("%s", "a%sΣ b\u302e%s\U0001d165"):
        texts = [context.replace("%s", char) for char in assigned]
        for first in range(0, len(texts), 5000):
            pair.check(texts[first:first + 5000])


def test_texts_of_all_kinds_side_by_side(pair):
    draw = random.Random(4)
    for _ in range(60):
        pair.check(["".join(draw.choice(TEMPTING) for _ in range(draw.randint(0, 40))) for _ in range(100)])


@pytest.mark.parametrize("text", [
    "a" * MAX_WORD_CHARS, "a" * (MAX_WORD_CHARS + 1), "ab" * 100, "ab" * 100 + "a", "b" * 3000,
    "aba" * 5, "abc", "abac", "中a", "a中", "." * 500, "中" * 5000, " \u2028\u0085 ", "\ufeffa", "ΑΣ", "Σ", "ΑΣΑ",
    "aΣ.", "aΣ'b",
], ids=lambda text: ascii(text[:8]))
def test_words_of_every_form(pair, text):
    pair.check([text, "", text + " a", "a " + text])


def test_a_sigma_at_a_texts_edge_does_not_look_at_its_neighbours(pair):
    pair.check(["aΣ", "b", "Σ", "aΣ", "", "Σb", "a", "Σ"])
    pair.check(["a\u302e", "\U0001d165\u302e", "\u0301\U0001d165"])  # nor do marks


def test_no_text_has_no_tokens(pair):
    pair.check([])
    pair.check(["", " ", "\0"])


@pytest.mark.parametrize("content", [
    b"\xed\xa0\x80a", b"a\xff\xfeb", b"\xf4\x90\x80\x80", b"\xc3", b"\xe4\xb8", b"\xc0\x80", b"\xf0\x9f\x98\x80a\x80"])
def test_what_is_not_utf8_is_left_out(pair, content):
    pair.check([content, b"a" + content + b"b"])


def test_all_operations_are_tensorflows_own(pair):
    kinds = {operation.type for operation in pair.session.graph.get_operations()}
    assert "UnicodeDecode" in kinds and not {kind for kind in kinds if "Py" in kind or kind.startswith("Bert")}


@pytest.mark.skipif(not os.path.isdir(graphs.SHARED), reason="no shared data beside this checkout")
def test_real_texts_with_a_real_vocabulary():
    pair = Pair(os.path.join(graphs.SHARED, "data", "vocab.txt"), True)
    texts = []
    for path in sorted(glob.glob(os.path.join(graphs.SHARED, "data", "**", "*.t?[tv]"), recursive=True)):
        with open(path, encoding="utf-8", errors="ignore", newline="\n") as stream:
            texts += [line for line in stream][::5][:2000]
    assert len(texts) > 2000
    for first in range(0, len(texts), 500):
        pair.check(texts[first:first + 500])
    pair.session.close()
