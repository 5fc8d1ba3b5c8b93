import numpy as np
import pytest

from bert import samples
from bert.draws import keys_of

# Two documents of 3 and 2 sentences; the second sentence has no token.
ENDS, NUM_SENTENCES = np.array([4, 4, 9, 12, 13]), np.array([3, 2])


def as_rows(found):
    return list(zip(*(values.tolist() for values in found)))


def test_a_sentence_is_a_sample_and_one_without_tokens_is_none():
    assert as_rows(samples.sentences(ENDS, NUM_SENTENCES)) == [(0, 4, 0, 0), (4, 5, 0, 2), (9, 3, 1, 0), (12, 1, 1, 1)]


@pytest.mark.parametrize("room, expected", [
    (4, [(0, 4, 0, 0), (4, 4, 0, 1), (8, 1, 0, 2), (9, 4, 1, 0)]), (100, [(0, 9, 0, 0), (9, 4, 1, 0)])])
def test_packed_samples_are_full_and_end_with_their_document(room, expected):
    assert as_rows(samples.packed(ENDS, NUM_SENTENCES, room)) == expected


def test_documents_without_tokens_have_no_sample():
    ends, num_sentences = np.array([0, 0, 2]), np.array([1, 1, 1])
    assert as_rows(samples.packed(ends, num_sentences, 5)) == as_rows(samples.sentences(ends, num_sentences)) == [
        (0, 2, 2, 0)]


def test_tokens_are_lost_at_both_ends_as_coins_decide():
    number, length, room = 4000, 70, 60
    start, cut = samples.shorten(np.full(number, 5), np.full(number, length), room, keys_of(1, np.arange(number)), 0)
    lost = start - 5
    assert np.all(cut == room) and lost.min() >= 0 and lost.max() <= length - room
    # Of 10 coins: mean 5, variance 2.5; four standard deviations of the means of 4,000.
    assert abs(lost.mean() - 5) < 0.1 and abs(lost.var() - 2.5) < 0.23


def test_what_fits_is_whole_and_its_coins_do_not_depend_on_others():
    keys = keys_of(1, np.arange(3))
    start, length = samples.shorten(np.array([0, 8, 900]), np.array([8, 300, 10]), 10, keys, 2)
    assert (start[0], start[2]) == (0, 900) and length.tolist() == [8, 10, 10]
    alone, _ = samples.shorten(np.array([8]), np.array([300]), 10, keys[1:2], 2)
    assert alone[0] == start[1] > 8


def test_rows_stand_between_special_tokens_and_zeros_follow():
    found = samples.rows(np.arange(100, 110, dtype=np.int32), np.array([7, 0]), np.array([3, 1]), 1, 2)
    assert found.dtype == np.int32
    assert found.tolist() == [[1, 107, 108, 109, 2], [1, 100, 2, 0, 0]]
