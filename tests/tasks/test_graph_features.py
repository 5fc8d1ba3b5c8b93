"""Features made in a graph against those of `Featurizer`."""

import random

import pytest
import tensorflow.compat.v1 as tf

from bert import records
from bert.tokenization import load_vocab
from tasks import text_settings
from tasks.graph_features import GraphFeaturizer
from tests import graphs
from tests import tiny


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory):
    return tiny.write_vocabulary(str(tmp_path_factory.mktemp("vocabulary") / "vocab.txt"))[0]


class Features:
    def __init__(self, settings, vocab_file):
        self._featurizer = text_settings.featurizer(settings, vocab_file)
        with tf.Graph().as_default() as graph:
            self._texts, self._second = [tf.placeholder(tf.string, [None]) for _ in range(2)]
            self._found = GraphFeaturizer(settings, load_vocab(vocab_file)).features(self._texts, self._second)
            initialize = tf.tables_initializer()
        self._session = tf.Session(graph=graph)
        self._session.run(initialize)

    def run(self, texts, second_texts=()):
        return self._session.run(self._found, {
            self._texts: [text.encode("utf-8") for text in texts],
            self._second: [text.encode("utf-8") for text in second_texts]})

    def check(self, texts, second_texts=()):
        found, num_tokens = self.run(texts, second_texts)
        longest = 0
        for number, text in enumerate(texts):
            expected, counts = self._featurizer.features(text, second_texts[number] if second_texts else None)
            longest = max(longest, len(expected["input_ids"]))
            for name, values in expected.items():
                row = found[name][number].tolist()
                assert row[:len(values)] == values and not any(row[len(values):]), (name, text)
            assert num_tokens[number] == counts["tokens"]
        assert {found[name].shape for name in records.SEQUENCE} == {(len(texts), longest)}


@graphs.ON_TENSORFLOW_2
@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail"])
@pytest.mark.parametrize("length", [3, 4, 5, 9, 32])
def test_every_text_and_every_pair_is_cut_as_by_the_featurizer(vocab_file, length, truncation):
    features = Features(text_settings.TextSettings(max_seq_length=length, truncation=truncation), vocab_file)
    draw = random.Random(length)
    sizes = (0, 1, 2, 3, 5, 8, 15, 40)
    texts, second_texts = [["".join(draw.choice(tiny.CHARACTERS) for _ in range(draw.choice(sizes)))
                            for _ in range(300)] for _ in range(2)]
    features.check(texts)
    if length > 3:
        features.check(texts, second_texts)


def test_no_text_gives_an_empty_batch(vocab_file):
    found, num_tokens = Features(text_settings.TextSettings(), vocab_file).run([])
    assert found["input_ids"].shape == (0, 0) and num_tokens.shape == (0,)


def test_a_batch_is_padded_to_its_longest_text_only(vocab_file):
    found, _ = Features(text_settings.TextSettings(max_seq_length=128), vocab_file).run(["一", "一丁七"])
    assert found["input_ids"].shape == (2, 5)


def test_other_than_one_second_text_for_each_is_refused(vocab_file):
    features = Features(text_settings.TextSettings(), vocab_file)
    with pytest.raises(tf.errors.InvalidArgumentError, match="as many second texts as texts are needed, or none"):
        features.run(["一", "二"], ["三"])
