"""The paper's tables on your own data: compared methods (its Table 2) and ablations (its Table 3).

    python -m experiments.tables --data_dir=data --teacher_checkpoint=output/teacher_classifier \
        --student_config_file=configs/student.json --unlabeled_file=texts.txt --seeds=1,2,3 --output_dir=build/tables
    python -m experiments.tables --data_dir='build/folds/fold_*' --teacher_checkpoint='output/fold_*/teacher' \
        --student_config_file=configs/student.json --rows=none,logits,paper --output_dir=build/tables

Every row is trained by run_distill.py on the same data, for as many updates, with the same search over
--learning_rates and --dropouts on dev; `report.md` says the commands. With several data folders (folds, see
experiments.folds) there are as many teachers, in the same (sorted) order, and the answers on all test texts are
pooled. Writes report.md, report.html (one file) and results.json. Stopped, it goes on cell by cell; with other rows or
seeds, it trains what is new.
"""

import difflib
import os

from absl import flags

from training import command
import numpy as np

from bert import checkpoints
from experiments import baselines
from experiments import cells
from experiments import figures
from experiments import rows
from experiments import table_report
from serving.predictor import Predictor
from tasks.classification_data import choose_splits, find_splits
from tasks.text_files import read_rows
from training import files
from training import metrics
from training import run_folder
from training.command import UserError

TEACHER = "teacher"


def define_flags():
    flags.DEFINE_string("data_dir", None, "Data folder; several, comma-separated, with * and ?: folds.", required=True)
    flags.DEFINE_string("teacher_checkpoint", None, "Run folder of the fine-tuned teacher; one for each fold.",
                        required=True)
    flags.DEFINE_string("student_config_file", None, "JSON of the BiLSTM student.", required=True)
    flags.DEFINE_string("output_dir", None, "Where everything is written.", required=True)
    flags.DEFINE_string("unlabeled_file", None, "Texts without labels, for every row.")
    flags.DEFINE_list("rows", [], "Rows to run: %s. Default: all." % ", ".join(rows.ROWS))
    flags.DEFINE_list("seeds", ["1"], "A run of each row for each.")
    flags.DEFINE_list("learning_rates", ["1e-3", "1e-4"], "Tried for every row; dev chooses.")
    flags.DEFINE_list("dropouts", [], "Tried for every row with each learning rate. Default: that of the student's "
                      "JSON, and the teacher's for a BERT.")
    flags.DEFINE_integer("num_train_steps", 1000, "Updates of each run.", lower_bound=1)
    flags.DEFINE_integer("train_batch_size", 32, "Texts of an update.", lower_bound=1)
    flags.DEFINE_integer("save_checkpoints_steps", 100, "Updates between two measurements on dev.", lower_bound=1)
    flags.DEFINE_enum("select_by", "accuracy", ["accuracy", "macro_f1", "loss"],
                      "The figure on dev that chooses checkpoint and learning rate.")
    flags.DEFINE_bool("use_bf16", False, "As in run_distill.py.")


def main():
    values = flags.FLAGS
    data_dirs = files.matching_files(values.data_dir, "data_dir")
    teachers = files.matching_files(values.teacher_checkpoint, "teacher_checkpoint")
    names = read_rows_flag(values.rows)
    seeds = read_seeds(values.seeds)
    check(values, data_dirs, teachers)
    run_folder.begin(values.output_dir, _settings(values, data_dirs, teachers), {})
    results = run(values, data_dirs, teachers, names, seeds)
    files.write_json(os.path.join(values.output_dir, "results.json"), results)
    table_report.write(results, values.output_dir)
    print("\n" + table_report.text(results), flush=True)


def read_rows_flag(given):
    """The rows of --rows, those that all are compared with first.

    Raises:
      UserError: an unknown row.
    """
    for name in given:
        if name not in rows.ROWS:
            near = difflib.get_close_matches(name, rows.ROWS, 1)
            raise UserError("--rows=%s: no row %s; %s" % (
                ",".join(given), name, "did you mean %s?" % near[0] if near else "there are " + ", ".join(rows.ROWS)))
    wanted = set(given or rows.ROWS) | {rows.PLAIN}
    return [name for name in rows.ROWS if name in wanted]


def read_seeds(given):
    """The numbers of --seeds."""
    try:
        seeds = [int(text) for text in given]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError("--seeds=%s: different numbers from 0 with commas between them are needed" % ",".join(given))
    return seeds


def check(values, data_dirs, teachers):
    """Finds out before anything is trained whether all can be."""
    if len(teachers) != len(data_dirs):
        raise UserError("--teacher_checkpoint=%s: %d folders, and --data_dir names %d; each fold has a teacher"
                        % (values.teacher_checkpoint, len(teachers), len(data_dirs)))
    for data_dir in data_dirs:
        choose_splits(data_dir)
    for teacher in teachers:
        if not os.path.exists(os.path.join(teacher, "labels.txt")):
            raise UserError("--teacher_checkpoint=%s: no labels.txt is in it; a run folder of run_classifier.py is "
                            "needed" % teacher)
    for name in ("learning_rates", "dropouts"):
        given = getattr(values, name)
        if not all(map(_is_share, given)) or name == "learning_rates" and not given:
            raise UserError("--%s=%s: numbers above 0 and below 1 with commas between them are needed"
                            % (name, ",".join(given)))
    if not os.path.exists(values.student_config_file):
        raise UserError("--student_config_file=%s: no such file" % values.student_config_file)


def _is_share(text):
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def _settings(values, data_dirs, teachers):
    """What decides what is in a cell: dict, see `run_folder.begin`."""
    def digests(paths):
        return [files.digest(path) for path in paths]

    of_flags = {name: getattr(values, name) for name in (
        "num_train_steps", "train_batch_size", "save_checkpoints_steps", "select_by", "use_bf16", "learning_rates",
        "dropouts")}
    return dict(
        of_flags, student_config_file=files.digest(values.student_config_file),
        data_dir=digests(path for data_dir in data_dirs for _, path in sorted(find_splits(data_dir).items())),
        unlabeled_file=digests(_unlabeled_files(values)),
        # The index of a checkpoint has the checksums of its tensors.
        teacher_checkpoint=digests(checkpoints.find_model(teacher, "teacher_checkpoint").checkpoint + ".index"
                                   for teacher in teachers))


def _unlabeled_files(values):
    if not values.unlabeled_file:
        return []
    return [os.path.abspath(path) for path in files.matching_files(values.unlabeled_file, "unlabeled_file")]


def run(values, data_dirs, teachers, names, seeds):
    """Trains, measures and compares: dict, as in results.json."""
    output_dir, unlabeled_files = os.path.abspath(values.output_dir), _unlabeled_files(values)
    shared = ["--do_train", "--do_eval", "--do_predict", "--do_export",
              "--num_train_steps=%d" % values.num_train_steps, "--train_batch_size=%d" % values.train_batch_size,
              "--save_checkpoints_steps=%d" % values.save_checkpoints_steps, "--select_by=" + values.select_by]
    shared += ["--use_bf16"] if values.use_bf16 else []

    def train(cell):
        setting = rows.Setting(os.path.abspath(data_dirs[cell.fold]), os.path.abspath(teachers[cell.fold]),
                               os.path.abspath(values.student_config_file), output_dir, shared,
                               ",".join(unlabeled_files), "")
        trials = {"rate_%s%s" % (rate, dropout and "_dropout_" + dropout): setting._replace(
            shared=shared + ["--learning_rate=" + rate], dropout=dropout)
                  for rate in values.learning_rates for dropout in values.dropouts or [""]}
        return cells.train_cell(cell, output_dir, trials, values.select_by)

    texts = [_Texts(data_dir) for data_dir in data_dirs]
    found = _of_teacher_and_baselines(output_dir, texts, teachers, unlabeled_files)
    all_cells = [cells.Cell(name, seed, fold) for name in names for seed in seeds for fold in range(len(data_dirs))]
    done = cells.run_all(all_cells, output_dir, train)
    for name in names:
        trained = [(cell, one) for cell, one in zip(all_cells, done) if cell.row == name]
        found.append(_of_row(name, trained, texts, seeds))
    return dict(compare(found, texts), seeds=seeds, folds=len(data_dirs))


class _Texts:
    """The texts of a data folder: `train`, `train_labels`, `test`, `test_labels`."""

    def __init__(self, data_dir):
        splits = choose_splits(data_dir)
        self.data_dir = os.path.abspath(data_dir)
        train, test = figures.read_labelled(splits.train, splits.report)
        self.train_labels, self.train = map(list, zip(*train))
        self.test_labels, self.test = map(list, zip(*test))


def _of_teacher_and_baselines(output_dir, texts, teachers, unlabeled_files):
    """Lines of the teacher and of what it has to beat, without training but of linear models."""
    unlabeled = [row.text_a for path in unlabeled_files for row in read_rows(path)]
    answers, on_teacher, predictors = [], [], []
    for fold, (teacher, of_fold) in enumerate(zip(teachers, texts), start=1):
        folder = os.path.join(output_dir, "cells", TEACHER, "fold_%d" % fold)
        if not os.path.exists(os.path.join(folder, figures.PREDICTIONS)):
            cells.run(["run_classifier.py", "--init_checkpoint=" + os.path.abspath(teacher), "--output_dir=" + folder,
                       "--data_dir=" + of_fold.data_dir, "--do_predict", "--do_export"])
        predictors.append(Predictor(os.path.join(folder, "export")))
        answers += figures.predictions_in(folder)
        transfer = of_fold.train + unlabeled
        taught = [found.label for found in predictors[-1].predict(transfer)]
        on_teacher.append(baselines.linear(transfer, taught, of_fold.test))
    first = texts[0]
    lines = [_line(TEACHER, "teacher", [answers], texts, dict(
        _sizes(teachers[0]), **_speed(predictors[0].predict, first.test)))]
    for name, title, made in (
            ("majority", "commonest label", [baselines.majority(one.train_labels, one.test) for one in texts]),
            ("naive_bayes", "naive Bayes", [
                baselines.naive_bayes(one.train, one.train_labels, one.test) for one in texts]),
            ("linear", "linear, characters", [
                baselines.linear(one.train, one.train_labels, one.test) for one in texts]),
            ("linear_taught", "linear, the teacher's labels", on_teacher)):
        lines.append(_line(name, title, [[label for one in made for label in one.predictions]], texts, dict(
            parameters=made[0].parameters, **_speed(made[0].predict, first.test))))
    return lines


def _of_row(name, trained, texts, seeds):
    """The line of a row; trained: its (Cell, what is in its file)."""
    answers = [[label for cell, one in trained if cell.seed == seed
                for label in figures.predictions_in(one["folder"])]
               for seed in seeds]
    folder = trained[0][1]["folder"]
    return _line(name, rows.ROWS[name].title, answers, texts, dict(
        _sizes(folder), **_speed(Predictor(os.path.join(folder, "export")).predict, texts[0].test),
        seconds=round(float(np.mean([one["seconds"] for _, one in trained])), 1), folder=folder,
        tables=list(rows.ROWS[name].tables), commands=trained[0][1]["commands"],
        trials=sorted({one["trial"] for _, one in trained})))


def _line(name, title, answers, texts, more):
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


if __name__ == "__main__":
    command.run(main, define_flags)
