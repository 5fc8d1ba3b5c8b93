"""Texts as records, each of which tells its number, and what an input_fn makes of them."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import masking
from bert import records
from training import graph_mode  # noqa: F401
from training.command import UserError

LENGTHS = (4, 3, 2)
FIRST = 1000  # the first token of a text is FIRST + its number, so that it can be told from any other
MASK = 4
# That first token is never masked.
RULES = masking.rules_for({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": MASK}, probability=0.3)._replace(
    never=tuple(range(FIRST, FIRST + 61)), substitutes=np.arange(10, 900, dtype=np.int32))


def example(number, length, predictions=0, padded_to=None, most=None):
    """Features of a text whose tokens tell its number; with predictions as Google's script writes them."""
    width, most = padded_to or length, most or predictions
    spare, unused = [0] * (width - length), [0] * (most - predictions)
    return {
        "input_ids": [FIRST + number] + [2] * (length - 1) + spare,
        "input_mask": [1] * length + spare,
        "segment_ids": [0] * (length - 1) + [1] + spare,
        "masked_lm_positions": list(range(predictions)) + unused,
        "masked_lm_ids": [FIRST + number] * predictions + unused,
        "masked_lm_weights": [1.0] * predictions + [0.0] * (most - predictions),
        "next_sentence_labels": [0],
    }


def labelled(number, length, labels):
    return {"input_ids": [FIRST + number] + [2] * (length - 1), "input_mask": [1] * length,
            "segment_ids": [0] * length, "label_ids": labels}


def unmasked(number, length):
    """Features of a text without masks, with words of one or two tokens."""
    return {"input_ids": [FIRST + number] + list(range(10, 9 + length)),
            "word_starts": [1] + [int(place % 3 != number % 3) for place in range(length - 1)]}


def write(path, examples):
    records.write_records(str(path), map(records.serialize, examples))
    return str(path)


def write_parts(folder, texts):
    """Writes 61 texts into three files of different size, and an empty one; returns their paths."""
    parts = (texts[:40], texts[40:45], [], texts[45:])
    return [write(folder / str(number), part) for number, part in enumerate(parts)]


def evaluate(build):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(build())


def batches(input_fn, number=None, context=None, graph_seed=None):
    """The first batches (all where no number is given), each a dict of name -> array."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(graph_seed)
        dataset = input_fn(context) if context else input_fn()
        following = tf.data.make_one_shot_iterator(dataset).get_next()
        found = []
        while number is None or len(found) < number:
            try:
                found.append(session.run(following))
            except tf.errors.OutOfRangeError:
                break
        return found


def training(files, batch_size=5, names=records.MASKED_LM_FEATURES, **kwargs):
    return records.training_input_fn(files, names, batch_size, **kwargs)


def numbers(batch):
    """The numbers of a batch's texts."""
    return (batch["input_ids"][:, 0] - FIRST).tolist()


def assert_same(one, other):
    assert one
    assert len(one) == len(other)
    for left, right in zip(one, other):
        assert set(left) == set(right)
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])


def error_of(function, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    return str(caught.value)
