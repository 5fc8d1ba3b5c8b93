"""A classifier as a SavedModel for TensorFlow Serving.

Signatures: `serving_default` takes token ids, `examples:serving_default` serialized tf.Examples with the same
features; both answer `probabilities` and `logits`. vocab.txt, labels.txt, config.json, text.json (how text
becomes ids) and, where a text may have several labels, thresholds.json are in `assets.extra`.
"""

import os
import tempfile

import tensorflow.compat.v1 as tf

from bert import records
from tasks import classify
from tasks import runs
from tasks.model_fn import task_model_fn
from training import files
from training import run_folder
from training import runtime

ASSETS = "assets.extra"
THRESHOLDS = "thresholds.json"


def serving_input():
    """The inputs of an exported model: int32 [B, S] each, padded with 0, or serialized examples [B]."""
    serialized = tf.placeholder(tf.string, [None], "examples")
    features = records.parse(serialized, records.SEQUENCE)
    # Whoever feeds the ids feeds the outputs of the parser.
    return tf.estimator.export.ServingInputReceiver(features, dict(features), {"examples": serialized})


def export(config, task, checkpoint, export_dir, assets):
    """Writes one SavedModel, whole or not at all.

    Args:
      config: BertConfig or BiLstmConfig.
      task: Classification.
      checkpoint: its prefix.
      export_dir: each export gets a folder there, named by the time.
      assets: dict of name -> text, files for `assets.extra`.

    Returns:
      the new folder.
    """
    estimator = tf.estimator.Estimator(
        task_model_fn(config, task), config=runtime.local_config(os.path.dirname(checkpoint)))
    with tempfile.TemporaryDirectory() as folder:
        for name, text in assets.items():
            files.write_text(os.path.join(folder, name), text)
        exported = estimator.export_saved_model(
            export_dir, serving_input, checkpoint_path=checkpoint,
            assets_extra={name: os.path.join(folder, name) for name in assets})
    return exported.decode("utf-8") if isinstance(exported, bytes) else exported


def export_best(values, model, data):
    """Exports the best checkpoint of a run, as the flags say."""
    assets = dict(classify.run_folder_contents(data), **{
        "vocab.txt": files.read_bytes(model.files.vocab_file).decode("utf-8")})
    thresholds = (run_folder.best_figures(values.output_dir) or {}).get("thresholds")
    if thresholds:
        assets[THRESHOLDS] = files.to_json(thresholds)
    exported = export(model.config, classify.make_task(values, data), runs.best_checkpoint(values),
                      values.export_dir or os.path.join(values.output_dir, "export"), assets)
    print("%s: exported" % exported, flush=True)
