"""Text -> TFRecord shards for masked-LM training.

Input: UTF-8 text, one sentence a line, a blank line between documents. Output: records with the feature
names of Google's script of this name, padded as there. Each text is written --dupe_factor times, each
time with other masks, and all records are shuffled together.

    python -m bert.create_pretraining_data --input_file='corpus/*.txt' --vocab_file=vocab.txt \\
        --output_file=records/corpus.tfrecord --num_shards=8
    python -m bert.create_pretraining_data --input_file=reviews.txt --vocab_file=vocab.txt \\
        --output_file=reviews.tfrecord --samples=packed --dupe_factor=5

--samples=sentence (the paper's): one sentence, one sample; a sentence that is too long loses tokens at
its front or its back, at random. --samples=packed: samples are filled to --max_seq_length from one
document, cut wherever the sample ends; short documents still give short samples.

The seed, the input and the flags decide every byte, whatever --num_workers. Next to the shards stands
<output_file>.json with what they were made from and the counts: run again with the same, the command
says that it is finished and does nothing.
"""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import shutil
import signal
import struct
import sys
import threading
import time

import numpy as np
from absl import flags
from tqdm import tqdm

from bert import corpus
from bert import masking
from bert import samples
from bert import tokenization
from bert.draws import Draws, keys_of
from bert.encoding import Encoder
from bert.examples import MaskedLmSerializer
from training import command
from training import files
from training.command import UserError

Settings = collections.namedtuple("Settings", [
    "vocab_file", "do_lower_case", "max_seq_length", "max_predictions_per_seq", "masked_lm_prob",
    "random_seed", "dupe_factor", "samples"])

FORMAT = 2  # raised when the same input and settings would give other bytes

# Records wait in buckets on disk until all are there; one bucket at a time is shuffled in memory.
BUCKET_BYTES = 64 << 20
MAX_BUCKETS = 512
# Input bytes to record bytes, one copy: a short sentence in a padded record grows about so much.
GROWTH = 8
TASK_BYTES = 1 << 16  # text handed to a worker at a time

SHUFFLE = 2 ** 64 - 1  # in place of a file's number: the key of the buckets' shuffling
COINS, BUCKETS = masking.CALLERS, masking.CALLERS + 1  # sites of a sample's random stream


def define_flags():
    flags.DEFINE_string("input_file", None, "Text files, comma-separated, with * and ?.")
    flags.DEFINE_string(
        "output_file", None, "The TFRecord file; with --num_shards=4 it becomes four, "
        "<output_file>-00000-of-00004 and so on. Several names, comma-separated, are the shards themselves.")
    flags.DEFINE_string("vocab_file", None, "The WordPiece vocabulary, one token a line.")
    flags.DEFINE_bool("do_lower_case", True, "Lower-case the text and drop accents.")
    flags.DEFINE_integer("max_seq_length", 128, "Tokens of a sample, with [CLS] and [SEP].", lower_bound=3,
                         upper_bound=masking.MAX_LENGTH)
    flags.DEFINE_integer("max_predictions_per_seq", 20, "Masked tokens of a sample at most.", lower_bound=1)
    flags.DEFINE_float("masked_lm_prob", 0.15, "Share of the tokens that is masked.",
                       lower_bound=0.0, upper_bound=1.0)
    flags.DEFINE_integer("random_seed", 12345, "Seed of shuffling, cutting and masking.",
                         lower_bound=0, upper_bound=2 ** 63 - 1)
    flags.DEFINE_integer("dupe_factor", 10, "Copies of each text, each with other masks.", lower_bound=1)
    flags.DEFINE_enum("samples", "sentence", ["sentence", "packed"], "What becomes one sample: see above.")
    flags.DEFINE_integer("num_shards", 1, "Output files.", lower_bound=1, upper_bound=MAX_BUCKETS)
    flags.DEFINE_integer("num_workers", None, "Processes; all cores when not given.", lower_bound=1)
    flags.mark_flags_as_required(["input_file", "output_file", "vocab_file"])


def main():
    values = flags.FLAGS
    settings = Settings(**{name: values[name].value for name in Settings._fields})
    input_files = files.matching_files(values.input_file, "input_file")
    shards = shard_names(values.output_file, values.num_shards)
    created = create(input_files, shards, manifest_name(values.output_file), settings,
                     values.num_workers or len(os.sched_getaffinity(0)))
    if created is None:
        print("%s: finished, %d of %d shards are there; nothing to do (delete %s to make them again)" % (
            values.output_file, len(shards), len(shards), manifest_name(values.output_file)))
    else:
        print(summary(created, shards))


def shard_names(output_file, num_shards):
    """The shards' names.

    Raises:
      UserError: names and number disagree.
    """
    names = output_file.split(",")
    if "" in names or len(set(names)) < len(names):
        raise UserError("--output_file=%s: an empty name, or one name twice" % output_file)
    if len(names) > MAX_BUCKETS:
        raise UserError("--output_file: %d names; at most %d shards can be made" % (len(names), MAX_BUCKETS))
    if len(names) > 1:
        if num_shards not in (1, len(names)):
            raise UserError("--num_shards=%d: --output_file names %d shards; give one of the two flags"
                            % (num_shards, len(names)))
        return names
    if num_shards == 1:
        return names
    return ["%s-%05d-of-%05d" % (output_file, number, num_shards) for number in range(num_shards)]


def manifest_name(output_file):
    return output_file.split(",")[0] + ".json"


def create(input_files, shards, manifest, settings, num_workers=1):
    """Makes the shards, or finds them made.

    The shuffle is complete: each record goes to a bucket drawn at random, and each bucket, a part of one
    shard, is shuffled in memory. Memory holds the largest bucket and the texts the workers have in hand.

    Args:
      input_files: sorted text files.
      shards: TFRecord files to write.
      manifest: JSON file, written last, that says the shards are whole.
      settings: `Settings`.
      num_workers: processes; they do not change a byte.

    Returns:
      Counter of what was done, see `summary`; None when shards made from the same are there.

    Raises:
      UserError: input that is not UTF-8, holds no text or would be overwritten, an unusable vocabulary,
        or a manifest that is none. What an earlier run made is then untouched.
    """
    corpus.check_outputs(shards + [manifest], input_files + [settings.vocab_file])
    # Here and not in the workers: they are forked from this process and find TensorFlow loaded.
    from bert import records

    num_buckets = _num_buckets(input_files, len(shards), settings.dupe_factor)
    worker = Worker(settings, num_buckets)
    made_from = origin(input_files, shards, settings)
    earlier = _read_manifest(manifest)
    if earlier["made_from"] == made_from and earlier["shards"] == _sizes(shards, manifest):
        return None
    for name in shards:
        os.makedirs(os.path.dirname(os.path.abspath(name)), exist_ok=True)
    with _bucket_folder(shards[0]) as folder:
        counts = _fill_buckets(input_files, folder, worker, num_workers)
        if not counts["instances"]:
            raise UserError("%s: no text to make samples of" % ", ".join(input_files))
        # The manifest goes first: it never stands beside other shards than its own.
        for name in [manifest] + shards + [_beside(manifest, name) for name in earlier["shards"]]:
            with contextlib.suppress(FileNotFoundError):
                os.remove(name)
        a_shard = num_buckets // len(shards)
        for number, shard in enumerate(shards):
            buckets = range(number * a_shard, (number + 1) * a_shard)
            # In the hidden folder first: a killed run leaves no part of a shard where patterns find it.
            whole = os.path.join(folder, "shard")
            records.write_records(whole, _shuffled(folder, buckets, settings.random_seed))
            os.replace(whole, shard)
    sizes = _sizes(shards, manifest)
    files.write_json(manifest, {"made_from": made_from, "counts": counts, "shards": sizes})
    return counts


def origin(input_files, shards, settings):
    """All that decides the bytes of the shards, as a JSON value."""
    described = settings._asdict()
    described["vocab_file"] = _identity(settings.vocab_file)
    return {"format": FORMAT, "settings": dict(described), "num_shards": len(shards),
            "input_files": [_identity(name) for name in input_files]}


def _identity(path):
    return {"name": os.path.basename(path), "bytes": os.path.getsize(path), "sha256": files.digest(path)}


def _read_manifest(manifest):
    if not os.path.exists(manifest):
        return {"made_from": None, "shards": {}}
    found = files.read_json(manifest)
    if not isinstance(found, dict) or set(found) != {"made_from", "counts", "shards"}:
        raise UserError("%s: was not written by this command and would be lost; move it away, or choose "
                        "another --output_file" % manifest)
    return found


def _sizes(shards, manifest):
    """Bytes of the shards that are there, by their names as seen from the manifest's folder."""
    folder = os.path.dirname(os.path.abspath(manifest))
    return {os.path.relpath(name, folder): os.path.getsize(name) for name in shards if os.path.exists(name)}


def _beside(manifest, name):
    return os.path.join(os.path.dirname(os.path.abspath(manifest)), name)


def _num_buckets(input_files, num_shards, dupe_factor):
    size = sum(os.path.getsize(name) for name in input_files) * dupe_factor * GROWTH
    a_shard = max(1, -(-size // (num_shards * BUCKET_BYTES)))
    return num_shards * min(a_shard, MAX_BUCKETS // num_shards)


@contextlib.contextmanager
def _bucket_folder(beside):
    """An empty folder that is gone afterwards; one left by a killed run is cleared away."""
    # Hidden: patterns like corpus.tfrecord-* must not find it.
    folder = os.path.join(os.path.dirname(beside), ".%s.buckets" % os.path.basename(beside))
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- documents to records, in workers

def _fill_buckets(input_files, folder, worker, num_workers):
    """Writes the records of all documents into the worker's number of buckets; returns the counts."""
    counts = collections.Counter()
    total = sum(os.path.getsize(name) for name in input_files)
    with contextlib.ExitStack() as stack:
        buckets = [stack.enter_context(open(_bucket_name(folder, number), "wb"))
                   for number in range(worker.num_buckets)]
        results = _in_order(num_workers, worker, _tasks(corpus.read_documents(input_files)))
        progress = stack.enter_context(_progress(total, "text"))
        for records, counted, num_bytes in results:
            for bucket, framed in records.items():
                buckets[bucket].write(framed)
            counts.update(counted)
            progress.set_postfix_str(
                "%d documents, %d instances" % (counts["documents"], counts["instances"]), refresh=False)
            progress.update(num_bytes)
    return counts


def _progress(total, what):
    # Where nobody watches, a line in ten seconds is enough.
    return tqdm(total=total, desc=what, unit="B", unit_scale=True, file=sys.stderr,
                mininterval=0.2 if sys.stderr.isatty() else 10)


def _bucket_name(folder, number):
    return os.path.join(folder, "%05d" % number)


def _tasks(documents):
    """Lists of documents, together about `TASK_BYTES` of text."""
    task, size = [], 0
    for document in documents:
        task.append(document)
        size += document.num_bytes
        if size >= TASK_BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task


def _in_order(num_workers, worker, tasks):
    """Yields the result of each task, in the order of the tasks; only a few are under way at once."""
    if num_workers == 1:
        yield from map(worker.work, tasks)
        return
    with concurrent.futures.ProcessPoolExecutor(
            num_workers, multiprocessing.get_context("fork"), _become, (worker, os.getpid())) as pool:
        waiting = collections.deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(_work, task))
                if len(waiting) > 2 * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except concurrent.futures.process.BrokenProcessPool:
            raise UserError("--num_workers=%d: a worker was killed, most likely for want of memory; "
                            "use fewer workers" % num_workers)


_worker = None  # of a worker process


def _become(worker, parent):
    global _worker
    _worker = worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent):
    # A worker holds both ends of the queue it waits at: a parent that is killed leaves it waiting for ever.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(task):
    return _worker.work(task)


class Worker:
    """Turns documents into records; the same ones in every process."""

    def __init__(self, settings, num_buckets):
        self.num_buckets = num_buckets
        self._settings = settings
        tokenizer = tokenization.FullTokenizer(settings.vocab_file, settings.do_lower_case)
        self._vocab = tokenizer.vocab
        self._encoder = Encoder(tokenizer)
        self._rules = masking.rules_for(
            tokenizer.vocab, settings.masked_lm_prob, settings.max_predictions_per_seq)
        self._serializer = MaskedLmSerializer(settings.max_seq_length, settings.max_predictions_per_seq)

    def work(self, documents):
        """Documents -> (dict of bucket -> framed records, counts, bytes of text)."""
        ids, ends = self._encoder.encode([text for document in documents for text in document.sentences])
        num_sentences = np.array([len(document.sentences) for document in documents])
        found = samples.sentences(ends, num_sentences)
        counts = collections.Counter(
            documents=sum(not document.continues for document in documents), sentences=len(found.start),
            tokens=len(ids), unknown_tokens=int(np.sum(ids == self._vocab[tokenization.UNK])))
        if self._settings.samples == "packed":
            found = samples.packed(ends, num_sentences, self._settings.max_seq_length - 2)
        framed = collections.defaultdict(list)
        for copy in range(self._settings.dupe_factor):
            for bucket, record in self._copy(ids, found, documents, copy, counts):
                framed[bucket].append(struct.pack("<I", len(record)) + record)
        joined = {bucket: b"".join(pieces) for bucket, pieces in framed.items()}
        return joined, counts, sum(document.num_bytes for document in documents)

    def _copy(self, ids, found, documents, copy, counts):
        """Pairs (bucket, serialized record) of one copy of all samples.

        Args:
          ids: int32 [T].
          found: `samples.Samples` of them.
          documents: list of `corpus.Document`.
          copy: int.
          counts: Counter, which is added to.
        """
        settings = self._settings
        place = np.array([(document.file_index, document.offset) for document in documents])[found.document]
        keys = keys_of(settings.random_seed, place[:, 0], place[:, 1], copy, found.number)
        start, length = samples.shorten(found.start, found.length, settings.max_seq_length - 2, keys, COINS)
        input_ids = samples.rows(ids, start, length, *(self._vocab[token] for token in (
            tokenization.CLS, tokenization.SEP)))
        draws = Draws(keys)
        masked = masking.mask(input_ids, length + 2, self._rules, draws)
        counts.update(instances=len(length), positions=len(length) * settings.max_seq_length,
                      real_positions=int(np.sum(length + 2)), predictions=int(masked.counts.sum()))
        buckets = draws.integers(BUCKETS, self.num_buckets, 1)[:, 0].tolist()
        return zip(buckets, self._serializer.serialize(masked, length + 2))


# ---- buckets to shards

def _shuffled(folder, buckets, seed):
    """Yields the records of the buckets, each bucket shuffled."""
    for bucket in buckets:
        with open(_bucket_name(folder, bucket), "rb") as stream:
            framed = stream.read()
        starts, position = [], 0
        while position < len(framed):
            size, = struct.unpack_from("<I", framed, position)
            starts.append((position + 4, position + 4 + size))
            position += 4 + size
        order = np.argsort(Draws(keys_of(seed, SHUFFLE, bucket)).bits(0, len(starts))[0], kind="stable")
        for place in order.tolist():
            start, end = starts[place]
            yield framed[start:end]


def summary(counts, shards):
    """What was done, in a few lines."""
    lines = [
        "documents %d, sentences %d, tokens %d" % tuple(
            counts[name] for name in ("documents", "sentences", "tokens")),
        "instances %d, predictions %d" % (counts["instances"], counts["predictions"]),
        "[UNK] %.2f %% of the tokens" % (100.0 * counts["unknown_tokens"] / counts["tokens"]),
        "padding %.1f %% of the positions" % (100.0 - 100.0 * counts["real_positions"] / counts["positions"]),
        "shards %d: %s%s" % (len(shards), shards[0], " ... " + shards[-1] if len(shards) > 1 else "")]
    return "\n".join(lines)


if __name__ == "__main__":
    command.run(main, define_flags)
