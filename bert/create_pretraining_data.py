"""Text -> TFRecord shards for masked-LM training.

Input: UTF-8 text, one sentence a line, a blank line between documents; or lines or JSON lines that are documents
(--document_per_line, --text_key); .gz files too. Output: records with the feature names of Google's script of this
name. Each text is written --dupe_factor times, each time with other masks, and all records are shuffled together.

    python -m bert.create_pretraining_data --input_file='corpus/*.txt' --vocab_file=vocab.txt \\
        --output_file=records/corpus.tfrecord --num_shards=8
    python -m bert.create_pretraining_data --input_file=reviews.txt --vocab_file=vocab.txt \\
        --output_file=reviews.tfrecord --samples=packed --dupe_factor=5
    python -m bert.create_pretraining_data --input_file='postings/*.jsonl.gz' --text_key=description \\
        --split_sentences --dedup=near --do_whole_word_mask --vocab_file=vocab.txt --output_file=postings.tfrecord

--samples=sentence (the paper's): one sentence, one sample; a sentence that is too long loses tokens at its front or
its back, at random. --samples=packed: samples are filled to --max_seq_length from one document, cut wherever the
sample ends; short documents still give short samples.

--masking=static: masks are drawn here. --masking=dynamic: records hold tokens and where words begin, each text once;
run_pretraining.py draws new masks whenever it reads one.

The seed, the input and the flags decide every byte, whatever --num_workers. The shuffle is complete: all orders of
all records are equally likely. Memory does not grow with the text; disk space for the tokens of all copies is needed
beside that of the shards. A job that was killed goes on with the shards that are not there yet when the same command
is given again. Next to the shards stands <output_file>.json with what they were made from and the counts: run again
with the same, the command says that it is finished and does nothing.
"""

import contextlib
import os

from absl import flags

from bert import corpus
from bert import local_runner
from bert import masking
from bert import tfrecord
from bert.instances import Settings
from training import command
from training import files
from training.command import UserError

FORMAT = 4  # raised when the same input and settings would give other bytes
MAX_SHARDS = 512


def define_flags():
    flags.DEFINE_string("input_file", None, "Text files, comma-separated, with * and ?.")
    flags.DEFINE_string(
        "output_file", None, "The TFRecord file; with --num_shards=4 it becomes four, "
        "<output_file>-00000-of-00004 and so on. Several names, comma-separated, are the shards themselves.")
    flags.DEFINE_string("vocab_file", None, "The WordPiece vocabulary, one token a line.")
    flags.DEFINE_bool("do_lower_case", True, "Lower-case the text and drop accents.")
    flags.DEFINE_integer("max_seq_length", 128, "Tokens of a sample, with [CLS] and [SEP].", lower_bound=3,
                         upper_bound=masking.MAX_LENGTH)
    flags.DEFINE_enum("samples", "sentence", ["sentence", "packed"], "What becomes one sample: see above.")
    flags.DEFINE_integer("dupe_factor", None, "Copies of each text, each with other masks; 10 when not given, with "
                         "--masking=dynamic 1.", lower_bound=1)
    flags.DEFINE_integer("random_seed", 12345, "Seed of shuffling, cutting and masking.",
                         lower_bound=0, upper_bound=2 ** 63 - 1)
    flags.DEFINE_integer("num_shards", 1, "Output files.", lower_bound=1, upper_bound=MAX_SHARDS)
    flags.DEFINE_integer("num_workers", None, "Processes; all cores when not given.", lower_bound=1)
    flags.DEFINE_enum("dedup", "none", ["none", "exact", "near"], "Drop documents that are the same as an earlier "
                      "one but for white space, or about 80 % the same.")
    flags.DEFINE_string("runner", None, "Run as an Apache Beam pipeline by this runner of Beam's: DirectRunner, "
                        "FlinkRunner, SparkRunner, DataflowRunner. See bert/beam_runner.py.")
    flags.DEFINE_string("beam_options", "", "Options of the Beam runner, separated by spaces.")
    corpus.define_format_flags()
    _define_masking_flags()
    flags.mark_flags_as_required(["input_file", "output_file", "vocab_file"])


def _define_masking_flags():
    flags.DEFINE_enum("masking", "static", ["static", "dynamic"], "When masks are drawn: see above.")
    flags.DEFINE_integer("max_predictions_per_seq", 20, "Masked tokens of a sample at most.", lower_bound=1)
    flags.DEFINE_float("masked_lm_prob", 0.15, "Share of the tokens that is masked.",
                       lower_bound=0.0, upper_bound=1.0)
    flags.DEFINE_bool("do_whole_word_mask", False, "Mask all tokens of a word or none; jieba finds the words.")
    flags.DEFINE_string("user_dict", None, "More words, in the format of jieba's user dictionaries: word [frequency] "
                        "[tag].")
    flags.DEFINE_integer("max_ngram", 1, "Mask spans of up to so many words.", lower_bound=1, upper_bound=16)
    flags.DEFINE_bool("pad", True, "Fill records up to --max_seq_length; shorter ones are padded when read.")


def main():
    values = flags.FLAGS
    _check(values)
    settings = Settings(**{name: values[name].value for name in Settings._fields})
    settings = settings._replace(dupe_factor=values.dupe_factor or (1 if values.masking == "dynamic" else 10))
    corpus.format_of(values)
    if values.runner:
        print(summary(run_beam(values, settings), shard_names(values.output_file, values.num_shards), settings))
        return
    input_files = files.matching_files(values.input_file, "input_file")
    shards = shard_names(values.output_file, values.num_shards)
    manifest = manifest_name(values.output_file)
    created = create(input_files, shards, manifest, settings, values.num_workers or len(os.sched_getaffinity(0)))
    if created is None:
        print("%s: finished, %d of %d shards are there; nothing to do (delete %s to make them again)" % (
            values.output_file, len(shards), len(shards), manifest))
    else:
        print(summary(created, shards, settings))


def run_beam(values, settings):
    """Makes the shards by Beam; returns the counts."""
    try:
        from bert import beam_runner  # not at the top: an optional package
    except ImportError as error:
        raise UserError("--runner=%s: %s; install the packages of requirements-beam.txt" % (values.runner, error))
    if settings.dedup == "near":
        raise UserError("--dedup=near: compares documents one after the other, which Beam does not; use "
                        "--dedup=exact, or leave out --runner")
    if "," in values.output_file:
        raise UserError("--output_file: one name with --runner; give --num_shards")
    return beam_runner.make_shards(values.input_file, values.output_file, values.num_shards, settings, values.runner,
                                   values.beam_options)


def _check(values):
    """Raises UserError where a flag would have no effect."""
    if values.beam_options and not values.runner:
        raise UserError("--beam_options: has no effect without --runner; add it")
    if values.num_workers and values.runner:
        raise UserError("--num_workers: of a local run; with --runner, give Beam's option in --beam_options")
    if values.user_dict and not values.do_whole_word_mask:
        raise UserError("--user_dict: has no effect without --do_whole_word_mask; add it")
    if values.masking == "dynamic":
        for name in ("max_predictions_per_seq", "masked_lm_prob", "max_ngram"):
            if values[name].present:
                raise UserError("--%s: masks are drawn when the records are read; give it to run_pretraining.py" % name)


def shard_names(output_file, num_shards):
    """The shards' names.

    Raises:
      UserError: names and number disagree.
    """
    names = output_file.split(",")
    if "" in names or len(set(names)) < len(names):
        raise UserError("--output_file=%s: an empty name, or one name twice" % output_file)
    if len(names) > MAX_SHARDS:
        raise UserError("--output_file: %d names; at most %d shards can be made" % (len(names), MAX_SHARDS))
    if len(names) > 1:
        if num_shards not in (1, len(names)):
            raise UserError("--num_shards=%d: --output_file names %d shards; give one of the two flags"
                            % (num_shards, len(names)))
        return names
    if num_shards == 1:
        return names
    return ["%s-%05d-of-%05d" % (output_file, number, num_shards) for number in range(num_shards)]


def manifest_name(output_file):
    return output_file.split(",")[0] + tfrecord.MANIFEST_END


def create(input_files, shards, manifest, settings, num_workers=1):
    """Makes the shards, or finds them made.

    Args:
      input_files: sorted text files.
      shards: TFRecord files to write.
      manifest: JSON file, written last, that says the shards are whole.
      settings: `Settings`.
      num_workers: processes; they do not change a byte.

    Returns:
      Counter of what was done, see `summary`; None when shards made from the same are there.

    Raises:
      UserError: as `local_runner.make_shards`, an output that is an input, or a manifest that is none. What an
        earlier run made is untouched when the input is at fault.
    """
    read = [settings.vocab_file] + ([settings.user_dict] if settings.user_dict else [])
    corpus.check_outputs(shards + [manifest], input_files + read)
    made_from = origin(input_files, shards, settings)
    earlier = _read_manifest(manifest)
    if earlier["made_from"] == made_from and earlier["shards"] == _sizes(shards, manifest):
        return None
    for name in shards:
        os.makedirs(os.path.dirname(os.path.abspath(name)), exist_ok=True)

    folder = _work_folder(manifest)
    # The manifest goes first: it never stands beside other shards than its own.
    outdated = ([manifest] + shards + [_beside(manifest, name) for name in earlier["shards"]]
                + local_runner.unfinished_shards(folder))

    def remove_earlier():
        for name in outdated:
            with contextlib.suppress(FileNotFoundError):
                os.remove(name)

    counts = local_runner.make_shards(
        input_files, shards, folder, settings, made_from, num_workers, remove_earlier)
    files.write_json(manifest, {"made_from": made_from, "counts": counts, "shards": _sizes(shards, manifest)})
    return counts


def _work_folder(manifest):
    """The same whatever the number of shards, so that nothing is left by a job that is then given otherwise."""
    folder, name = os.path.split(manifest)
    # Hidden: patterns like corpus.tfrecord-* must not find it.
    return os.path.join(folder, ".%s.making" % name[:-len(tfrecord.MANIFEST_END)])


def origin(input_files, shards, settings):
    """All that decides the bytes of the shards, as a JSON value."""
    described = settings._asdict()
    for name in ("vocab_file", "user_dict"):
        described[name] = described[name] and _identity(described[name])
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


def summary(counts, shards, settings):
    """What was done, in a few lines."""
    lines = [
        "documents %d, sentences %d, tokens %d" % tuple(
            counts[name] for name in ("documents", "sentences", "tokens")),
        "[UNK] %.2f %% of the tokens" % (100.0 * counts["unknown_tokens"] / counts["tokens"])]
    if settings.dedup != "none":
        lines.append("duplicates %d documents, left out" % counts["duplicates"])
    if counts["bad_lines"]:
        lines.append("bad lines %d, left out" % counts["bad_lines"])
    if settings.do_whole_word_mask:
        lines.append("words %d; tokens that could not be aligned with them %d, masked one by one" % (
            counts["words"], counts["unaligned_tokens"]))
    lines.append("instances %d, of %.1f tokens on average%s" % (
        counts["instances"], counts["real_positions"] / counts["instances"],
        "" if settings.masking == "dynamic" else ", predictions %d" % counts["predictions"]))
    lines.append(_padding(counts, settings))
    lines.append("shards %d: %s%s" % (len(shards), shards[0], " ... " + shards[-1] if len(shards) > 1 else ""))
    return "\n".join(lines)


def _padding(counts, settings):
    """What is wasted, why, and what would waste less."""
    share = _wasted(counts["real_positions"], counts["instances"], settings.max_seq_length)
    if settings.masking == "dynamic" or not settings.pad:
        return "padding none; to --max_seq_length it would be %.1f %% of the positions" % share
    text = "padding %.1f %% of the positions" % share
    if settings.samples == "packed":
        return text + ": a document has %.1f tokens; --pad=false leaves none" % (
            counts["tokens"] / max(counts["documents"] - counts["duplicates"], 1))
    packed = counts["packed_instances"]
    return text + ": a sentence has %.1f tokens; --samples=packed would leave %.1f %%, --pad=false none" % (
        counts["tokens"] / counts["sentences"],
        _wasted(counts["tokens"] + 2 * packed, packed, settings.max_seq_length))


def _wasted(tokens, instances, max_seq_length):
    """Per cent of the positions."""
    return 100.0 - 100.0 * tokens / (instances * max_seq_length)


if __name__ == "__main__":
    command.run(main, define_flags, writes="output_file")
