"""A classifier as a SavedModel for TensorFlow Serving.

Signatures: `serving_default` takes token ids, `examples:serving_default` serialized tf.Examples with the same
features; both answer `probabilities` and `logits`. vocab.txt, labels.txt, config.json, text.json (how text
becomes ids, and which head), origin.json (which checkpoint it is) and, where a text may have several labels,
thresholds.json are in `assets.extra`.
"""

import dataclasses
import os
import tempfile

import tensorflow.compat.v1 as tf

from bert import records
from student import lstm
from tasks import classify
from tasks import runs
from tasks.model_fn import task_model_fn
from training import files
from training import native
from training import runtime

ASSETS = "assets.extra"
THRESHOLDS = "thresholds.json"
ORIGIN = "origin.json"


def serving_input():
    """The inputs of an exported model: int32 [B, S] each, padded with 0, or serialized examples [B]."""
    serialized = tf.placeholder(tf.string, [None], "examples")
    features = records.parse(serialized, records.SEQUENCE)
    # Whoever feeds the ids feeds the outputs of the parser.
    return tf.estimator.export.ServingInputReceiver(
        features, dict(features), {"examples": {"examples": serialized}})


def export(config, task, checkpoint, export_dir, assets):
    """Writes one SavedModel, whole or not at all.

    Args:
      config: the model's, as from `encoders.read_config`.
      task: Classification.
      checkpoint: its prefix.
      export_dir: each export gets a folder there, named by the time.
      assets: dict of name -> text, files for `assets.extra`.

    Returns:
      the new folder.
    """
    estimator = tf.estimator.Estimator(
        task_model_fn(config, task), config=runtime.local_config(os.path.dirname(checkpoint)))
    # A server has no op of ours.
    with native.using(False), lstm.using("block"), tempfile.TemporaryDirectory() as folder, runs.restoring(checkpoint):
        for name, text in assets.items():
            files.write_text(os.path.join(folder, name), text)
        exported = estimator.export_saved_model(
            export_dir, serving_input, checkpoint_path=checkpoint,
            assets_extra={name: os.path.join(folder, name) for name in assets})
    return exported.decode("utf-8") if isinstance(exported, bytes) else exported


def newest(export_dir):
    """The last export in a folder of exports; None where there is none."""
    found = [name for name in (os.listdir(export_dir) if os.path.isdir(export_dir) else []) if name.isdigit()]
    return os.path.join(export_dir, max(found, key=int)) if found else None


def export_best(values, model, data):
    """Exports the best checkpoint of a run, as the flags say, unless the last export is the same."""
    task = classify.make_task(values, data)
    checkpoint, thresholds = classify.best_model(values, task)
    assets = dict(classify.run_folder_contents(data), **{
        "config.json": files.to_json(dataclasses.asdict(model.config)),
        "vocab.txt": files.read_bytes(model.files.vocab_file).decode("utf-8"),
        # The index holds a checksum of every variable.
        ORIGIN: files.to_json({"checkpoint_index_sha256": files.digest(checkpoint + ".index")})})
    if thresholds:
        assets[THRESHOLDS] = files.to_json(thresholds)
    export_dir = values.export_dir or os.path.join(values.output_dir, "export")
    made = newest(export_dir)
    if made and _assets(made) == assets:
        print("%s: exported already; nothing to do" % made, flush=True)
    else:
        print("%s: exported" % export(model.config, task, checkpoint, export_dir, assets), flush=True)


def _assets(exported):
    """dict of name -> text, as `export` was given it."""
    folder = os.path.join(exported, ASSETS)
    return {name: files.read_bytes(os.path.join(folder, name)).decode("utf-8")
            for name in (os.listdir(folder) if os.path.isdir(folder) else [])}
