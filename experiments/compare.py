"""What distillation was worth: teacher, distilled student and plain student on the same test texts.

    python -m experiments.compare --data_dir=data --teacher=output/teacher_classifier \\
        --distilled=output/student_classifier --plain=output/plain
    python -m experiments.compare --data_dir='build/folds/fold_*' --teacher='output/fold_*/teacher' \\
        --distilled='output/fold_*/distilled' --plain='output/fold_*/plain'

The runs are run folders in which --do_predict was given, so that predictions.tsv is there, for the texts of
their --data_dir that are reported. With several data folders there are as many runs of each kind, in the same
(sorted) order, and the answers on all test texts are pooled. Prints accuracy and macro-F1, naive Bayes on the
same labels beside them, the gap that is closed and what difference so many texts could show.
"""

from absl import flags

from training import command
from experiments import baselines
from experiments import figures
from experiments import report
from tasks.classification_data import choose_splits
from training import files
from training.command import UserError

KINDS = {"teacher": "teacher", "student_distilled": "distilled", "student_plain": "plain"}


def define_flags():
    flags.DEFINE_string("data_dir", None, "Data folders, comma-separated, with * and ?.", required=True)
    for title, name in KINDS.items():
        flags.DEFINE_string(name, None, "Run folders of the %s, comma-separated, with * and ?."
                            % title.replace("_", ", "), required=True)
    flags.DEFINE_string("output_file", None, "JSON to write the figures to.")


def main():
    values = flags.FLAGS
    data_dirs = files.matching_files(values.data_dir, "data_dir")
    runs = {title: files.matching_files(values[name].value, name) for title, name in KINDS.items()}
    for title, name in KINDS.items():
        if len(runs[title]) != len(data_dirs):
            raise UserError("--%s=%s: %d run folders, and --data_dir names %d"
                            % (name, values[name].value, len(runs[title]), len(data_dirs)))
    results = measure(data_dirs, runs)
    if values.output_file:
        files.write_json(values.output_file, results)
    print(report.table(results))


def measure(data_dirs, runs):
    """Figures over the test texts of all data folders together.

    Args:
      data_dirs: list of folders.
      runs: dict of a name in `KINDS` -> list of run folders, as many and in the same order.

    Returns:
      dict of "models", "test_texts", "labelled_texts" and "distilled_over_plain", as in the demo's results.json,
      without latencies.

    Raises:
      UserError: predictions are missing, or not those of these texts.
    """
    labels, bayes, bayes_parameters, num_labelled = [], [], 0, 0
    for data_dir in data_dirs:
        splits = choose_splits(data_dir)
        train, test = figures.read_labelled(splits.train, splits.report)
        texts_of = [[text for _, text in rows] for rows in (train, test)]
        found = baselines.naive_bayes(texts_of[0], [label for label, _ in train], texts_of[1])
        labels += [label for label, _ in test]
        bayes += found.predictions
        bayes_parameters, num_labelled = max(bayes_parameters, found.parameters), num_labelled + len(train)
    models, predicted = [], {}
    for title, folders in runs.items():
        predicted[title] = [label for folder in folders for label in figures.predictions_in(folder)]
        if len(predicted[title]) != len(labels):
            raise UserError("%s: %d predictions, and the test files hold %d texts; give --do_predict with their "
                            "--data_dir" % (", ".join(folders), len(predicted[title]), len(labels)))
        models.append(figures.of_model(title, labels, predicted[title], figures.count_parameters(folders[0])))
    models.append(figures.of_model("naive_bayes", labels, bayes, bayes_parameters))
    return {"models": models, "test_texts": len(labels), "labelled_texts": num_labelled // len(data_dirs),
            "distilled_over_plain": figures.distilled_over_plain(labels, predicted)}


if __name__ == "__main__":
    command.run(main, define_flags)
