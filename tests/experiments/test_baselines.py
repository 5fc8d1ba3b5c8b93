import pytest

from experiments.baselines import naive_bayes

TEXTS = ["很好", "很好看", "不好", "不好看"]
LABELS = ["positive", "positive", "negative", "negative"]


def test_pairs_of_characters_decide_where_single_ones_cannot():
    # Both classes have the same characters equally often; only their order differs.
    result = naive_bayes(["好不", "不好"], ["a", "b"], ["好不", "不好"])
    assert result.predictions == ["a", "b"]


def test_every_log_probability_is_a_parameter():
    # 很 好 看 不, 很好 好看 不好: seven features in each of two classes, and the classes themselves.
    assert naive_bayes(TEXTS, LABELS, TEXTS).parameters == 7 * 2 + 2


def test_predict_gives_the_predictions_again_text_by_text():
    texts = ["好看", "不看", "很不好"]
    result = naive_bayes(TEXTS, LABELS, texts)
    assert [result.predict([text])[0] for text in texts] == result.predictions


def test_a_text_of_unknown_characters_gets_the_more_frequent_label():
    result = naive_bayes(TEXTS + ["很"], LABELS + ["positive"], ["化工", ""])
    assert result.predictions == ["positive", "positive"]


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], ["1", "1", "0", "0"]])
def test_labels_come_back_as_they_were_given(labels):
    assert naive_bayes(TEXTS, labels, TEXTS).predictions == labels
