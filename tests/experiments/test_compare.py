import json

import pytest

from experiments import compare
from experiments import figures
from tests import commands
from tests import graphs
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2

TRUE = ["a", "a", "b", "b"]


def make_run(folder, predicted):
    folder.mkdir(parents=True)
    (folder / "predictions.tsv").write_text("label\ta\tb\n" + "".join("%s\t0\t0\n" % name for name in predicted))
    return str(folder)


@pytest.fixture
def data_dirs(tmp_path, monkeypatch):
    """Two folders of data, whose test texts have the labels `TRUE`."""
    monkeypatch.setattr(figures, "count_parameters", lambda folder: 7)
    folders = [tmp_path / name for name in ("data_1", "data_2")]
    for folder in folders:
        folder.mkdir()
        for name in ("train", "dev", "test"):
            rows = ["%s\t%s%d" % (label, label, number) for number, label in enumerate(TRUE)]
            (folder / (name + ".tsv")).write_text("\n".join(["label\ttext_a"] + rows) + "\n")
    return [str(folder) for folder in folders]


def test_answers_on_all_folds_are_pooled(data_dirs, tmp_path):
    def two(name, first, second):
        return [make_run(tmp_path / name / "1", first), make_run(tmp_path / name / "2", second)]

    results = compare.measure(data_dirs, {
        "teacher": two("teacher", TRUE, TRUE), "student_distilled": two("distilled", TRUE, ["a", "a", "b", "a"]),
        "student_plain": two("plain", ["b", "b", "b", "b"], TRUE)})
    accuracies = {model["name"]: model["accuracy"] for model in results["models"]}
    assert accuracies == {"teacher": 1.0, "student_distilled": 7 / 8, "student_plain": 6 / 8, "naive_bayes": 1.0}
    assert results["test_texts"] == 8 and results["labelled_texts"] == 4
    assert results["distilled_over_plain"]["difference"] == pytest.approx(1 / 8)


def test_a_label_no_text_has_is_wrong(data_dirs, tmp_path):
    wrong = make_run(tmp_path / "wrong", ["c"] * 4)
    results = compare.measure(data_dirs[:1], {name: [wrong] for name in compare.KINDS})
    assert [model["accuracy"] for model in results["models"]] == [0.0, 0.0, 0.0, 1.0]


def test_other_texts_predictions_are_refused(data_dirs, tmp_path):
    short = make_run(tmp_path / "short", TRUE[:3])
    with pytest.raises(UserError, match="3 predictions, and the test files hold 4 texts"):
        compare.measure(data_dirs[:1], {name: [short] for name in compare.KINDS})


def test_a_run_without_predictions_is_named(data_dirs, tmp_path):
    with pytest.raises(UserError, match="predictions.tsv: not there; .*--do_predict"):
        compare.measure(data_dirs[:1], {name: [str(tmp_path)] for name in compare.KINDS})


def test_the_command_tells_the_figures_of_runs(world, teacher_classifier, student_classifier, tmp_path, forks):
    written = tmp_path / "figures.json"
    result = forks.run("experiments.compare", "--data_dir=" + world.task, "--teacher=" + teacher_classifier.folder,
                       "--distilled=" + student_classifier.folder, "--plain=" + student_classifier.folder,
                       "--output_file=%s" % written)
    assert result.code == 0, result.err
    evaluated = json.loads(commands.read(student_classifier.folder, "eval.json"))
    models = json.loads(written.read_text())["models"]
    assert models[1]["accuracy"] == models[2]["accuracy"] == pytest.approx(evaluated["accuracy"])
    assert models[1]["macro_f1"] == pytest.approx(evaluated["macro_f1"])
    assert "student, distilled" in result.out


def test_as_many_runs_as_data_folders_are_needed(world, student_classifier, forks):
    folder = student_classifier.folder
    result = forks.run("experiments.compare", "--data_dir=" + world.task, "--teacher=%s,%s/best" % (folder, folder),
                       "--distilled=" + folder, "--plain=" + folder)
    assert result.code == 1 and "2 run folders, and --data_dir names 1" in result.err
