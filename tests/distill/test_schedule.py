import json

import pytest
import tensorflow.compat.v1 as tf

from distill import schedule
from distill import terms
from distill.schedule import Stage
from tasks.encoders import build_encoder
from tests import batches
from tests import graphs
from training.command import UserError


MAP = [(1, 1), (2, 3)]
WEIGHTS = {"embedding": 1.0, "hidden_1": 2.0, "hidden_2": 3.0, "prediction": 4.0, "label": 5.0, "cosine": 0.0,
           "logit_mse": 6.0}


def of_strategy(name):
    """List over stages of the terms that count."""
    return [list(schedule.weights_of(stage, WEIGHTS, MAP)) for stage in schedule.read(name)]


def test_the_strategies_learn_what_the_paper_says_when_it_says():
    states, answers = ["hidden_1", "hidden_2"], ["prediction", "logit_mse"]
    assert of_strategy("joint") == [["embedding"] + states + ["prediction", "label", "logit_mse"]]
    assert of_strategy("two_stage") == [["embedding"] + states, ["prediction", "label", "logit_mse"]]
    assert of_strategy("three_stage") == [["embedding"] + states, answers, ["label"]]
    assert of_strategy("layerwise") == [["embedding"], states, answers, ["label"]]


def test_every_term_is_in_a_stage_of_every_strategy_once():
    for name in ("joint", "two_stage", "three_stage", "layerwise"):
        stages = schedule.read(name)
        assert [sum(stage.has(term) for stage in stages) for term in terms.TERMS] == [1] * len(terms.TERMS), name


def test_a_stage_may_name_single_terms():
    stage = Stage("mine", ["hidden", "label"])
    assert schedule.weights_of(stage, WEIGHTS, MAP) == {"hidden_1": 2.0, "hidden_2": 3.0, "label": 5.0}


def test_stages_thaw_from_the_top():
    found = schedule.phases(2, 5, 100)
    assert [start for start, _ in found] == [0, 5, 10, 15]
    names = ["output_weights", "distill/hidden_1/kernel", "student/layer_2/forward/kernel",
             "student/layer_1/backward/bias", "student/embeddings/word_embeddings"]
    assert [[trains(name) for name in names] for _, trains in found] == [
        [True, True, False, False, False], [True, True, True, False, False],
        [True, True, True, True, False], [True] * 5]


@pytest.mark.parametrize("unfreeze_steps, num_steps, starts", [
    (None, 100, [0, 10, 20, 30]), (None, 5, [0, 1, 2, 3]), (4, 9, [0, 4, 8]), (4, 8, [0, 4]), (0, 9, [0])])
def test_a_stage_thaws_as_often_as_it_is_long(unfreeze_steps, num_steps, starts):
    assert [start for start, _ in schedule.phases(2, unfreeze_steps, num_steps)] == starts


@pytest.mark.parametrize("config, top", [
    (batches.bilstm(layers=2), 2), (batches.bert(layers=2), 2), (batches.electra(layers=2), 2),
    (batches.albert(layers=2), 1)], ids=lambda value: getattr(value, "model_type", None))
def test_every_variable_of_an_encoder_has_a_place(config, top):
    def build():
        encoder = build_encoder(config, False, batches.features(batches.texts()))
        encoder.get_pooled_output()
        return {variable.op.name: tf.constant(0) for variable in tf.trainable_variables()}

    depths = {name: schedule.depth_of(name) for name in graphs.run(build)}
    assert set(depths.values()) - {schedule.HEAD} == set(range(top + 1))
    assert {name for name, depth in depths.items() if depth == schedule.HEAD} == {
        name for name in depths if "/pooler/" in name}
    assert all(depth == 0 for name, depth in depths.items() if "word_embeddings" in name)


@pytest.mark.parametrize("values, message", [
    ({"stages": []}, "no stage"),
    ({"stages": [{"name": "a", "terms": []}, {"name": "a", "terms": []}]}, "two stages have one name"),
    ({"stages": [{"name": "a", "terms": ["hiden"]}]}, "stage 1: 'terms' of stage 'a': 'hiden' is no term; did you "
                                                      "mean 'hidden'"),
    ({"stages": [{"name": "a", "terms": [["hidden"]]}]}, "is no term"),
    ({"stages": [{"name": "a", "terms": "hidden"}]}, "'terms' must be of type list"),
    ({"stages": [{"name": "a", "terms": [], "num_step": 3}]}, "did you mean 'num_steps'"),
    ({"stages": [{"name": "a", "terms": [], "num_steps": -1}]}, "'num_steps' of stage 'a' must be at least 0"),
    ({"stages": [{"name": "a", "terms": [], "early_stopping": -2}]}, "'early_stopping' of stage 'a'"),
    ({"stage": []}, '{"stages": [...]} is needed'), ([], '{"stages": [...]} is needed'), ({"stages": 3}, "is needed"),
    ({"stages": [3]}, "stage 1: a JSON object is needed")], ids=str)
def test_a_wrong_strategy_is_told_with_its_file(values, message, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError) as error:
        schedule.read(str(path))
    assert str(error.value).startswith(str(path)) and message in str(error.value)


def test_a_strategy_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(UserError, match="--strategy=tree_stage: no such file, and none of joint, two_stage"):
        schedule.read("tree_stage")
