import dataclasses

import pytest

from training import config
from training.command import UserError


@dataclasses.dataclass(frozen=True)
class Model:
    width: int
    layers: int = 3
    rate: float = 0.1
    merge: str = "sum"
    tied: bool = False

    def __post_init__(self):
        config.check_positive(self, "width", "layers")
        config.check_probability(self, "rate")


def error_of(values, **options):
    with pytest.raises(UserError) as error:
        config.from_dict(Model, values, "model.json", **options)
    return str(error.value)


def test_defaults_stand_where_a_key_is_left_out():
    assert config.from_dict(Model, {"width": 8}, "model.json") == Model(8, 3, 0.1, "sum", False)


def test_every_type_is_read():
    values = {"width": 8, "layers": 1, "rate": 0.5, "merge": "concat", "tied": True}
    assert dataclasses.asdict(config.from_dict(Model, values, "model.json")) == values


def test_an_unknown_key_is_told_with_the_nearest_known_one():
    assert error_of({"width": 8, "layer": 2}) == "model.json: unknown key 'layer'; did you mean 'layers'?"


def test_an_unknown_key_that_resembles_none_is_told_with_all():
    assert error_of({"width": 8, "qqq": 2}) == (
        "model.json: unknown key 'qqq'; known: layers, merge, rate, tied, width")


@pytest.mark.parametrize("key, value, kind", [
    ("width", "8", "int"), ("width", 8.0, "int"), ("width", True, "int"), ("width", None, "int"),
    ("rate", "0.1", "float"), ("rate", False, "float"), ("merge", 1, "str"), ("tied", 1, "bool")])
def test_a_value_of_another_type_is_refused(key, value, kind):
    assert error_of(dict({"width": 8}, **{key: value})) == (
        "model.json: %r must be of type %s, found %r" % (key, kind, value))


def test_an_int_may_stand_for_a_float():
    rate = config.from_dict(Model, {"width": 8, "rate": 0}, "model.json").rate
    assert rate == 0.0 and isinstance(rate, float)


def test_a_missing_key_is_told():
    assert error_of({"layers": 2}) == "model.json: 'width' is missing"


def test_a_value_that_the_class_refuses_is_told_with_its_file():
    assert error_of({"width": 0}) == "model.json: 'width' must be above 0, found 0"


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_probability_is_at_least_0_and_below_1(rate):
    message = error_of({"width": 8, "rate": rate})
    assert message.startswith("model.json: 'rate' must be at least 0 and below 1, found ")


def test_ignored_keys_are_let_through_whatever_they_hold():
    assert config.from_dict(Model, {"width": 8, "pooler": []}, "model.json", ignored=("pooler",)) == Model(8)


def test_json_that_is_no_object_is_refused():
    assert error_of([1]) == "model.json: a JSON object is needed, found list"


def test_a_file_is_read_and_named_in_errors(tmp_path):
    path = tmp_path / "model.json"
    path.write_text('{"width": 8}', encoding="utf-8")
    assert config.read(Model, str(path)) == Model(8)
    path.write_text('{"width": 8, "rates": 0.1}', encoding="utf-8")
    with pytest.raises(UserError) as error:
        config.read(Model, str(path))
    assert str(error.value) == "%s: unknown key 'rates'; did you mean 'rate'?" % path
