import os

import numpy as np
import pytest

from bert import instances, spill
from bert.instances import Instances


def instances_of(seed, count):
    draw = np.random.RandomState(seed)
    lengths = draw.randint(1, 9, count)
    return Instances(draw.randint(0, 2 ** 62, count).astype(np.uint64), lengths.astype(np.int64),
                     draw.randint(0, 2 ** 16, lengths.sum()).astype(np.uint16))


def rows(found):
    ends = np.cumsum(found.lengths)
    return [(key, tuple(found.tokens[end - length:end])) for key, length, end in zip(found.keys, found.lengths, ends)]


@pytest.mark.parametrize("budget", [1, 300, 1 << 20])
def test_a_bucket_gives_back_what_was_put_into_it_in_the_order_of_the_keys(tmp_path, budget):
    writer, expected = spill.SpillWriter(str(tmp_path), budget), {bucket: [] for bucket in range(4)}
    for seed in range(5):
        given = instances_of(seed, 30)
        buckets = np.random.RandomState(seed).randint(0, 3, 30)
        writer.add(given, buckets)
        for bucket, row in zip(buckets.tolist(), rows(given)):
            expected[bucket].append(row)
    writer.flush()
    for bucket in range(4):
        assert rows(spill.read(str(tmp_path), bucket, np.uint16)) == sorted(expected[bucket])


def test_who_wrote_an_instance_does_not_matter(tmp_path):
    found = []
    for folder, order in ((tmp_path / "a", (1, 2)), (tmp_path / "b", (2, 1))):
        folder.mkdir()
        for seed in order:
            writer = spill.SpillWriter(str(folder))
            writer.add(instances_of(seed, 10), np.zeros(10, np.int64))
            writer.flush()
            os.rename(str(folder / ("00000-%d" % os.getpid())), str(folder / ("00000-%d" % seed)))
        found.append(rows(spill.read(str(folder), 0, np.uint16)))
    assert found[0] == found[1] and len(found[0]) == 20


def test_no_more_than_the_budget_waits_in_memory(tmp_path):
    writer = spill.SpillWriter(str(tmp_path), budget=200)
    for seed in range(50):
        writer.add(instances_of(seed, 10), np.zeros(10, np.int64))
        assert writer._size < 200


def test_nothing_is_written_for_nothing(tmp_path):
    spill.SpillWriter(str(tmp_path)).flush()
    assert os.listdir(str(tmp_path)) == []
    assert rows(spill.read(str(tmp_path), 0, np.uint16)) == []


@pytest.mark.parametrize("size, kind", [(1 << 15, np.uint16), ((1 << 15) + 1, np.uint32)])
def test_an_id_and_its_mark_fit_the_type_of_tokens(size, kind):
    assert instances.token_type(range(size)) == kind
    assert size - 1 < instances.goes_on(kind) < 2 ** (8 * np.dtype(kind).itemsize)
