import os

import jieba
import pytest
from hypothesis import given, settings, strategies

from bert import tokenization
from bert.tokenization import FullTokenizer
from bert.word_tokenization import BasicWordTokenizer
from bert.word_tokenization import WordTokenizer
from tests import graphs
from tests import peer
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2

SHARED_DEV = os.path.join(peer.CHECKOUT, "..", "shared", "data", "tasks", "chnsenticorp", "dev.tsv")
SPECIAL = list(tokenization.SPECIAL_TOKENS)

# What is segmented, lowered and split each in its own way: white space of all kinds, controls, full width, sigmas,
# letters whose lower case has another length, characters outside jieba's blocks.
TRICKY = ("我在苹果手机很好用聚氯乙烯PVC-Ut1.5%+#&_ABcİΑΣσß \t\n\r\v\x1c\x85\xa0\u2028\u3000\x00\u200b\ufeffＡｂ１，。"
          "é\u0301\U0001f600\U00020000")
TEXTS = [
    "房间很大，WiFi速度快，性价比高！", "Thinkpad T61用了3个月，CPU 2.0GHz，才5999元。",
    "聚氯乙烯（PVC-U）管材Φ25×1.5mm", "ＡＢＣ１２３，全角字母", "太好了😀😀！！！\U0001f468\u200d\U0001f469",
    "", " ", " \t\r\n\u3000\xa0 ", "\u2028\x85\x1c", "一\x00二\x07三\u200b四\ufeff", "Ünïcode É", "İstanbul ΟΔΟΣ",
    "a" * 50, "好好好好好好好好", "[UNK] [MASK]"]


@pytest.fixture(scope="module")
def plain():
    """The definition: jieba's words, lower-cased, split at white space."""
    segmenter = jieba.Tokenizer()
    segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True

    def tokenize(text):
        return [part for word in segmenter.cut(text) for part in word.lower().split()]

    return tokenize


@pytest.fixture(scope="module")
def basic():
    return BasicWordTokenizer()


@pytest.fixture
def vocab_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(SPECIAL + ["苹果", "手机", "pvc", "USB", "，", "\u200b"]) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_words_are_jiebas_lowered_and_split(basic, plain, text):
    assert basic.tokenize(text) == plain(text)
    assert basic.tokenize(text.encode("utf-8")) == plain(text)


@settings(max_examples=400, deadline=None)
@given(strategies.one_of(strategies.text(max_size=40), strategies.text(strategies.sampled_from(TRICKY), max_size=40)))
def test_words_of_any_text_are_jiebas_lowered_and_split(basic, plain, text):
    assert basic.tokenize(text) == plain(text)


@pytest.mark.skipif(not os.path.isfile(SHARED_DEV), reason="needs the shared data")
def test_words_of_real_text_are_jiebas_lowered_and_split(basic, plain):
    with open(SHARED_DEV, encoding="utf-8") as stream:
        texts = [line for line, _ in zip(stream, range(300))]
    assert [basic.tokenize(text) for text in texts] == [plain(text) for text in texts]


def test_what_words_look_like(basic):
    assert basic.tokenize("苹果手机 很好用，PVC-U 1.5%") == [
        "苹果", "手机", "很", "好", "用", "，", "pvc", "-", "u", "1.5%"]
    assert basic.tokenize(" \t\n\u3000") == basic.tokenize("") == []


def test_case_is_kept_when_asked():
    assert BasicWordTokenizer(do_lower_case=False).tokenize("USB É 苹果") == ["USB", "É", "苹果"]


def test_a_word_that_is_not_in_the_vocabulary_is_unknown(vocab_file):
    tokenizer = WordTokenizer(vocab_file)
    tokens = tokenizer.tokenize("苹果手机，苹 PVC USB\u200b")
    assert tokens == ["苹果", "手机", "，", "[UNK]", "pvc", "[UNK]", "\u200b"]
    ids = tokenizer.convert_tokens_to_ids(tokens)
    assert ids == [5, 6, 9, 1, 7, 1, 10] and tokenizer.convert_ids_to_tokens(ids) == tokens
    assert WordTokenizer(vocab_file, do_lower_case=False).tokenize("PVC USB") == ["[UNK]", "USB"]


def test_no_text_gives_a_special_token_but_unknown(vocab_file):
    assert set(WordTokenizer(vocab_file).tokenize("[CLS][PAD] [SEP] [MASK]")) == {"[UNK]"}


def test_its_interface_is_that_of_the_wordpiece_tokenizer(vocab_file):
    def public(tokenizer):
        return {name for name in dir(tokenizer) if not name.startswith("_")}

    assert public(FullTokenizer(vocab_file)) - public(WordTokenizer(vocab_file)) == {"wordpiece_tokenizer"}
    assert WordTokenizer(vocab_file, False).basic_tokenizer.do_lower_case is False


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path):
    (tmp_path / "words.txt").write_text("苹果\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"words\.txt:1: ends without \[PAD\]"):
        WordTokenizer(str(tmp_path / "words.txt"))
