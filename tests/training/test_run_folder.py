import json
import os

import pytest

from training import files
from training import run_folder
from training.command import UserError

SETTINGS = {"learning_rate": 0.1, "num_train_steps": 9, "hidden_weights": ["1", "2"], "init_layers": "",
            "labels": None, "model": {"hidden_size": 8}}


def test_a_new_run_leaves_its_settings_and_files(tmp_path):
    folder = str(tmp_path / "out" / "run")
    run_folder.begin(folder, SETTINGS, {"vocab.txt": "字\n".encode("utf-8"), "config.json": b"{}"})
    assert sorted(os.listdir(folder)) == ["config.json", "run.json", "vocab.txt"]
    assert files.read_json(os.path.join(folder, "run.json")) == SETTINGS
    assert files.read_lines(os.path.join(folder, "vocab.txt")) == ["字"]


def test_a_run_that_goes_on_leaves_its_files_as_they_are(tmp_path):
    run_folder.begin(str(tmp_path), SETTINGS, {"vocab.txt": b"a\n"})
    run_folder.begin(str(tmp_path), dict(SETTINGS), {"vocab.txt": b"b\n", "more.txt": b""})
    assert (tmp_path / "vocab.txt").read_text() == "a\n" and not (tmp_path / "more.txt").exists()


def test_a_vocabulary_in_which_one_character_is_another_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("字\n")
    settings = dict(SETTINGS, vocabulary=files.digest(str(tmp_path / "vocab.txt")))
    run_folder.begin(str(tmp_path), settings, {})
    run_folder.begin(str(tmp_path), settings, {})
    (tmp_path / "vocab.txt").write_text("学\n")
    with pytest.raises(UserError, match="vocab.txt: damaged: not the vocabulary that the run was begun with"):
        run_folder.begin(str(tmp_path), settings, {})


@pytest.mark.parametrize("name, value, told", [
    ("learning_rate", 0.2, "learning_rate=0.1, now it is 0.2"), ("labels", "x", "labels=None, now it is x"),
    ("hidden_weights", ["1"], "hidden_weights=['1', '2'], now it is ['1']")])
def test_other_settings_are_refused_in_one_line_that_names_the_flag(name, value, told, tmp_path):
    run_folder.begin(str(tmp_path), SETTINGS, {})
    with pytest.raises(UserError) as error:
        run_folder.begin(str(tmp_path), dict(SETTINGS, **{name: value}), {})
    assert str(error.value) == ("--output_dir=%s: the run there was begun with %s; give that value to go on with "
                                "it, or another --output_dir" % (tmp_path, told))
    assert files.read_json(str(tmp_path / "run.json")) == SETTINGS


def test_a_setting_that_is_new_or_gone_is_refused_too(tmp_path):
    run_folder.begin(str(tmp_path), SETTINGS, {})
    with pytest.raises(UserError, match="begun with temperature=None, now it is 2"):
        run_folder.begin(str(tmp_path), dict(SETTINGS, temperature=2), {})
    fewer = dict(SETTINGS)
    del fewer["learning_rate"]
    with pytest.raises(UserError, match="begun with learning_rate=0.1, now it is None"):
        run_folder.begin(str(tmp_path), fewer, {})


def test_a_run_that_was_killed_while_it_began_begins_again(tmp_path):
    with pytest.raises(TypeError):
        run_folder.begin(str(tmp_path), SETTINGS, {"config.json": b"{}", "vocab.txt": None})
    assert not (tmp_path / "run.json").exists()
    run_folder.begin(str(tmp_path), dict(SETTINGS, learning_rate=0.2), {"config.json": b"[]", "vocab.txt": b"a\n"})
    assert (tmp_path / "config.json").read_text() == "[]" and (tmp_path / "vocab.txt").read_text() == "a\n"


def test_a_run_is_finished_when_its_last_file_is_there(tmp_path):
    assert run_folder.finished(str(tmp_path)) is None
    run_folder.finish(str(tmp_path), {"steps": 9, "reason": "all steps made"})
    assert run_folder.finished(str(tmp_path)) == {"steps": 9, "reason": "all steps made"}
    assert json.loads((tmp_path / "finished.json").read_text())["steps"] == 9


def test_the_figures_of_the_best_are_those_beside_it(tmp_path):
    assert run_folder.best_figures(str(tmp_path)) is None
    files.write_json(str(tmp_path / "best" / "figures.json"), {"step": 4, "thresholds": [0.5]})
    assert run_folder.best_figures(str(tmp_path)) == {"step": 4, "thresholds": [0.5]}
