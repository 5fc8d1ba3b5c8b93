import pytest

from distill import layer_map
from training.command import UserError

PRESETS = "presets: interval, shallow, deep, uniform, top"


@pytest.mark.parametrize("preset, student, teacher, expected", [
    ("interval", 3, 6, [(1, 1), (2, 3), (3, 5)]),
    ("interval", 3, 5, [(1, 1), (2, 3), (3, 5)]),
    ("interval", 1, 1, [(1, 1)]),
    ("shallow", 3, 6, [(1, 1), (2, 2), (3, 3)]),
    ("deep", 3, 6, [(1, 4), (2, 5), (3, 6)]),
    ("uniform", 3, 6, [(1, 2), (2, 4), (3, 6)]),
    ("uniform", 3, 12, [(1, 4), (2, 8), (3, 12)]),
    ("uniform", 4, 6, [(1, 2), (2, 3), (3, 5), (4, 6)]),  # 1.5, 3, 4.5, 6: halves upwards
    ("uniform", 3, 3, [(1, 1), (2, 2), (3, 3)]),
    ("uniform", 3, 2, [(1, 1), (2, 1), (3, 2)]),
    ("top", 3, 6, [(3, 6)])])
def test_presets_are_their_formulas(preset, student, teacher, expected):
    assert layer_map.parse(preset, student, teacher) == expected


def test_pairs_come_in_the_order_of_the_student():
    assert layer_map.parse("3:5,1:1,2:3", 3, 6) == [(1, 1), (2, 3), (3, 5)]


def test_layers_may_be_left_out_and_two_may_learn_from_one():
    assert layer_map.parse("1:6,3:6", 3, 6) == [(1, 6), (3, 6)]


def error(text, student=3, teacher=6, source="the teacher (out/teacher)"):
    with pytest.raises(UserError) as found:
        layer_map.parse(text, student, teacher, source)
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("text, layer", [("1:1,2:3,3:7", 7), ("1:0", 0), ("1:-1", -1)])
def test_a_layer_the_teacher_does_not_have_is_an_error_that_names_the_teacher(text, layer):
    assert error(text) == ("--layer_map=%s: the teacher (out/teacher) has 6 layers, counted from 1: layer %d does not "
                           "exist; %s" % (text, layer, PRESETS))


@pytest.mark.parametrize("text, layer", [("4:1", 4), ("0:1", 0)])
def test_a_layer_the_student_does_not_have_is_an_error(text, layer):
    assert error(text) == ("--layer_map=%s: the student has 3 layers, counted from 1: layer %d does not exist; %s"
                           % (text, layer, PRESETS))


@pytest.mark.parametrize("preset, teacher, layer", [("interval", 4, 5), ("shallow", 2, 3), ("deep", 2, 0)])
def test_a_preset_that_does_not_fit_the_teacher_is_an_error(preset, teacher, layer):
    message = error(preset, teacher=teacher)
    assert message.startswith("--layer_map=%s: the teacher (out/teacher) has %d layers" % (preset, teacher))
    assert "layer %d does not exist" % layer in message


def test_a_student_layer_that_stands_twice_is_an_error():
    assert error("1:1,1:2").startswith("--layer_map=1:1,1:2: student layer 1 stands twice")


@pytest.mark.parametrize("text", ["", "1", "1:2:3", "1:1,", "a:b", "1:1;2:3", "Interval", "1:1.5"])
def test_what_is_no_map_is_an_error_that_shows_one(text):
    assert error(text) == ("--layer_map=%s: pairs student:teacher are needed, e.g. 1:1,2:3,3:5, or one of "
                           "interval, shallow, deep, uniform, top" % text)
