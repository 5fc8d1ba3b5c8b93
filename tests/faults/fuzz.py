"""Rubbish for everything that reads: no crash, no hang, no memory that grows; UserError is the one way to refuse."""

import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time

from bert import encoding
from bert import tfrecord
from bert import tokenization
from serving import row_files
from tasks import encoders
from tasks import text_files
from tests import commands
from tests.faults import processes
from tests.faults import world as worlds
from training import files
from training.command import UserError

LONGEST = 2.0          # seconds for a case of at most LARGEST bytes
LARGEST = 4000
CASES = 100000         # of every reader but the tokenizer
MOST_MEMORY = 200      # megabytes, by which a process may grow
POOLS = (
    "abcXYZ019 .,;:!?-_/\\'\"", "中文化学品危险氢氧化钠的是，。！？、（）", "\t\n\r\x00\x01\x1f\x7f\x85\xa0\xad",
    "éàüßİıſΣσςДд", "\u0300\u0301\u0345\u3099\u200b\u200d\u2028\u2029\ufeff\ufffd\u00ad\u3000", "𠀀𪛖😀👩🏽🇨🇳",
    "\ud800\udfff", "อักษรไทยアイウ한국어العربية")
WORDS = ("[MASK]", "[CLS]", "[UNK]", "##", "[unused1]", "{}", "null", "label", "text_a", '""', "a" * 300, "氢" * 300)


def text(random_, most=40):
    """A string of characters from some of the pools, and of words that mean something somewhere."""
    pools = random_.sample(POOLS, random_.randint(1, 3))
    pieces = [random_.choice(random_.choice(pools)) for _ in range(random_.randint(0, most))]
    if random_.random() < 0.2:
        pieces.insert(random_.randint(0, len(pieces)), random_.choice(WORDS))
    if random_.random() < 0.05:
        pieces.append(chr(random_.randrange(0x110000)))
    return "".join(pieces)


def rubbish(random_, good):
    """Bytes: a good file's, with some of them changed, cut out, doubled, or all drawn anew."""
    content = bytearray(good)
    for _ in range(random_.randint(1, 6)):
        place = random_.randrange(len(content) + 1)
        kind = random_.randrange(5)
        if kind == 0 and place < len(content):
            content[place] = random_.randrange(256)
        elif kind == 1:
            del content[place:place + random_.randint(1, 20)]
        elif kind == 2:
            content[place:place] = content[max(0, place - 30):place]
        elif kind == 3:
            content[place:place] = text(random_, 10).encode("utf-8", "surrogatepass")
        else:
            del content[place:]
    return bytes(content[:LARGEST])


class Tokenizer:
    """FullTokenizer, and the fast encoder, which must agree with it."""

    cases = 1000000

    def __init__(self, world):
        self._tokenizers = [tokenization.FullTokenizer(world.at("vocab.txt"), lower) for lower in (True, False)]
        self._encoders = [encoding.Encoder(each) for each in self._tokenizers]

    def __call__(self, random_):
        self.check(text(random_), random_.randrange(2))

    def check(self, drawn, which):
        tokenizer = self._tokenizers[which]
        ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(drawn))
        fast, _ = self._encoders[which].encode([drawn])
        if list(fast) != list(ids):
            raise AssertionError("%r: %s and %s" % (drawn, ids, fast.tolist()))


class _OfFile:
    """A reader of a file; subclasses have `end` (of its name), `good` (bytes of one) and `read(path)`."""

    cases = CASES

    def __init__(self, world):
        self._path = os.path.join("/dev/shm" if os.path.isdir("/dev/shm") else world.folder, "fuzz-%d" % os.getpid())

    def __call__(self, random_):
        self.check(rubbish(random_, self.good))

    def check(self, content):
        path = self._path + self.end
        with open(path, "wb") as stream:
            stream.write(content)
        try:
            self.read(path)
        except UserError:
            pass
        finally:
            os.remove(path)


TSV = "label\ttext_a\n正面\t酒店不错\n负面\t太贵了，\"差\"\n".encode("utf-8")
CSV = "label,text_a\r\n正面,\"酒店,不错\"\r\n负面,\"太\"\"贵\"\"了\r\n差\"\r\n".encode("utf-8")
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (
    {"label": "正面", "text_a": "酒店不错"}, {"label": ["负面"], "text_a": "太\ud83d\ude00", "text_b": "贵"})).encode(
        "utf-8", "surrogatepass")
TXT = "酒店不错\n\n太贵了\n".encode("utf-8")


def _of_rows(name, good_, labelled):
    class Rows(_OfFile):
        end, good = name, good_

        def read(self, path):
            bad_rows = text_files.BadRows("skip")
            for row in text_files._rows(path, labelled, None, bad_rows):
                row.text_a.encode("utf-8")

    return Rows


def _of_job(name, good_):
    class Rows(_OfFile):
        end, good = name, good_

        def read(self, path):
            for row in row_files.format_of(path).read(path, ("text_a",)):
                if row.texts:
                    row.texts[0].encode("utf-8", "surrogatepass")

    return Rows


class Records(_OfFile):
    """TFRecords."""

    end, good = ".tfrecord", tfrecord.frame([b"one", b"", b"three" * 20])

    def read(self, path):
        for record in tfrecord.read(path):
            if len(record) > LARGEST:
                raise AssertionError("a record longer than its file")
        tfrecord.count_records(path)


class Config(_OfFile):
    """The JSON of a model."""

    end = ".json"
    good = json.dumps({"model_type": "bilstm", "vocab_size": 100, "hidden_size": 12, "num_hidden_layers": 2,
                       "embedding_size": 8, "combine": "concat", "pooling": "last"}).encode("utf-8")

    def read(self, path):
        encoders.read_config(path)


READERS = {
    "tokenizer": Tokenizer, "tsv": _of_rows(".tsv", TSV, True), "csv": _of_rows(".csv", CSV, True),
    "jsonl": _of_rows(".jsonl", JSONL, True), "txt": _of_rows(".txt", TXT, False), "records": Records,
    "config": Config, "job_tsv": _of_job(".tsv", TSV), "job_csv": _of_job(".csv", CSV),
    "job_jsonl": _of_job(".jsonl", JSONL)}


def batch_predict(world, number, cases):
    """Rows of rubbish as files of a batch job: each comes out predicted, or to the side with a reason.

    Returns:
      (cases, seconds a case, 0.0).

    Raises:
      Failed, AssertionError.
    """
    worlds.prepare(world, "classifier", processes.succeed)
    given, folder = world.at("rubbish"), world.at("rubbish_predicted")
    for name in (given, folder):
        shutil.rmtree(name, ignore_errors=True)
    os.makedirs(given)
    random_, ends, third = random.Random(number), (".txt", ".tsv", ".jsonl"), -(-cases // 3)
    for end in ends:
        with open(os.path.join(given, "rows" + end), "wb") as stream:
            stream.write(b"text_a\n" if end == ".tsv" else b"")
            for _ in range(third):
                row = text(random_).replace("\n", " ")
                row = json.dumps({"text_a": row}) if end == ".jsonl" else "." + row
                row = row.encode("utf-8", "surrogatepass")
                stream.write((rubbish(random_, row).replace(b"\n", b" ") if random_.random() < 0.1 else row) + b"\n")
    export = os.path.join(world.done("classifier"), "export")
    seconds = processes.succeed(["serving.batch_predict", "--export_dir=" + export, "--input_file=%s/*" % given,
                                 "--output_dir=" + folder], world.at("rubbish.log"))
    for end in ends:
        rows = [_lines(os.path.join(folder, "rows" + more)) for more in (end, end + ".bad.jsonl")]
        blank = sum(not line.strip() for line in files.read_bytes(os.path.join(given, "rows" + end)).split(b"\n")[:-1])
        if sum(rows) - (end == ".tsv") + blank != third:
            raise AssertionError("%s: %d rows, %d predicted, %d to the side, %d blank" % (end, third, *rows, blank))
    return cases, seconds / cases, 0.0


def _lines(path):
    return files.read_bytes(path).count(b"\n") if os.path.exists(path) else 0


def guided(world, name, cases):
    """Feeds a reader what `tests.faults.guided` breeds, in a process of its own; returns how many cases.

    Raises:
      Failed: what was found.
    """
    log = world.at("guided_%s.log" % name)
    with open(log, "wb") as stream:  # a new Python, in which nothing is loaded yet that is to be watched
        words = commands.words(["tests.faults.guided", name, world.folder, "-runs=%d" % cases])
        code = subprocess.call(
            [sys.executable] + words, cwd=commands.CHECKOUT, env=commands.environment(), stdout=stream,
            stderr=subprocess.STDOUT)
    said = files.read_bytes(log).decode("utf-8", "replace")
    done = re.search(r"^Done (\d+) runs", said, re.M)
    if code or not done:
        error = re.search(r"^ === Uncaught Python exception: ===\n.*$|^==\d+== ERROR: .*$", said, re.M)
        raise processes.Failed("%s; see %s" % (error.group(0) if error else said[-200:], log))
    return int(done.group(1))


def run(world, name, number, cases=None):
    """Runs the cases of a reader; returns (cases, slowest in seconds, megabytes grown).

    Raises:
      AssertionError: what was read is wrong, a case took too long, or the memory grew.
      Anything but UserError that the reader raised; its message names the case.
    """
    reader, slowest = READERS[name](world), 0.0
    cases = cases or reader.cases
    for case in range(cases):
        seed = "%s %d %d" % (name, number, case)
        began = time.perf_counter()
        try:
            reader(random.Random(seed))
        except Exception as error:
            raise AssertionError("case %r: %r" % (seed, error)) from error
        slowest = max(slowest, time.perf_counter() - began)
        if case == cases // 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if slowest > LONGEST or grown > MOST_MEMORY:
        raise AssertionError("slowest case %.2f s, %.0f MB grown" % (slowest, grown))
    return cases, slowest, grown
