"""The one TFRecord schema: what commands write, what models read, and the order of training.

Feature names and types are those of Google's `create_pretraining_data.py`; files written by either
are read by both. Sequences may be stored with or without padding: a batch is padded to its longest text.
Records without masks hold "input_ids" and "word_starts" only, without padding; masks are drawn as they are read.

Letters: G texts of one update, B texts of one part of it, S tokens, P predictions, C labels.
"""

import collections
import contextlib
import itertools

import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf import message

from bert import dynamic_masking
from bert import tfrecord
from training.command import UserError
from training.files import whole_file

SEQUENCE = ("input_ids", "input_mask", "segment_ids")               # [B, S]
PREDICTIONS = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")  # [B, P]
LABELS = ("label_ids",)                                             # [B, 1], or [B, C]: multi-label
UNMASKED = ("input_ids", "word_starts")                             # [B, S], of records without masks
FLOATS = ("masked_lm_weights",)
NO_LABEL = -1  # in `label_ids` of a text without a label
PADDING = {"word_starts": dynamic_masking.PADDING}  # what a batch is padded with; 0 where nothing is said

MASKED_LM_FEATURES = SEQUENCE + PREDICTIONS
CLASSIFICATION_FEATURES = SEQUENCE + LABELS

MAX_POOL_UPDATES = 32  # updates whose texts are sorted by length together, at most an epoch
MAX_SHUFFLE_BUFFER = 200000  # records

# What is given to datasets here is graph code as it stands, and AutoGraph takes long to find nothing to convert. It
# hides a function's arguments, among which the Estimator looks for `input_context`.
_graph_code = tf.autograph.experimental.do_not_convert

FIRST_RECORDS = 1000  # that many are looked at before training
EVALUATION_SEED = 0   # of masks drawn to measure on: the same in every run, whatever its seed


def serialize(features):
    """One example as the bytes of a `tf.train.Example`.

    Args:
      features: dict of name -> list of int, or of float for the names in `FLOATS`.
    """
    built = collections.OrderedDict()
    for name, values in features.items():
        if name in FLOATS:
            built[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            built[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    # Map entries have no order of their own; deterministic=True makes equal examples equal bytes.
    example = tf.train.Example(features=tf.train.Features(feature=built))
    return example.SerializeToString(deterministic=True)


def write_records(path, serialized_examples):
    """Writes one TFRecord file, whole or not at all, and returns how many records it holds."""
    count = 0
    with whole_file(path) as temporary:
        with tf.io.TFRecordWriter(temporary) as writer:
            for record in serialized_examples:
                writer.write(record)
                count += 1
    return count


def longest_of_first(files):
    """The greatest length among the first `FIRST_RECORDS` records of the first file, padding included.

    Raises:
      UserError: one of them has no `input_ids`, or other than one word start for each of these.
    """
    longest = 0
    for number, features in enumerate(_first_records(files[0], FIRST_RECORDS)):
        length = len(features["input_ids"].int64_list.value)
        if not length:
            raise UserError("%s: record %d has no input_ids" % (files[0], number))
        starts = len(features["word_starts"].int64_list.value) if "word_starts" in features else length
        if starts != length:
            raise UserError("%s: record %d has %d input_ids and %d word_starts; there must be as many; make the "
                            "records again" % (files[0], number, length, starts))
        longest = max(longest, length)
    if not longest:
        raise UserError("%s: no records" % files[0])
    return longest


def without_masks(files):
    """Whether the records hold words instead of predictions, so that masks are drawn as they are read.

    Raises:
      UserError: it is so in some files and not in others.
    """
    found = {}
    for name in files:
        for features in _first_records(name, 1):
            found["word_starts" in features and "masked_lm_positions" not in features] = name
    if len(found) == 2:
        raise UserError("%s: records without masks, and those of %s have masks; give files of one kind"
                        % (found[True], found[False]))
    return True in found


def _first_records(path, number):
    """The features of the first records: a list of maps of name -> tf.train.Feature."""
    try:
        return [tf.train.Example.FromString(record).features.feature
                for record in itertools.islice(tfrecord.read(path), number)]
    except message.DecodeError:
        raise UserError("%s: its records are no tf.train.Examples; make them with bert.create_pretraining_data" % path)


@contextlib.contextmanager
def naming_damage(files):
    """Tells which of the files is damaged when TensorFlow's reader, which does not say, comes upon it.

    Raises:
      tfrecord.Damaged.
    """
    try:
        yield
    except tf.errors.DataLossError:
        for path in files:
            collections.deque(tfrecord.read(path), maxlen=0)
        raise


def parse(serialized, names):
    """Parses a vector of examples into dense tensors, each padded to its longest.

    Args:
      serialized: string [N].
      names: which features to read.

    Returns:
      dict of name -> int32 or float32 [N, longest].
    """
    spec = {name: tf.io.FixedLenSequenceFeature(
        [], tf.float32 if name in FLOATS else tf.int64, allow_missing=True, default_value=PADDING.get(name))
        for name in names}
    parsed = tf.io.parse_example(serialized, spec)
    return {name: value if name in FLOATS else tf.cast(value, tf.int32) for name, value in parsed.items()}


def trim(features):
    """Cuts padding that no text of the batch needs, from [B, S] and [B, P] features."""
    longest = tf.reduce_max(tf.reduce_sum(features["input_mask"], axis=1))
    trimmed = dict(features)
    for name in SEQUENCE:
        trimmed[name] = features[name][:, :longest]
    if "masked_lm_weights" in features:
        most = tf.reduce_max(tf.reduce_sum(tf.cast(features["masked_lm_weights"] > 0, tf.int32), axis=1))
        for name in PREDICTIONS:
            trimmed[name] = features[name][:, :most]
    return trimmed


def totals(features):
    """What the sums of an update's losses are divided by, counted over all its texts.

    Computed where the update's texts are still together, so that an update cut into parts, on
    replicas or one after the other, has the very same loss as an update in one piece.

    Returns:
      dict of float32 scalars: "total_examples", "total_tokens" (real ones), "total_predictions"
      (masked positions), "total_labels" (texts that have a label).
    """
    counted = {"total_examples": tf.shape(features["input_ids"])[0],
               "total_tokens": tf.reduce_sum(features["input_mask"])}
    if "masked_lm_weights" in features:
        counted["total_predictions"] = tf.reduce_sum(features["masked_lm_weights"])
    if "label_ids" in features:
        counted["total_labels"] = tf.reduce_sum(
            tf.cast(tf.not_equal(features["label_ids"][:, 0], NO_LABEL), tf.int32))
    return {name: tf.cast(value, tf.float32) for name, value in counted.items()}


def training_input_fn(files, names, batch_size, num_parts=1, seed=0, start_step=0, rules=None, beside=None):
    """An input_fn whose every batch is decided by (files, batch_size, seed, step).

    The stream of texts has no end: epoch after epoch, each shuffled anew through a buffer of at most
    `MAX_SHUFFLE_BUFFER` records. Pools of `MAX_POOL_UPDATES` updates are sorted by length, cut into updates
    of similar lengths, and these are shuffled. An update's texts are cut into equal parts, one for each
    replica and accumulated part. Started at `start_step`, it goes on where an unbroken run would be.
    Masks of records without any are drawn for a text's place in the stream: others in each epoch.

    Args:
      files: TFRecord files.
      names: features to read.
      batch_size: G, texts of one update over all replicas and parts.
      num_parts: accumulated parts an update.
      seed: int.
      start_step: updates already made.
      rules: `masking.Rules`, for records without masks.
      beside: function of (features of a part with "record", the place of each text in the files, from 0) -> features
        with more that is kept elsewhere; None: nothing is.

    Returns:
      input_fn(input_context=None) -> tf.data.Dataset of features, each [B, ...], with `totals`.

    Raises:
      UserError: no records, no rules where masks are to be drawn, or (from input_fn) a batch size that the parts do
        not divide.
    """
    counts = [tfrecord.count_records(name) for name in files]
    if not sum(counts):
        raise UserError("%s: no records" % ", ".join(files))
    read = _reader(files, names, rules, seed)

    def finish(features):
        record = features.pop("record")[:, 0]
        features = trim(features)
        return beside(dict(features, record=record)) if beside else features

    @_graph_code
    def dataset(replicas, input_context):
        updates = _updates(files, counts, read, batch_size, seed, start_step)
        parts = updates.flat_map(
            lambda update: tf.data.Dataset.from_tensor_slices(
                _split(update, replicas * num_parts)))
        if input_context and input_context.num_input_pipelines > 1:
            parts = _parts_of_worker(parts, input_context)
        return parts.map(finish).prefetch(4)

    def input_fn(input_context=None):
        replicas = input_context.num_replicas_in_sync if input_context else 1
        if batch_size % (replicas * num_parts):
            raise UserError(
                "--train_batch_size=%d: cannot be divided among %d replicas and %d accumulated parts"
                % (batch_size, replicas, num_parts))
        return dataset(replicas, input_context)

    return input_fn


def _updates(files, counts, read, batch_size, seed, start_step):
    """Dataset of updates, features [G, ...], from `start_step` on.

    Args:
      files, batch_size, seed, start_step: as of `training_input_fn`.
      counts: records of each file.
      read: see `_reader`.
    """
    # A pool longer than an epoch would bring the two copies of a text together.
    pool_updates = max(1, min(MAX_POOL_UPDATES, sum(counts) // batch_size))
    first_pool, first_update = divmod(start_step, pool_updates)
    pool_size = pool_updates * batch_size
    texts = _shuffled_records(files, counts, seed, first_pool * pool_size)
    pools = texts.batch(pool_size, drop_remainder=True)
    numbered = tf.data.Dataset.zip((tf.data.experimental.Counter(first_pool), pools))

    def updates_of(pool, texts):
        numbers, serialized = texts
        places = pool * pool_size + tf.range(pool_size, dtype=tf.int64)
        features = dict(read(serialized, places), record=numbers[:, None])
        return tf.data.Dataset.from_tensor_slices(_updates_of_similar_length(
            features, pool_updates, batch_size, seed, pool))

    return numbered.flat_map(updates_of).skip(first_update)


def _reader(files, names, rules, seed):
    """A function of (serialized [N], numbers int64 [N]) -> features.

    Masks of records without any are decided by the seed and a record's number.

    Raises:
      UserError: masks are to be drawn, and there are no rules.
    """
    if not without_masks(files):
        return lambda serialized, numbers: parse(serialized, names)
    if rules is None:
        raise UserError("%s: the records hold no masks, and only masked-LM training draws some" % files[0])

    def read(serialized, numbers):
        texts = parse(serialized, UNMASKED)
        masked = dynamic_masking.mask(texts["input_ids"], texts["word_starts"], rules, seed, numbers)
        return {name: masked[name] for name in names}

    return read


def _shuffled_records(files, counts, seed, skip):
    """Epoch after epoch of (place of a record in the files, its bytes); counts: records of each file."""
    buffer_size = min(sum(counts), MAX_SHUFFLE_BUFFER)
    first_epoch, position = divmod(skip, sum(counts))
    first_of_file = np.cumsum([0] + counts[:-1], dtype=np.int64)

    def one_epoch(epoch):
        key = seed * 1000003 % 2 ** 62 + epoch
        names = tf.data.Dataset.from_tensor_slices((files, first_of_file)).shuffle(
            len(files), seed=key, reshuffle_each_iteration=False)
        records = names.interleave(lambda name, first: tf.data.TFRecordDataset(name).enumerate(first),
                                   cycle_length=min(len(files), 16), block_length=1)
        return records.shuffle(buffer_size, seed=key, reshuffle_each_iteration=False)

    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
    return epochs.flat_map(one_epoch).skip(position)


def _updates_of_similar_length(pool, num_updates, batch_size, seed, number):
    """Features [num_updates * G, ...] -> [num_updates, G, ...], sorted by length within, shuffled between."""
    by_length = tf.argsort(tf.reduce_sum(pool["input_mask"], axis=1), stable=True)
    draw = tf.random.stateless_uniform([num_updates], tf.stack([tf.cast(seed, tf.int64), number]))
    order = tf.argsort(draw)

    def arrange(values):
        values = tf.gather(values, by_length)
        return tf.gather(tf.reshape(values, [num_updates, batch_size, tf.shape(values)[1]]), order)

    return {name: arrange(values) for name, values in pool.items()}


def _split(update, num_parts):
    """Features [G, ...] -> [num_parts, B, ...], the update's totals repeated for each part."""
    def cut(values):
        return tf.reshape(values, [num_parts, tf.shape(values)[0] // num_parts, tf.shape(values)[1]])

    parts = {name: cut(values) for name, values in update.items()}
    parts.update({name: tf.fill([num_parts], value) for name, value in totals(update).items()})
    return parts


def _parts_of_worker(parts, context):
    """Every worker reads the same stream and takes its own parts, so that N workers equal one."""
    local = context.num_replicas_in_sync // context.num_input_pipelines

    def mine(number, _):
        return tf.equal(number % context.num_replicas_in_sync // local, context.input_pipeline_id)

    return parts.enumerate().filter(mine).map(lambda _, part: part)


def evaluation_input_fn(files, names, batch_size, rules=None, beside=None, first=0, count=-1):
    """An input_fn that reads every record once.

    Masks of records without any are those of the record's place in the files, always the same.

    Args:
      files: TFRecord files.
      names: features to read.
      batch_size: B.
      rules: `masking.Rules`, for records without masks.
      beside: as in `training_input_fn`.
      first, count: which records, int or int64 scalar; -1: all from `first` on.

    Returns:
      input_fn() -> tf.data.Dataset of features [B, ...] with `totals` and "record" [B], the place of
      each text in the files: batches hold texts of similar length, so the order is another.
    """
    read = _reader(files, names, rules, EVALUATION_SEED)

    @_graph_code
    def input_fn():
        records = tf.data.TFRecordDataset(files).enumerate().skip(first).take(count).batch(
            MAX_POOL_UPDATES * batch_size)

        def sort(numbers, serialized):
            pool = dict(read(serialized, numbers), record=numbers)
            by_length = tf.argsort(tf.reduce_sum(pool["input_mask"], axis=1), stable=True)
            return tf.data.Dataset.from_tensor_slices(
                {name: tf.gather(values, by_length) for name, values in pool.items()}).batch(batch_size)

        def finish(features):
            features = dict(trim(features), **totals(features))
            return beside(features) if beside else features

        return records.flat_map(sort).map(finish).prefetch(4)

    return input_fn
