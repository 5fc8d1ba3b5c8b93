import collections

import numpy as np
import pytest

from bert import masking
from bert.draws import Draws, keys_of

PAD, UNK, CLS, SEP, MASK = range(5)
VOCAB = collections.OrderedDict(
    (token, number) for number, token in enumerate(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "[unused99]"]
        + ["token%d" % number for number in range(500)]))
FIRST_WORD = 7


def texts(lengths, width=None, seed=0):
    """Samples [CLS] ... [SEP] of random words; past the end stand words too, to tempt."""
    rng = np.random.RandomState(seed)
    lengths = np.array(lengths)
    input_ids = rng.randint(FIRST_WORD, len(VOCAB), [len(lengths), width or lengths.max()]).astype(np.int32)
    input_ids[:, 0] = CLS
    input_ids[np.arange(len(lengths)), lengths - 1] = SEP
    return input_ids, lengths


def streams(number, seed=0):
    return Draws(keys_of(seed, np.arange(number)))


def draw(lengths, seed=0, width=None, **rules):
    input_ids, lengths = texts(lengths, width)
    masked = masking.mask(input_ids, lengths, masking.rules_for(VOCAB, **rules), streams(len(lengths), seed))
    return input_ids, lengths, masked


def real(masked):
    """bool [N, K], which predictions count."""
    return np.arange(masked.positions.shape[1]) < masked.counts[:, np.newaxis]


@pytest.fixture(scope="module")
def many():
    return draw([128] * 4000)


# ---- what may be chosen, and how much

def test_special_tokens_and_padding_are_never_chosen():
    input_ids, lengths, masked = draw([2, 3, 4, 9, 20] * 200, width=30, probability=1.0, max_predictions=30)
    for row, length, positions, count in zip(input_ids, lengths, masked.positions, masked.counts):
        # Everything else is, so a special one would not be missed.
        assert positions[:count].tolist() == list(range(1, length - 1))
        assert not {CLS, SEP, PAD} & set(row[positions[:count]])


def test_a_special_token_inside_a_text_is_not_chosen():
    input_ids, lengths = texts([10])
    input_ids[0, [3, 5, 6]] = CLS, SEP, PAD
    masked = masking.mask(input_ids, lengths, masking.rules_for(VOCAB, 1.0), streams(len(input_ids)))
    assert masked.positions.tolist() == [[1, 2, 4, 7, 8]]


def test_an_unknown_token_may_be_chosen_as_in_googles():
    input_ids, lengths = texts([3])
    input_ids[0, 1] = UNK
    masked = masking.mask(input_ids, lengths, masking.rules_for(VOCAB), streams(len(input_ids)))
    assert masked.label_ids.tolist() == [[UNK]]


@pytest.mark.parametrize("length, probability, max_predictions, expected", [
    (2, 0.15, 20, 0),       # [CLS] [SEP]
    (3, 0.15, 20, 1),       # at least one
    (20, 0.15, 20, 3),
    (17, 0.15, 20, 3),      # 2.55
    (30, 0.15, 20, 4),      # 4.5: halves go to the even number, as Python rounds
    (128, 0.15, 20, 19),
    (512, 0.15, 20, 20),    # at most
    (10, 1.0, 20, 8),       # no more than there are
    (10, 0.0, 20, 1),
])
def test_the_number_chosen_is_googles(length, probability, max_predictions, expected):
    _, _, masked = draw([length], probability=probability, max_predictions=max_predictions)
    assert masked.counts.tolist() == [expected]
    if length > 2:
        assert expected == min(max_predictions, length - 2, max(1, int(round(length * probability))))


def test_positions_are_different_and_ascend(many):
    _, _, masked = many
    assert (np.diff(masked.positions, axis=1) > 0).all()


def test_every_position_is_equally_likely(many):
    _, _, masked = many
    seen = np.bincount(masked.positions.ravel(), minlength=128)[1:127]
    expected = 4000 * 19 / 126
    assert abs(seen - expected).max() < 5 * expected ** 0.5


# ---- what is put there

def test_labels_are_what_stood_there_and_nothing_else_changes():
    input_ids, lengths, masked = draw([3, 10, 60, 128] * 50)
    for row, new, positions, labels, count in zip(
            input_ids, masked.input_ids, masked.positions, masked.label_ids, masked.counts):
        assert (row[positions[:count]] == labels[:count]).all()
        assert set(np.nonzero(row != new)[0]) <= set(positions[:count])


def test_places_past_a_texts_count_hold_zero():
    _, _, masked = draw([3, 10, 60, 128] * 50)
    assert masked.positions[~real(masked)].tolist() == masked.label_ids[~real(masked)].tolist()
    assert not masked.positions[~real(masked)].any() and (~real(masked)).any()


def test_shares_are_80_10_10(many):
    input_ids, _, masked = many
    before = np.take_along_axis(input_ids, masked.positions, axis=1)
    after = np.take_along_axis(masked.input_ids, masked.positions, axis=1)
    chosen = after.size  # 76,000: a share's standard deviation is at most 0.0015
    assert (after == MASK).sum() / chosen == pytest.approx(0.8, abs=0.0075)
    assert (after == before).sum() / chosen == pytest.approx(0.1 + 0.1 / 500, abs=0.0055)
    others = after[(after != MASK) & (after != before)]
    assert others.size / chosen == pytest.approx(0.1, abs=0.0055)


def test_random_tokens_are_any_word_but_neither_special_nor_unused(many):
    input_ids, _, masked = many
    before = np.take_along_axis(input_ids, masked.positions, axis=1)
    after = np.take_along_axis(masked.input_ids, masked.positions, axis=1)
    others = after[(after != MASK) & (after != before)]
    assert set(others) == set(range(FIRST_WORD, len(VOCAB)))


def test_a_vocabulary_of_special_tokens_alone_still_masks():
    vocab = {token: number for token, number in VOCAB.items() if number < FIRST_WORD}
    assert masking.rules_for(vocab).substitutes.tolist() == [UNK]


# ---- randomness

def test_the_same_generator_masks_the_same_and_another_does_not():
    first, again, other = (draw([40] * 20, seed=seed)[2] for seed in (1, 1, 2))
    for one, two in zip(first, again):
        np.testing.assert_array_equal(one, two)
    assert (first.positions != other.positions).any()


def test_texts_of_one_call_are_masked_independently():
    input_ids, lengths = texts([60])
    masked = masking.mask(np.repeat(input_ids, 50, axis=0), np.repeat(lengths, 50),
                          masking.rules_for(VOCAB), streams(50))
    assert len({tuple(positions) for positions in masked.positions}) == 50


def test_a_text_is_masked_the_same_whatever_is_beside_it():
    input_ids, lengths, together = draw([9, 120, 60])
    for row in range(3):
        alone = masking.mask(input_ids[row:row + 1, :lengths[row]], lengths[row:row + 1], masking.rules_for(VOCAB),
                             Draws(keys_of(0, np.arange(3))[row:row + 1]))
        count = alone.counts[0]
        assert count == together.counts[row]
        np.testing.assert_array_equal(alone.positions[0, :count], together.positions[row, :count])
        np.testing.assert_array_equal(alone.input_ids[0], together.input_ids[row, :lengths[row]])


def test_the_ids_given_are_left_as_they_are():
    input_ids, lengths = texts([60] * 5)
    before = input_ids.copy()
    masking.mask(input_ids, lengths, masking.rules_for(VOCAB), streams(len(input_ids)))
    np.testing.assert_array_equal(input_ids, before)


def test_no_texts_give_no_predictions():
    masked = masking.mask(np.zeros([0, 5], np.int32), np.zeros([0], np.int64), masking.rules_for(VOCAB),
                          streams(0))
    assert masked.input_ids.shape == (0, 5) and masked.positions.shape == (0, 0)


def test_types_are_those_promised():
    _, _, masked = draw([5, 9])
    assert [values.dtype for values in masked] == [np.int32, np.int64, np.int32, np.int64]
