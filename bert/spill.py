"""Instances on disk between being cut and being masked, in buckets that fit the memory.

A bucket is the files `<bucket>-<process>` of a folder, one a process that wrote to it. A file is chunks: numbers of
instances and of tokens (uint64), keys (uint64), lengths (uint32), tokens.

Letters: N instances.
"""

import glob
import os

import numpy as np

from bert import instances as instances_
from bert.instances import Instances


class SpillWriter:
    """Collects instances and appends them to the buckets' files when they fill `budget`."""

    def __init__(self, folder, budget=16 << 20):
        """Args:
          folder: that is there.
          budget: bytes of tokens kept in memory.
        """
        self._folder, self._budget = folder, budget
        self._waiting, self._size = [], 0

    def add(self, instances, buckets):
        """Args: instances: `Instances`; buckets: int64 [N]."""
        self._waiting.append((instances, buckets))
        self._size += instances.tokens.nbytes + instances.keys.nbytes
        if self._size >= self._budget:
            self.flush()

    def flush(self):
        """Writes what waits."""
        if not self._waiting:
            return
        parts, buckets = zip(*self._waiting)
        self._waiting, self._size = [], 0
        buckets = np.concatenate(buckets)
        order = np.argsort(buckets, kind="stable")
        sorted_ = instances_.take(_joined(parts), order)
        numbers, firsts = np.unique(buckets[order], return_index=True)
        ends = np.append(firsts[1:], len(order))
        tokens = np.concatenate([[0], np.cumsum(sorted_.lengths)])
        for number, first, end in zip(numbers.tolist(), firsts.tolist(), ends.tolist()):
            self._append(number, Instances(
                sorted_.keys[first:end], sorted_.lengths[first:end], sorted_.tokens[tokens[first]:tokens[end]]))

    def _append(self, bucket, instances):
        with open(os.path.join(self._folder, "%05d-%d" % (bucket, os.getpid())), "ab") as stream:
            stream.write(np.array([len(instances.keys), len(instances.tokens)], np.uint64).tobytes())
            stream.write(instances.keys.tobytes())
            stream.write(instances.lengths.astype(np.uint32).tobytes())
            stream.write(instances.tokens.tobytes())


def read(folder, bucket, tokens_type):
    """The `Instances` of a bucket, in the order of their keys, whoever wrote them."""
    parts = []
    for path in glob.glob(os.path.join(glob.escape(folder), "%05d-*" % bucket)):
        with open(path, "rb") as stream:
            content = stream.read()
        position = 0
        while position < len(content):
            sizes = np.frombuffer(content, np.uint64, 2, position).tolist()
            position += 16
            columns = []
            for count, kind in zip((sizes[0], sizes[0], sizes[1]), (np.uint64, np.uint32, tokens_type)):
                columns.append(np.frombuffer(content, kind, count, position))
                position += columns[-1].nbytes
            parts.append(Instances(columns[0], columns[1].astype(np.int64), columns[2]))
    if not parts:
        return Instances(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, tokens_type))
    joined = _joined(parts)
    return instances_.take(joined, np.argsort(joined.keys, kind="stable"))


def _joined(parts):
    return Instances(*(np.concatenate(columns) for columns in zip(*parts)))
