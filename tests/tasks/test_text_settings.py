import json

import pytest

from tasks import text_settings
from tasks.text_settings import TextSettings
from training import files
from training.command import UserError


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "text.json"
    target.write_text(json.dumps({"max_seq_length": 40, "truncation": "tail", "do_lower_case": False,
                                  "label_separator": ","}))
    return str(target)


NOTHING = {"max_seq_length": None, "truncation": None, "do_lower_case": None, "label_separator": None,
           "tokenizer": None, "head": None}


def test_without_a_file_the_defaults_hold():
    assert text_settings.read(None, NOTHING) == TextSettings(128, "head", True, "")


def test_the_models_settings_hold_where_no_flag_is_given(path):
    assert text_settings.read(path, NOTHING) == TextSettings(40, "tail", False, ",")


@pytest.mark.parametrize("name, value", [
    ("max_seq_length", 3), ("truncation", "head_tail"), ("do_lower_case", True), ("label_separator", ""),
    ("tokenizer", "words"), ("head", "cnn")])
def test_a_flag_overrides_its_own_setting_alone(name, value, path):
    found = text_settings.read(path, dict(NOTHING, **{name: value}))
    expected = dict(max_seq_length=40, truncation="tail", do_lower_case=False, label_separator=",")
    assert found == TextSettings(**dict(expected, **{name: value}))


@pytest.mark.parametrize("overrides, message", [
    ({"max_seq_length": 2}, "the flags: 'max_seq_length' must be at least 3, for [CLS], a token and [SEP], found 2"),
    ({"truncation": "middle"}, "the flags: 'truncation' must be one of head, tail, head_tail, found 'middle'"),
    ({"tokenizer": "bpe"}, "the flags: 'tokenizer' must be one of wordpiece, words, found 'bpe'"),
    ({"head": "mean"}, "the flags: 'head' must be one of pooled, cnn, attention, found 'mean'")])
def test_a_wrong_flag_is_an_error(overrides, message, path):
    with pytest.raises(UserError) as error:
        text_settings.read(path, overrides)
    assert str(error.value) == message


@pytest.mark.parametrize("values, message", [
    ({"max_seq_length": 2}, "'max_seq_length' must be at least 3"), ({"truncation": "middle"}, "'truncation' must be"),
    ({"lower": True}, "unknown key 'lower'"), ({"max_seq_length": "40"}, "'max_seq_length' must be of type int")])
def test_a_wrong_file_is_an_error_that_names_it(values, message, path):
    with open(path, "w") as stream:
        json.dump(values, stream)
    with pytest.raises(UserError) as error:
        text_settings.read(path, NOTHING)
    assert str(error.value).startswith("%s: %s" % (path, message))


def test_a_folder_without_tokenizer_and_head_means_the_usual_ones_and_stays_as_it_is(path):
    found = text_settings.read(path, NOTHING)
    assert (found.tokenizer, found.head) == ("wordpiece", "pooled")
    with open(path) as stream:
        assert text_settings.as_dict(found) == json.load(stream)


@pytest.mark.parametrize("change", [{"tokenizer": "words"}, {"head": "cnn"}], ids=lambda change: next(iter(change)))
def test_another_tokenizer_or_head_is_stored_and_found_again(change, path):
    settings = TextSettings(**change)
    files.write_json(path, text_settings.as_dict(settings))
    assert text_settings.read(path, NOTHING) == settings


def test_texts_are_cut_and_lowered_as_the_settings_say(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]) + "\n")
    for settings, expected in (
            (TextSettings(4, "head", True), [2, 5, 6, 3]), (TextSettings(4, "tail", True), [2, 6, 7, 3]),
            (TextSettings(4, "head", False), [2, 1, 6, 3])):
        features, _ = text_settings.featurizer(settings, str(vocabulary)).features("A b c")
        assert features["input_ids"] == expected


def test_tokens_are_pieces_or_words_as_the_settings_say(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "苹", "果", "苹果"]) + "\n", "utf-8")
    for tokenizer, expected in (("wordpiece", [2, 5, 6, 3]), ("words", [2, 7, 3])):
        featurizer = text_settings.featurizer(TextSettings(tokenizer=tokenizer), str(vocabulary))
        assert featurizer.features("苹果")[0]["input_ids"] == expected
