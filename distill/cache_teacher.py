"""Writes what a frozen teacher answers to a fixed set of texts, for run_distill.py to read in place of computing it.

    python -m distill.cache_teacher --task=classification --data_dir=data --unlabeled_file=texts.txt \\
        --teacher_checkpoint=output/teacher_classifier --what=logits,states --layers=1,3,5 --output_dir=output/cache
    python run_distill.py --task=classification --data_dir=data --unlabeled_file=texts.txt \\
        --teacher_checkpoint=output/teacher_classifier --teacher_cache=output/cache ...

It pays where the same texts are seen many times: in many epochs, by many students. --what=logits is small; states are
2 bytes times the width a token and layer. How much will be written is told, and must be free, before it begins. The
embedding is not kept, as it costs nothing to compute; attention is not, as it would be larger than all.
With --task=masked_lm the records must hold their masks. A command that was stopped goes on when it is given again.
"""

import os
import shutil

import numpy as np
from absl import flags

from training import command
import tensorflow.compat.v1 as tf

from bert import records
from bert import tfrecord
from distill import cache
from distill.teacher import build_teacher
from distill.teacher import define_teacher_flags
from distill.teacher import open_teacher
from tasks import classify
from tasks import models
from tasks.classification import Classification
from tasks.masked_lm import MaskedLm
from training import files
from training import flags as common
from training import graph_mode  # noqa: F401
from training import progress
from training import run_folder
from training.command import UserError
from training.evaluation import batches_of

SHARD_BYTES = 1 << 28  # of one part of a file, in all kinds together; the most that is lost when it is stopped
FRAMING = 64           # bytes a record has besides its values


def define_flags():
    flags.DEFINE_enum(
        "task", None, ["masked_lm", "classification"], "Needed: as of run_distill.py.", required=True)
    define_teacher_flags()
    flags.DEFINE_string("vocab_file", None, "Its vocabulary. Default: the one beside --teacher_checkpoint.")
    flags.DEFINE_list(
        "what", ["logits"],
        "Which outputs: logits; pooled (the first and the mean state of each text and layer: for the terms patience, "
        "contrast and text_similarity); states (for hidden, cosine and token_similarity, and these too).")
    flags.DEFINE_list("layers", [], "Layers whose states are kept, counted from 1. Default: all of the teacher's.")
    flags.DEFINE_string(
        "input_file", None, "TFRecords of the corpus, with masks, comma-separated, with * and ? (--task=masked_lm).")
    flags.DEFINE_string("eval_file", None, "As of run_distill.py (--task=masked_lm).")
    flags.DEFINE_string("unlabeled_file", None, "As of run_distill.py (--task=classification).")
    common.define_data_flags("--teacher_checkpoint")
    flags.DEFINE_integer(
        "random_seed", 12345, "As of run_distill.py, where it divides train (--task=classification).", lower_bound=0,
        upper_bound=2 ** 31 - 1)
    flags.DEFINE_integer("eval_batch_size", 32, "Texts the teacher sees at once.", lower_bound=1)
    flags.DEFINE_string("output_dir", None, "Needed: the folder of the cache.", required=True)


def main():
    values = flags.FLAGS
    on_task = values.task == "classification"
    teacher, teacher_files = open_teacher(values, on_task)
    layers = _read_layers(values, teacher)
    task, names = (_open_task if on_task else _open_corpus)(values, teacher, teacher_files)
    write_cache(values.output_dir, names, teacher, task, values.what, layers, values.eval_batch_size)


def _read_layers(values, teacher):
    """The layers that are kept; raises UserError where flags are wrong."""
    for kind in values.what:
        if kind not in cache.KINDS:
            raise UserError("--what=%s: must be some of %s, with commas between them"
                            % (",".join(values.what), ", ".join(cache.KINDS)))
    count = teacher.config.num_layers
    if not all(text.isdigit() and 1 <= int(text) <= count for text in values.layers):
        raise UserError("--layers=%s: layers of the teacher (%s) are wanted, from 1 to %d"
                        % (",".join(values.layers), teacher.checkpoint, count))
    return sorted({int(text) for text in values.layers}) or list(range(1, count + 1))


def _open_corpus(values, teacher, _):
    """(MaskedLm, TFRecord files)."""
    if not values.input_file:
        raise UserError("--input_file: --task=masked_lm needs it")
    names = tfrecord.matching_files(values.input_file, "input_file")
    names += tfrecord.matching_files(values.eval_file, "eval_file", optional=True)
    models.check_records(teacher.config, names)
    if records.without_masks(names):
        raise UserError("--input_file=%s: the records hold no masks; each epoch has others, and the teacher other "
                        "answers" % values.input_file)
    return MaskedLm(), names


def _open_task(values, teacher, teacher_files):
    """(Classification, TFRecord files), the records made as run_distill.py makes them."""
    if not values.data_dir:
        raise UserError("--data_dir: --task=classification needs it")
    vocab_file = values.vocab_file or teacher_files.vocab_file
    if not vocab_file:
        raise UserError("--vocab_file: needed, no vocab.txt is beside %s" % teacher_files.checkpoint)
    unlabeled_files = files.matching_files(values.unlabeled_file, "unlabeled_file", optional=True)
    data = classify.open_data(values, teacher_files, vocab_file)
    models.check_length(teacher.config, data.text.max_seq_length, "--max_seq_length")
    train, select, more = classify.make_records(values, data, unlabeled_files)
    return Classification(data.labels), [made.path for made in (train, select, *more)]


def write_cache(folder, names, teacher, task, what, layers, batch_size=32):
    """Writes a teacher's outputs on records, or goes on; says how much that is, before, and when it is done.

    Args:
      folder: of the cache.
      names: TFRecord files.
      teacher: Teacher.
      task: MaskedLm or Classification.
      what: list, of `cache.KINDS`.
      layers: sorted list of the teacher's layers that are kept, counted from 1.
      batch_size: texts it sees at once.

    Raises:
      UserError: no room for it, or the folder was begun with something else.
    """
    num_classes = len(task.label_names) if isinstance(task, Classification) else teacher.config.vocab_size
    sizes = {files.digest(name): _Size(name) for name in names}
    num_texts = sum(size.texts for size in sizes.values())
    total = sum(size.bytes_of(kind, num_classes, len(layers), teacher.config.hidden_size)
                for size in sizes.values() for kind in what)
    per_shard = max(1, SHARD_BYTES * num_texts // total)
    key = {"teacher": cache.teacher_key(teacher), "task": task.name, "what": what, "layers": layers}
    manifest = dict(key, num_classes=num_classes, records_per_shard=per_shard, sources={
        digest: {"name": os.path.basename(size.path), "records": size.texts, "shards": -(-size.texts // per_shard)}
        for digest, size in sizes.items()})
    _begin(folder, dict(key, texts=sorted(sizes)), total, num_texts)
    if os.path.exists(os.path.join(folder, cache.MANIFEST)):
        print("%s: finished; nothing to do" % folder)
        return
    with progress.bar(num_texts, "teacher", " texts") as bar:
        for digest, size in sizes.items():
            _write_file(folder, digest, size.path, manifest, teacher, task, batch_size, bar)
    files.write_json(os.path.join(folder, cache.MANIFEST), manifest)
    print("%s: what the teacher answers to %s texts" % (folder, format(num_texts, ",")))


class _Size:
    """What is in a file of records: `path`, `texts`, `tokens`, `predictions`."""

    def __init__(self, path):
        self.path, self.texts, self.tokens, self.predictions = path, 0, 0, 0
        for record in tfrecord.read(path):
            features = tf.train.Example.FromString(record).features.feature
            self.texts += 1
            self.tokens += sum(features["input_mask"].int64_list.value)
            self.predictions += sum(weight > 0 for weight in features["masked_lm_weights"].float_list.value)

    def bytes_of(self, kind, num_classes, num_layers, width):
        """What a kind of outputs takes."""
        numbers = {"logits": (self.predictions or self.texts) * num_classes, "states": self.tokens * num_layers * width,
                   "pooled": self.texts * num_layers * 2 * width}[kind]
        return 2 * numbers + FRAMING * self.texts


def _begin(folder, settings, total, num_texts):
    """Begins the folder, or checks that it was begun with the same; says what is to be written, if there is room."""
    os.makedirs(folder, exist_ok=True)
    free = shutil.disk_usage(folder).free
    total -= sum(entry.stat().st_size for entry in os.scandir(folder) if "-of-" in entry.name)
    if total > free:
        raise UserError("--output_dir=%s: %s are needed and %s are free; fewer --layers, or --what=logits, take less"
                        % (folder, _told(total), _told(free)))
    run_folder.begin(folder, settings, {})
    print("%s: %s texts, %s to write, %s free" % (
        folder, format(num_texts, ","), _told(total), _told(free)), flush=True)


def _told(number):
    return "{:,.1f} MB".format(number / 1e6)


def _write_file(folder, digest, path, manifest, teacher, task, batch_size, bar):
    """Writes what a teacher answers to the records of one file, part by part; a part that is there stays."""
    source, kinds = manifest["sources"][digest], manifest["what"]
    targets = [{kind: cache.shard_path(folder, digest, kind, number, source["shards"]) for kind in kinds}
               for number in range(source["shards"])]
    with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(allow_soft_placement=True)) as session:
        first, size = tf.placeholder(tf.int64, []), manifest["records_per_shard"]
        batches = tf.data.make_initializable_iterator(records.evaluation_input_fn(
            [path], task.feature_names, batch_size, first=first, count=size)())
        features = batches.get_next()
        taught = build_teacher(teacher, task, features, kinds)
        fetches = {"record": features["record"], "lengths": tf.reduce_sum(features["input_mask"], axis=1),
                   "rows": _rows(features), **cache.outputs_to_keep(taught, features, manifest["layers"], kinds)}
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        for number, paths in enumerate(targets):
            if not all(map(os.path.exists, paths.values())):
                session.run(batches.initializer, {first: number * size})
                _write_shard(session, fetches, paths, bar)
            else:
                bar.update(min(size, source["records"] - number * size))


def _rows(features):
    """How many rows of logits each text has, int [B]."""
    if "masked_lm_weights" in features:
        return tf.reduce_sum(tf.cast(features["masked_lm_weights"] > 0, tf.int32), axis=1)
    return tf.ones_like(features["input_ids"][:, 0])


def _write_shard(session, fetches, paths, bar):
    found = {kind: {} for kind in paths}  # place of the text -> bytes
    for batch in batches_of(session, fetches):
        rows = np.cumsum(batch["rows"])[:-1]
        for kind in paths:
            texts = np.split(batch[kind], rows) if kind == "logits" else batch[kind]
            for record, length, text in zip(batch["record"], batch["lengths"], texts):
                found[kind][record] = cache.serialize(text[:length] if kind == "states" else text)
        bar.update(len(batch["record"]))
    for kind, path in paths.items():
        records.write_records(path, (found[kind][record] for record in sorted(found[kind])))


if __name__ == "__main__":
    command.run(main, define_flags, writes="output_dir")
