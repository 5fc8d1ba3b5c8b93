"""Text files -> TFRecord shards in the processes of one machine, in memory that does not grow with the text.

Pass 0, on request, finds duplicates. Pass 1 reads ranges of the files and spills instances, without masks, into
buckets; pass 2 reads each bucket, sorts it by the instances' random keys, masks, and writes its part of a shard. A
bucket is drawn at random for each instance and holds `BUCKET_BYTES` of text at most (as long as `MAX_BUCKETS` are
enough: 16 GB; beyond, they grow), so the shuffle is complete: all orders of all instances are equally likely.

What is done stands in a hidden folder beside the shards. A job that is killed in pass 2 goes on with the shards
that are not there yet, one that is killed before begins again.
"""

import collections
import contextlib
import errno
import itertools
import os
import shutil

import numpy as np

from bert import corpus
from bert import duplicates
from bert import instances as instances_
from bert import spill
from bert import tfrecord
from bert import workers
from training import files
from training import progress
from training.command import UserError

BUCKET_BYTES = 4 << 20
MAX_BUCKETS = 4096
# A worker's task is so many ranges at most: what it spills goes to all buckets, in fewer and larger pieces.
RANGES_AT_ONCE = 16
LEAST_TASKS = 64
GZIP_GROWTH = 4         # bytes of text in a compressed byte, about
BATCH_BYTES = 1 << 18   # of text, turned into instances at a time
MASKED_AT_ONCE = 1 << 19  # tokens


def num_buckets(input_files, num_shards, dupe_factor):
    """How many buckets, all shards together."""
    size = sum(os.path.getsize(name) * (GZIP_GROWTH if name.endswith(corpus.GZIP_END) else 1)
               for name in input_files) * dupe_factor
    a_shard = max(1, -(-size // (num_shards * BUCKET_BYTES)))
    return num_shards * min(a_shard, MAX_BUCKETS // num_shards)


def make_shards(input_files, shards, folder, settings, made_from, num_workers, before_first):
    """Makes the shards, or those that an earlier run left to do.

    Args:
      input_files: list of names.
      shards: TFRecord files to write.
      folder: where unfinished work stands.
      settings: `instances.Settings`.
      made_from: JSON value, all that decides the bytes of the shards.
      num_workers: processes; they do not change a byte.
      before_first: called when all input is read, before the first shard is written.

    Returns:
      Counter of what was done.

    Raises:
      UserError: input that cannot be read or holds no text, an unusable vocabulary or user dictionary, a full disk.
    """
    buckets = num_buckets(input_files, len(shards), settings.dupe_factor)
    try:
        counts = _spilled(folder, made_from)
        if counts is None:
            with _new_folder(folder):
                counts = _spill(input_files, folder, settings, buckets, num_workers)
                if not counts["instances"]:
                    raise UserError("%s: no text to make samples of" % ", ".join(input_files))
                before_first()
                files.write_json(_spilled_name(folder), {
                    "made_from": made_from, "counts": counts,
                    "shards": [os.path.relpath(name, folder) for name in shards]})
        _merge(folder, shards, settings, buckets, counts["instances"], num_workers)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError("%s: the disk is full; make room and run the same command again: finished shards stay"
                        % os.path.dirname(os.path.abspath(shards[0])))
    counts.update(_part_counts(folder))
    shutil.rmtree(folder)
    return counts


def _spilled_name(folder):
    return os.path.join(folder, "spilled.json")


def unfinished_shards(folder):
    """Names of the shards, there or not, of the job that left unfinished work in a folder."""
    if not os.path.exists(_spilled_name(folder)):
        return []
    return [os.path.normpath(os.path.join(folder, name)) for name in files.read_json(_spilled_name(folder))["shards"]]


def _spilled(folder, made_from):
    """Counter of pass 1 when an earlier run of the same job has finished it, else None."""
    if not os.path.exists(_spilled_name(folder)):
        return None
    found = files.read_json(_spilled_name(folder))
    return collections.Counter(found["counts"]) if found["made_from"] == made_from else None


@contextlib.contextmanager
def _new_folder(folder):
    """An empty folder, which is gone when the block raises."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


# ---- passes 0 and 1: over ranges of the files

def _spill(input_files, folder, settings, buckets, num_workers):
    """Writes all instances into buckets; returns the counts."""
    dropped, dropped_file = None, None
    if settings.dedup != "none":
        dropped_file = _find_duplicates(input_files, folder, settings, num_workers)
        dropped = duplicates.Dropped(dropped_file)
    job = _SpillJob(settings, instances_.Sampler(settings, buckets, dropped), folder)
    counts = _over_ranges("samples", job, input_files, num_workers)
    if dropped_file:
        os.remove(dropped_file)
    return counts


def _find_duplicates(input_files, folder, settings, num_workers):
    """Path of a file for `duplicates.Dropped`."""
    path, signed = os.path.join(folder, "dropped"), os.path.join(folder, "signatures")
    os.mkdir(signed)
    job = _SignJob(settings, signed)
    _over_ranges("duplicates", job, input_files, num_workers)
    index = os.path.join(folder, "index")
    os.mkdir(index)
    with progress.bar(None, "duplicates, sorting", " documents") as shown:
        signatures = duplicates.SignatureFiles(index, settings.dedup)
        for places, columns in job.read():
            signatures.add(places, columns)
            shown.update(len(places))
        os.replace(signatures.duplicates(), path)
    shutil.rmtree(index)
    shutil.rmtree(signed)
    return path


def _over_ranges(what, job, input_files, num_workers):
    """Calls a job with all ranges of the files and shows how far it is; returns the sum of its counts."""
    ranges = corpus.ranges(input_files)
    counts = collections.Counter()
    with progress.bar(sum(part.num_bytes for part in ranges), what, "B") as shown:
        def show():
            shown.set_postfix_str("%d documents" % job.tally["documents"] + (
                ", %d instances/s" % (job.tally["instances"] / max(shown.format_dict["elapsed"], 1e-3))
                if job.tally["instances"] else ""), refresh=False)
            shown.update(job.tally["bytes"] - shown.n)

        for result in workers.run(job, _in_groups(ranges), num_workers, show):
            counts.update(result)
        show()
    return counts


def _in_groups(ranges):
    """Lists of ranges, the tasks."""
    size = min(RANGES_AT_ONCE, max(1, len(ranges) // LEAST_TASKS))
    return [ranges[start:start + size] for start in range(0, len(ranges), size)]


class _RangeJob:
    """Reads ranges in batches of documents and does something with each."""

    def __init__(self, settings):
        self.tally = workers.Tally("bytes", "documents", "instances")
        self._form = instances_.format_of(settings)

    def __call__(self, ranges):
        """The counts of a list of `corpus.Range`."""
        counts = collections.Counter()
        for part in ranges:
            self._read(part, counts)
        self._end()
        return counts

    def _read(self, part, counts):
        reader, told = corpus.RangeReader(part, self._form), 0
        for documents in batches(reader):
            done = self._batch(documents)
            counts.update(done)
            self.tally.add(bytes=reader.bytes_read - told, documents=done["documents"], instances=done["instances"])
            told = reader.bytes_read
        self.tally.add(bytes=part.num_bytes - told)
        counts["bad_lines"] += reader.bad_lines

    def _end(self):
        """Called at the end of a task."""


def batches(documents):
    """Lists of documents, of about `BATCH_BYTES` each."""
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += 3 * sum(map(len, document.sentences))
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _SpillJob(_RangeJob):
    """Pass 1."""

    def __init__(self, settings, sampler, folder):
        super().__init__(settings)
        self._sampler, self._spill = sampler, spill.SpillWriter(folder)

    def _batch(self, documents):
        instances, buckets, counts = self._sampler.sample(documents)
        self._spill.add(instances, buckets)
        return counts

    def _end(self):
        self._spill.flush()


class _SignJob(_RangeJob):
    """Pass 0: each process writes the places and signatures of its documents to two files of its own."""

    def __init__(self, settings, folder):
        super().__init__(settings)
        self._signer, self._folder = instances_.DocumentSigner(settings.dedup), folder
        self._width = duplicates.WORDS[settings.dedup]

    def _batch(self, documents):
        for kind, columns in zip(("places", "signatures"), self._signer.sign(documents)):
            with open(os.path.join(self._folder, "%d.%s" % (os.getpid(), kind)), "ab") as stream:
                stream.write(columns.tobytes())
        return collections.Counter(documents=len(documents))

    def read(self, at_once=1 << 14):
        """Yields (places uint64 [N], signatures uint64 [N, W]), up to `at_once` documents."""
        for name in sorted(os.listdir(self._folder)):
            process, kind = name.split(".")
            if kind == "places":
                with open(os.path.join(self._folder, name), "rb") as places, \
                        open(os.path.join(self._folder, process + ".signatures"), "rb") as signatures:
                    while True:
                        found = np.frombuffer(places.read(8 * at_once), np.uint64)
                        if not len(found):
                            break
                        yield found, np.frombuffer(
                            signatures.read(8 * self._width * len(found)), np.uint64).reshape(len(found), -1)


# ---- pass 2: buckets to shards

def _merge(folder, shards, settings, buckets, num_instances, num_workers):
    """Writes the shards that are not there yet."""
    a_shard = buckets // len(shards)
    open_shards = {number: range(number * a_shard, (number + 1) * a_shard)
                   for number, shard in enumerate(shards) if not os.path.exists(shard)}
    to_do = [bucket for part in open_shards.values() for bucket in part if not os.path.exists(_part(folder, bucket))]
    job = _MaskJob(settings, folder)
    with progress.bar(num_instances, "records", " instances") as shown:
        shown.update(sum(counts["masked"] for counts in _each_part_count(folder)))

        def show():
            shown.update(job.tally["instances"] - job.shown)
            job.shown = job.tally["instances"]

        missing = {number: len(set(part) & set(to_do)) for number, part in open_shards.items()}
        for bucket in itertools.chain([None], workers.run(job, to_do, num_workers, show)):
            if bucket is not None:
                missing[bucket // a_shard] -= 1
            for number in [number for number, count in missing.items() if not count]:
                _join(folder, open_shards[number], shards[number])
                del missing[number]
        show()


def _join(folder, buckets, shard):
    """Puts the parts of a shard together; it appears whole or not at all."""
    # In the hidden folder first: a killed run leaves no part of a shard where patterns find it.
    whole = os.path.join(folder, "shard")
    with open(whole, "wb") as stream:
        for bucket in buckets:
            with open(_part(folder, bucket), "rb") as part:
                shutil.copyfileobj(part, stream, 1 << 20)
    os.makedirs(os.path.dirname(os.path.abspath(shard)), exist_ok=True)
    os.replace(whole, shard)
    for bucket in buckets:
        os.remove(_part(folder, bucket))


def _part(folder, bucket):
    return os.path.join(folder, "part-%05d" % bucket)


class _MaskJob:
    """Turns a bucket into a part of a shard."""

    def __init__(self, settings, folder):
        self.tally, self.shown = workers.Tally("instances"), 0
        self._folder = folder
        self._masker = instances_.Masker(settings)
        self._max_seq_length = settings.max_seq_length

    def __call__(self, bucket):
        """Returns the bucket."""
        instances = spill.read(self._folder, bucket, self._masker.tokens_type)
        counts = collections.Counter(masked=len(instances.keys))
        with files.whole_file(_part(self._folder, bucket)) as temporary:
            with open(temporary, "wb") as stream:
                for some in in_pieces(instances, self._max_seq_length):
                    records, predictions = self._masker.records(some)
                    stream.write(tfrecord.frame(records))
                    counts["predictions"] += predictions
                    self.tally.add(instances=len(records))
            files.write_json(os.path.join(self._folder, "counts-%05d" % bucket), counts)
        return bucket


def in_pieces(instances, max_seq_length):
    """Yields `Instances` that are masked at once, those given in pieces."""
    tokens = np.concatenate([[0], np.cumsum(instances.lengths)])
    at_once = max(1, MASKED_AT_ONCE // max_seq_length)
    for start in range(0, len(instances.keys), at_once):
        end = min(start + at_once, len(instances.keys))
        yield instances_.Instances(instances.keys[start:end], instances.lengths[start:end],
                                   instances.tokens[tokens[start]:tokens[end]])


def _each_part_count(folder):
    return [files.read_json(os.path.join(folder, name)) for name in os.listdir(folder)
            if name.startswith("counts-") and "." not in name]  # a killed run leaves counts-00001.tmp-123


def _part_counts(folder):
    """Counter of the predictions of all parts."""
    return collections.Counter(predictions=sum(counts.get("predictions", 0) for counts in _each_part_count(folder)))
