import collections

import numpy as np
import pytest

from bert import masking
from bert import records
from bert.examples import MaskedLmSerializer, varint

LENGTH, MOST = 40, 6
LENGTHS = [3, 40, 17, 5]
COUNTS = [1, 6, 3, 0]


def samples(largest_id):
    """Random samples; what stands past lengths and counts must not be written."""
    rng = np.random.default_rng(1)
    ids = rng.integers(largest_id + 1, size=(len(LENGTHS), LENGTH)).astype(np.int32)
    label_ids = rng.integers(largest_id + 1, size=(len(LENGTHS), MOST)).astype(np.int32)
    ids[0, :3] = label_ids[1, :3] = [0, largest_id, largest_id // 2]
    positions = np.sort(rng.integers(LENGTH, size=(len(LENGTHS), MOST)))
    return masking.Masked(ids, positions, label_ids, np.array(COUNTS))


def expected(masked, number, pad):
    """The sample as `records.serialize` writes it."""
    length, count = LENGTHS[number], COUNTS[number]
    width, most = (LENGTH, MOST) if pad else (length, count)

    def padded(values, size, zero=0):
        return values + [zero] * (size - len(values))

    return records.serialize(collections.OrderedDict([
        ("input_ids", padded(masked.input_ids[number, :length].tolist(), width)),
        ("input_mask", padded([1] * length, width)),
        ("segment_ids", [0] * width),
        ("masked_lm_positions", padded(masked.positions[number, :count].tolist(), most)),
        ("masked_lm_ids", padded(masked.label_ids[number, :count].tolist(), most)),
        ("masked_lm_weights", padded([1.0] * count, most, 0.0)),
        ("next_sentence_labels", [0])]))


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("largest_id", [100, 127, 128, 16383, 16384, 21127, 2 ** 21 - 1])
def test_bytes_are_those_of_the_protobuf_library(largest_id, pad):
    masked = samples(largest_id)
    found = MaskedLmSerializer(LENGTH, MOST, pad).serialize(masked, np.array(LENGTHS))
    assert found == [expected(masked, number, pad) for number in range(len(LENGTHS))]


def test_no_samples_are_no_bytes():
    none = masking.Masked(np.zeros([0, 5], np.int32), np.zeros([0, 2], np.int64), np.zeros([0, 2], np.int32),
                          np.zeros([0], np.int64))
    assert MaskedLmSerializer(LENGTH, MOST).serialize(none, np.zeros([0], np.int64)) == []


@pytest.mark.parametrize("number, encoded", [
    (0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02"), (2 ** 21, b"\x80\x80\x80\x01")])
def test_a_varint_has_seven_bits_a_byte(number, encoded):
    assert varint(number) == encoded
