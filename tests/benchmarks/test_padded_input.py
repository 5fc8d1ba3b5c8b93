import itertools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from benchmarks import padded_input
from bert import records
from tests import batches
from tests import graphs

NAMES = records.MASKED_LM_FEATURES


@pytest.fixture
def record_file(tmp_path):
    return batches.write(tmp_path / "texts.tfrecord", batches.texts())


def read(input_fn, count):
    """The first batches of an input_fn."""
    with tf.Graph().as_default(), tf.Session() as session:
        following = tf.data.make_one_shot_iterator(input_fn()).get_next()
        return [session.run(following) for _ in range(count)]


@graphs.ON_REFERENCE
@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("name", ["training_input_fn", "evaluation_input_fn"])
def test_every_text_has_the_length_asked_for_and_is_the_same_otherwise(record_file, name, filled):
    make = getattr(records, name)
    for own, padded in zip(read(make([record_file], NAMES, 4), 4), read(padded_input.changed(
            make, pad_to=30, filled=filled)([record_file], NAMES, 4), 4)):
        assert sorted(own) == sorted(padded)
        width, predictions = own["input_ids"].shape[1], own["masked_lm_ids"].shape[1]
        assert padded["input_ids"].shape == (4, 30) and padded["masked_lm_ids"].shape == (4, padded_input.PREDICTIONS)
        np.testing.assert_array_equal(padded["input_ids"][:, :width], own["input_ids"])
        np.testing.assert_array_equal(padded["input_mask"][:, :width], own["input_mask"])
        assert np.all(padded["input_ids"][:, width:] == 0)
        assert np.all(padded["input_mask"][:, width:] == int(filled))
        assert np.all(padded["masked_lm_weights"][:, predictions:] == float(filled))


@graphs.ON_REFERENCE
def test_some_batches_come_again_and_again(record_file, monkeypatch):
    monkeypatch.setattr(padded_input, "REPEATED", 2)
    make = padded_input.changed(records.training_input_fn, repeat=True)
    one, other, *more = [batch["input_ids"].tolist() for batch in read(make([record_file], NAMES, 4), 6)]
    assert one != other and list(itertools.islice(itertools.cycle([one, other]), 4)) == more
