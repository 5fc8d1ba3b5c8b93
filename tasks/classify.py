"""What the commands that classify share: labelled data in; figures, predictions out.

Functions here take a command's flags as `values`, an object with an attribute for each.
"""

import collections
import functools
import os

import tensorflow.compat.v1 as tf

from tasks import measuring
from tasks import models
from tasks import runs
from tasks import text_settings
from tasks.classification import Classification, balanced_weights
from tasks.classification_data import Split, choose_splits, prepare_records
from tasks.model_fn import task_model_fn
from tasks.text_files import labels_from_data, labels_from_file
from training import files
from training import metrics
from training import run_folder
from training.command import UserError

# splits: Splits, or None without --data_dir; labels: text_files.Labels; text: TextSettings;
# featurizer: Featurizer.
Data = collections.namedtuple("Data", "splits labels text featurizer")


def open_data(values, model_files, vocab_file, head=None):
    """Data, labels and text settings from flags, else from the files of a model.

    Args:
      values: flags of `training.flags.define_data_flags`, and `random_seed`.
      model_files: checkpoints.ModelFiles.
      vocab_file: the vocabulary.
      head: one of `heads.HEADS`; None: that of `model_files`.

    Raises:
      UserError: as `choose_splits`, labels from nowhere, or a tokenizer that is not the model's.
    """
    splits = choose_splits(values.data_dir, values.random_seed) if values.data_dir else None
    given = {name: getattr(values, name) for name in (
        "max_seq_length", "truncation", "do_lower_case", "label_separator", "tokenizer")}
    text = text_settings.read(model_files.text_file, dict(given, head=head))
    _check_tokenizer(text, model_files)
    separator = text.label_separator or None
    labels_file = values.labels_file or model_files.labels_file
    if labels_file:
        labels = labels_from_file(labels_file, separator)
    elif splits:
        labels = labels_from_data(splits.train.path, separator, values.errors)
    else:
        raise UserError("--labels_file: needed without --data_dir and a model with a labels.txt beside it")
    return Data(splits, labels, text, text_settings.featurizer(text, vocab_file))


def _check_tokenizer(text, model_files):
    """Raises UserError when a trained model would read tokens of another kind than it was trained on."""
    own = text_settings.read(model_files.text_file, {}).tokenizer
    if model_files.checkpoint and text.tokenizer != own:
        raise UserError("--tokenizer=%s: %s was trained with --tokenizer=%s; leave the flag away, or start from "
                        "random values" % (text.tokenizer, model_files.checkpoint, own))


def check_flags(values):
    """Raises UserError when an action lacks what it needs."""
    if not (values.do_train or values.do_eval or values.do_predict or values.do_export):
        raise UserError("--do_train, --do_eval, --do_predict or --do_export: at least one is needed")
    for name in ("do_train", "do_eval"):
        if getattr(values, name) and not values.data_dir:
            raise UserError("--data_dir: --%s needs it" % name)
    if values.do_train and values.freeze_encoder and not values.init_checkpoint:
        raise UserError("--freeze_encoder: needs --init_checkpoint, a trained encoder; random vectors teach a head "
                        "nothing")
    if values.do_predict and not (values.predict_file or values.data_dir):
        raise UserError("--predict_file: --do_predict needs it, where there is no --data_dir")
    if values.predict_file and not os.path.exists(values.predict_file):
        raise UserError("--predict_file=%s: no such file" % values.predict_file)


def train(values, model, data, unlabeled_files=(), make_plans=None, more_settings=None):
    """Trains on the labelled texts and those of `unlabeled_files`, as the flags say.

    Args:
      values: flags of `training.flags.define_training_flags` and `define_text_flags`.
      model: models.Model.
      data: Data.
      unlabeled_files: text files.
      make_plans: function of (task, TFRecord files of the labelled texts, those of the others, those that select)
        -> list of `runs.Plan`; None: plain training.
      more_settings: as in `runs.open_run`.
    """
    paths = [*unlabeled_files, data.splits.train.path, data.splits.select.path]
    digests = {os.path.basename(path): files.digest(path) for path in paths}
    run = runs.open_run(values, model, dict(
        more_settings or {}, labels=data.labels.names, text=text_settings.as_dict(data.text), **digests))
    if not run:
        return
    train_records, select_records, more_records = make_records(values, data, unlabeled_files)
    task = make_task(values, data, train_records)
    labelled_files, more_files = [train_records.path], [made.path for made in more_records]
    if make_plans:
        plans = make_plans(task, labelled_files, more_files, [select_records.path])
    else:
        plans = [runs.plain_plan(values, functools.partial(
            task_model_fn, model.config, task, freeze_encoder=values.freeze_encoder))]
    runs.train(values, run, _keep_head_of_same_labels(model, data), task, labelled_files + more_files,
               [select_records.path], plans, run_folder_contents(data))


def make_records(values, data, unlabeled_files):
    """The Records that train, those that select, and a list of those without labels."""
    labelled = [records_of(values, data, split) for split in (data.splits.train, data.splits.select)]
    unlabeled = [Split("unlabeled_%d" % number, path) for number, path in enumerate(unlabeled_files, start=1)]
    return (*labelled, [records_of(values, data, split, labelled=False) for split in unlabeled])


def _keep_head_of_same_labels(model, data):
    """The Model, starting with the checkpoint's head too where kind and classes are those asked for."""
    labels_file = model.files.labels_file
    same = bool(labels_file) and files.read_lines(labels_file) == data.labels.names and (
        text_settings.read(model.files.text_file, {}).head == data.text.head)
    return model._replace(init=model.init and model.init._replace(same_labels=same))


def records_of(values, data, split, labelled=True):
    """Makes the records of a split, or finds them; says what is in them."""
    made = prepare_records(split, values.output_dir, data.featurizer, data.labels, labelled, values.errors)
    print(made.describe(), flush=True)
    return made


def make_task(values, data, train_records=None):
    """The task; `train_records` (Records) are counted for balanced classes."""
    weights = None
    if values.class_weights == "balanced" and train_records:
        weights = balanced_weights(train_records.counts["labels"], train_records.counts["texts"],
                                   data.labels.separator is not None, train_records.source)
    return Classification(data.labels, weights, values.label_smoothing, data.text.head)


def run_folder_contents(data):
    """The files of a classifier's run folder: dict of name -> text."""
    return {"labels.txt": "".join(name + "\n" for name in data.labels.names),
            text_settings.FILE: files.to_json(text_settings.as_dict(data.text))}


def best_model(values, task):
    """The checkpoint that is measured, predicts or is exported.

    Returns:
      (its prefix, C probabilities from which on a class counts: chosen where the checkpoint was, else 0.5;
       None for one class a text).

    Raises:
      UserError: its classes or its head are not those of the task.
    """
    found = models.best_model(values)
    if found.labels_file and files.read_lines(found.labels_file) != task.label_names:
        raise UserError("%s: the labels of the model, and here others are asked for: %s; leave --labels_file "
                        "away" % (found.labels_file, ", ".join(task.label_names)))
    head = text_settings.read(found.text_file, {}).head
    if found.text_file and head != task.head:
        raise UserError("--head=%s: the model's is %s (%s); leave --head away" % (task.head, head, found.text_file))
    shape = dict(tf.train.list_variables(found.checkpoint)).get("output_bias")
    if shape != [len(task.label_names)]:
        raise UserError("%s: %s in it, and %d labels (%s) are asked for; --do_train makes one" % (
            found.checkpoint, "a classifier of %d labels is" % shape[0] if shape else "no classifier is",
            len(task.label_names), ", ".join(task.label_names)))
    if not task.independent_classes:
        return found.checkpoint, None
    path = os.path.join(os.path.dirname(found.checkpoint), os.path.basename(run_folder.BEST_FIGURES))
    chosen = files.read_json(path).get("thresholds") if os.path.exists(path) else None
    return found.checkpoint, chosen or [metrics.DEFAULT_THRESHOLD] * len(task.label_names)


def evaluate(values, model, data):
    """Measures the best checkpoint on the split that is reported; writes eval.json."""
    task = make_task(values, data)
    checkpoint, thresholds = best_model(values, task)
    made = records_of(values, data, data.splits.report)
    figures = measuring.evaluate(model.config, task, checkpoint, [made.path], values.eval_batch_size,
                                 thresholds=thresholds)
    report = data.splits.report
    title = "%s on %s (%s)" % (checkpoint, report.describe(), data.splits.describe())
    figures.update(measured_on=report.describe(), data_sha256=files.digest(report.path))
    measuring.write_figures(values.output_dir, "eval", task, figures, title)


def predict(values, model, data):
    """Writes predictions.tsv: for each text its label (several joined) and every class's probability."""
    path = values.predict_file or data.splits.report.path
    task = make_task(values, data)
    checkpoint, thresholds = best_model(values, task)
    made = records_of(values, data, Split("predict", path), labelled=False)
    found = measuring.answering(model.config, task, [made.path], values.eval_batch_size)(checkpoint)
    names = data.labels.names
    lines = ["\t".join(["label"] + names)]
    for probabilities in found["probabilities"]:
        chosen = metrics.chosen_classes(probabilities, thresholds)
        lines.append("\t".join([(data.labels.separator or "").join(names[number] for number in chosen)]
                               + ["%.6f" % value for value in probabilities]))
    target = os.path.join(values.output_dir, "predictions.tsv")
    files.write_text(target, "\n".join(lines) + "\n")
    print("%s: %d texts of %s" % (target, len(lines) - 1, path), flush=True)
