import collections
import os

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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """61 texts of 1 to 30 tokens in three files of different size, and an empty one."""
    folder = tmp_path_factory.mktemp("records")
    draw = np.random.RandomState(0)
    texts = [example(number, length, predictions=1 + length // 7)
             for number, length in enumerate(draw.randint(1, 31, size=61).tolist())]
    parts = (texts[:40], texts[40:45], [], texts[45:])
    return [write(folder / str(number), part) for number, part in enumerate(parts)]


@pytest.fixture(scope="module")
def unmasked_files(tmp_path_factory):
    """61 texts of 2 to 30 tokens, without masks, in three files of different size, and an empty one."""
    folder = tmp_path_factory.mktemp("unmasked")
    draw = np.random.RandomState(0)
    texts = [unmasked(number, length) for number, length in enumerate(draw.randint(2, 31, size=61).tolist())]
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


# ---- writing

def test_equal_examples_are_equal_bytes():
    features = example(3, 5, 2)
    backwards = collections.OrderedDict(reversed(list(features.items())))
    assert records.serialize(features) == records.serialize(backwards)


def test_weights_are_floats_and_everything_else_integers():
    features = tf.train.Example.FromString(records.serialize(example(3, 5, 2))).features.feature
    for name, values in example(3, 5, 2).items():
        kind = "float_list" if name == "masked_lm_weights" else "int64_list"
        assert features[name].WhichOneof("kind") == kind
        assert list(getattr(features[name], kind).value) == values


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = str(tmp_path / "a")

    def broken():
        yield b"one"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        records.write_records(path, broken())
    assert os.listdir(str(tmp_path)) == []
    assert records.write_records(path, [b"one", b"two"]) == 2
    with pytest.raises(RuntimeError):
        records.write_records(path, broken())
    assert list(tf.io.tf_record_iterator(path)) == [b"one", b"two"] and os.listdir(str(tmp_path)) == ["a"]


# ---- looking at the first records

def test_records_tell_whether_they_hold_masks(files, unmasked_files, tmp_path):
    assert records.without_masks(unmasked_files)
    assert not records.without_masks(files)
    assert not records.without_masks([write(tmp_path / "a", [])])
    both = dict(unmasked(0, 5), **example(0, 5, 2))
    assert not records.without_masks([write(tmp_path / "b", [both])])


def test_records_with_and_without_masks_are_not_read_together(files, unmasked_files):
    assert error_of(records.without_masks, unmasked_files[:1] + files[:1]) == (
        "%s: records without masks, and those of %s have masks; give files of one kind"
        % (unmasked_files[0], files[0]))


def test_the_longest_of_the_first_records_is_found(monkeypatch, tmp_path):
    path = write(tmp_path / "a", [unmasked(number, length) for number, length in enumerate((3, 9, 5, 12))])
    assert records.longest_of_first([path]) == 12
    monkeypatch.setattr(records, "FIRST_RECORDS", 3)
    assert records.longest_of_first([path]) == 9


def test_records_without_texts_are_refused(tmp_path):
    path = write(tmp_path / "a", [])
    assert error_of(records.longest_of_first, [path]) == path + ": no records"
    path = write(tmp_path / "b", [unmasked(0, 5), {"label_ids": [1]}])
    assert error_of(records.longest_of_first, [path]) == path + ": record 1 has no input_ids"
    path = write(tmp_path / "c", [dict(unmasked(0, 5), word_starts=[1])])
    assert error_of(records.longest_of_first, [path]).startswith(
        path + ": record 0 has 5 input_ids and 1 word_starts; ")


# ---- parsing

def parsed(examples, names, then=lambda features: features):
    return evaluate(lambda: then(records.parse([records.serialize(values) for values in examples], names)))


def test_padded_and_unpadded_records_are_read_alike():
    names = records.MASKED_LM_FEATURES
    unpadded = [example(number, length, 1) for number, length in enumerate(LENGTHS)]
    padded = [example(number, length, 1, padded_to=9, most=3) for number, length in enumerate(LENGTHS)]
    assert parsed(padded, names)["input_ids"].shape == (3, 9)
    for examples in (unpadded, padded, [unpadded[0], padded[1], unpadded[2]]):
        assert_same([parsed(examples, names, records.trim)], [parsed(unpadded, names)])


def test_each_text_is_padded_to_the_longest():
    found = parsed([example(number, length) for number, length in enumerate(LENGTHS)], records.SEQUENCE)
    assert found["input_ids"].tolist() == [[1000, 2, 2, 2], [1001, 2, 2, 0], [1002, 2, 0, 0]]
    assert found["input_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert found["segment_ids"].tolist() == [[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]


def test_types_are_those_promised():
    found = parsed([example(0, 3, 1)], records.MASKED_LM_FEATURES)
    assert set(found) == set(records.MASKED_LM_FEATURES)
    for name, values in found.items():
        assert values.dtype == (np.float32 if name == "masked_lm_weights" else np.int32)


def test_trimming_keeps_labels_and_the_longest_text():
    texts = [labelled(0, 3, [1, 0, 1, 0, 1]), labelled(1, 2, [0] * 5)]
    names = records.CLASSIFICATION_FEATURES
    assert_same([parsed(texts, names, records.trim)], [parsed(texts, names)])


def test_totals_count_texts_tokens_predictions_and_labels():
    masked = [example(number, length, 2, padded_to=9, most=3) for number, length in enumerate(LENGTHS)]
    classified = [labelled(0, 4, [1]), labelled(1, 2, [records.NO_LABEL]), labelled(2, 1, [0])]
    several = [labelled(0, 4, [1, 0]), labelled(1, 2, [records.NO_LABEL] * 2), labelled(2, 1, [0, 0])]
    for examples, names, expected in (
            (masked, records.MASKED_LM_FEATURES,
             {"total_examples": 3, "total_tokens": 9, "total_predictions": 6}),
            (classified, records.CLASSIFICATION_FEATURES,
             {"total_examples": 3, "total_tokens": 7, "total_labels": 2}),
            (several, records.CLASSIFICATION_FEATURES,
             {"total_examples": 3, "total_tokens": 7, "total_labels": 2})):
        found = parsed(examples, names, records.totals)
        assert found == expected
        assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}


# ---- training

both_buffers = pytest.mark.parametrize(
    "buffer_size", [200000, 7], ids=["whole_epoch_in_memory", "small_buffer"])


@both_buffers
def test_every_record_is_seen_once_an_epoch(files, monkeypatch, buffer_size):
    monkeypatch.setattr(records, "MAX_SHUFFLE_BUFFER", buffer_size)
    # 12 updates of 5 a pool, 61 records: pools and epochs end together after 61 pools, 60 epochs.
    seen = collections.Counter()
    for number, batch in enumerate(batches(training(files), 61 * 12), start=1):
        seen.update(numbers(batch))
        if number % 12 == 0:
            epochs, rest = divmod(5 * number, 61)
            assert sorted(seen[text] for text in range(61)) == [epochs] * (61 - rest) + [epochs + 1] * rest
    assert seen == {number: 60 for number in range(61)}


def test_each_epoch_and_seed_has_another_order(files):
    # An update is an epoch: sorted by length, but texts of one length stand as they were read.
    one, other = ([numbers(batch) for batch in batches(training(files, 61, seed=seed), 2)] for seed in (1, 2))
    assert all(sorted(order) == list(range(61)) for order in one + other)
    assert len(set(map(tuple, one + other))) == 4


@pytest.mark.parametrize("batch_size, num_parts, buffer_size, starts", [
    (5, 1, 200000, (1, 12, 25, 36)),  # 12 updates a pool
    (6, 2, 7, (9, 10, 33)),           # 10 updates a pool
    (70, 7, 200000, (1, 2)),          # an update is over an epoch
    (130, 2, 7, (3,)),
])
def test_a_run_that_goes_on_sees_what_an_unbroken_one_would(
        files, monkeypatch, batch_size, num_parts, buffer_size, starts):
    monkeypatch.setattr(records, "MAX_SHUFFLE_BUFFER", buffer_size)
    def run(start, updates):
        input_fn = training(files, batch_size, num_parts=num_parts, seed=3, start_step=start)
        return batches(input_fn, updates * num_parts)

    unbroken = run(0, 40)
    for start in starts:
        assert_same(run(start, 4), unbroken[start * num_parts:(start + 4) * num_parts])


def test_a_long_run_can_be_resumed_too(files):
    unbroken = batches(training(files), 1003)[1000:]
    assert_same(batches(training(files, start_step=1000), 3), unbroken)


def test_the_same_settings_give_the_same_batches_whatever_the_seed(files):
    for seed in (0, 2 ** 63 - 1):
        first, again = (batches(training(files, seed=seed), 5, graph_seed=seed % 2 ** 31) for _ in range(2))
        assert_same(first, again)


def test_texts_of_an_update_have_similar_lengths(files):
    found = batches(training(files), 24)
    assert sum(batch["input_mask"].size for batch in found) < 1.15 * sum(
        batch["input_mask"].sum() for batch in found)
    widths = [batch["input_mask"].shape[1] for batch in found[:12]]
    assert widths != sorted(widths) and widths != sorted(widths, reverse=True)


def test_batches_hold_no_padding_nobody_needs(files):
    for batch in batches(training(files, num_parts=5), 30):
        assert (batch["input_mask"].sum(axis=0) > 0).all()
        assert (batch["masked_lm_weights"].sum(axis=0) > 0).all()
        assert {batch[name].shape for name in records.SEQUENCE} == {batch["input_ids"].shape}
        assert {batch[name].shape for name in records.PREDICTIONS} == {batch["masked_lm_ids"].shape}


def context(replicas, pipelines=1, pipeline=0):
    return tf.distribute.InputContext(num_input_pipelines=pipelines, input_pipeline_id=pipeline,
                                      num_replicas_in_sync=replicas)


@pytest.mark.parametrize("replicas, num_parts", [(1, 4), (4, 1), (2, 2)])
def test_the_parts_of_an_update_are_the_update(files, replicas, num_parts):
    whole = batches(training(files, 8), 20)
    parts = batches(training(files, 8, num_parts=num_parts), 20 * 4, context(replicas))
    for number, update in enumerate(whole):
        mine = parts[4 * number:4 * number + 4]
        assert sum(map(numbers, mine), []) == numbers(update)
        assert {len(numbers(part)) for part in mine} == {2}
        for name, value in update.items():
            if name.startswith("total_"):
                assert {float(part[name]) for part in mine} == {float(value)}
            else:
                widened = [np.pad(part[name], [(0, 0), (0, value.shape[1] - part[name].shape[1])], "constant")
                           for part in mine]
                np.testing.assert_array_equal(np.concatenate(widened), value)
        assert update["total_examples"] == 8
        assert update["total_tokens"] == update["input_mask"].sum()
        assert update["total_predictions"] == update["masked_lm_weights"].sum()


@pytest.mark.parametrize("workers, replicas, num_parts", [(2, 2, 1), (2, 4, 2), (4, 4, 2)])
def test_workers_share_what_one_would_read(files, workers, replicas, num_parts):
    # Parts of an update in the order of their reading: all replicas' first parts, then their second ones.
    alone = batches(training(files, 16, num_parts=num_parts), 6 * replicas * num_parts, context(replicas))
    shares = [batches(training(files, 16, num_parts=num_parts), 6 * replicas * num_parts // workers,
                      context(replicas, workers, worker)) for worker in range(workers)]
    local = replicas // workers
    together = []
    for start in range(0, len(shares[0]), local):
        for share in shares:
            together += share[start:start + local]
    assert_same(together, alone)


def test_masks_are_drawn_for_records_that_hold_none(unmasked_files):
    for batch in batches(training(unmasked_files, rules=RULES), 30):
        assert set(batch) == set(records.MASKED_LM_FEATURES) | {
            "total_examples", "total_tokens", "total_predictions"}
        lengths = batch["input_mask"].sum(axis=1)
        words = (np.rint(lengths * 0.3), np.clip(np.rint(lengths * 0.3) - 1, 1, None))
        counts = batch["masked_lm_weights"].sum(axis=1)
        # One less where only words of two tokens were left.
        assert ((counts <= words[0]) | (counts == 1)).all() and (counts >= words[1]).all()
        assert (batch["masked_lm_weights"].sum(axis=0) > 0).all() and (batch["input_mask"].sum(axis=0) > 0).all()
        assert batch["total_predictions"] == counts.sum() and batch["total_tokens"] == lengths.sum()


def masks(batch):
    """dict of a text's number -> (its masked tokens, what is predicted)."""
    return {number: (ids[mask > 0].tolist(), positions[weights > 0].tolist())
            for number, ids, mask, positions, weights in zip(
                numbers(batch), batch["input_ids"], batch["input_mask"], batch["masked_lm_positions"],
                batch["masked_lm_weights"])}


def test_each_epoch_and_seed_draws_other_masks(unmasked_files):
    # An update is an epoch.
    epochs = [masks(batch) for seed in (1, 2) for batch in batches(
        training(unmasked_files, 61, seed=seed, rules=RULES), 2)]
    long = [number for number, (ids, _) in epochs[0].items() if len(ids) > 20]
    assert len(long) > 15
    for number in long:
        assert len({str(epoch[number]) for epoch in epochs}) == 4


def test_seeds_draw_other_masks_where_the_order_is_the_same(tmp_path):
    path = write(tmp_path / "a", [unmasked(0, 30)])
    assert len({str(masks(batches(training([path], 1, seed=seed, rules=RULES), 1)[0])) for seed in range(9)}) == 9


@pytest.mark.parametrize("batch_size, num_parts, starts", [(5, 1, (1, 12, 25)), (6, 2, (9, 33)), (130, 2, (3,))])
def test_a_run_that_goes_on_sees_the_masks_of_an_unbroken_one(unmasked_files, batch_size, num_parts, starts):
    def run(start, updates):
        return batches(training(unmasked_files, batch_size, num_parts=num_parts, seed=3, start_step=start,
                                rules=RULES), updates * num_parts)

    unbroken = run(0, 36)
    for start in starts:
        assert_same(run(start, 3), unbroken[start * num_parts:(start + 3) * num_parts])


@pytest.mark.parametrize("replicas, num_parts", [(1, 4), (2, 2)])
def test_the_parts_of_an_update_have_its_masks(unmasked_files, replicas, num_parts):
    whole = batches(training(unmasked_files, 8, rules=RULES), 20)
    parts = batches(training(unmasked_files, 8, num_parts=num_parts, rules=RULES), 20 * 4, context(replicas))
    for number, update in enumerate(whole):
        mine = parts[4 * number:4 * number + 4]
        assert {number: found for part in mine for number, found in masks(part).items()} == masks(update)
        assert {float(part["total_predictions"]) for part in mine} == {float(update["total_predictions"])}


def test_workers_resume_together(files):
    shares = [[numbers(batch) for batch in batches(training(files, 8, start_step=start), 6, context(2, 2, 1))]
              for start in (0, 3)]
    assert shares[1][:3] == shares[0][3:]


def test_a_batch_the_parts_do_not_divide_is_refused(files):
    message = "--train_batch_size=9: cannot be divided among %d replicas and %d accumulated parts"
    assert error_of(training(files, 9, num_parts=2)) == message % (1, 2)
    assert error_of(training(files, 9, num_parts=3), context(2)) == message % (2, 3)


def test_records_without_masks_need_rules(unmasked_files):
    message = unmasked_files[0] + ": the records hold no masks, and only masked-LM training draws some"
    assert error_of(training, unmasked_files) == message
    assert error_of(records.evaluation_input_fn, unmasked_files, records.MASKED_LM_FEATURES, 8) == message


def test_rules_leave_masks_that_are_there(files):
    assert_same(batches(training(files, rules=RULES), 5), batches(training(files), 5))


def test_files_without_records_are_refused(tmp_path):
    path = write(tmp_path / "a", [])
    assert error_of(training, [path]) == path + ": no records"


@pytest.mark.parametrize("replicas, num_parts", [(1, 1), (2, 3)])
def test_what_stands_beside_a_record_is_looked_up_by_its_place_in_the_files(files, replicas, num_parts):
    def beside(features):
        return dict(features, twice=2 * features["record"])

    for batch in batches(training(files, 12, num_parts=num_parts, beside=beside), 60, context(replicas)):
        assert batch["twice"].tolist() == [2 * number for number in numbers(batch)]
    for batch in batches(records.evaluation_input_fn(files, records.SEQUENCE, 8, beside=beside)):
        assert batch["twice"].tolist() == [2 * number for number in numbers(batch)]


# ---- evaluation

@pytest.mark.parametrize("pool", [32, 2], ids=["one_pool", "several_pools"])
def test_evaluation_reads_every_record_once_and_tells_which(files, monkeypatch, pool):
    monkeypatch.setattr(records, "MAX_POOL_UPDATES", pool)
    found = batches(records.evaluation_input_fn(files, records.MASKED_LM_FEATURES, 8))
    seen = []
    for batch in found:
        assert batch["record"].tolist() == numbers(batch)
        assert batch["total_examples"] == len(numbers(batch)) <= 8
        assert batch["total_tokens"] == batch["input_mask"].sum()
        assert (batch["input_mask"].sum(axis=0) > 0).all()
        seen += numbers(batch)
    assert sorted(seen) == list(range(61)) != seen
    assert len(found) == 8


def test_evaluation_may_read_some_records_only(files):
    found = batches(records.evaluation_input_fn(files, records.SEQUENCE, 8, first=20, count=30))
    assert sorted(number for batch in found for number in batch["record"]) == list(range(20, 50))
    assert all(batch["record"].tolist() == numbers(batch) for batch in found)


def test_evaluation_puts_texts_of_similar_length_together(files):
    found = batches(records.evaluation_input_fn(files, records.SEQUENCE, 8))
    lengths = [length for batch in found for length in batch["input_mask"].sum(axis=1)]
    assert lengths == sorted(lengths)


def test_every_evaluation_has_the_same_masks_in_batches_of_any_size(unmasked_files, monkeypatch):
    def by_record(batch_size):
        found = {}
        for batch in batches(records.evaluation_input_fn(
                unmasked_files, records.MASKED_LM_FEATURES, batch_size, RULES)):
            assert batch["record"].tolist() == numbers(batch)
            assert batch["total_predictions"] == batch["masked_lm_weights"].sum()
            found.update(masks(batch))
        return found

    first = by_record(8)
    assert sorted(first) == list(range(61)) and by_record(8) == first
    monkeypatch.setattr(records, "MAX_POOL_UPDATES", 2)
    assert by_record(5) == first
    assert len({str(positions) for _, positions in first.values()}) > 30
