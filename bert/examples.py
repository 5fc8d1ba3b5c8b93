"""Masked samples -> the bytes of `tf.train.Example`s, many at once and without TensorFlow.

On the wire an Example is its features one after the other, each a name and a list of numbers, by the order of the
names. Most of them repeat (the mask of a length, the weights of a count) and are kept; ids and positions become
varints for all samples of a call at once. The bytes are those of `records.serialize`, which the tests compare.

Wire format: protobuf.dev/programming-guides/encoding; Example: features = 1; Features: map of string to Feature =
1; Feature: float_list = 2, int64_list = 3; both lists: packed value = 1.
"""

import functools
import struct

import numpy as np

INT64_LIST, FLOAT_LIST = 3, 2
SHORT, MIDDLE = 1 << 7, 1 << 14  # from here on a varint has 2 bytes, 3 bytes


class MaskedLmSerializer:
    """Serializes samples, padded or as long as they are."""

    def __init__(self, max_seq_length, max_predictions, pad=True):
        """Args:
          max_seq_length, max_predictions: what is padded to.
          pad: whether sequences and predictions are padded with 0.
        """
        self._max_seq_length, self._max_predictions, self._pad = max_seq_length, max_predictions, pad
        self._masks = [self._numbers("input_mask", b"\1" * length, length, max_seq_length)
                       for length in range(max_seq_length + 1)]
        self._segments = [self._numbers("segment_ids", bytes(length), length, max_seq_length)
                          for length in range(max_seq_length + 1)]
        self._weights = [self._ones_and_zeros(count) for count in range(max_predictions + 1)]
        self._next_sentence = _feature_start("next_sentence_labels", INT64_LIST, 1) + bytes(1)

    def serialize(self, masked, lengths):
        """Serializes samples.

        Args:
          masked: `masking.Masked` of N samples, ids below 2^21.
          lengths: int [N].

        Returns:
          list of N bytes.
        """
        within = np.arange(masked.input_ids.shape[1]) < np.asarray(lengths)[:, None]
        predicted = np.arange(masked.positions.shape[1]) < masked.counts[:, None]
        ids = _rows_of_varints(masked.input_ids, within)
        label_ids = _rows_of_varints(masked.label_ids, predicted)
        positions = _rows_of_varints(masked.positions, predicted)
        return [_example((
            self._numbers("input_ids", row_ids, length, self._max_seq_length),
            self._masks[length],
            self._numbers("masked_lm_ids", row_label_ids, count, self._max_predictions),
            self._numbers("masked_lm_positions", row_positions, count, self._max_predictions),
            self._weights[count],
            self._next_sentence,
            self._segments[length]))
            for row_ids, row_label_ids, row_positions, length, count in zip(
                ids, label_ids, positions, np.asarray(lengths).tolist(), masked.counts.tolist())]

    def _numbers(self, name, varints, count, most):
        """A feature of `count` numbers, padded to `most`."""
        if self._pad:
            varints += bytes(most - count)
        return _feature_start(name, INT64_LIST, len(varints)) + varints

    def _ones_and_zeros(self, count):
        """The weights of `count` predictions."""
        weights = [1.0] * count + [0.0] * (self._max_predictions - count if self._pad else 0)
        values = struct.pack("<%df" % len(weights), *weights)
        return _feature_start("masked_lm_weights", FLOAT_LIST, len(values)) + values


class TokensSerializer:
    """Serializes texts that are masked when they are read: their tokens and where words begin, as long as they are."""

    def serialize(self, input_ids, word_starts, lengths):
        """Serializes texts.

        Args:
          input_ids: int32 [N, S], below 2^21.
          word_starts: bool [N, S].
          lengths: int [N].

        Returns:
          list of N bytes.
        """
        within = np.arange(input_ids.shape[1]) < np.asarray(lengths)[:, None]
        columns = ("input_ids", input_ids), ("word_starts", word_starts.astype(np.int64))
        rows = [_rows_of_varints(values, within) for _, values in columns]
        return [_example([_feature_start(name, INT64_LIST, len(varints)) + varints
                          for (name, _), varints in zip(columns, text)]) for text in zip(*rows)]


def _example(features):
    joined = b"".join(features)
    return b"\x0a" + varint(len(joined)) + joined


@functools.lru_cache(maxsize=None)
def _feature_start(name, kind, size):
    """What stands in front of a list's `size` bytes: of the map's entry, its key, the Feature and the list."""
    packed = b"\x0a" + varint(size) if size else b""
    feature = _field(kind, len(packed) + size) + packed
    key = _field(1, len(name)) + name.encode("ascii")
    value = _field(2, len(feature) + size) + feature
    return _field(1, len(key) + len(value) + size) + key + value


def _field(number, size):
    """The tag of a field with a length, and that length."""
    return bytes([number << 3 | 2]) + varint(size)


@functools.lru_cache(maxsize=1 << 16)
def varint(number):
    """A number not below 0 in seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number >= SHORT:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _rows_of_varints(values, within):
    """Yields each row's numbers as varints, those that `within` leaves.

    Args:
      values: int [N, S], from 0 to below 2^21.
      within: bool [N, S], True at the first places of each row.
    """
    flat = values[within]
    sizes = 1 + (flat >= SHORT).astype(np.int64) + (flat >= MIDDLE)
    ends = np.cumsum(sizes)
    encoded = np.empty(ends[-1] if len(ends) else 0, np.uint8)
    starts = ends - sizes
    encoded[starts] = flat & 0x7F | (sizes > 1) << 7
    longer = sizes > 1
    encoded[starts[longer] + 1] = flat[longer] >> 7 & 0x7F | (sizes[longer] > 2) << 7
    longest = sizes > 2
    encoded[starts[longest] + 2] = flat[longest] >> 14
    content = encoded.tobytes()
    rows = np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(within.sum(axis=1))])].tolist()
    return (content[start:end] for start, end in zip(rows, rows[1:]))
