"""What an export is: card.json for programs, README.md for people.

Every form of the model is measured on the texts that are reported: figures, size, latency and memory, and how far its
answers are from the SavedModel's.
"""

import collections
import dataclasses
import glob
import os

import numpy as np
import tensorflow.compat.v1 as tf

from bert import checkpoints
from serving import measure
from tasks import text_settings
from tasks.classification_data import BadRows
from training import files
from training import metrics
from training import run_folder

CARD, README = "card.json", "README.md"
MAX_TEXTS = 2000  # measured; of more, the first
SHORT = 32        # tokens of a short text

KINDS = {"bilstm": "BiLSTM", "bert": "BERT", "albert": "ALBERT", "electra": "ELECTRA"}

END = """## Limits

It knows the labels above and no other: a text of another kind gets one of them too, and its probability is no warning.
What it learned is what texts like those of its training say.

## Where it comes from

@COMMAND@card.json holds every flag of the training, the SHA-256 of the data and of the vocabulary, the model's sizes,
and the figures of each class. assets.extra holds the vocabulary, the labels and how text becomes ids.
"""

# rows of ids as a vocabulary gives them; unknown: share of [UNK] among their tokens.
_Rows = collections.namedtuple("_Rows", "ids unknown")


def write(folder, card):
    """Writes both files."""
    files.write_json(os.path.join(folder, CARD), card)
    files.write_text(os.path.join(folder, README), _readme(card))


def describe(values, model, task, checkpoint, data, folder, thresholds):
    """The card of an export: dict, ready for JSON.

    Args:
      values: flags of run_classifier.py or run_distill.py.
      model: models.Model.
      task: Classification.
      checkpoint: the prefix of what is exported.
      data: classify.Data.
      folder: the export, without card yet.
      thresholds: C probabilities from which on a class counts; None: one class a text.
    """
    run = checkpoints.folder_of(checkpoint)
    longest = data.text.max_seq_length
    lengths = sorted({min(SHORT, longest), longest})
    card = {
        "model_type": model.config.model_type, "config": dataclasses.asdict(model.config),
        "parameters": _parameters(checkpoint), "labels": task.label_names,
        "several_labels": task.independent_classes, "text": text_settings.as_dict(data.text),
        "vocabulary_sha256": files.digest(model.files.vocab_file), "tensorflow": tf.__version__,
        # Every flag of the training, and the SHA-256 of each file it read.
        "training": _json_in(run, run_folder.SETTINGS), "command": _command(run),
        "selected_on": run_folder.best_figures(run),
        "evaluation": _json_in(values.output_dir, "eval.json") or _json_in(run, "eval.json"),
        "milliseconds": dict(zip(map(str, lengths), measure.milliseconds(folder, lengths)))}
    others = sorted(glob.glob(os.path.join(folder, "*", "model_*")))
    split = data.splits.report if others and data.splits else None
    card["measured_on"] = split and split.describe()
    texts = list(split.rows(data.labels, BadRows("skip")))[:MAX_TEXTS] if split else []
    card["forms"] = _forms(folder, others, texts, data, task, thresholds)
    return card


def _json_in(folder, name):
    path = os.path.join(folder, name)
    return files.read_json(path) if os.path.exists(path) else None


def _command(folder):
    """The command that a run was begun with; None where it is not known."""
    path = os.path.join(folder, run_folder.COMMAND)
    return files.read_bytes(path).decode("utf-8").strip() if os.path.exists(path) else None


def _parameters(checkpoint):
    return sum(int(np.prod(shape)) for name, shape in tf.train.list_variables(checkpoint)
               if "adam" not in name and name != "global_step")


def _megabytes(path):
    """Of a file, or of a SavedModel without what stands beside it."""
    parts = [path] if os.path.isfile(path) else [
        os.path.join(path, "saved_model.pb"), *glob.glob(os.path.join(glob.escape(path), "variables", "*"))]
    return sum(map(os.path.getsize, parts)) / 1e6


def _forms(folder, others, texts, data, task, thresholds):
    """A dict for each form of the model, the SavedModel first; measured on `texts`, rows, if there are any."""
    labels = np.array([data.labels.ids(row.labels) for row in texts])
    reference, found = None, []
    for path in [folder, *others]:
        form = {"path": os.path.relpath(path, folder), "megabytes": _megabytes(path)}
        if texts:
            own = _rows(os.path.join(folder, "assets.extra") if path == folder else os.path.dirname(path), data, texts)
            measured = measure.run(path, own.ids)
            answers = measured.pop("probabilities")
            reference = answers if reference is None else reference
            report = metrics.classification_report(labels, answers, task.label_names, thresholds)
            form.update({"milliseconds_a_text": measured["milliseconds"], "memory_megabytes": measured["megabytes"],
                         "unknown_tokens": own.unknown, "accuracy": report["accuracy"], "macro_f1": report["macro_f1"],
                         "largest_difference": float(np.abs(answers - reference).max())})
        found.append(form)
    return found


def _rows(folder, data, texts):
    """The ids of texts by the vocabulary in a folder."""
    featurizer = text_settings.featurizer(data.text, os.path.join(folder, "vocab.txt"))
    features, counts = [], collections.Counter()
    for row in texts:
        made, counted = featurizer.features(row.text_a, row.text_b)
        features.append(made["input_ids"])
        counts.update(counted)
    return _Rows(features, counts["tokens_unknown"] / max(counts["tokens"], 1))


def _readme(card):
    lines = ["# A text classifier for the labels %s" % ", ".join(card["labels"]), "",
             "A %s of %s parameters%s. It reads at most %d tokens of a text ([CLS] and [SEP] counted, the %s of a "
             "longer one stays)." % (
                 KINDS.get(card["model_type"], card["model_type"]), "{:,}".format(card["parameters"]),
                 "; a text may have several labels" if card["several_labels"] else "",
                 card["text"]["max_seq_length"], card["text"]["truncation"].replace("_", " and ")), ""]
    begun = "Its run was begun with\n\n    %s\n\n" % card["command"] if card["command"] else ""
    return "\n".join(lines + _figures(card) + _forms_table(card) + [END.replace("@COMMAND@", begun)])


def _figures(card):
    lines = ["## Figures", ""]
    for title, figures in (("Reported", card["evaluation"]), ("On the texts that chose it", card["selected_on"])):
        if figures and "accuracy" in figures:
            where = " of " + figures["measured_on"] if "measured_on" in figures else ""
            lines.append("%s: accuracy %.1f %%, macro-F1 %.1f %%, %d texts%s.\n" % (
                title, 100 * figures["accuracy"], 100 * figures["macro_f1"], figures["texts"], where))
    lines += [] if len(lines) > 2 else ["None were measured.\n"]
    size = card["forms"][0]["megabytes"]
    return lines + ["The SavedModel has %.1f MB; a text takes it %s on the machine that exported.\n" % (size, ", ".join(
        "%.1f ms (%s tokens)" % (value, length) for length, value in card["milliseconds"].items()))]


def _forms_table(card):
    if len(card["forms"]) == 1:
        return []
    measured = "accuracy" in card["forms"][1]
    columns = ["where", "MB"] + (["accuracy", "macro-F1", "[UNK]", "ms a text", "memory, MB", "furthest answer"]
                                 if measured else [])
    lines = ["## Forms", "", "| %s |" % " | ".join(columns), "|" + "---|" * len(columns)]
    for form in card["forms"]:
        line = "| %s | %.2f |" % ("SavedModel" if form["path"] == "." else form["path"], form["megabytes"])
        if measured:
            line += " %.2f %% | %.2f %% | %.2f %% | %.2f | %.1f | %.1e |" % (
                100 * form["accuracy"], 100 * form["macro_f1"], 100 * form["unknown_tokens"],
                form["milliseconds_a_text"], form["memory_megabytes"], form["largest_difference"])
        lines.append(line)
    if measured:
        lines += ["", "On %s, one text at a time and one thread, on the machine that exported: ms is the median, "
                  "memory what a process grew by, the furthest answer the largest difference of a probability from "
                  "the SavedModel's." % card["measured_on"]]
    return lines + [""]
