"""Text files -> TFRecord shards on many machines: the functions of the local runner as an Apache Beam pipeline.

    python -m bert.create_pretraining_data --runner=DirectRunner --input_file='corpus/*.txt' --vocab_file=vocab.txt \\
        --output_file=records/corpus.tfrecord --num_shards=8
    python -m bert.create_pretraining_data --runner=FlinkRunner \\
        --beam_options='--flink_master=host:8081 --parallelism=32 --environment_type=LOOPBACK' --input_file=...

Needs the packages of requirements-beam.txt (Python 3.7). Files are opened by Beam's file systems, so names like
gs://... and hdfs://... do where Beam knows them; plain names must be found by all workers. Every worker needs this
project on its path (Beam's options --setup_file or a container). The instances are those of a local run, record by
record; their order, and which shard one goes to, are Beam's. Shards appear when all of them are finished.
"""

import collections
import hashlib
import os
import shlex
import tempfile

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from bert import corpus
from bert import instances as instances_
from bert import local_runner
from training.command import UserError

COUNTS = "counts"  # namespace of the metrics


def make_shards(input_pattern, output_file, num_shards, settings, runner, options):
    """Runs the pipeline and waits for its end.

    Args:
      input_pattern: text files, comma-separated, with * and ?.
      output_file: the shards' name without their numbers.
      num_shards: int; one shard has no number.
      settings: `instances.Settings`.
      runner: name of a Beam runner.
      options: str, Beam's own options.

    Returns:
      Counter of what was done.

    Raises:
      UserError: no such file, or no text.
    """
    parts = ranges(input_pattern)
    pipeline = beam.Pipeline(options=PipelineOptions(shlex.split(options), runner=runner, save_main_session=False))
    read = pipeline | beam.Create(parts) | "Spread" >> beam.Reshuffle()
    dropped = beam.pvalue.AsIter(_duplicates(read, settings) if settings.dedup == "exact"
                                 else pipeline | "None" >> beam.Create([]))
    records = read | "Records" >> beam.ParDo(_ToRecords(settings), dropped)
    records | "Shuffle" >> beam.Reshuffle() | beam.io.WriteToTFRecord(
        output_file, num_shards=num_shards, shard_name_template="" if num_shards == 1 else "-SSSSS-of-NNNNN")
    result = pipeline.run()
    result.wait_until_finish()
    counts = collections.Counter()
    for metric in result.metrics().query(beam.metrics.MetricsFilter().with_namespace(COUNTS))["counters"]:
        counts[metric.key.metric.name] += metric.committed
    if not counts["instances"]:
        raise UserError("%s: no text to make samples of" % input_pattern)
    return counts


def ranges(input_pattern):
    """The `corpus.Range`s of files that Beam's file systems know."""
    found = {}
    for pattern, match in zip(input_pattern.split(","), FileSystems.match(input_pattern.split(","))):
        if not match.metadata_list:
            raise UserError("--input_file=%s: no such file" % pattern)
        found.update((metadata.path, metadata.size_in_bytes) for metadata in match.metadata_list)
    return corpus.ranges(sorted(found), found.get)


def open_file(path, mode="rb"):
    """Opens a file of any of Beam's file systems, compressed ones as they are."""
    assert mode == "rb"
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def _duplicates(read, settings):
    """The places of documents that are the same as an earlier one."""
    return (read | "Sign" >> beam.ParDo(_Sign(settings)) | beam.GroupByKey()
            | "All but the first" >> beam.FlatMap(lambda group: sorted(group[1])[1:]))


class _Sign(beam.DoFn):
    """Ranges to (signature, place) of their documents."""

    def __init__(self, settings):
        self._settings = settings

    def setup(self):
        self._signer = instances_.DocumentSigner(self._settings.dedup)

    def process(self, part):
        reader = corpus.RangeReader(part, instances_.format_of(self._settings), open_file)
        for documents in local_runner.batches(reader):
            places, signatures = self._signer.sign(documents)
            for place, signature in zip(places.tolist(), signatures):
                yield signature.tobytes(), place


class _ToRecords(beam.DoFn):
    """Ranges to the serialized records of their documents."""

    def __init__(self, settings):
        self._settings = settings

    def setup(self):
        settings = self._settings
        self._folder = tempfile.TemporaryDirectory()
        settings = settings._replace(**{name: self._local_copy(getattr(settings, name))
                                        for name in ("vocab_file", "user_dict") if getattr(settings, name)})
        self._sampler, self._masker = instances_.Sampler(settings, 1), instances_.Masker(settings)

    def teardown(self):
        self._folder.cleanup()

    def process(self, part, dropped):
        self._sampler.dropped = _Places(dropped)
        reader = corpus.RangeReader(part, instances_.format_of(self._settings), open_file)
        for documents in local_runner.batches(reader):
            instances, _, counts = self._sampler.sample(documents)
            for some in local_runner.in_pieces(instances, self._settings.max_seq_length):
                records, predictions = self._masker.records(some)
                counts["predictions"] += predictions
                yield from records
            for name, count in counts.items():
                beam.metrics.Metrics.counter(COUNTS, name).inc(count)
        beam.metrics.Metrics.counter(COUNTS, "bad_lines").inc(reader.bad_lines)

    def _local_copy(self, path):
        with open_file(path) as stream:
            content = stream.read()
        copy = os.path.join(self._folder.name, hashlib.sha256(path.encode("utf-8")).hexdigest())
        with open(copy, "wb") as stream:
            stream.write(content)
        return copy


class _Places:
    """Like `duplicates.Dropped`, in memory."""

    def __init__(self, places):
        self._places = np.array(sorted(places), np.uint64)

    def contains(self, places):
        """bool [N] for uint64 [N]."""
        return np.isin(places, self._places)
