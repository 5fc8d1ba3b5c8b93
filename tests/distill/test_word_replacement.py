import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert.draws import Draws, keys_of
from bert.encoding import Encoder
from bert.modeling import BertConfig
from bert.tokenization import FullTokenizer
from bert.words import Segmenter
from distill import word_replacement
from distill.word_replacement import Masked, Predictor, Replacer
from tasks.encoders import build_encoder
from tasks.masked_lm import MaskedLm
from tests import graphs
from training.command import UserError

pytestmark = graphs.ON_REFERENCE

CHARACTERS = "苹果手机很好用我在买了酒店房间小服务"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"] + list(CHARACTERS) + [
    "##果", "##机", "，", "。", "pvc", "##u", "5", "u"]
CONFIG = BertConfig(len(TOKENS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                    max_position_embeddings=32)
MASK = TOKENS.index("[MASK]")
TOP_K = 4


def logits_of(features):
    return MaskedLm().logits(build_encoder(CONFIG, False, features), CONFIG, features)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return FullTokenizer(str(path))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A teacher with great random weights and no biases, so that its answers differ from place to place."""
    prefix = str(tmp_path_factory.mktemp("teacher") / "model.ckpt")
    with tf.Graph().as_default(), tf.Session() as session:
        ones = np.ones([1, 3], np.int32)
        logits_of({name: tf.constant(ones) for name in (
            "input_ids", "input_mask", "segment_ids", "masked_lm_positions", "masked_lm_weights")})
        session.run(tf.global_variables_initializer())
        draw = graphs.named_weights(1.0)
        graphs.assign(session, tf.trainable_variables(),
                      lambda name, shape: draw(name, shape) * (not name.endswith(("beta", "bias"))))
        tf.train.Saver().save(session, prefix, write_meta_graph=False)
    return prefix


@pytest.fixture(scope="module")
def predictor(checkpoint, tokenizer):
    return Predictor(CONFIG, checkpoint, tokenizer.vocab, TOP_K)


@pytest.fixture(scope="module")
def replacer(tokenizer, predictor):
    def make(share=0.5, max_seq_length=32, segmenter=None, predict=predictor, batch_size=3):
        return Replacer(tokenizer, segmenter, predict, share, max_seq_length, batch_size)
    return make


def keys(texts, number=5):
    return [keys_of(7, place, np.arange(number)) for place in range(len(texts))]


def tokens_of(tokenizer, text):
    ids, _, places = Encoder(tokenizer).encode_with_places([text])
    return ids, places


# ---- what is chosen

@pytest.mark.parametrize("text, allowed", [
    ("苹果，手机。", "苹果手机"),
    ("苹 果　pvcu5u", "苹果"),
    ("苹醌果", "苹果"),                # not in the vocabulary
    ("\u0301苹\u200b果", "苹果"),
    ("", ""),
])
def test_only_known_chinese_characters_may_be_replaced(tokenizer, text, allowed):
    ids, places = tokens_of(tokenizer, text)
    may = word_replacement.replaceable(text, ids, places, tokenizer.vocab)
    assert may.shape == ids.shape
    assert "".join(text[place] for place in places[may]) == allowed


@pytest.mark.parametrize("share, words", [(0.0, 1), (0.1, 1), (0.5, 2), (0.6, 2), (1.0, 4)])
def test_a_share_of_whole_words_is_chosen_one_at_least(share, words):
    starts = np.array([1, 0, 1, 1, 0, 0, 1, 1, 0], bool)
    may = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1], bool)  # the third word may not: one of its tokens may not
    chosen = word_replacement.choose_words(starts, may, share, Draws(keys_of(1, np.arange(50))))
    assert chosen.shape == (50, 9)
    assert not chosen[:, 3:6].any()
    np.testing.assert_array_equal(chosen[:, 0], chosen[:, 1])
    np.testing.assert_array_equal(chosen[:, 7], chosen[:, 8])
    np.testing.assert_array_equal(chosen[:, [0, 2, 6, 7]].sum(axis=1), words)


def test_all_words_are_equally_likely():
    chosen = word_replacement.choose_words(
        np.ones(10, bool), np.ones(10, bool), 0.2, Draws(keys_of(1, np.arange(5000))))
    spread = (5000 * 0.2 * 0.8) ** 0.5
    assert (abs(chosen.sum(axis=0) - 1000) < 4 * spread).all()


def test_nothing_is_chosen_where_nothing_may_be():
    chosen = word_replacement.choose_words(np.ones(3, bool), np.zeros(3, bool), 1.0, Draws(keys_of(1, np.arange(2))))
    assert not chosen.any()


# ---- what is drawn

def test_draws_follow_the_softmax_of_the_top_k():
    logits = np.array([[0.0, 2.0, 1.0, -1.0, 1.5]], np.float32)
    draws = Draws(keys_of(5, np.arange(20000))).uniform(0, 1)[:, 0]
    drawn = graphs.run(lambda: word_replacement.sample_top(
        tf.constant(np.repeat(logits, len(draws), axis=0)), tf.constant(draws, tf.float32), 3))
    odds = np.exp([2.0, 1.5, 1.0])
    for column, share in zip((1, 4, 2), odds / odds.sum()):
        spread = (len(draws) * share * (1 - share)) ** 0.5
        assert abs((drawn == column).sum() - len(draws) * share) < 4 * spread
    assert set(drawn) == {1, 2, 4}


def test_a_draw_just_below_1_is_the_last_of_the_top_k():
    drawn = graphs.run(lambda: word_replacement.sample_top(tf.zeros([1, 9]), tf.constant([1.0]), 9))
    assert drawn.tolist() == [8]


def test_characters_are_drawn_from_the_top_k_of_the_model_itself(checkpoint, predictor):
    """Against logits of the plain graph, text by text, sorted and summed by NumPy."""
    random = np.random.RandomState(1)
    batch = []
    for number, length in enumerate((3, 9, 29, 5)):
        chosen = np.sort(random.permutation(length)[:1 + length // 3])
        ids = random.randint(6, 6 + len(CHARACTERS), length)
        ids[chosen] = MASK
        batch.append(Masked(number, 0, ids, chosen, random.rand(len(chosen))))
    allowed = np.arange(6, 6 + len(CHARACTERS))
    best = {tuple(np.argsort(-logits[allowed])[:TOP_K]) for copy in batch for logits in plain_logits(checkpoint, copy)}
    assert len(best) > 4
    for copy, drawn in zip(batch, predictor(batch)):
        for logits, draw, number in zip(plain_logits(checkpoint, copy), copy.draws, drawn):
            order = allowed[np.argsort(-logits[allowed])][:TOP_K]
            odds = np.exp(logits[order].astype(np.float64))
            ends = np.cumsum(odds / odds.sum())
            assert number == order[np.searchsorted(ends, draw, side="right")]


def plain_logits(checkpoint, copy):
    """float32 [P, V] of one copy."""
    ids = np.concatenate([[TOKENS.index("[CLS]")], copy.ids, [TOKENS.index("[SEP]")]])[np.newaxis]
    with tf.Graph().as_default(), tf.Session() as session:
        logits = logits_of({name: tf.constant(values, tf.int32) for name, values in (
            ("input_ids", ids), ("input_mask", np.ones_like(ids)), ("segment_ids", np.zeros_like(ids)),
            ("masked_lm_positions", copy.chosen[np.newaxis] + 1),
            ("masked_lm_weights", np.ones([1, len(copy.chosen)])))})
        tf.train.Saver(tf.trainable_variables()).restore(session, checkpoint)
        return session.run(logits)


# ---- copies

TEXTS = ["苹果手机很好用，我在pvc酒店 房间5买了。", "小！", "pvc", "服务很好\u0301，醌好\u200b用"]


def test_nothing_but_chosen_characters_changes_and_tokens_stay_as_many(tokenizer, replacer):
    made, counts = replacer(share=1.0).copies(TEXTS, keys(TEXTS))
    changed = 0
    for text, copies in zip(TEXTS, made):
        assert len(copies) == 5
        for copy in copies:
            assert len(copy) == len(text)
            assert len(tokenizer.tokenize(copy)) == len(tokenizer.tokenize(text))
            for old, new in zip(text, copy):
                assert new in CHARACTERS if old in CHARACTERS else new == old
                changed += new != old
    assert counts["replaced"] == changed
    assert counts["masked"] == 5 * sum(letter in CHARACTERS for text in TEXTS for letter in text)
    assert counts["tokens"] == 5 * sum(len(tokenizer.tokenize(text)) for text in TEXTS)


def test_whole_words_are_masked_together(replacer):
    seen = []

    def predict(batch):
        seen.extend(batch)
        return [np.full(len(copy.chosen), TOKENS.index("小")) for copy in batch]

    made, _ = replacer(share=0.3, segmenter=Segmenter(), predict=predict).copies(["苹果，手机，酒店"], keys(["a"], 30))
    assert set(made[0]) == {"小小，手机，酒店", "苹果，小小，酒店", "苹果，手机，小小"}
    assert all((copy.ids == MASK).sum() == 2 for copy in seen)


def test_a_copy_is_the_same_whatever_is_beside_it(replacer):
    together, _ = replacer(batch_size=20).copies(TEXTS, keys(TEXTS))
    alone = [replacer().copies([text], [streams])[0][0] for text, streams in zip(TEXTS, keys(TEXTS))]
    assert together == alone


def test_what_the_model_does_not_see_whole_stays(replacer):
    text = "苹果手机" * 5
    made, counts = replacer(share=1.0, max_seq_length=9, segmenter=Segmenter()).copies([text, "苹果"], keys("ab"))
    assert counts["cut"] == 1
    assert all(copy[6:] == text[6:] for copy in made[0])  # the word 手机 goes on behind the seventh token
    assert any(copy[4:6] != text[4:6] for copy in made[0])


def test_a_checkpoint_without_a_head_is_refused(tmp_path):
    prefix = os.path.join(str(tmp_path), "model.ckpt")
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("bert/x", [1])
        session.run(variable.initializer)
        tf.train.Saver().save(session, prefix)
    with pytest.raises(UserError) as caught:
        word_replacement.check_head(prefix)
    assert str(caught.value).startswith(prefix + ": no masked-LM head (cls/predictions/output_bias) is in it; give ")
