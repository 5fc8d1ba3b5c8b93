import collections

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import dynamic_masking
from bert import masking
from bert.draws import Draws, keys_of
from tests import graphs

PAD, UNK, CLS, SEP, MASK = range(5)
FIRST_WORD = 6
VOCAB = collections.OrderedDict((token, number) for number, token in enumerate(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"] + ["token%d" % number for number in range(500)]))
SEED = 2 ** 63 - 1


def rules(max_ngram=1, **kwargs):
    return masking.rules_for(VOCAB, max_ngram=max_ngram, **kwargs)


# input_ids, word_starts: int32 [N, S], padded as records are when they are read; lengths: int [N].
Texts = collections.namedtuple("Texts", "input_ids word_starts lengths")


def texts(lengths, in_words=0.0, seed=0):
    """Random texts [CLS] ... [SEP]; in_words: share of the tokens that go on with a word."""
    draw, lengths = np.random.RandomState(seed), np.array(lengths)
    rows, width = np.arange(len(lengths)), lengths.max()
    input_ids = draw.randint(FIRST_WORD, len(VOCAB), [len(lengths), width])
    starts = draw.rand(len(lengths), width) >= in_words
    for place, token in ((0, CLS), (lengths - 1, SEP)):
        input_ids[rows, place], starts[rows, place] = token, True
    starts[:, 1] = True
    padding = np.arange(width) >= lengths[:, np.newaxis]
    return Texts(np.where(padding, 0, input_ids).astype(np.int32), np.where(padding, -1, starts).astype(np.int32),
                 lengths)


def of_words(*words):
    """One text of words with so many tokens each."""
    starts = [1] + [number for size in words for number in [1] + [0] * (size - 1)] + [1]
    input_ids = [CLS] + list(range(FIRST_WORD, FIRST_WORD + sum(words))) + [SEP]
    return Texts(np.array([input_ids], np.int32), np.array([starts], np.int32), np.array([len(starts)]))


def repeated(given, number):
    return Texts(*[np.repeat(values, number, axis=0) for values in given])


def run(given, its_rules, numbers=None, seed=SEED):
    """The features of the masked texts, as arrays."""
    numbers = np.arange(len(given.lengths)) if numbers is None else numbers
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(dynamic_masking.mask(
            tf.constant(given.input_ids), tf.constant(given.word_starts), its_rules, seed,
            tf.constant(numbers, tf.int64)))


def real(masked):
    return masked["masked_lm_weights"] > 0


def chosen_of(masked):
    """The positions that are predicted, as a list of lists."""
    return [row[kept].tolist() for row, kept in zip(masked["masked_lm_positions"], real(masked))]


def words_of(starts):
    """The words of a text without [CLS] and [SEP]: lists of positions."""
    words = []
    for position in range(1, np.sum(starts >= 0) - 1):
        if starts[position] == 1:
            words.append([])
        words[-1].append(position)
    return words


@pytest.fixture(scope="module")
def many():
    given = repeated(of_words(*[1] * 126), 4000)
    return given, run(given, rules())


@pytest.fixture(scope="module")
def in_words():
    """Texts with words of several tokens, and their masks."""
    given = texts(np.random.RandomState(1).randint(2, 129, 400), in_words=0.5)
    return given, run(given, rules())


# ---- the same masks as written ones

@graphs.ON_TENSORFLOW_2
@pytest.mark.parametrize("in_words", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("max_ngram", [1, 2, 4])
@pytest.mark.parametrize("its_rules", [
    {}, {"probability": 1.0, "max_predictions": 500}, {"probability": 0.0}, {"max_predictions": 3}],
    ids=["default", "all", "one", "three"])
def test_the_masks_are_those_that_would_be_written(in_words, max_ngram, its_rules):
    # 10, 30, 50 ...: their 15 % end in a half, which goes to the even number.
    given, its_rules = texts(list(range(2, 129)) * 2, in_words), rules(max_ngram, **its_rules)
    given.input_ids[100, [3, 4, 9]] = SEP, CLS, PAD
    masked = run(given, its_rules)
    written = masking.mask(given.input_ids, given.lengths, its_rules,
                           Draws(keys_of(SEED, np.arange(len(given.lengths)))), given.word_starts == 1)
    np.testing.assert_array_equal(masked["input_ids"], written.input_ids)
    np.testing.assert_array_equal(masked["masked_lm_positions"], written.positions)
    np.testing.assert_array_equal(masked["masked_lm_ids"], written.label_ids)
    np.testing.assert_array_equal(real(masked).sum(axis=1), written.counts)


# ---- what is chosen

def test_words_are_chosen_whole_or_not_at_all(in_words):
    given, masked = in_words
    some = 0
    for starts, chosen in zip(given.word_starts, map(set, chosen_of(masked))):
        words = [chosen & set(word) for word in words_of(starts)]
        if all(len(word) in (0, len(whole)) for word, whole in zip(words, words_of(starts))):
            some += 1
        else:  # the only reason: no word of the text fits
            assert min(map(len, words_of(starts))) > len(chosen)
    assert some > 380


def test_never_more_are_chosen_than_wanted_and_never_none(in_words):
    given, masked = in_words
    counts = real(masked).sum(axis=1)
    wanted = np.clip(np.rint(given.lengths * 0.15), 1, 20)
    assert (counts <= wanted).all()
    assert (counts[given.lengths > 2] > 0).all() and (counts[given.lengths == 2] == 0).all()
    # Words of one token fill what is left; few texts have none that is free.
    assert (counts == np.minimum(wanted, given.lengths - 2)).mean() > 0.95


def test_special_tokens_and_padding_are_never_chosen(in_words):
    given, masked = in_words
    assert not {CLS, SEP, PAD} & set(masked["masked_lm_ids"][real(masked)])
    for length, chosen in zip(given.lengths, chosen_of(masked)):
        assert all(0 < position < length - 1 for position in chosen)


def test_special_tokens_inside_a_text_are_text_but_not_chosen():
    given = of_words(*[1] * 8)
    given.input_ids[0, [3, 5, 6]] = PAD, CLS, SEP
    masked = run(given, rules(probability=1.0))
    assert chosen_of(masked) == [[1, 2, 4, 7, 8]]
    assert masked["input_mask"].tolist() == [[1] * 10]


def test_a_word_that_does_not_fit_is_passed_over_for_the_next():
    # 3 of 20 are wanted: a word of 3, or both of 1, in any order.
    masked = run(repeated(of_words(4, 3, 1, 5, 4, 1), 400), rules())
    sets = collections.Counter(map(tuple, chosen_of(masked)))
    assert set(sets) == {(5, 6, 7), (8, 18)}
    assert sets[5, 6, 7] / 400 == pytest.approx(1 / 3, abs=0.12)  # five times the standard deviation


def test_a_text_in_which_no_word_fits_has_tokens_chosen():
    masked = run(repeated(of_words(9, 9), 2000), rules())
    assert set(map(len, chosen_of(masked))) == {3}
    seen = np.bincount(masked["masked_lm_positions"].ravel(), minlength=20)
    assert seen[[0, 19]].tolist() == [0, 0]
    expected = 2000 * 3 / 18
    assert abs(seen[1:19] - expected).max() < 5 * expected ** 0.5


def test_every_position_is_equally_likely(many):
    _, masked = many
    assert masked["masked_lm_positions"].shape == (4000, 19)
    seen = np.bincount(masked["masked_lm_positions"].ravel(), minlength=128)[1:127]
    expected = 4000 * 19 / 126
    assert abs(seen - expected).max() < 5 * expected ** 0.5


def test_every_word_is_equally_likely_whatever_its_place():
    masked = run(repeated(of_words(*[2] * 19), 2000), rules())  # 6 of 40: three words
    seen = np.bincount(np.concatenate(chosen_of(masked)), minlength=40)[1:39]
    assert (seen[::2] == seen[1::2]).all()
    expected = 2000 * 3 / 19
    assert abs(seen[::2] - expected).max() < 5 * expected ** 0.5


def test_short_spans_are_likelier_than_long_ones():
    # Three words are wanted. All stand together where the first span has 3 (1/6), all apart where it and the second
    # have 1 (1/2 each) and the third is cut; of 300 words few stand together by chance.
    masked = run(repeated(of_words(*[1] * 300), 3000), rules(3, max_predictions=3))
    together = collections.Counter(
        sum(two == one + 1 for one, two in zip(chosen, chosen[1:])) for chosen in chosen_of(masked))
    assert together[2] / 3000 == pytest.approx(1 / 6, abs=0.05)
    assert together[0] / 3000 == pytest.approx(1 / 4, abs=0.05)


# ---- what is put there

def test_shares_are_80_10_10(many):
    given, masked = many
    before = masked["masked_lm_ids"]
    np.testing.assert_array_equal(
        before, np.take_along_axis(given.input_ids, masked["masked_lm_positions"], axis=1))
    after = np.take_along_axis(masked["input_ids"], masked["masked_lm_positions"], axis=1)
    others = after[(after != MASK) & (after != before)]
    assert (after == MASK).mean() == pytest.approx(0.8, abs=0.0075)
    assert (after == before).mean() == pytest.approx(0.1 + 0.1 / 500, abs=0.0055)
    assert others.size / after.size == pytest.approx(0.1, abs=0.0055)
    assert set(others) == set(range(FIRST_WORD, len(VOCAB)))


def test_the_tokens_of_a_word_have_fates_of_their_own():
    given = repeated(of_words(*[2] * 9), 2000)
    masked = run(given, rules())
    pairs = np.take_along_axis(masked["input_ids"], masked["masked_lm_positions"], axis=1)[:, :2] == MASK
    assert (pairs[:, 0] != pairs[:, 1]).mean() == pytest.approx(2 * 0.8 * 0.2, abs=0.06)


def test_nothing_else_changes_and_what_is_unused_is_zero(in_words):
    given, masked = in_words
    changed = given.input_ids != masked["input_ids"]
    for row, chosen in zip(changed, chosen_of(masked)):
        assert set(np.nonzero(row)[0]) <= set(chosen)
    unused = ~real(masked)
    assert unused.any()
    for name in ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"):
        assert not masked[name][unused].any()
    assert (np.diff(masked["masked_lm_positions"], axis=1) > 0)[real(masked)[:, 1:]].all()


def test_the_features_are_those_of_records_with_masks(in_words):
    given, masked = in_words
    assert {name: values.dtype for name, values in masked.items()} == dict(
        {name: np.int32 for name in ("input_ids", "input_mask", "segment_ids", "masked_lm_positions",
                                     "masked_lm_ids")}, masked_lm_weights=np.float32)
    assert masked["input_mask"].sum(axis=1).tolist() == given.lengths.tolist()
    assert not masked["segment_ids"].any() and masked["segment_ids"].shape == given.input_ids.shape


def test_texts_without_a_word_have_no_predictions():
    masked = run(texts([2, 2]), rules())
    assert masked["masked_lm_positions"].shape == (2, 0)
    assert masked["input_ids"].tolist() == [[CLS, SEP]] * 2


# ---- randomness

@pytest.mark.parametrize("max_ngram", [1, 3])
def test_a_texts_masks_are_decided_by_seed_and_number_alone(max_ngram):
    given = texts([9, 128, 60, 33], in_words=0.5)
    together = run(given, rules(max_ngram), numbers=[5, 2 ** 62, 7, 7])
    for row, number in ((2, 7), (0, 5), (1, 2 ** 62)):
        length = given.lengths[row]
        alone = run(Texts(given.input_ids[row:row + 1, :length], given.word_starts[row:row + 1, :length],
                          given.lengths[row:row + 1]), rules(max_ngram), numbers=[number])
        assert chosen_of(alone)[0] == chosen_of(together)[row]
        np.testing.assert_array_equal(alone["input_ids"][0], together["input_ids"][row, :length])


def test_other_numbers_and_other_seeds_have_other_masks():
    given = repeated(texts([60], in_words=0.3), 50)
    first, second = run(given, rules(), seed=1), run(given, rules(), seed=2)
    assert len(set(map(tuple, chosen_of(first) + chosen_of(second)))) == 100
