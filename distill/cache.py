"""The outputs of a frozen teacher on records that do not change: written once, then looked up by a record's place.

A folder of `distill.cache_teacher`:

    cache.json                              what was written, of which teacher; the last file to appear
    <records>-<kind>-00000-of-00003         TFRecords, one for each text, in the order of the records

<records> is the beginning of the SHA-256 of the TFRecord file that the teacher read. A kind's record is one float16
array of a text, without padding:

    logits   [R, C]     a row of a classifier; of masked LM one for each prediction
    pooled   [L, 2, F]  of each kept layer the first state and the mean of all
    states   [S, L, F]

The embedding is recomputed: it costs nothing. Attention is not kept, having S^2 values a head.
"""

import dataclasses
import os

import numpy as np
import tensorflow.compat.v1 as tf

from bert import checkpoints
from bert import tfrecord
from distill import terms
from distill.relations import sum_of_real
from distill.teacher import TeacherOutputs
from training import files
from training.command import UserError

KINDS = ("logits", "pooled", "states")
MANIFEST = "cache.json"
FEATURE = "values"


def teacher_key(teacher):
    """What decides a teacher's outputs: dict, JSON values."""
    return {"config": dataclasses.asdict(teacher.config), "layers": list(teacher.layers), "head": teacher.head,
            "checkpoints": [checkpoints.digest(prefix) for prefix in (teacher.checkpoint, *teacher.others)]}


def shard_path(folder, digest, kind, number, count):
    """The file of one part of a kind of outputs."""
    return os.path.join(folder, "%s-%s-%05d-of-%05d" % (digest[:16], kind, number, count))


def outputs_to_keep(taught, features, layers, kinds):
    """The outputs of a batch as they are kept: dict of kind -> float16, see above, with an axis for texts before it.

    Args:
      taught: TeacherOutputs.
      features: dict of the batch's features.
      layers: which of the teacher's, counted from 1.
      kinds: some of `KINDS`.
    """
    found, hidden = {"logits": taught.logits}, [taught.hidden[layer - 1] for layer in layers]
    if "pooled" in kinds:
        mask = features["input_mask"]
        count = tf.cast(tf.reduce_sum(mask, axis=1), tf.float32)[:, None]
        found["pooled"] = tf.stack([tf.stack([states[:, 0], sum_of_real(states, mask) / count], axis=1)
                                    for states in hidden], axis=1)
    if "states" in kinds:
        found["states"] = tf.stack(hidden, axis=2)
    return {kind: tf.cast(found[kind], tf.float16) for kind in kinds}


def serialize(array):
    """One array of a text as the bytes of a `tf.train.Example`."""
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[array.astype("<f2").tobytes()]))
    return tf.train.Example(features=tf.train.Features(feature={FEATURE: feature})).SerializeToString()


def _parse(record):
    content, = tf.train.Example.FromString(record).features.feature[FEATURE].bytes_list.value
    return np.frombuffer(content, "<f2")


class TeacherCache:
    """Reads what `distill.cache_teacher` wrote.

    Attributes:
      folder: where it is.
      kinds: tuple, of `KINDS`.
      layers: tuple of the teacher's layers that were kept, counted from 1.
    """

    def __init__(self, folder, teacher):
        """Args:
          folder: --output_dir of `distill.cache_teacher`.
          teacher: Teacher, whose outputs they must be.

        Raises:
          UserError: it is not there or not finished, or of another teacher.
        """
        path = os.path.join(folder, MANIFEST)
        if not os.path.exists(path):
            raise UserError("--teacher_cache=%s: no %s is in it; python -m distill.cache_teacher writes it last, and "
                            "goes on where it was stopped" % (folder, MANIFEST))
        found = files.read_json(path)
        key = teacher_key(teacher)
        differs = [name for name in key if found["teacher"][name] != key[name]]
        if differs:
            raise UserError("--teacher_cache=%s: of another teacher than %s (%s differ); make it again, into another "
                            "folder" % (folder, teacher.checkpoint, ", ".join(differs)))
        self.folder, self.kinds, self.layers = folder, tuple(found["what"]), tuple(found["layers"])
        self._config, self._sources = teacher.config, found["sources"]
        self._digests = {}  # path of records -> SHA-256
        self._num_classes, self._shard_records = found["num_classes"], found["records_per_shard"]

    def check(self, needs, layer_map):
        """Raises UserError unless all that is needed is there.

        Args:
          needs: see `terms.needs`.
          layer_map: list of (student layer, teacher layer), counted from 1.
        """
        for what, names in needs.items():
            if what == "embedding" or what in self.kinds or what == "pooled" and "states" in self.kinds:
                continue
            remedy = "make it with --what=%s" % what if what in KINDS else "leave the flag out"
            raise UserError("--teacher_cache=%s: holds no %s, for %s; %s does without, or %s"
                            % (self.folder, what, " and ".join(names), terms.without(names), remedy))
        absent = [layer for _, layer in layer_map if layer not in self.layers]
        if absent and {"states", "pooled"} & set(needs):
            raise UserError("--teacher_cache=%s: holds the teacher's layers %s, and --layer_map wants %d; make it with "
                            "other --layers" % (self.folder, ",".join(map(str, self.layers)), absent[0]))

    def _kinds(self, needs, needs_of_all):
        """The kinds that serve some needs: states, where they are needed too, those who need them pooled."""
        pooled = "states" if "states" in needs_of_all or "pooled" not in self.kinds else "pooled"
        serving = {"logits": "logits", "states": "states", "pooled": pooled}
        return sorted({serving[need] for need in needs if need in serving})

    def beside(self, record_files, needs, needs_of_all=None):
        """Looks up what stands beside records.

        Args:
          record_files: TFRecord files that a model reads.
          needs: of the terms that count, see `terms.needs`.
          needs_of_all: of all terms whose variables the graph has, those of other stages too; None: of no others.

        Returns:
          function as `beside` of `records.training_input_fn`.

        Raises:
          UserError: the outputs for a file are not there.
        """
        digests = [self._digest(path) for path in record_files]
        for path, digest in zip(record_files, digests):
            if digest not in self._sources:
                raise UserError("--teacher_cache=%s: not for the texts of %s; it was made for others, or with other "
                                "flags of how texts become tokens (%s)" % (self.folder, path, ", ".join(
                                    sorted(source["name"] for source in self._sources.values()))))
        firsts = np.cumsum([0] + [self._sources[digest]["records"] for digest in digests])
        kinds = self._kinds(needs, needs_of_all or needs)

        def look_up(numbers, length):
            places = np.searchsorted(firsts, numbers, "right") - 1
            texts = [(digests[place], number - firsts[place]) for place, number in zip(places, numbers)]
            return [self._batch(kind, self._read(kind, texts), length) for kind in kinds]

        def add(features):
            length = tf.shape(features["input_ids"])[1]
            found = tf.numpy_function(look_up, [features["record"], length], [tf.float16] * len(kinds)) if kinds else []
            features = {name: value for name, value in features.items() if name != "record"}
            for kind, values in zip(kinds, found):
                values.set_shape(self._shape(kind))
                features["teacher_" + kind] = tf.cast(values, tf.float32)
            return features

        return add

    def _read(self, kind, texts):
        """The arrays of some texts; texts: list of (digest of a file, place in it)."""
        found, by_shard = [None] * len(texts), {}
        for number, (digest, place) in enumerate(texts):
            shard, within = divmod(int(place), self._shard_records)
            by_shard.setdefault((digest, shard), []).append((number, within))
        for (digest, shard), wanted in by_shard.items():
            path = shard_path(self.folder, digest, kind, shard, self._sources[digest]["shards"])
            for (number, _), record in zip(wanted, tfrecord.read_at(path, [within for _, within in wanted])):
                found[number] = _parse(record)
        return found

    def _batch(self, kind, arrays, length):
        if kind == "logits":
            return np.concatenate(arrays).reshape(-1, self._num_classes)
        shape = [-1] + self._shape(kind)[1:]
        if kind == "pooled":
            return np.concatenate(arrays).reshape(shape)
        padded = np.zeros([len(arrays), length] + shape[2:], np.float16)
        for place, array in zip(padded, arrays):
            states = array.reshape([-1] + shape[2:])
            place[:len(states)] = states
        return padded

    def _shape(self, kind):
        kept, width = len(self.layers), self._config.hidden_size
        return {"logits": [None, self._num_classes], "pooled": [None, kept, 2, width],
                "states": [None, None, kept, width]}[kind]

    def _digest(self, path):
        if path not in self._digests:
            self._digests[path] = files.digest(path)
        return self._digests[path]

    def outputs(self, features, needs):
        """TeacherOutputs of features that `beside` has added to, for all terms of a graph, which have those needs.

        What it has not, in a stage without the terms that look at it, nobody fetches; it is NaN.
        """
        found = {kind: features["teacher_" + kind] if "teacher_" + kind in features else self._absent(kind, features)
                 for kind in self._kinds(needs, needs)}
        hidden = pooled = None
        if "states" in found:
            hidden = self._by_layer(tf.unstack(found["states"], axis=2))
        if "pooled" in found:
            pooled = self._by_layer([{"first": both[:, :1], "mean": both[:, 1]}
                                     for both in tf.unstack(found["pooled"], axis=1)])
        return TeacherOutputs(None, hidden, found.get("logits"), None, pooled, None)

    def _absent(self, kind, features):
        sizes, shape = tf.unstack(tf.shape(features["input_ids"])), self._shape(kind)
        values = tf.fill([sizes[axis] if size is None else size for axis, size in enumerate(shape)], np.nan)
        values.set_shape(shape)
        return values

    def _by_layer(self, found):
        """Puts what was kept in the place of its layer, None in those of the others."""
        by_layer = dict(zip(self.layers, found))
        return [by_layer.get(layer) for layer in range(1, self._config.num_layers + 1)]
