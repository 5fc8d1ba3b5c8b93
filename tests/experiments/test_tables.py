import json
import os
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from experiments import cells
from experiments import folds
from experiments import preparation
from experiments import rows
from experiments import table_lines
from experiments import table_report
from experiments import tables
from tests import commands
from tests import graphs
from tests import tiny
from training import files
from training import run_folder
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2

LABELS = ["a", "b"] * 50


def texts(number=100):
    return [types.SimpleNamespace(test_labels=LABELS[:number], train=["x"] * 8)]


def wrong(number):
    """Answers of which the last so many are wrong."""
    right = len(LABELS) - number
    return LABELS[:right] + ["b" if label == "a" else "a" for label in LABELS[right:]]


def test_curves_are_drawn_up_to_where_a_run_was_killed(tmp_path):
    with tf.Graph().as_default(), tf.summary.FileWriter(str(tmp_path)) as writer:
        for step in range(5):
            writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag="hidden_1", simple_value=step)]), step)
    events, = tmp_path.iterdir()
    events.write_bytes(events.read_bytes()[:-5])
    assert [event.step for event in table_report._events(str(events)) if event.summary.value] == [0, 1, 2, 3]
    picture = str(tmp_path / "curves.png")
    assert table_report._curves(str(tmp_path), picture) and os.path.getsize(picture)


def line(name, *answers, **more):
    return table_lines.line_of(name, name, list(answers), texts(), dict(more, parameters=1))


def compared(teacher, plain, paper):
    lines = [line("teacher", teacher), line("none", plain, tables=["methods"]),
             line("paper", paper, tables=["methods", "ablations"], folder="", commands=[])]
    return dict(table_lines.compare(lines, texts()), seeds=[1], folds=1, curves=[])


def test_mean_and_deviation_are_over_seeds():
    found = line("paper", wrong(10), wrong(20), wrong(30))
    assert found["accuracy_mean"] == pytest.approx(0.8) and found["accuracy_sd"] == pytest.approx(0.1)
    assert line("paper", wrong(10))["accuracy_sd"] == 0.0


def test_gap_and_share_of_the_teacher_are_those_of_the_means():
    found = {one["name"]: one for one in compared(wrong(10), wrong(30), wrong(15))["lines"]}
    assert found["paper"]["gap_closed"] == pytest.approx(0.75)
    assert found["paper"]["of_teacher"] == pytest.approx(0.85 / 0.9)
    assert "gap_closed" not in found["none"] and "gap_closed" not in found["teacher"]


@pytest.mark.parametrize("paper, verdict", [(10, "better"), (50, "worse"), (31, "no difference shown")])
def test_better_is_said_only_where_resampling_holds_it(paper, verdict):
    sentences = table_report.conclusions(compared(wrong(5), wrong(30), wrong(paper)))
    assert [one for one in sentences if one.startswith("paper")][0].endswith(": %s." % verdict)


def test_a_teacher_no_better_than_the_plain_student_is_no_evidence():
    results = compared(wrong(30), wrong(30), wrong(20))
    assert not results["evidence"] and any("No evidence" in one for one in table_report.conclusions(results))
    assert [one["gap_closed"] for one in results["lines"] if one["name"] == "paper"] == [None]
    assert "No evidence" not in " ".join(table_report.conclusions(compared(wrong(5), wrong(30), wrong(20))))


def test_a_label_no_text_has_counts_as_wrong():
    found = compared(wrong(10), wrong(30), ["c"] * len(LABELS))
    assert [one["accuracy_mean"] for one in found["lines"]] == [0.9, 0.7, 0.0]


def test_the_trial_that_is_best_on_dev_is_the_cells(tmp_path, monkeypatch):
    dev = {"rate_1e-3": 0.7, "rate_3e-3": 0.9, "rate_1e-2": 0.8}

    def run(steps, folder, seed):
        name = os.path.basename(folder)
        path = os.path.join(folder, "run", "best", "figures.json")
        files.write_json(path, {"accuracy": dev[name], "loss": dev[name]})
        return [["command", name, str(seed)]]

    monkeypatch.setattr(cells, "_run_steps", run)
    for select_by, best in (("accuracy", "rate_3e-3"), ("loss", "rate_1e-3")):
        found = cells.train_cell(cells.Cell("paper", 2, 0), str(tmp_path), lambda _: [], dict.fromkeys(dev),
                                 select_by)
        assert found["trial"] == best and found["tried"] == dev and found["commands"] == [["command", best, "2"]]
        assert found["folder"].endswith("cells/paper/seed_2/fold_1/%s/run" % best)


def test_a_cell_that_is_done_is_not_trained_again_and_time_left_is_told(tmp_path, capsys):
    trained, all_cells = [], [cells.Cell(name, 1, 0) for name in ("none", "paper", "pkd")]

    def train(cell):
        trained.append(cell.row)
        if cell.row == "pkd" and len(trained) == 3:
            raise KeyboardInterrupt
        return {"seconds": 100}

    with pytest.raises(KeyboardInterrupt):
        cells.run_all(all_cells, str(tmp_path), train)
    assert len(cells.run_all(all_cells, str(tmp_path), train)) == 3
    assert trained == ["none", "paper", "pkd", "pkd"]
    told = [text for text in capsys.readouterr().out.splitlines() if text.startswith("==")]
    assert told[0] == "== cell 1/3  none, seed 1, fold 1  left: unknown"
    assert told[-1] == "== cell 3/3  pkd, seed 1, fold 1  left: 2 min"


@pytest.fixture
def setting(tmp_path):
    teacher = {"model_type": "bert", "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 6,
               "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 32}
    files.write_json(str(tmp_path / "teacher" / "config.json"), teacher)
    student = tiny.write_model(tmp_path / "student.json", tiny.STUDENT, 50)
    os.mkdir(str(tmp_path / "data"))
    files.write_text(str(tmp_path / "data" / "train.csv"), "label,text_a\n")
    return rows.Setting(str(tmp_path / "data"), str(tmp_path / "teacher"), student, str(tmp_path / "out"),
                        ["--num_train_steps=5", "--learning_rate=1e-3"], "t.txt", "0.25", "corpus.tfrecord",
                        ["--num_train_steps=7"], "pretrained", "cache")


@pytest.mark.parametrize("name", [name for name in rows.ROWS if name != "words"])
def test_every_row_ends_in_a_run_of_a_distillation_with_all_that_rows_share(name, setting):
    steps = rows.ROWS[name].steps(setting)
    folder, arguments = steps[-1]
    assert folder == "run" and arguments[:2] == ["run_distill.py", "--task=classification"]
    assert "--num_train_steps=5" in arguments and "--learning_rate=1e-3" in arguments
    assert all("--random_seed={seed}" in arguments for _, arguments in steps)
    assert [argument for argument in arguments if argument.startswith("--unlabeled_file=t.txt")]
    assert rows.ROWS[name].tables


LIVE = {"logits_words", "augment", "assistant", "tinybert", "theseus", "etd", "transformer"}


@pytest.mark.parametrize("name", [name for name in rows.ROWS if name != "words"])
def test_rows_that_need_no_more_of_the_teacher_read_its_cache(name, setting):
    assert ("--teacher_cache=cache" in rows.ROWS[name].steps(setting)[-1][1]) == (name not in LIVE)
    assert "cache" not in " ".join(rows.ROWS[name].steps(setting._replace(cache=""))[-1][1])


@pytest.mark.parametrize("name", ["mlm", "mlm_logits", "paper_corpus"])
def test_rows_that_learn_on_the_corpus_first_go_on_from_there(name, setting):
    (folder, first), (_, last) = rows.ROWS[name].steps(setting)
    assert folder == "corpus" and first[:3] == ["run_distill.py", "--task=masked_lm", "--input_file=corpus.tfrecord"]
    assert "--teacher_checkpoint=pretrained" in first and "--num_train_steps=7" in first
    assert "--init_checkpoint={cell}/corpus" in last
    method = "--method=" + name.replace("_corpus", "")
    assert method in first and method in last


def test_the_student_on_words_has_a_vocabulary_of_its_own_and_the_teachers_lengths(setting, tmp_path):
    files.write_text(os.path.join(setting.teacher, "text.json"), '{"max_seq_length": 31, "truncation": "tail"}')
    (_, first), (folder, train) = rows.ROWS["words"].steps(setting)
    assert first[:2] == ["-m", "tasks.word_vocabulary"]
    files.write_text(str(tmp_path / "words.txt"), "[PAD]\n[UNK]\nword\n")
    arguments = train(str(tmp_path))
    assert folder == "run" and arguments[0] == "run_classifier.py"
    assert {"--max_seq_length=31", "--truncation=tail", "--num_train_steps=5"} < set(arguments)
    config = files.read_json(str(tmp_path / "words.json"))
    assert config["vocab_size"] == 3 and config["hidden_dropout_prob"] == 0.25


def test_a_cells_commands_know_its_folder_and_seed_and_what_was_made_before(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(cells, "run", ran.append)
    folder = str(tmp_path / "cell")
    found = cells._run_steps([("a.txt", ["first", "--random_seed={seed}"]), ("run", lambda place: [
        "second", str(len(ran)), place, "--init_checkpoint={cell}/a", "--do_train"])], folder, 7)
    assert found == ran == [
        ["first", "--random_seed=7", "--output_file=%s/a.txt" % folder],
        ["second", "1", folder, "--init_checkpoint=%s/a" % folder, "--do_train", "--output_dir=%s/run" % folder]]


def test_the_teacher_that_rewords_texts_is_the_pretrained_one(setting):
    (_, first), _ = rows.ROWS["augment"].steps(setting)
    assert "--teacher_checkpoint=pretrained" in first and "--method=masked_lm" in first


def test_rows_that_need_what_is_not_there_are_left_out_or_refused():
    nothing, all_ = {"pretrained": "", "corpus": ""}, {"pretrained": "x", "corpus": "y"}
    assert set(rows.ROWS) - set(tables.read_rows_flag([], nothing)) == {"mlm", "mlm_logits", "augment", "paper_corpus"}
    assert tables.read_rows_flag([], all_) == list(rows.ROWS)
    with pytest.raises(UserError, match="row mlm needs --input_file and --pretrained_checkpoint"):
        tables.read_rows_flag(["mlm"], nothing)
    assert tables.read_rows_flag(["augment"], dict(nothing, pretrained="x")) == ["none", "augment"]


def student_of(name, setting):
    _, arguments = rows.ROWS[name].steps(setting)[-1]
    return files.read_json([text for text in arguments if text.startswith("--student_config_file=")][0].split("=")[1])


@pytest.mark.parametrize("name, layers, width, heads", [
    ("tinybert", 3, 12, 4), ("theseus", 3, 24, 4), ("etd", 3, 24, 4), ("transformer", 2, 128, 2)])
def test_a_transformer_student_has_the_size_its_method_needs(name, layers, width, heads, setting):
    found = student_of(name, setting)
    assert (found["num_hidden_layers"], found["hidden_size"], found["num_attention_heads"]) == (layers, width, heads)
    assert found["intermediate_size"] == 2 * width and found["vocab_size"] == 50


@pytest.mark.parametrize("name", ["paper", "tinybert"])
@pytest.mark.parametrize("dropout", ["0.25", ""])
def test_the_dropout_that_is_tried_is_every_students(name, dropout, setting):
    found = student_of(name, setting._replace(dropout=dropout))
    of_student = [value for key, value in found.items() if key.endswith("dropout_prob")]
    assert len(of_student) == (2 if name == "tinybert" else 3) and set(of_student) == {0.25 if dropout else 0.1}


def test_the_teacher_labels_every_text_in_its_order_and_once(tmp_path):
    asked = []

    class Teacher:
        def predict(self, texts):
            asked.extend(texts)
            return [types.SimpleNamespace(label=text.upper()) for text in texts]

    given = ["t%d" % number for number in range(2 * table_lines.TAUGHT_AT_ONCE + 3)]
    for _ in range(2):
        assert table_lines.teachers_labels(Teacher(), given, str(tmp_path)) == [text.upper() for text in given]
    assert asked == given


@pytest.fixture(scope="module")
def flags(world, teacher_classifier, tmp_path_factory):
    return ["--data_dir=" + world.task, "--teacher_checkpoint=" + teacher_classifier.folder,
            "--student_config_file=" + world.student, "--unlabeled_file=" + world.unlabeled, "--num_train_steps=4",
            "--save_checkpoints_steps=2", "--output_dir=%s" % (tmp_path_factory.mktemp("tables") / "out")]


def test_the_tables_are_made_of_real_runs_and_go_on_when_killed(flags, forks):
    command = ["experiments.tables", "--rows=no_hidden,theseus", "--learning_rates=1e-2", "--cache_teacher",
               "--curves"] + flags
    folder = flags[-1].split("=", 1)[1]
    # A teacher's folder in the place of the second cell's run stops it there.
    broken = os.path.join(folder, "cells", "theseus", "seed_1", "fold_1", "rate_1e-2")
    os.makedirs(os.path.dirname(broken))
    files.write_text(broken, "in the way")
    stopped = forks.run(*command)
    assert stopped.code == 1 and "the same command goes on when it is put right" in stopped.err
    before = commands.contents(os.path.join(folder, "cells", "none"))
    measured = commands.contents(folder)[table_lines.MEASURED]
    os.remove(broken)
    result = forks.run(*command)
    assert result.code == 0, result.err
    assert commands.contents(os.path.join(folder, "cells", "none")) == before
    assert commands.contents(folder)[table_lines.MEASURED] == measured
    results = json.loads(commands.read(folder, "results.json"))
    found = {one["name"]: one for one in results["lines"]}
    assert list(found) == list(table_report.ALWAYS) + ["none", "theseus", "no_hidden"]
    assert found["none"]["tables"] == ["methods", "ablations"] and found["no_hidden"]["parameters"] > 0
    assert "--hidden_weights=0" in found["no_hidden"]["commands"][0]
    assert [flag for flag in found["no_hidden"]["commands"][0] if flag.startswith("--teacher_cache=" + folder)]
    # There is less unlabelled than labelled text.
    assert [(point["share"], point["multiple"]) for point in results["curves"]] == [(0.1, 0), (1.0, 0)]
    assert all(0 < point["accuracy_mean"] <= 1 for point in results["curves"])
    for name in ("latency_ms_p50", "texts_per_second", "seconds", "megabytes"):
        assert found["theseus"][name] > 0
    assert np.sum(found["teacher"]["confusion"]) == results["test_texts"]
    other = forks.run(*command, "--num_train_steps=5")
    assert other.code == 1 and "begun with num_train_steps=4, now it is 5" in other.err
    report, page = commands.read(folder, "report.md"), commands.read(folder, "report.html")
    for one in results["lines"]:
        assert one["title"] in report and one["title"] in page and "%.4f" % one["accuracy_mean"] in page
    assert "--hidden_weights=0" in page and "<table>" in page
    assert "| 10 % | 0 (0x) | " in report
    assert page.count("data:image/png;base64,") == 3 and "src=\"latency.png\"" not in page


@pytest.mark.parametrize("given, message", [
    (["--rows=pakd"], "--rows=pakd: no row pakd; did you mean pkd?"),
    (["--seeds=1,x"], "--seeds=1,x: different numbers"), (["--seeds=1,1"], "--seeds=1,1: different numbers"),
    (["--learning_rates=1e-3,fast"], "--learning_rates=1e-3,fast: numbers above 0 and below 1"),
    (["--dropouts=1"], "--dropouts=1: numbers above 0 and below 1"),
    (["--student_config_file=/absent.json"], "--student_config_file=/absent.json: no such file"),
    (["--data_dir=/absent"], "--data_dir=/absent: no such"),
    (["--unlabeled_file=/absent.txt"], "--unlabeled_file=/absent.txt: no such")])
def test_what_cannot_be_run_is_told_before_anything_is(given, message, flags, forks, tmp_path):
    result = forks.run("experiments.tables", *flags[:-1], "--output_dir=%s" % (tmp_path / "new" / "out"), *given)
    assert result.code == 1 and message in result.err and len(result.err.splitlines()) == 1, result.err
    assert not os.listdir(str(tmp_path))


def test_a_teacher_for_each_fold_or_one_to_fine_tune_is_needed(world, teacher, teacher_classifier):
    def check(*teachers, **flags):
        values = types.SimpleNamespace(**dict(dict(
            data_dir=world.task, folds=0, teacher_checkpoint="t", teacher_flags="", learning_rates=["1"], dropouts=[],
            student_config_file=world.student), **flags))
        with pytest.raises(UserError) as error:
            tables.check(values, [world.task], list(teachers))
        return str(error.value)

    assert "1 folders, and there are 5 data folders or folds" in check(teacher_classifier.folder, folds=5)
    assert "is fine-tuned already; leave the flag out" in check(teacher_classifier.folder, teacher_flags="--x")
    assert "--learning_rates=1: numbers above 0" in check(teacher.folder, teacher_flags="--x", folds=5)
    both = "%s,%s" % (teacher_classifier.folder, teacher.folder)
    with pytest.raises(UserError, match="no labels.txt is in %s; either" % teacher.folder):
        tables.teachers_of(types.SimpleNamespace(teacher_checkpoint=both))
    prefix = os.path.join(teacher.folder, "best", "model.ckpt")
    assert tables.teachers_of(types.SimpleNamespace(teacher_checkpoint=prefix)) == [prefix]


def test_a_model_is_fine_tuned_for_each_fold_once(world, teacher, tmp_path, monkeypatch):
    ran = []

    def run(arguments):
        ran.append(arguments)
        run_folder.finish(arguments[3].split("=", 1)[1], {"steps": 1})

    monkeypatch.setattr(cells, "run", run)
    data_dirs = folds.make(world.task, str(tmp_path / "folds"), 3, seed=1)
    assert [os.path.basename(path) for path in data_dirs] == ["fold_1", "fold_2", "fold_3"]
    for _ in range(2):
        made = preparation.fine_tune([teacher.folder], data_dirs, str(tmp_path), "--learning_rate=2e-4 --num_gpus=0")
    assert [command[:3] + command[4:] for command in ran] == [
        ["run_classifier.py", "--data_dir=" + data_dir, "--init_checkpoint=" + teacher.folder, "--do_train",
         "--learning_rate=2e-4", "--num_gpus=0"] for data_dir in data_dirs]
    assert [command[3] for command in ran] == ["--output_dir=" + path for path in made]
