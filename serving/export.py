"""A classifier as a SavedModel for TensorFlow Serving: core operations only, the tokenizer among them.

Signatures, each of any number of texts of any length, padded to the longest of a batch only:

    classify_text            text: string [B], UTF-8
    classify_pair            text, text_b: string [B] each, for models of pairs
    encode_text              text: string [B]
    serving_default          input_ids, input_mask, segment_ids: int32 [B, S]
    examples:serving_default examples: string [B], serialized tf.Examples with those features

`classify_*` answer `probabilities` float32 [B, C]; `classes` string [B, C], their names; `label` string [B], the most
probable one, or, where a text may have several, `chosen` bool [B, C]; `num_tokens` int32 [B], of a text before it is
cut to the model's length. `encode_text` answers `sequence_output` [B, S, H], `pooled_output` [B, F] (what the
classifier sees) and `num_tokens`. The others answer `probabilities` and `logits`.

vocab.txt, labels.txt, config.json, text.json (how text becomes ids, and which head), origin.json (which checkpoint it
is) and, where a text may have several labels, thresholds.json are in `assets.extra`, and a request that warms a server
up. A model that was trained on words of jieba (--tokenizer=words) takes ids alone.
"""

import dataclasses
import glob
import json
import os
import tempfile

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import saved_model_pb2

from bert import records
from bert.tokenization import load_vocab
from serving import card
from serving import variants
from serving import warm_up
from serving.variants import THRESHOLDS
from student import lstm
from tasks import classify
from tasks import heads
from tasks import measuring
from tasks.encoders import build_encoder
from tasks.graph_features import GraphFeaturizer
from tasks.model_fn import prediction_spec
from training import files
from training import lock
from training import native
from training import runtime

ASSETS = "assets.extra"
SAVED_MODEL = "saved_model.pb"
ORIGIN = "origin.json"
NUM_TOKENS = "num_tokens"
UNFINISHED = "unfinished-"  # how the name of an export begins that is being written
FORMAT = 3  # of what an export holds; one of another format is made anew

# The Estimator makes one of each input and each output, and names it so; these are kept, and called so.
SIGNATURES = {"serving_default": "serving_default", "examples:serving_default": "examples:serving_default",
              "text:classify": "classify_text", "pair:classify": "classify_pair", "text:encode": "encode_text"}


def serving_input(settings, vocab_file):
    """The input function of an exported model.

    Args:
      settings: `text_settings.TextSettings`.
      vocab_file: its vocabulary.
    """
    def make():
        serialized, texts, second_texts = [
            tf.placeholder_with_default(tf.zeros([0], tf.string), [None], name) for name in (
                "examples", "text", "text_b")]
        features = records.parse(serialized, records.SEQUENCE)
        num_tokens = tf.reduce_sum(features["input_mask"], axis=1)
        inputs = {"examples": {"examples": serialized}}
        if settings.tokenizer == "wordpiece":
            # Whoever feeds texts feeds no examples: of the two, one is a batch of none.
            more, more_tokens = GraphFeaturizer(settings, load_vocab(vocab_file)).features(texts, second_texts)
            features = {name: _joined(features[name], more[name]) for name in records.SEQUENCE}
            num_tokens = tf.concat([num_tokens, more_tokens], axis=0)
            inputs.update(text={"text": texts}, pair={"text": texts, "text_b": second_texts})
        # Whoever feeds the ids feeds what comes of the others.
        with tf.control_dependencies([tf.debugging.assert_equal(
                tf.shape(features["input_ids"]), tf.shape(features[name]),
                message="input_ids, input_mask and segment_ids need one shape") for name in records.SEQUENCE[1:]]):
            fed = {name: tf.identity(values) for name, values in features.items()}
        return tf.estimator.export.ServingInputReceiver(dict(fed, **{NUM_TOKENS: num_tokens}), features, inputs)

    return make


def _joined(one, other):
    """Batches [B, S] and [B', S'], one of them of none, as one."""
    length = tf.maximum(tf.shape(one)[1], tf.shape(other)[1])
    joined = tf.concat([tf.pad(part, [[0, 0], [0, length - tf.shape(part)[1]]]) for part in (one, other)], axis=0)
    joined.set_shape([None, None])
    return joined


def serving_model_fn(config, task, thresholds):
    """A model_fn that answers as the signatures say.

    Args:
      config: the model's, as from `encoders.read_config`.
      task: Classification.
      thresholds: C probabilities from which on a class is chosen; None: one class a text.
    """
    def model_fn(features, mode):
        del mode
        encoder = build_encoder(config, False, features)
        logits = task.logits(encoder, config, features)
        spec = prediction_spec(task, logits, features)
        num_tokens = features[NUM_TOKENS]
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            vector = heads.text_vector(task.head, encoder, features["input_mask"])
        outputs = {
            "serving_default": spec.predictions,
            "classify": dict(_answer(spec.predictions["probabilities"], task, thresholds), num_tokens=num_tokens),
            "encode": {"sequence_output": encoder.get_sequence_output(), NUM_TOKENS: num_tokens,
                       "pooled_output": vector}}
        return spec._replace(export_outputs={
            name: tf.estimator.export.PredictOutput(values) for name, values in outputs.items()})

    return model_fn


def _answer(probabilities, task, thresholds):
    names = tf.constant(task.label_names)
    # A row for each text: only so a server takes requests of rows.
    classes = tf.tile(names[None, :], [tf.shape(probabilities)[0], 1])
    answer = {"probabilities": probabilities, "classes": classes}
    if thresholds:
        answer["chosen"] = probabilities >= tf.constant(thresholds, tf.float32)
    else:
        answer["label"] = tf.gather(names, tf.argmax(probabilities, axis=1))
    return answer


def export(config, task, checkpoint, export_dir, assets, settings, vocab_file, add=None):
    """Writes one SavedModel, whole or not at all.

    Args:
      config: the model's, as from `encoders.read_config`.
      task: Classification.
      checkpoint: its prefix.
      export_dir: each export gets a folder there, named by the time.
      assets: dict of name -> text, files for `assets.extra`.
      settings: `text_settings.TextSettings`.
      vocab_file: its vocabulary.
      add: function of the folder, which may write more into it; None: nothing more.

    Returns:
      the new folder.
    """
    thresholds = json.loads(assets[THRESHOLDS]) if THRESHOLDS in assets else None
    estimator = tf.estimator.Estimator(
        serving_model_fn(config, task, thresholds), config=runtime.local_config(os.path.dirname(checkpoint)))
    # A server has no op of ours.
    os.makedirs(export_dir, exist_ok=True)
    with native.using(False), lstm.using("block"), measuring.restoring(checkpoint), tempfile.TemporaryDirectory(
            prefix=UNFINISHED, dir=export_dir) as folder:
        extra = {name: os.path.join(folder, name) for name in assets}
        for name, text in assets.items():
            files.write_text(extra[name], text)
        if settings.tokenizer == "wordpiece":
            extra[warm_up.FILE] = os.path.join(folder, warm_up.FILE)
            warm_up.write(extra[warm_up.FILE])
        made = tf.compat.as_text(estimator.export_saved_model(
            folder, serving_input(settings, vocab_file), checkpoint_path=checkpoint, assets_extra=extra))
        _name_signatures(os.path.join(made, SAVED_MODEL))
        if add:
            add(made)
        version = max(int(os.path.basename(made)), int(os.path.basename(newest(export_dir) or "0")) + 1)
        target = os.path.join(export_dir, str(version))
        os.rename(made, target)
    return target


def _name_signatures(path):
    """Keeps of a SavedModel's signatures those of `SIGNATURES`, under the names that stand there."""
    model = saved_model_pb2.SavedModel.FromString(files.read_bytes(path))
    signatures = model.meta_graphs[0].signature_def
    found = {name: signatures[name] for name in list(signatures)}
    kept = {SIGNATURES[name]: signature.SerializeToString() for name, signature in found.items() if name in SIGNATURES}
    signatures.clear()
    for name, signature in kept.items():
        signatures[name].ParseFromString(signature)
    files.write_bytes(path, model.SerializeToString(deterministic=True))


def newest(export_dir):
    """The last export in a folder of exports; None where there is none."""
    found = [name for name in (os.listdir(export_dir) if os.path.isdir(export_dir) else []) if name.isdigit()]
    return os.path.join(export_dir, max(found, key=int)) if found else None


def export_best(values, model, data):
    """Exports the best checkpoint of a run, as the flags say, unless the last export is the same."""
    task = classify.make_task(values, data)
    checkpoint, thresholds = classify.best_model(values, task)
    vocab_file = model.files.vocab_file
    others = variants.prepare(values.export_formats, values.prune_vocab, model.config, task, checkpoint, data)
    assets = dict(classify.run_folder_contents(data), **{
        "config.json": files.to_json(dataclasses.asdict(model.config)),
        "vocab.txt": files.read_bytes(vocab_file).decode("utf-8"),
        # The index holds a checksum of every variable.
        ORIGIN: files.to_json({"checkpoint_index_sha256": files.digest(checkpoint + ".index"),
                               "export_format": FORMAT, "formats": sorted(values.export_formats),
                               "prune_vocab": values.prune_vocab})})
    if thresholds:
        assets[THRESHOLDS] = files.to_json(thresholds)
    export_dir = values.export_dir or os.path.join(values.output_dir, "export")

    def add(folder):
        if others:
            variants.write(folder, values.export_formats, *others, assets)
        card.write(folder, card.describe(values, model, task, checkpoint, data, folder, thresholds))

    with lock.held(export_dir, "export_dir"):
        files.remove_all(os.path.join(glob.escape(export_dir), UNFINISHED + "*"))  # left by a process that was killed
        made = newest(export_dir)
        if made and _assets(made, assets) == assets:
            print("%s: exported already; nothing to do" % made, flush=True)
            return
        made = export(model.config, task, checkpoint, export_dir, assets, data.text, vocab_file, add)
        print("%s: exported" % made, flush=True)


def _assets(exported, names):
    """dict of name -> text, those of `names` that are there."""
    folder = os.path.join(exported, ASSETS)
    return {name: files.read_bytes(os.path.join(folder, name)).decode("utf-8")
            for name in names if os.path.exists(os.path.join(folder, name))}
