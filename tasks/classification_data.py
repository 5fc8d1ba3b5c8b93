"""From labelled texts to TFRecords of token ids.

A folder of files becomes the parts that train, select and are reported (`choose_splits`), a text
becomes token ids (`Featurizer`), a part becomes one TFRecord file that is made once
(`prepare_records`):

    splits = choose_splits(data_dir, seed)
    labels = labels_from_data(splits.train.path)
    featurizer = Featurizer(tokenizer, max_seq_length=128)
    train = prepare_records(splits.train, output_dir, featurizer, labels)
    reviews = Split("unlabeled", "reviews.txt")
    more = prepare_records(reviews, output_dir, featurizer, labels, labelled=False)
"""

import collections
import hashlib
import itertools
import json
import multiprocessing
import os

import tqdm

from bert import records
from tasks.text_files import BadRows
from tasks.text_files import read_rows
from training import files
from training import interruption
from training.command import UserError

SPLIT_NAMES = ("train", "dev", "test")
SPLIT_FORMATS = (".tsv", ".csv", ".jsonl")
TRUNCATIONS = ("head", "tail", "head_tail")

RECORDS_FORMAT = 1    # raised when the same rows and settings would give other records
CHUNK_ROWS = 200      # one task of a worker
BLOCK_CHUNKS = 50     # tasks read ahead, so that a long file is never in memory whole
PARALLEL_ROWS = 4000  # fewer rows are done before worker processes have started


class Split(collections.namedtuple("Split", "name path folds num_folds seed", defaults=(None, 1, 0))):
    """A file, or some folds of it.

    A text's fold depends on nothing but (seed, text): equal texts are never on two sides of a
    division, and a text keeps its fold when others come or go. So folds differ a little in size.

    Attributes:
      name: what its records and figures are called.
      path: the file.
      folds: tuple of the folds that belong to it, counted from 0; None for the whole file.
      num_folds: how many folds the file is divided into.
      seed: int.
    """

    def rows(self, labels=None, bad_rows=None):
        """Yields its rows; arguments as in `read_rows`."""
        for row in read_rows(self.path, labels, bad_rows):
            if self.folds is None or self._fold(row) in self.folds:
                yield row

    def _fold(self, row):
        text = "%d\t%s\t%s" % (self.seed, row.text_a, row.text_b or "")
        state = hashlib.blake2b(text.encode("utf-8"), digest_size=8)
        return int.from_bytes(state.digest(), "big") % self.num_folds

    def describe(self):
        name = os.path.basename(self.path)
        if self.folds is None:
            return name
        return "%d/%d of %s (seed %d)" % (len(self.folds), self.num_folds, name, self.seed)


class Splits(collections.namedtuple("Splits", "train select report")):
    """The `Split` that trains, the one that selects (steps, thresholds) and the one reported."""

    def describe(self):
        return "trained on %s, selected on %s, reported on %s" % tuple(
            split.describe() for split in self)


def find_splits(data_dir):
    """The files train, dev and test (.tsv, .csv or .jsonl) of a folder, as dict of name -> path."""
    if not os.path.isdir(data_dir):
        raise UserError("--data_dir=%s: no such folder" % data_dir)
    found = {}
    for name, extension in itertools.product(SPLIT_NAMES, SPLIT_FORMATS):
        path = os.path.join(data_dir, name + extension)
        if os.path.exists(path):
            if name in found:
                raise UserError("%s: %s is there too; keep one of them"
                                % (path, os.path.basename(found[name])))
            found[name] = path
    if "train" not in found:
        raise UserError("--data_dir=%s: none of %s is there" % (
            data_dir, ", ".join("train" + extension for extension in SPLIT_FORMATS)))
    return found


def choose_splits(data_dir, seed=0):
    """Decides what trains, what selects and what is reported.

    With both a dev and a test file, dev selects and test is reported. Where one is missing, the other
    is reported, and a seeded tenth of train is held out to select.

    Raises:
      UserError: no train file, or neither dev nor test.
    """
    found = find_splits(data_dir)
    if "dev" not in found and "test" not in found:
        train = os.path.basename(found["train"])
        raise UserError("--data_dir=%s: neither dev nor test is there to measure on; move some rows of "
                        "%s to a file dev%s" % (data_dir, train, os.path.splitext(train)[1]))
    report = "test" if "test" in found else "dev"
    if report == "test" and "dev" in found:
        train, select = Split("train", found["train"]), Split("dev", found["dev"])
    else:
        train = Split("train", found["train"], tuple(range(1, 10)), 10, seed)
        select = Split("held_out", found["train"], (0,), 10, seed)
    return Splits(train, select, Split(report, found[report]))


def cross_validation(path, num_folds, seed=0):
    """A list of `num_folds` Splits of one file: every text is reported once.

    In each, 1 / num_folds of the texts is reported and half as much selects.
    """
    halves = 2 * num_folds
    splits = []
    for number in range(num_folds):
        report = (2 * number, 2 * number + 1)
        select = ((2 * number + 2) % halves,)
        train = tuple(half for half in range(halves) if half not in report + select)
        splits.append(Splits(*(Split(name, path, folds, halves, seed) for name, folds in (
            ("train", train), ("held_out", select), ("report", report)))))
    return splits


class Featurizer:
    """Text to token ids: [CLS] a [SEP], or [CLS] a [SEP] b [SEP], without padding.

    Args:
      tokenizer: has tokenize(text), convert_tokens_to_ids(tokens) and vocab (dict of token -> id).
      max_seq_length: tokens, [CLS] and [SEP] counted.
      truncation: what stays of a text that is too long: its `head`, its `tail`, or with `head_tail`
        both, a quarter of the room for the head (128 and 382 of 510: Sun et al. 2019, 1905.05583).
        Of a pair the longer text is cut until both fit.
    """

    def __init__(self, tokenizer, max_seq_length, truncation="head"):
        if truncation not in TRUNCATIONS:
            raise UserError("--truncation=%s: must be one of %s" % (truncation, ", ".join(TRUNCATIONS)))
        if max_seq_length < 3:
            raise UserError("--max_seq_length=%d: must be at least 3, for [CLS], a token and [SEP]"
                            % max_seq_length)
        for token in ("[CLS]", "[SEP]", "[UNK]"):
            if token not in tokenizer.vocab:
                raise UserError("--vocab_file: the vocabulary has no %s" % token)
        self.tokenizer = tokenizer
        self._max_seq_length = max_seq_length
        self._truncation = truncation

    def features(self, text_a, text_b=None, mask_token=None):
        """The features of one text or pair.

        Args:
          text_a, text_b: str; text_b None where there is one text.
          mask_token: what stands for the token [MASK] in the texts; None: nothing does.

        Returns:
          (dict of `records.SEQUENCE` -> list of int [S],
           Counter of "tokens" before truncation, "tokens_cut" away and "tokens_unknown").
        """
        texts = [self._tokenize(text, mask_token) for text in (text_a, text_b) if text is not None]
        kept = self._truncate(texts)
        tokens, segment_ids = ["[CLS]"], [0]
        for segment, text in enumerate(kept):
            tokens += text + ["[SEP]"]
            segment_ids += [segment] * (len(text) + 1)
        counts = collections.Counter(
            tokens=sum(map(len, texts)),
            tokens_cut=sum(map(len, texts)) - sum(map(len, kept)),
            tokens_unknown=sum(text.count("[UNK]") for text in texts))
        return {"input_ids": self.tokenizer.convert_tokens_to_ids(tokens),
                "input_mask": [1] * len(tokens),
                "segment_ids": segment_ids}, counts

    def _tokenize(self, text, mask_token):
        if mask_token is None:
            return self.tokenizer.tokenize(text)
        first, *others = map(self.tokenizer.tokenize, text.split(mask_token))
        return sum((["[MASK]"] + tokens for tokens in others), first)

    def _truncate(self, texts):
        room = self._max_seq_length - 1 - len(texts)
        if len(texts) == 1:
            lengths = [room]
        else:
            lengths = [len(text) for text in texts]
            while sum(lengths) > room:  # the longer one loses, the second of equals
                lengths[0 if lengths[0] > lengths[1] else 1] -= 1
        return [_cut(text, length, self._truncation) for text, length in zip(texts, lengths)]

    def key(self):
        """What its output depends on, as JSON."""
        tokenizer = self.tokenizer
        vocabulary = json.dumps(sorted(tokenizer.vocab.items(), key=lambda item: item[1]))
        basic = getattr(tokenizer, "basic_tokenizer", None)
        return {"tokenizer": type(tokenizer).__name__,
                "do_lower_case": getattr(basic, "do_lower_case", None),
                "vocabulary": hashlib.sha256(vocabulary.encode("utf-8")).hexdigest(),
                "max_seq_length": self._max_seq_length,
                "truncation": self._truncation}


def _cut(tokens, length, truncation):
    if len(tokens) <= length:
        return tokens
    head = {"head": length, "tail": 0, "head_tail": (length + 2) // 4}[truncation]
    return tokens[:head] + tokens[len(tokens) - (length - head):]


class Records(collections.namedtuple("Records", "path source counts reused")):
    """A TFRecord file of `records.CLASSIFICATION_FEATURES`, in the order of the rows.

    Attributes:
      path: the file.
      source: what it was made from, in words.
      counts: dict of "texts", "tokens" (before truncation), "tokens_cut", "tokens_unknown",
        "rows_left_out" (of the whole file) and "labels" (list [C]: how many texts have each).
      reused: whether it was there already.
    """

    def describe(self):
        counts = self.counts
        tokens = max(counts["tokens"], 1)
        return ("{}: {:,} texts, {:.1f} tokens a text, {:.1%} of the text cut away, {:.2%} [UNK], "
                "{:,} rows left out{}").format(
                    self.source, counts["texts"], tokens / counts["texts"],
                    counts["tokens_cut"] / tokens, counts["tokens_unknown"] / tokens,
                    counts["rows_left_out"], " (records reused)" if self.reused else "")


def prepare_records(split, output_dir, featurizer, labels, labelled=True, errors="stop"):
    """Writes `<output_dir>/records/<split.name>.tfrecord`, unless it is there and still right.

    A JSON file beside it holds what the records were made from, and the counts. Long files are
    tokenised by all processors, into the same records as by one.

    Args:
      split: `Split`.
      output_dir: the run folder.
      featurizer: `Featurizer`.
      labels: `Labels`.
      labelled: False leaves the file's labels, if any, unread: every `label_ids` is `NO_LABEL`.
      errors: "stop" or "skip", as `BadRows`.

    Returns:
      `Records`.

    Raises:
      UserError: as `read_rows`, or no row at all, or what was there has lost its end.
    """
    path = os.path.join(output_dir, "records", split.name + ".tfrecord")
    beside = os.path.splitext(path)[0] + ".json"
    key = dict(featurizer.key(), records_format=RECORDS_FORMAT,
               data=files.digest(split.path), data_format=os.path.splitext(split.path)[1],
               folds=split.folds and list(split.folds), num_folds=split.num_folds, seed=split.seed,
               labels=labels.names, label_separator=labels.separator, labelled=labelled, errors=errors)
    if os.path.exists(path) and os.path.exists(beside):
        stored = files.read_json(beside)
        if stored["key"] == key:
            _check_size(path, stored.get("bytes", os.path.getsize(path)))
            return Records(path, split.describe(), stored["counts"], reused=True)
        os.remove(beside)  # first, so that it never stands beside other records than its own

    bad_rows = BadRows(errors)
    totals = collections.Counter()

    def serialized():
        rows = split.rows(labels if labelled else None, bad_rows)
        for chunk in _with_progress(_map_chunks(_Work(featurizer, labels), rows), split):
            totals.update(chunk.counts)
            for example in chunk.examples:
                yield example
        if not totals["texts"]:
            raise UserError("%s: no row to use%s" % (split.path, "; %d left out, the first: %s" % (
                bad_rows.count, bad_rows.first) if bad_rows.count else ""))

    records.write_records(path, serialized())
    counts = {name: totals[name] for name in ("texts", "tokens", "tokens_cut", "tokens_unknown")}
    counts["rows_left_out"] = bad_rows.count
    counts["labels"] = [totals[_has_label(name)] for name in labels.names]
    files.write_json(beside, {"key": key, "counts": counts, "bytes": os.path.getsize(path)})
    return Records(path, split.describe(), counts, reused=False)


def _check_size(path, size):
    """Raises UserError where records are missing whose absence no reader would notice: a cut may fall between two."""
    found = os.path.getsize(path)
    if found != size:
        raise UserError("%s: damaged, %s bytes of %s; remove it, and it is made again" % (
            path, format(found, ","), format(size, ",")))


_Chunk = collections.namedtuple("_Chunk", "examples counts last_line")


class _Work:
    """A list of rows -> `_Chunk`: the serialized examples and what was counted."""

    def __init__(self, featurizer, labels):
        self._featurizer = featurizer
        self._labels = labels

    def __call__(self, rows):
        examples, counts = [], collections.Counter(texts=len(rows))
        for row in rows:
            features, counted = self._featurizer.features(row.text_a, row.text_b, row.mask_token)
            features["label_ids"] = self._labels.ids(row.labels)
            examples.append(records.serialize(features))
            counts.update(counted)
            counts.update(map(_has_label, set(row.labels or ())))
        return _Chunk(examples, counts, rows[-1].line)


def _has_label(name):
    # A key beside "texts" and "tokens" that no label can clash with.
    return ("label", name)


def _map_chunks(work, rows):
    """Yields work(chunk) for the rows' chunks, in order, on all processors when there are many."""
    processors = len(os.sched_getaffinity(0))
    first = list(itertools.islice(rows, PARALLEL_ROWS))
    chunks = _chunks(itertools.chain(first, rows))
    if len(first) < PARALLEL_ROWS or processors == 1:
        for chunk in chunks:
            yield work(chunk)
        return
    # Forked, so that TensorFlow is not loaded anew; the workers never touch its runtime.
    with multiprocessing.get_context("fork").Pool(processors, _set_work, (work,)) as pool:
        while True:
            block = list(itertools.islice(chunks, BLOCK_CHUNKS))
            if not block:
                return
            for result in pool.imap(_do_work, block):
                yield result


def _chunks(rows):
    while True:
        chunk = list(itertools.islice(rows, CHUNK_ROWS))
        if not chunk:
            return
        yield chunk


def _set_work(work):
    # The vocabulary crosses to a worker once, not with every chunk.
    global _work
    _work = work
    interruption.leave_to_parent()


def _do_work(rows):
    return _work(rows)


def _with_progress(chunks, split):
    """Passes `_Chunk`s on and shows, on a terminal, how many of the file's lines are done."""
    with open(split.path, "rb") as stream:
        lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    with tqdm.tqdm(desc="tokenising %s" % split.describe(), total=lines, unit=" lines",
                   disable=None) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(chunk.last_line - bar.n)
