"""Whole runs of several stages, small enough to look at every update."""

import functools
import json
import types

import numpy as np
import pytest

from bert import checkpoints
from distill import recipe
from distill import schedule
from distill.teacher import Teacher
from tasks import measuring
from tasks import models
from tasks import runs
from tests import batches
from tests import graphs
from training import files
from training.command import UserError

pytestmark = graphs.ON_REFERENCE

TASK = batches.TASKS["classification"]
STUDENT = batches.bilstm(layers=1, dropout=0.3)
TEACHER = batches.bert(layers=1)
FLAGS = dict(
    task="classification", teacher_checkpoint="teacher", layer_map="1:1", embedding_weight=1.0,
    hidden_weights=["1"], prediction_weight=1.0, label_weight=None, temperature=1.0, balance_terms=False,
    strategy="three_stage", stage_steps=["2", "4", "4"], stage_learning_rates=[], unfreeze_steps=1, early_stopping=0,
    train_batch_size=8, eval_batch_size=8, learning_rate=1e-2, num_train_steps=None, num_train_epochs=1.0,
    num_warmup_steps=0, warmup_proportion=0.0, weight_decay_rate=0.1, clip_norm=1.0, gradient_accumulation_steps=1,
    bias_correction=False, replacing_base=0.5, save_checkpoints_steps=1, random_seed=3, log_steps=1,
    do_train=True, select_by="accuracy", num_gpus=0, num_cpu_replicas=1, use_bf16=False, use_fp16=False, use_xla=False,
    profile=0, freeze_encoder=None, perturbation=0.0,
    **{name + "_weight": 0.0 for name in ("hard_label", "logit_mse", "cosine", "token_similarity", "text_similarity",
                                          "contrast", "patience", "attention")})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "model.ckpt"
    return Teacher(TEACHER, batches.save_model(path, TEACHER, TASK)[0], ())


@pytest.fixture(scope="module")
def record_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    texts = batches.texts(all_labelled=True)
    labelled, others, dev = (batches.write(folder / name, part) for name, part in (
        ("labelled", texts[:8]), ("others", texts[8:]), ("dev", batches.texts(seed=8, all_labelled=True))))
    return recipe.Files([labelled], [others], [dev])


class Killed(BaseException):
    """Ends a process where it stands."""


class Run:
    """Runs of a recipe in one folder.

    Attributes:
      weights: dict of step -> variables of the checkpoint saved there.
    """

    def __init__(self, folder, teacher, record_files, monkeypatch, **flags):
        self.folder, self.weights, self._kill_at = str(folder), {}, None
        folder.mkdir(exist_ok=True)
        (folder / "vocab.txt").write_text("[PAD]\n")
        self._values = types.SimpleNamespace(**dict(FLAGS, output_dir=str(folder / "run"), **flags))
        self._model = models.Model(STUDENT, None, checkpoints.NO_FILES._replace(
            vocab_file=str(folder / "vocab.txt"), config_file="student.json"), None)
        self._teacher, self._files = teacher, record_files
        monkeypatch.setattr(measuring, "answering", functools.partial(self._answering, measuring.answering))

    def _answering(self, answering, *arguments):
        answer = answering(*arguments)

        def noting(checkpoint):
            step = int(checkpoint.rsplit("-", 1)[1])
            self.weights[step] = graphs.weights_in(checkpoint)
            if step == self._kill_at:
                raise Killed
            return answer(checkpoint)

        return noting

    def plans(self):
        _, make_plans = recipe.read(self._values, self._teacher, self._model)
        return make_plans(TASK, self._files)

    def train(self, kill_at=None):
        self._kill_at = kill_at
        plans = self.plans()
        run = runs.Run(None, ["/cpu:0"], {})
        runs.train(self._values, run, self._model, TASK, self._files.labelled + self._files.others,
                   self._files.selecting, plans)

    def moved(self, step):
        """Where what changed in an update stands: set of `schedule.depth_of` of the student's variables."""
        before, after = self.weights[step - 1], self.weights[step]
        return {schedule.depth_of(name) for name in after
                if name.startswith(("student/", "output_")) and not np.array_equal(before[name], after[name])}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, teacher, record_files):
    patch = pytest.MonkeyPatch()
    run = Run(tmp_path_factory.mktemp("unbroken"), teacher, record_files, patch)
    run.train()
    patch.undo()
    return run


ALL = {0, 1, schedule.HEAD}
# By update, from the second: stages of 2, 4 and 4 updates, the last two thawing with every update.
MOVED = [{0, 1}] + 2 * [{schedule.HEAD}, {1, schedule.HEAD}, ALL, ALL]


def test_in_every_update_exactly_what_is_not_frozen_changes(unbroken):
    # Checkpoint 0 is not measured, so the first update is not seen.
    assert [unbroken.moved(step) for step in range(2, 11)] == MOVED


def test_moments_of_what_is_frozen_stay_as_they_were(unbroken):
    for step in (3, 7):  # the first updates of the stages that thaw
        before, after = unbroken.weights[step - 1], unbroken.weights[step]
        for name in after:
            if name.startswith("student/") and "/adam_" in name:
                assert np.array_equal(before[name], after[name]), name


def test_each_stage_trains_its_own_terms_alone(unbroken):
    """Projections belong to the representation, the head to the answers and labels."""
    def changed(name, step):
        return not np.array_equal(unbroken.weights[step - 1][name], unbroken.weights[step][name])

    for step in range(2, 11):
        assert changed("distill/hidden_1/kernel", step) == (step <= 2)
        assert changed("output_weights", step) == (step > 2)


def test_the_end_of_each_stage_is_noted(unbroken):
    assert files.read_json(unbroken.folder + "/run/stages.json") == [
        {"name": name, "step": step, "reason": "all steps made"}
        for name, step in (("representation", 2), ("answers", 6))]
    assert files.read_json(unbroken.folder + "/run/finished.json")["steps"] == 10


def test_a_run_killed_while_it_thaws_ends_with_the_weights_of_an_unbroken_one(
        unbroken, teacher, record_files, tmp_path, monkeypatch):
    run = Run(tmp_path, teacher, record_files, monkeypatch)
    with pytest.raises(Killed):
        run.train(kill_at=4)
    run.train()
    assert sorted(run.weights) == list(range(1, 11))
    assert graphs.largest_difference(run.weights[10], unbroken.weights[10]) < 1e-6


def test_stages_have_their_own_rates(teacher, record_files, tmp_path, monkeypatch):
    run = Run(tmp_path, teacher, record_files, monkeypatch, stage_learning_rates=["1e-2", "1e-9", "1e-2"],
              stage_steps=["1", "1", "1"], unfreeze_steps=0)
    run.train()
    moved = [max(np.abs(after - before).max() for name, after in run.weights[step].items()
                 for before in [run.weights[step - 1][name]] if name.startswith("student/") and "adam" not in name)
             for step in (2, 3)]
    assert moved[0] < 1e-7 and moved[1] > 1e-3


def test_texts_without_labels_are_left_out_where_only_labels_are_learnt(teacher, record_files, tmp_path, monkeypatch):
    run = Run(tmp_path, teacher, record_files, monkeypatch)
    assert [len(plan.files) for plan in run.plans()] == [2, 2, 1]


def test_a_stage_of_states_stops_by_its_own_loss_on_dev(teacher, record_files, tmp_path, monkeypatch):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"stages": [
        {"name": "states", "terms": ["states"], "early_stopping": 1, "num_steps": 6},
        {"name": "answers", "terms": ["answers"], "num_steps": 1}]}))
    run = Run(tmp_path, teacher, record_files, monkeypatch, strategy=str(path), stage_steps=[])
    losses = {1: 3.0, 2: 2.0, 3: 2.5}
    monkeypatch.setattr(recipe.measure, "term_means", lambda distillation, input_fn, checkpoint: {
        "hidden_1": losses[int(checkpoint.rsplit("-", 1)[1])]})
    run.train()
    assert files.read_json(run.folder + "/run/stages.json") == [
        {"name": "states", "step": 3, "reason": "early stopping"}]
    assert max(run.weights) == 4


def test_balanced_terms_begin_with_what_their_weights_say_and_are_kept(
        teacher, record_files, tmp_path, monkeypatch, capsys):
    run = Run(tmp_path, teacher, record_files, monkeypatch, balance_terms=True, strategy="joint", stage_steps=["3"],
              embedding_weight=4.0, hidden_weights=["2"], label_weight=0.0, num_train_steps=3)
    with pytest.raises(Killed):
        run.train(kill_at=1)
    weights = files.read_json(run.folder + "/run/balance.json")["joint"]
    told = capsys.readouterr().out.split("begins with ")[1].split("\n")[0].split("  ")
    means = {part.split()[0]: float(part.split()[1]) for part in told}
    assert set(means) == {"embedding", "hidden_1", "prediction"}
    for name, weight in (("embedding", 4.0), ("hidden_1", 2.0), ("prediction", 1.0)):
        assert weights[name] * means[name] == pytest.approx(weight, rel=1e-3)
    monkeypatch.setattr(recipe.measure, "term_means", None)  # a run that goes on does not measure again
    run.train()
    assert files.read_json(run.folder + "/run/balance.json")["joint"] == weights


def test_terms_are_measured_once_a_stage_however_often_it_thaws(teacher, record_files, tmp_path, monkeypatch, capsys):
    run = Run(tmp_path, teacher, record_files, monkeypatch, balance_terms=True, stage_steps=["1", "3", "1"])
    run.train()
    told = [line.split()[1] for line in capsys.readouterr().out.splitlines() if " begins with " in line]
    assert told == ["representation", "answers", "labels"]


def test_a_stage_without_a_weighted_term_is_left_out_and_named(teacher, record_files, tmp_path, monkeypatch, capsys):
    run = Run(tmp_path, teacher, record_files, monkeypatch, label_weight=0.0)
    assert [plan.name for plan in run.plans()] == ["representation", "answers"]
    assert "stage labels: no term of it has a weight; left out" in capsys.readouterr().out


@pytest.mark.parametrize("flags, message", [
    ({"stage_steps": ["3", "4"]}, "--stage_steps=3,4: a number above 0 for each of the 3 stages of "
                                  "--strategy=three_stage is needed (representation, answers, labels)"),
    ({"stage_steps": ["3", "x", "1"]}, "--stage_steps=3,x,1: a number above 0"),
    ({"stage_learning_rates": ["1", "0", "1"]}, "--stage_learning_rates=1,0,1: a number above 0"),
    ({"strategy": "two"}, "--strategy=two: no such file"),
    ({"strategy": "theseus", "stage_steps": [], "freeze_encoder": True, "embedding_weight": 0.0,
      "hidden_weights": ["0"]}, "--freeze_encoder: stages of --strategy=theseus train the student's layers alone"),
    ({"strategy": "theseus", "stage_steps": [], "perturbation": 0.1}, "--perturbation=0.1: not in stages of "),
    ({"strategy": "theseus", "stage_steps": []}, "both models must be BERTs, and one is a bilstm"),
    ({"embedding_weight": 0.0, "hidden_weights": ["0"], "prediction_weight": 0.0, "label_weight": 0.0},
     "all are 0, and so are those of the other terms")], ids=str)
def test_what_does_not_fit_is_refused(flags, message, teacher, record_files, tmp_path, monkeypatch):
    run = Run(tmp_path, teacher, record_files, monkeypatch, **flags)
    with pytest.raises(UserError) as error:
        run.plans()
    assert message in str(error.value)


def test_a_gradual_stage_that_does_not_teach_the_head_is_refused(teacher, record_files, tmp_path, monkeypatch):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"stages": [{"name": "texts", "terms": ["text_similarity", "prediction"],
                                            "gradual": True}]}))
    flags = dict(strategy=str(path), stage_steps=[], text_similarity_weight=1.0, prediction_weight=0.0)
    with pytest.raises(UserError, match=r"stage texts is gradual, .* \(text_similarity\) none teaches it"):
        Run(tmp_path / "refused", teacher, record_files, monkeypatch, **flags).plans()
    Run(tmp_path / "frozen", teacher, record_files, monkeypatch, **dict(flags, unfreeze_steps=0)).plans()
    Run(tmp_path / "taught", teacher, record_files, monkeypatch, **dict(flags, prediction_weight=1.0)).plans()


def test_too_few_updates_for_all_stages_are_refused(teacher, record_files, tmp_path, monkeypatch):
    run = Run(tmp_path, teacher, record_files, monkeypatch, stage_steps=[], num_train_steps=2)
    with pytest.raises(UserError, match="--num_train_steps=2: nothing is left for stage labels"):
        run.train()
