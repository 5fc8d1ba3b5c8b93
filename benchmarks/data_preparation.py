"""How fast, and in how much memory, text becomes records.

    python -m benchmarks.data_preparation speed --input_file=reviews.txt --vocab_file=vocab.txt
    python -m benchmarks.data_preparation memory --input_file=reviews.txt --vocab_file=vocab.txt --megabytes=10,100,1000

speed: Google's `create_pretraining_data.py`, from the package bert-tensorflow, and ours on the first --kilobytes of the
text, one after the other, at Google's settings (dupe_factor 10, L 128); whole processes, with their start. Google's
makes pairs of segments, ours one sentence or a full sample, so besides the instances a second, the tokens a second.

memory: the text is repeated, each time with other noise, up to so many megabytes, and made into records with
dupe_factor 1; peak memory of all processes together, pages they share counted once.
"""

import os
import random
import tempfile

from absl import flags

from training import command
from benchmarks import processes
from bert import inspection
from tests import peer

NOISE = 0.02  # share of the characters that are replaced by another of the text


def define_flags():
    flags.DEFINE_string("input_file", None, "Text, one sentence a line, UTF-8.", required=True)
    flags.DEFINE_string("vocab_file", None, "The WordPiece vocabulary.", required=True)
    flags.DEFINE_integer("num_workers", 2, "Processes of ours.", lower_bound=1)


def define_speed_flags():
    define_flags()
    flags.DEFINE_integer("kilobytes", 1460, "Text that is used.", lower_bound=1)
    flags.DEFINE_integer("rounds", 1, "Times everything is measured; the best counts.", lower_bound=1)


def define_memory_flags():
    define_flags()
    flags.DEFINE_list("megabytes", ["10", "100", "1000"], "Sizes of the text.")


def speed():
    values = flags.FLAGS
    with tempfile.TemporaryDirectory() as folder:
        text = os.path.join(folder, "text.txt")
        with open(values.input_file, "rb") as stream, open(text, "wb") as copy:
            copy.write(stream.read(values.kilobytes << 10).decode("utf-8", "ignore").encode("utf-8"))
        rows = [("Google's script", googles(text, folder))] + [
            (name, ours(text, folder, *arguments)) for name, arguments in (
                ("ours", ()), ("ours, packed", ("--samples=packed",)),
                ("ours, whole words", ("--do_whole_word_mask",)),
                ("ours, whole words, packed", ("--do_whole_word_mask", "--samples=packed")))]
    print("%-26s %8s %10s %12s %7s %12s %7s %8s" % (
        "", "seconds", "instances", "instances/s", "ratio", "tokens/s", "ratio", "peak MB"))
    first = rows[0][1]
    for name, (seconds, instances, tokens, peak) in rows:
        print("%-26s %8.2f %10d %12.0f %6.1fx %12.0f %6.1fx %8d" % (
            name, seconds, instances, instances / seconds, instances / seconds / (first[1] / first[0]),
            tokens / seconds, tokens / seconds / (first[2] / first[0]), peak >> 20))


def googles(text, folder):
    """(seconds, instances, tokens, peak bytes) of Google's script."""
    records = os.path.join(folder, "google.tfrecord")
    line, place, environment = peer.google_command(
        "create_pretraining_data", "--input_file=" + text, "--output_file=" + records,
        "--vocab_file=" + os.path.abspath(flags.FLAGS.vocab_file), "--dupe_factor=10", "--max_seq_length=128")
    return _best(line, records, cwd=place, env=environment)


def ours(text, folder, *more):
    """(seconds, instances, tokens, peak bytes) of our command."""
    records = os.path.join(folder, "ours.tfrecord")
    return _best(_our_command(text, records, "--dupe_factor=10", *more), records)


def _our_command(text, records, *more):
    return processes.this_python(
        "bert.create_pretraining_data", "--input_file=" + text, "--output_file=" + records,
        "--vocab_file=" + flags.FLAGS.vocab_file, "--num_workers=%d" % flags.FLAGS.num_workers, *more)


def _best(line, records, **more):
    runs = []
    for _ in range(flags.FLAGS.rounds):
        for name in (records, records + ".json"):
            if os.path.exists(name):
                os.remove(name)
        runs.append(processes.measure(line, **more))
    shard, best = inspection.count_file(records), min(runs, key=lambda run: run.seconds)
    tokens = sum(size[0] * count for size, count in shard.sizes.items())
    return best.seconds, shard.records, tokens, best.peak_bytes


def memory():
    print("%8s %9s %10s %12s %8s" % ("MB", "seconds", "instances", "instances/s", "peak MB"))
    for megabytes in map(int, flags.FLAGS.megabytes):
        with tempfile.TemporaryDirectory() as folder:
            text = os.path.join(folder, "text.txt")
            repeat(flags.FLAGS.input_file, text, megabytes)
            run = processes.measure(_our_command(text, os.path.join(folder, "a.tfrecord"), "--dupe_factor=1"))
            instances = int(run.out.split("instances ")[1].split(",")[0])
            print("%8d %9.1f %10d %12.0f %8d" % (
                megabytes, run.seconds, instances, instances / run.seconds, run.peak_bytes >> 20), flush=True)


def repeat(source, target, megabytes):
    """Writes a text again and again, each time with other noise, until there are so many megabytes."""
    with open(source, encoding="utf-8") as stream:
        text = stream.read()
    letters, draw, size = sorted(set(text) - {"\n"}), random.Random(1), 0
    with open(target, "wb") as stream:
        while size < megabytes << 20:
            noisy = list(text)
            for place in draw.sample(range(len(text)), int(NOISE * len(text))):
                if noisy[place] != "\n":
                    noisy[place] = draw.choice(letters)
            content = "".join(noisy).encode("utf-8")[:(megabytes << 20) - size]
            size += stream.write(content.decode("utf-8", "ignore").encode("utf-8").ljust(len(content)))


if __name__ == "__main__":
    command.run_action({"speed": (speed, define_speed_flags), "memory": (memory, define_memory_flags)})
