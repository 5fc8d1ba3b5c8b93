"""The paper's tables on your own data: compared methods (its Table 2) and ablations (its Table 3).

    python -m experiments.tables --data_dir=data --teacher_checkpoint=output/teacher_classifier \\
        --student_config_file=configs/student.json --unlabeled_file=texts.txt --seeds=1,2,3 --output_dir=build/tables
    python -m experiments.tables --data_dir=data --folds=5 --teacher_checkpoint=output/teacher \\
        --teacher_flags='--num_train_epochs=10 --bias_correction' --student_config_file=configs/student.json \\
        --rows=none,logits,paper --cache_teacher --output_dir=build/tables

Every row is trained by run_distill.py on the same data, for as many updates, with the same search over
--learning_rates and --dropouts on dev; `report.md` says the commands. A teacher that is no classifier yet is
fine-tuned first. With folds, each has a teacher, and the answers on all test texts are pooled. --curves adds the
student of the paper against the amount of unlabelled text and the share of the labels. Writes report.md, report.html
(one file) and results.json. Stopped, it goes on cell by cell; with other rows or seeds, it trains what is new.
"""

import difflib
import os

from absl import flags

from training import command

from bert import checkpoints
from bert import tfrecord
from experiments import cells
from experiments import curves
from experiments import folds
from experiments import preparation
from experiments import rows
from experiments import table_lines
from experiments import table_report
from tasks.classification_data import choose_splits, find_splits
from training import files
from training import run_folder
from training.command import UserError


def define_flags():
    flags.DEFINE_string("data_dir", None, "Data folder; several, comma-separated, with * and ?: folds.", required=True)
    flags.DEFINE_integer("folds", 0, "Divide the one --data_dir into so many folds, as experiments.folds does; 0: "
                         "none.", lower_bound=0)
    flags.DEFINE_string("teacher_checkpoint", None, "Run folder of the fine-tuned teacher, one for each fold, in their "
                        "sorted order; or one checkpoint that is fine-tuned here, for each.", required=True)
    flags.DEFINE_string("teacher_flags", "", "Of run_classifier.py, for a teacher that is fine-tuned here.")
    flags.DEFINE_string("pretrained_checkpoint", None, "The teacher as it was before it was fine-tuned, for rows that "
                        "need its masked LM. Default: --teacher_checkpoint, where that is fine-tuned here.")
    flags.DEFINE_string("student_config_file", None, "JSON of the BiLSTM student.", required=True)
    flags.DEFINE_string("output_dir", None, "Where everything is written.", required=True)
    flags.DEFINE_string("unlabeled_file", None, "Texts without labels, for every row.")
    flags.DEFINE_string("input_file", None, "TFRecords of a corpus, for rows that learn on one first.")
    flags.DEFINE_integer("corpus_steps", 1000, "Updates on the corpus.", lower_bound=1)
    flags.DEFINE_bool("curves", False, "Also the student of row paper with %s times as much unlabelled as labelled "
                      "text, with %s of the labels." % (", ".join(map(str, curves.MULTIPLES)), " and ".join(
                          "%d %%" % round(100 * share) for share in curves.SHARES)))
    flags.DEFINE_bool("cache_teacher", False, "Write what the teachers answer once, see distill.cache_teacher, for all "
                      "rows to read that need no more of them. Takes room, which is told.")
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
    data_dirs = [os.path.abspath(path) for path in files.matching_files(values.data_dir, "data_dir")]
    given = teachers_of(values)
    known = _known(values, given)
    unlabeled_files = [os.path.abspath(path) for path in files.matching_files(
        values.unlabeled_file, "unlabeled_file", optional=True)]
    names = read_rows_flag(values.rows, known)
    seeds = read_seeds(values.seeds)
    check(values, data_dirs, given)
    run_folder.begin(values.output_dir, _settings(values, data_dirs, given, unlabeled_files), {})
    output_dir = os.path.abspath(values.output_dir)
    if values.folds:
        data_dirs = folds.make(data_dirs[0], os.path.join(output_dir, "folds"), values.folds, seed=1)
    teachers = preparation.fine_tune(given, data_dirs, output_dir, values.teacher_flags)
    settings = _fold_settings(values, output_dir, data_dirs, teachers, known, ",".join(unlabeled_files))
    results = run(values, output_dir, settings, names, seeds, unlabeled_files)
    files.write_json(os.path.join(values.output_dir, "results.json"), results)
    table_report.write(results, values.output_dir)
    print("\n" + table_report.text(results), flush=True)


def teachers_of(values):
    """The paths that --teacher_checkpoint names: list of absolute paths.

    Raises:
      UserError: nothing is there, or some are classifiers and some not.
    """
    if os.path.exists(values.teacher_checkpoint + ".index"):  # the prefix of a checkpoint, which is no file
        return [os.path.abspath(values.teacher_checkpoint)]
    found = [os.path.abspath(path) for path in files.matching_files(values.teacher_checkpoint, "teacher_checkpoint")]
    absent = [path for path in found if not preparation.is_classifier(path)]
    if absent and len(found) > 1:
        raise UserError("--teacher_checkpoint=%s: no labels.txt is in %s; either a run folder of run_classifier.py for "
                        "each fold is needed, or one model that is fine-tuned here"
                        % (values.teacher_checkpoint, absent[0]))
    return found


def _known(values, given):
    """What rows may need, see `rows.Row`: dict of field of a Setting -> value, "" where it is not given."""
    pretrained = values.pretrained_checkpoint or ("" if preparation.is_classifier(given[0]) else given[0])
    corpus = tfrecord.matching_files(values.input_file, "input_file", optional=True)
    return {"pretrained": pretrained and os.path.abspath(pretrained), "corpus": ",".join(map(os.path.abspath, corpus))}


FLAGS_OF_NEEDS = {"pretrained": "--pretrained_checkpoint", "corpus": "--input_file"}


def read_rows_flag(given, known):
    """The rows of --rows, those that all are compared with first; without the flag all that can be run.

    Args:
      given: list of names.
      known: dict of what a row may need -> value, "" where there is none.

    Raises:
      UserError: an unknown row, or one that needs what is not there.
    """
    lacks = {name: [FLAGS_OF_NEEDS[need] for need in row.needs if not known[need]] for name, row in rows.ROWS.items()}
    for name in given:
        if name not in rows.ROWS:
            near = difflib.get_close_matches(name, rows.ROWS, 1)
            raise UserError("--rows=%s: no row %s; %s" % (
                ",".join(given), name, "did you mean %s?" % near[0] if near else "there are " + ", ".join(rows.ROWS)))
        if lacks[name]:
            raise UserError("--rows=%s: row %s needs %s" % (",".join(given), name, " and ".join(lacks[name])))
    wanted = set(given or [name for name in rows.ROWS if not lacks[name]]) | {rows.PLAIN}
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


def check(values, data_dirs, given):
    """Finds out before anything is trained whether all can be; given: `teachers_of` the flags."""
    for data_dir in data_dirs:
        choose_splits(data_dir)
    if values.folds and len(data_dirs) > 1:
        raise UserError("--folds=%d: one --data_dir is divided, and %s are %d"
                        % (values.folds, values.data_dir, len(data_dirs)))
    if preparation.is_classifier(given[0]):
        if len(given) != (values.folds or len(data_dirs)):
            raise UserError("--teacher_checkpoint=%s: %d folders, and there are %d data folders or folds; each has a "
                            "teacher" % (values.teacher_checkpoint, len(given), values.folds or len(data_dirs)))
        if values.teacher_flags:
            raise UserError("--teacher_flags=%s: %s is fine-tuned already; leave the flag out, or give the model it "
                            "was made from" % (values.teacher_flags, given[0]))
    for name in ("learning_rates", "dropouts"):
        numbers = getattr(values, name)
        if not all(map(_is_share, numbers)) or name == "learning_rates" and not numbers:
            raise UserError("--%s=%s: numbers above 0 and below 1 with commas between them are needed"
                            % (name, ",".join(numbers)))
    if not os.path.exists(values.student_config_file):
        raise UserError("--student_config_file=%s: no such file" % values.student_config_file)


def _is_share(text):
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def _settings(values, data_dirs, given, unlabeled_files):
    """What decides what is in a cell: dict, see `run_folder.begin`."""
    of_flags = {name: getattr(values, name) for name in (
        "num_train_steps", "train_batch_size", "save_checkpoints_steps", "select_by", "use_bf16", "learning_rates",
        "dropouts", "folds", "teacher_flags", "corpus_steps")}
    splits = [path for data_dir in data_dirs for _, path in sorted(find_splits(data_dir).items())]
    models = [checkpoints.find_model(teacher, "teacher_checkpoint") for teacher in given]
    return dict(
        of_flags, student_config_file=files.digest(values.student_config_file),
        data_dir=list(map(files.digest, splits)), unlabeled_file=list(map(files.digest, unlabeled_files)),
        teacher_checkpoint=[checkpoints.digest(model.checkpoint) for model in models])


def run(values, output_dir, settings, names, seeds, unlabeled_files):
    """Trains, measures and compares: dict, as in results.json."""
    texts = [table_lines.Texts(setting.data_dir) for setting in settings]
    found = table_lines.of_teacher_and_baselines(
        output_dir, texts, [setting.teacher for setting in settings], unlabeled_files)
    trained = _train(values, output_dir, {name: (rows.ROWS[name].steps, settings) for name in names}, seeds)
    found += [table_lines.of_row(name, trained[name], texts, seeds) for name in names]
    points = _run_curves(values, output_dir, settings, texts, seeds, unlabeled_files) if values.curves else []
    return dict(table_lines.compare(found, texts), seeds=seeds, folds=len(settings), curves=points)


def _train(values, output_dir, jobs, seeds):
    """Trains each job for every seed and fold, in each setting that is tried.

    Args:
      jobs: dict of name -> (steps as of a `rows.Row`, `rows.Setting` of each fold).
      seeds: list of int.

    Returns:
      dict of name -> list of (Cell, what is in its file).
    """
    all_cells = [cells.Cell(name, seed, fold) for name, (_, settings) in jobs.items() for seed in seeds
                 for fold in range(len(settings))]

    def train(cell):
        steps, settings = jobs[cell.row]
        return cells.train_cell(cell, output_dir, steps, _trials(values, settings[cell.fold]), values.select_by)

    found = {name: [] for name in jobs}
    for cell, one in zip(all_cells, cells.run_all(all_cells, output_dir, train)):
        found[cell.row].append((cell, one))
    return found


def _fold_settings(values, output_dir, data_dirs, teachers, known, unlabeled):
    """The `rows.Setting` of each fold, without what is tried."""
    steps = "--num_train_steps=%d"
    shared = ["--do_train", "--do_eval", "--do_predict", "--do_export", steps % values.num_train_steps,
              "--train_batch_size=%d" % values.train_batch_size,
              "--save_checkpoints_steps=%d" % values.save_checkpoints_steps, "--select_by=" + values.select_by]
    bf16 = ["--use_bf16"] if values.use_bf16 else []
    caches = [""] * len(data_dirs)
    if values.cache_teacher:
        caches = preparation.cache(teachers, data_dirs, unlabeled, os.path.join(output_dir, "caches"))
    return [rows.Setting(
        data_dir, teacher, os.path.abspath(values.student_config_file), output_dir, shared + bf16, unlabeled,
        corpus_flags=["--do_train", steps % values.corpus_steps] + bf16, cache=cache, **known)
            for data_dir, teacher, cache in zip(data_dirs, teachers, caches)]


def _trials(values, setting):
    """The settings that are tried: dict of name -> `rows.Setting`."""
    return {"rate_%s%s" % (rate, dropout and "_dropout_" + dropout): setting._replace(
        shared=setting.shared + ["--learning_rate=" + rate], dropout=dropout)
            for rate in values.learning_rates for dropout in values.dropouts or [""]}


def _run_curves(values, output_dir, settings, texts, seeds, unlabeled_files):
    """Trains the paper's student for every point of the curves: list of dict."""
    folder, num_labelled = os.path.join(output_dir, "curves"), len(texts[0].train)
    parts = curves.unlabelled_parts(unlabeled_files, num_labelled, folder)
    jobs, points = {}, {}
    for share in curves.SHARES:
        data_dirs = [curves.labelled_part(setting.data_dir, share, os.path.join(
            folder, "labels_%d" % round(100 * share), "fold_%d" % fold)) for fold, setting in enumerate(settings, 1)]
        for multiple in parts:
            name = curves.name_of(share, multiple)
            points[name] = {"share": share, "multiple": multiple, "unlabelled": multiple * num_labelled}
            jobs[name] = rows.ROWS["paper"].steps, [
                setting._replace(data_dir=data_dir, cache="", unlabeled=",".join(parts[multiple]))
                for setting, data_dir in zip(settings, data_dirs)]
    for name, trained in _train(values, output_dir, jobs, seeds).items():
        line = table_lines.line_of(name, name, table_lines.answers_of(trained, seeds), texts, {})
        points[name].update({figure: line[figure] for figure in (
            "accuracy_mean", "accuracy_sd", "macro_f1_mean", "macro_f1_sd")})
    return list(points.values())


if __name__ == "__main__":
    command.run(main, define_flags, writes="output_dir")
