import collections

import numpy as np
import pytest

from bert import masking
from bert.draws import Draws, keys_of
from tests import graphs

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


# ---- whole words

def words_of(sizes, lengths, width=None):
    """bool [N, S]: words of these sizes, in turns, begin behind [CLS]; the last ones are cut by [SEP]."""
    starts = np.zeros([len(lengths), width or max(lengths)], bool)
    starts[:, :1] = True
    place, turn = 1, 0
    while place < starts.shape[1]:
        starts[:, place] = True
        place, turn = place + sizes[turn % len(sizes)], turn + 1
    starts[np.arange(len(lengths)), np.array(lengths) - 1] = True
    return starts


def draw_words(lengths, sizes, seed=0, width=None, **rules):
    input_ids, lengths = texts(lengths, width)
    starts = words_of(sizes, lengths, width)
    return input_ids, starts, masking.mask(
        input_ids, lengths, masking.rules_for(VOCAB, **rules), streams(len(lengths), seed), starts)


def chosen(masked):
    """bool [N, S], which tokens are predicted."""
    found = np.zeros(masked.input_ids.shape, bool)
    texts, ranks = np.nonzero(real(masked))
    found[texts, masked.positions[texts, ranks]] = True
    return found


def of_words(starts, flags):
    """Pairs (how many tokens of the word have the flag, how many it has), for each word of all texts."""
    first = np.flatnonzero(starts.ravel())
    return list(zip(np.add.reduceat(flags.ravel().astype(int), first),
                    np.diff(np.append(first, flags.size))))


def spans(flags):
    """Lengths of the stretches of True in a row of flags."""
    return [len(stretch) for stretch in "".join("x" if flag else " " for flag in flags).split()]


@pytest.mark.parametrize("max_ngram", [1, 2, 4])
def test_all_tokens_of_a_word_are_predicted_or_none(max_ngram):
    _, starts, masked = draw_words([128, 61, 40, 30] * 200, [1, 3, 2, 4], max_ngram=max_ngram)
    assert {found for found, size in of_words(starts, chosen(masked)) if found not in (0, size)} == set()
    assert {found for found, _ in of_words(starts, chosen(masked))} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("max_ngram", [1, 4])
def test_whole_words_are_never_more_tokens_than_wanted_and_as_many_where_short_ones_remain(max_ngram):
    _, _, masked = draw_words([128] * 500, [3, 2, 5, 1], max_ngram=max_ngram)
    assert set(masked.counts) == {19}
    _, _, masked = draw_words([128] * 500, [3], max_ngram=max_ngram)
    assert set(masked.counts) == {18}
    _, _, masked = draw_words([128] * 500, [3], max_ngram=max_ngram, max_predictions=11)
    assert set(masked.counts) == {9}


def test_a_word_that_does_not_fit_is_passed_over():
    _, starts, masked = draw_words([20] * 300, [5, 1], probability=0.1)
    assert set(masked.counts) == {2} and {size for found, size in of_words(starts, chosen(masked)) if found} == {1}


def test_where_every_word_is_too_long_tokens_are_chosen_as_without_words():
    input_ids, starts, masked = draw_words([20, 40, 9], [7])
    alone = masking.mask(input_ids, np.array([20, 40, 9]), masking.rules_for(VOCAB), streams(3))
    assert alone.counts.tolist() == [3, 6, 1] and masked.counts.tolist() == [3, 3, 1]
    for row in (0, 2):
        count = masked.counts[row]
        assert masked.positions[row, :count].tolist() == alone.positions[row, :count].tolist()
        assert masked.input_ids[row].tolist() == alone.input_ids[row].tolist()
    # The last word of 40, cut by [SEP], has 3 tokens and is the only one that fits.
    assert [pair for pair in of_words(starts[1:2], chosen(masked)[1:2]) if pair[0]] == [(3, 3)]


@pytest.mark.parametrize("max_ngram", [1, 4])
def test_words_never_hold_special_tokens_or_padding(max_ngram):
    lengths = np.array([2, 3, 4, 9, 20] * 200)
    input_ids, _ = texts(lengths, 30)
    # All one word as it is given: [CLS], [SEP] and a special token inside divide it.
    input_ids[lengths == 20, 10] = SEP
    masked = masking.mask(input_ids, lengths, masking.rules_for(VOCAB, 1.0, 30, max_ngram), streams(len(lengths)),
                          np.zeros(input_ids.shape, bool))
    expected = (np.arange(30) > 0) & (np.arange(30) < lengths[:, np.newaxis] - 1) & (input_ids != SEP)
    assert (chosen(masked) == expected).all()


def test_words_given_without_their_first_token_begin_behind_cls():
    _, starts, masked = draw_words([30] * 200, [2])
    again = starts.copy()
    again[:, :2] = False
    input_ids, lengths = texts([30] * 200)
    same = masking.mask(input_ids, lengths, masking.rules_for(VOCAB), streams(200), again)
    assert (same.positions == masked.positions).all()


def test_every_word_is_equally_likely_wherever_it_stands():
    _, starts, masked = draw_words([128] * 6000, [2, 1, 3])
    flags = chosen(masked)
    for first, size in ((1, 2), (3, 1), (4, 3)):
        seen = flags[:, first:127:6].sum(axis=0)
        assert abs(seen - seen.mean()).max() < 4.5 * (seen.mean() * (1 - seen.mean() / 6000)) ** 0.5, size
    # A long word is passed over when room is short, so it is a little less likely, not more.
    rates = [flags[:, first:120:6].mean() for first in (3, 1, 4)]
    assert 0.19 > rates[0] > rates[1] > rates[2] > 0.12
    assert flags.sum() / flags.size == pytest.approx(19 / 128, abs=1e-4)


def test_fates_of_words_are_drawn_token_by_token():
    input_ids, _, masked = draw_words([128] * 4000, [2, 1, 3])
    flags = chosen(masked)
    before, after = input_ids[flags], masked.input_ids[flags]
    assert (after == MASK).mean() == pytest.approx(0.8, abs=0.0075)
    assert (after == before).mean() == pytest.approx(0.1 + 0.1 / 500, abs=0.0055)
    assert (input_ids[~flags] == masked.input_ids[~flags]).all()
    assert (np.sort(masked.positions, axis=1)[real(masked)] == masked.positions[real(masked)]).all()
    assert (masked.label_ids[real(masked)] == before).all()
    # Of a word of two with a [MASK], the other token is one in 8 of 10.
    pairs = flags[:, 1:120:6] & flags[:, 2:120:6]
    first, second = ((masked.input_ids[:, start:120:6] == MASK)[pairs] for start in (1, 2))
    assert second[first].mean() == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize("max_ngram", [1, 3])
def test_whole_words_of_a_text_are_the_same_whatever_is_beside_it(max_ngram):
    lengths = [9, 120, 60, 20]
    input_ids, starts, together = draw_words(lengths, [4, 2, 7, 1], max_ngram=max_ngram)
    rules = masking.rules_for(VOCAB, max_ngram=max_ngram)
    for row, length in enumerate(lengths):
        alone = masking.mask(input_ids[row:row + 1, :length], np.array([length]), rules,
                             Draws(keys_of(0, np.arange(4))[row:row + 1]), starts[row:row + 1, :length])
        count = alone.counts[0]
        assert count == together.counts[row]
        assert alone.positions[0, :count].tolist() == together.positions[row, :count].tolist()
        assert alone.input_ids[0].tolist() == together.input_ids[row, :length].tolist()


def test_whole_words_leave_what_they_are_given_and_texts_differ():
    input_ids, lengths = texts([60] * 50)
    input_ids[:] = input_ids[0]
    starts = words_of([2, 1], lengths)
    before = input_ids.copy(), starts.copy()
    masked = masking.mask(input_ids, lengths, masking.rules_for(VOCAB, max_ngram=2), streams(50), starts)
    assert (input_ids == before[0]).all() and (starts == before[1]).all()
    assert len({tuple(positions) for positions in masked.positions}) == 50


def test_no_texts_have_no_words():
    masked = masking.mask(np.zeros([0, 5], np.int32), np.zeros([0], np.int64), masking.rules_for(VOCAB),
                          streams(0), np.zeros([0, 5], bool))
    assert masked.input_ids.shape == (0, 5) and masked.positions.shape == (0, 0)


# ---- spans of words

@graphs.ON_TENSORFLOW_2
@pytest.mark.parametrize("max_ngram, expected", [(2, [2 / 3, 1 / 3]), (4, [0.4, 0.3, 0.2, 0.1])])
def test_lengths_of_spans_have_falling_weights(max_ngram, expected):
    # So few that hardly two spans touch and that the last, which may be cut, hardly counts.
    _, _, masked = draw_words([40000] * 40, [1], probability=0.01, max_predictions=400, max_ngram=max_ngram)
    found = [size for row in chosen(masked) for size in spans(row)]
    shares = np.bincount(found)[1:max_ngram + 1] / len(found)
    assert shares == pytest.approx(expected, abs=0.025)


def test_spans_stand_together_more_often_than_words_drawn_alone():
    alone, together = (np.mean([size for row in chosen(draw_words([128] * 300, [2, 1], max_ngram=most)[2])
                                for size in spans(row)]) for most in (1, 4))
    assert together > 1.5 * alone


def test_a_span_that_does_not_fit_is_shortened():
    # Room for one word alone: every span is one word.
    _, starts, masked = draw_words([20] * 300, [2], probability=0.1, max_ngram=4)
    assert set(masked.counts) == {2} and set(spans(chosen(masked).ravel())) == {2}


def test_spans_do_not_overlap_and_do_not_cross_special_tokens():
    candidates = np.ones([2000, 9], bool)
    candidates[:, 4] = False
    found = masking.choose_words(candidates, np.full(2000, 8), np.ones([2000, 9], bool), 4, streams(2000))
    assert (found == candidates).all()  # a token taken twice would leave another without
    order = np.array([[3], [3]])
    free = candidates[:2]
    taken = masking._take_spans(order, np.ones([2, 9], np.int64), free, np.full([2, 9], 4), np.array([8, 8]), 4)
    assert np.flatnonzero(taken[0]).tolist() == [3]


def test_spans_without_words_are_spans_of_tokens():
    _, _, masked = draw([128] * 300, max_ngram=3)
    assert set(masked.counts) == {19} and max(size for row in chosen(masked) for size in spans(row)) >= 3
    _, _, same = draw_words([128] * 300, [1], max_ngram=3)
    assert (masked.positions == same.positions).all()


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
