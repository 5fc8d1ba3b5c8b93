"""The lines of the tables: the figures of the teacher, of the baselines and of what the rows trained."""

import os

import numpy as np

from experiments import baselines
from experiments import cells
from experiments import figures
from experiments import rows
from serving.predictor import Predictor
from tasks.classification_data import choose_splits
from tasks.text_files import read_rows
from training import files
from training import metrics
from training import progress

TEACHER = "teacher"
MEASURED = "baselines.json"  # the lines of the teacher and of the baselines
TAUGHT = "taught.json"  # in its folder: its labels of the training texts and of those without
TAUGHT_AT_ONCE = 256  # texts, sorted by length among themselves


class Texts:
    """The texts of a data folder: `train`, `train_labels`, `test`, `test_labels`."""

    def __init__(self, data_dir):
        splits = choose_splits(data_dir)
        self.data_dir = data_dir
        train, test = figures.read_labelled(splits.train, splits.report)
        self.train_labels, self.train = map(list, zip(*train))
        self.test_labels, self.test = map(list, zip(*test))


# name -> title, function of (Texts, what the teacher answered: (texts, labels)) -> `baselines.Baseline`
BASELINES = {
    "majority": ("commonest label", lambda texts, _: baselines.majority(texts.train_labels, texts.test)),
    "naive_bayes": ("naive Bayes", lambda texts, _: baselines.naive_bayes(texts.train, texts.train_labels, texts.test)),
    "linear": ("linear, characters", lambda texts, _: baselines.linear(texts.train, texts.train_labels, texts.test)),
    "linear_taught": ("linear, the teacher's labels", lambda texts, taught: baselines.linear(*taught, texts.test)),
}


def of_teacher_and_baselines(output_dir, texts, teachers, unlabeled_files):
    """Lines of the teacher and of what it has to beat, without training but of linear models; made once, and kept."""
    path = os.path.join(output_dir, MEASURED)
    if not os.path.exists(path):
        unlabeled = [row.text_a for name in unlabeled_files for row in read_rows(name)]
        found = [_answer(output_dir, teacher, fold, of_fold, of_fold.train + unlabeled)
                 for fold, (teacher, of_fold) in enumerate(zip(teachers, texts), start=1)]
        files.write_json(path, _measure(texts, teachers, *zip(*found)))
    return files.read_json(path)


def _answer(output_dir, teacher, fold, texts, transfer):
    """What a fold's teacher answers.

    Args:
      texts: Texts.
      transfer: list of str, texts whose answers others are taught.

    Returns:
      (the folder of its export, its labels of the test texts, (transfer, its labels of these)).
    """
    folder = os.path.join(output_dir, "cells", TEACHER, "fold_%d" % fold)
    if not os.path.exists(os.path.join(folder, figures.PREDICTIONS)):
        cells.run(["run_classifier.py", "--init_checkpoint=" + teacher, "--output_dir=" + folder,
                   "--data_dir=" + texts.data_dir, "--do_predict", "--do_export"])
    export = os.path.join(folder, "export")
    return export, figures.predictions_in(folder), (transfer, teachers_labels(Predictor(export), transfer, folder))


def _measure(texts, teachers, exports, answers, taught):
    """The lines; of each fold: its Texts, teacher, and what `_answer` returns."""
    with progress.bar(1 + len(BASELINES) * len(texts), "teacher and baselines", " models") as bar:
        lines = [line_of(TEACHER, "teacher", [sum(answers, [])], texts, dict(
            _sizes(teachers[0]), **_speed(Predictor(exports[0]).predict, texts[0].test)))]
        bar.update()
        for name, (title, fit) in BASELINES.items():
            made = []
            for of_fold, answered in zip(texts, taught):
                made.append(fit(of_fold, answered))
                bar.update()
            lines.append(line_of(name, title, [[label for one in made for label in one.predictions]], texts, dict(
                parameters=made[0].parameters, **_speed(made[0].predict, texts[0].test))))
    return lines


def teachers_labels(predictor, texts, folder):
    """The labels the teacher gives to texts, a list of str; written once, in its folder: there may be many."""
    path = os.path.join(folder, TAUGHT)
    if not os.path.exists(path):
        labels = []
        with progress.bar(len(texts), "teacher's labels", " texts") as bar:
            for first in range(0, len(texts), TAUGHT_AT_ONCE):
                labels += [found.label for found in predictor.predict(texts[first:first + TAUGHT_AT_ONCE])]
                bar.update(len(labels) - first)
        files.write_json(path, labels)
    return files.read_json(path)


def of_row(name, trained, texts, seeds):
    """The line of a row; trained: its (Cell, what is in its file)."""
    folder = trained[0][1]["folder"]
    return line_of(name, rows.ROWS[name].title, answers_of(trained, seeds), texts, dict(
        _sizes(folder), **_speed(Predictor(os.path.join(folder, "export")).predict, texts[0].test),
        seconds=round(float(np.mean([one["seconds"] for _, one in trained])), 1), folder=folder,
        tables=list(rows.ROWS[name].tables), commands=trained[0][1]["commands"],
        trials=sorted({one["trial"] for _, one in trained})))


def answers_of(trained, seeds):
    """For each seed the labels given to the test texts of all folds; trained: (Cell, what is in its file)."""
    return [[label for cell, one in trained if cell.seed == seed for label in figures.predictions_in(one["folder"])]
            for seed in seeds]


def line_of(name, title, answers, texts, more):
    """Figures of a model; answers: for each seed the labels it gave to all test texts."""
    labels = [label for of_fold in texts for label in of_fold.test_labels]
    found = [figures.of_model(name, labels, predicted, more.get("parameters", 0)) for predicted in answers]
    return dict(more, name=name, title=title, answers=answers[0], **{
        "%s_%s" % (figure, kind): float(function([one[figure] for one in found]))
        for figure in ("accuracy", "macro_f1") for kind, function in (("mean", np.mean), ("sd", _deviation))})


def _deviation(values):
    """Of a sample; 0 of one value."""
    return np.std(values, ddof=1) if len(values) > 1 else 0.0


def _sizes(folder):
    return {"parameters": figures.count_parameters(folder), "megabytes": round(figures.megabytes(folder), 2),
            "parameters_without_words": figures.count_parameters(folder, with_embeddings=False)}


def _speed(predict, texts):
    return {"latency_ms_p50": figures.latency(predict, texts),
            "texts_per_second": figures.texts_per_second(predict, texts)}


def compare(lines, texts):
    """Puts the lines beside the teacher and the plain student: dict of "lines" and what holds for all."""
    labels = np.array([label for of_fold in texts for label in of_fold.test_labels])
    by_name = {line["name"]: line for line in lines}
    teacher, plain = by_name[TEACHER], by_name[rows.PLAIN]
    right = {line["name"]: np.array(line["answers"]) == labels for line in lines}
    for line in lines:
        line["of_teacher"] = line["accuracy_mean"] / teacher["accuracy_mean"]
        if line["name"] not in (TEACHER, rows.PLAIN) and line["name"] in rows.ROWS:
            line["gap_closed"] = metrics.gap_closed(
                line["accuracy_mean"], plain["accuracy_mean"], teacher["accuracy_mean"])
        line["over_plain"] = metrics.paired_bootstrap(right[line["name"]], right[rows.PLAIN], seed=1)
        report = figures.report_of(labels.tolist(), line["answers"])
        line["confusion"] = np.asarray(report["confusion"]).tolist()
        line["classes"] = [found["name"] for found in report["classes"]]
    for line in lines:
        del line["answers"]
    return {"lines": lines, "test_texts": len(labels), "labelled_texts": len(texts[0].train),
            "evidence": bool(teacher["accuracy_mean"] > plain["accuracy_mean"]),
            "smallest_difference": metrics.smallest_difference(
                len(labels), teacher["over_plain"]["discordant_share"])}
