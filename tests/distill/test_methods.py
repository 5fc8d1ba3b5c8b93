import pytest
from absl import flags

import run_distill
from distill import layer_map
from distill import methods
from distill import schedule
from distill import terms
from training.command import UserError

NEEDED = ["--teacher_checkpoint=teacher", "--output_dir=out"]


def parsed(monkeypatch, *given):
    """run_distill's flags as given."""
    values = flags.FlagValues()
    for name in dir(flags):
        if name.startswith("DEFINE_") and name not in ("DEFINE_alias",):
            monkeypatch.setattr(flags, name, _defining_in(values, getattr(flags, name)))
    run_distill.define_flags()
    values(["run_distill.py"] + NEEDED + list(given))
    return values


def _defining_in(values, define):
    def defined(*args, **kwargs):
        return define(*args, flag_values=values, **kwargs)

    return defined


TASKS = [(name, task) for name, method in methods.METHODS.items()
         for task, part in (("masked_lm", method.corpus), ("classification", method.task)) if part is not None]


@pytest.mark.parametrize("name, task", TASKS)
def test_a_method_sets_flags_that_there_are_to_values_they_may_have(name, task, monkeypatch):
    values = parsed(monkeypatch, "--task=" + task)
    before = {flag: values[flag].value for flag in values}
    methods.apply(values, name, task)
    changed = {flag for flag in before if values[flag].value != before[flag]}
    method = methods.METHODS[name]
    asked = method.corpus if task == "masked_lm" else method.task
    assert changed <= set(asked) and {flag: values[flag].value for flag in asked} == asked
    for flag in changed:  # what the flag's own parser makes of the value is the value
        value = values[flag].value
        text = ",".join(value) if isinstance(value, list) else str(value)
        assert values[flag].parser.parse(text) == value, flag
    assert values.layer_map in layer_map.PRESETS and values.strategy in schedule.STRATEGIES


@pytest.mark.parametrize("name, task", TASKS)
def test_a_method_learns_something_and_each_of_its_terms_in_some_stage(name, task, monkeypatch):
    values = parsed(monkeypatch, "--task=" + task)
    methods.apply(values, name, task)
    weighted = [term for term in terms.TERMS if term != "hidden" and getattr(values, term + "_weight")]
    weighted += ["hidden"] if any(float(weight) for weight in values.hidden_weights) else []
    assert weighted
    stages = schedule.read(values.strategy)
    for term in weighted:
        assert any(stage.has(term) for stage in stages), term


def test_a_flag_that_is_given_wins_over_the_method(monkeypatch):
    values = parsed(monkeypatch, "--task=classification", "--patience_weight=3", "--layer_map=deep")
    methods.apply(values, "pkd", "classification")
    assert (values.patience_weight, values.layer_map, values.embedding_weight) == (3.0, "deep", 0.0)


def test_the_paper_is_the_default(monkeypatch):
    assert methods.METHODS["paper"].corpus == methods.METHODS["paper"].task == {}


@pytest.mark.parametrize("name, task, message", [
    ("tinybret", "classification", "--method=tinybret: must be one of none, mlm"),
    ("pkd", "masked_lm", "--method=pkd: it learns nothing on a corpus; give --task=classification")])
def test_what_is_no_method_is_refused(name, task, message, monkeypatch):
    values = parsed(monkeypatch, "--task=" + task)
    with pytest.raises(UserError, match=message):
        methods.apply(values, name, task)


def test_every_method_is_described():
    lines = methods.describe().splitlines()
    assert [line.split()[0] for line in lines] == list(methods.METHODS)
