"""The order of training and of evaluation: `records.training_input_fn` and `records.evaluation_input_fn`."""

import collections

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import records
from tests import graphs
from tests.bert.record_texts import RULES
from tests.bert.record_texts import unmasked
from tests.bert.record_texts import write
from tests.bert.record_texts import batches
from tests.bert.record_texts import training
from tests.bert.record_texts import numbers
from tests.bert.record_texts import assert_same
from tests.bert.record_texts import error_of


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


@graphs.ON_REFERENCE
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


@graphs.ON_REFERENCE
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


@graphs.ON_REFERENCE
def test_seeds_draw_other_masks_where_the_order_is_the_same(tmp_path):
    path = write(tmp_path / "a", [unmasked(0, 30)])
    assert len({str(masks(batches(training([path], 1, seed=seed, rules=RULES), 1)[0])) for seed in range(9)}) == 9


@pytest.mark.parametrize("batch_size, num_parts, starts", [
    (5, 1, (1, 12, 25)), pytest.param(6, 2, (9, 33), marks=graphs.ON_REFERENCE), (130, 2, (3,))])
def test_a_run_that_goes_on_sees_the_masks_of_an_unbroken_one(unmasked_files, batch_size, num_parts, starts):
    def run(start, updates):
        return batches(training(unmasked_files, batch_size, num_parts=num_parts, seed=3, start_step=start,
                                rules=RULES), updates * num_parts)

    unbroken = run(0, 36)
    for start in starts:
        assert_same(run(start, 3), unbroken[start * num_parts:(start + 3) * num_parts])


@graphs.ON_REFERENCE
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
