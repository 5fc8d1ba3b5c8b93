"""The other forms of an export, each in a folder of its own beside the SavedModel: `tflite`, `onnx`.

A folder holds models of several kinds of weights, with vocab.txt, labels.txt, text.json and, where a text may have
several labels, thresholds.json: all that makes ids of a text, and labels of an answer. The vocabulary is pruned
(serving/pruning.py), so its ids are other ones than the SavedModel's.
"""

import collections
import os
import shutil

from serving import onnx_model
from serving import phone_client
from serving import pruning
from serving import recurrent as recurrents
from serving import tflite
from tasks import text_settings
from training import files
from training.command import UserError

SAVED_MODEL = "saved_model"
THRESHOLDS = "thresholds.json"
WRITERS = collections.OrderedDict([("tflite", tflite), ("onnx", onnx_model)])
FORMATS = (SAVED_MODEL, *WRITERS)


def check_flags(values):
    """Raises UserError for --export_formats or --prune_vocab that cannot be had, before anything is computed."""
    formats = values.export_formats
    for name in formats:
        if name not in FORMATS:
            raise UserError("--export_formats=%s: no format %s; there are %s" % (
                ",".join(formats), name, ", ".join(FORMATS)))
        if name in WRITERS:
            WRITERS[name].check_packages()
    if not values.prune_vocab:
        return
    if not set(formats) & set(WRITERS):
        raise UserError("--prune_vocab=%s: for --export_formats=tflite or onnx" % values.prune_vocab)
    pruning.check(values.prune_vocab)
    if not values.data_dir:
        raise UserError("--prune_vocab=%s: needs --data_dir, whose training texts are counted" % values.prune_vocab)


def write(folder, formats, recurrent, tokenizer, tokens, assets):
    """Writes what is asked for beside the SavedModel.

    Args:
      folder: the export.
      formats: list of names in `FORMATS`.
      recurrent: `recurrents.Recurrent`.
      tokenizer: `FullTokenizer` of the model.
      tokens: those that stay, see `pruning.choose`.
      assets: dict of name -> text, with labels.txt, text.json and thresholds.json, if there is one.
    """
    kept = recurrent._replace(table=recurrent.table[tokenizer.convert_tokens_to_ids(tokens)])
    for name, writer in WRITERS.items():
        if name not in formats:
            continue
        for kind in writer.KINDS:
            writer.write(os.path.join(folder, name, "model_%s.%s" % (kind, name)), kept, kind)
        files.write_text(os.path.join(folder, name, "vocab.txt"), "".join(token + "\n" for token in tokens))
        for asset in sorted({"labels.txt", text_settings.FILE, THRESHOLDS} & set(assets)):
            files.write_text(os.path.join(folder, name, asset), assets[asset])
        if name == "tflite":
            shutil.copyfile(phone_client.__file__, os.path.join(folder, name, "client.py"))


def prepare(formats, prune_vocab, config, task, checkpoint, data):
    """What `write` needs: (Recurrent, FullTokenizer, list of tokens); None where only a SavedModel is asked for.

    Args:
      formats: list of names in `FORMATS`.
      prune_vocab: as of `pruning.choose`.
      config: the model's, as from `encoders.read_config`.
      task: Classification.
      checkpoint: its prefix.
      data: classify.Data.

    Raises:
      UserError: the model cannot be written so.
    """
    others = [name for name in formats if name != SAVED_MODEL]
    if not others:
        return None
    what = "--export_formats=" + ",".join(others)
    if data.text.tokenizer != "wordpiece":
        raise UserError("%s: needs --tokenizer=wordpiece, and this model reads %s; leave it out" % (
            what, data.text.tokenizer))
    recurrent = recurrents.read(config, task, checkpoint, what)
    tokenizer = data.featurizer.tokenizer
    texts = (text for row in (data.splits.train.rows() if prune_vocab else ()) for text in (row.text_a, row.text_b)
             if text)
    return recurrent, tokenizer, pruning.choose(tokenizer, prune_vocab, texts)
