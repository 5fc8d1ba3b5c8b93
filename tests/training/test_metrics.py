import json
import unicodedata

import numpy as np
import pytest
from sklearn.metrics import f1_score

from training import metrics

#               true  predicted
SINGLE_LABELS = [0, 0, 0, 1, 1, 2]
SINGLE_PREDICTED = [0, 0, 1, 1, 0, 1]
SINGLE_NAMES = ["负面", "good", "c"]


def one_hot(predicted, num_classes):
    return np.eye(num_classes)[predicted] * 0.8 + 0.1


def single_report():
    return metrics.classification_report(SINGLE_LABELS, one_hot(SINGLE_PREDICTED, 3), SINGLE_NAMES)


def test_single_label_figures_are_those_counted_by_hand():
    report = single_report()
    assert report["texts"] == 6
    assert report["accuracy"] == pytest.approx(3 / 6)
    assert report["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    first, second, third = report["classes"]
    assert first == {"name": "负面", "precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3),
                     "f1": pytest.approx(2 / 3), "support": 3}
    assert second["precision"] == pytest.approx(1 / 3) and second["recall"] == pytest.approx(1 / 2)
    assert second["f1"] == pytest.approx(0.4)
    assert third == {"name": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert report["macro_f1"] == pytest.approx((2 / 3 + 0.4 + 0) / 3)


def test_a_class_that_never_occurs_does_not_lower_macro_f1():
    names = SINGLE_NAMES + ["never"]
    report = metrics.classification_report(SINGLE_LABELS, one_hot(SINGLE_PREDICTED, 4), names)
    assert report["macro_f1"] == pytest.approx(single_report()["macro_f1"])
    assert report["macro_f1"] == pytest.approx(f1_score(SINGLE_LABELS, SINGLE_PREDICTED, average="macro"))
    assert report["classes"][3]["support"] == 0


def test_labels_may_stand_in_a_column():
    column = np.array(SINGLE_LABELS)[:, np.newaxis]
    found = metrics.classification_report(column, one_hot(SINGLE_PREDICTED, 3), SINGLE_NAMES)
    assert found == single_report()


MULTI_LABELS = [[1, 0], [1, 1], [0, 0], [0, 1]]
MULTI_PROBABILITIES = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.7], [0.1, 0.8]]


def test_multi_label_figures_are_those_counted_by_hand():
    report = metrics.classification_report(MULTI_LABELS, MULTI_PROBABILITIES, ["a", "b"])
    # Predicted at 0.5: [1, 0], [0, 1], [0, 1], [0, 1].
    assert report["accuracy"] == pytest.approx(2 / 4)
    assert report["classes"][0]["f1"] == pytest.approx(2 / 3)
    assert report["classes"][1]["f1"] == pytest.approx(0.8)
    assert report["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert report["micro_f1"] == pytest.approx(2 * 3 / (4 + 4))
    assert report["confusion"] == [[[2, 0], [1, 1]], [[1, 1], [0, 2]]]
    assert report["thresholds"] == [0.5, 0.5]


def test_each_class_has_its_own_threshold():
    report = metrics.classification_report(MULTI_LABELS, MULTI_PROBABILITIES, ["a", "b"], [0.3, 0.75])
    assert report["classes"][0]["f1"] == 1.0
    assert report["classes"][1]["recall"] == pytest.approx(0.5)


def test_one_class_of_its_own_is_multi_label():
    report = metrics.classification_report([[1], [0], [1]], [[0.9], [0.2], [0.3]], ["only"], [0.25])
    assert report["accuracy"] == 1.0


def test_best_thresholds_lie_midway_below_the_best_cut():
    # Class 0: predicting the two highest gives F1 1. Class 1: the highest alone 2/3, the two highest 1/2,
    # the three highest 4/5.
    labels = [[1, 1], [1, 0], [0, 1], [0, 0]]
    probabilities = [[0.9, 0.95], [0.4, 0.8], [0.2, 0.7], [0.1, 0.2]]
    assert metrics.best_thresholds(labels, probabilities) == pytest.approx([0.3, 0.45])


def test_best_thresholds_do_not_cut_between_equal_probabilities():
    thresholds = metrics.best_thresholds([[1], [0], [0]], [[0.6], [0.6], [0.2]])
    assert thresholds == pytest.approx([0.4])


def test_best_thresholds_predict_everything_where_that_is_best():
    assert metrics.best_thresholds([[0], [1]], [[0.6], [0.2]]) == pytest.approx([0.1])


def test_a_class_without_positives_keeps_the_default_threshold():
    assert metrics.best_thresholds([[0], [0]], [[0.9], [0.8]]) == [0.5]


def test_the_report_is_json():
    multi = metrics.classification_report(MULTI_LABELS, np.float32(MULTI_PROBABILITIES), ["a", "b"],
                                          np.float32([0.3, 0.75]))
    for report in (single_report(), multi):
        assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("labels, columns", [([0, -1], 2), ([0, 1, 1], 2), ([0, 1], 3), ([], 2)])
def test_what_cannot_be_judged_is_refused(labels, columns):
    with pytest.raises(ValueError):
        metrics.classification_report(labels, np.full([2, columns], 0.5), ["a", "b"])


def test_chinese_names_keep_the_columns_of_the_text_straight():
    def terminal_columns(line):
        return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)

    blocks = metrics.format_report(single_report()).split("\n\n")
    assert "accuracy 0.5000" in blocks[0] and "macro-f1 0.3556" in blocks[0]
    assert len({terminal_columns(line) for line in blocks[1].splitlines()}) == 1
    assert blocks[1].splitlines()[1].split() == ["负面", "0.6667", "0.6667", "0.6667", "3"]
    assert blocks[2].splitlines()[2].split() == ["1", "负面", "2", "1", "0"]


def test_the_text_of_several_labels_names_the_thresholds():
    report = metrics.classification_report(MULTI_LABELS, MULTI_PROBABILITIES, ["a", "b"], [0.3, 0.75])
    assert metrics.format_report(report).splitlines()[-1].split()[-1] == "0.7500"


def correct(both, only_a, only_b, neither):
    a = [1] * both + [1] * only_a + [0] * only_b + [0] * neither
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    return a, b


def test_the_bootstrap_agrees_with_the_normal_distribution():
    # Difference 0.02, its standard error sqrt((0.1 - 0.02^2) / 1000) = 0.00998: z = 2.004, p = 0.045.
    found = metrics.paired_bootstrap(*correct(800, 60, 40, 100), seed=1)
    assert found["difference"] == pytest.approx(0.02)
    assert found["discordant_share"] == pytest.approx(0.1)
    assert found["low"] == pytest.approx(0.02 - 0.01956, abs=0.0015)
    assert found["high"] == pytest.approx(0.02 + 0.01956, abs=0.0015)
    assert found["p_value"] == pytest.approx(0.045, abs=0.012)


def test_the_bootstrap_turns_its_sign_with_its_arguments():
    a, b = correct(80, 12, 3, 5)
    assert metrics.paired_bootstrap(a, b, seed=1)["difference"] == pytest.approx(0.09)
    assert metrics.paired_bootstrap(b, a, seed=1)["high"] < 0


def test_no_difference_has_p_value_one():
    found = metrics.paired_bootstrap(*correct(10, 5, 5, 3), seed=1)
    assert found["difference"] == 0 and found["p_value"] == 1.0


def test_a_certain_difference_has_the_smallest_p_value():
    found = metrics.paired_bootstrap(*correct(0, 20, 0, 0), seed=1, samples=99)
    assert (found["low"], found["high"], found["p_value"]) == (1.0, 1.0, 0.01)


def test_the_same_seed_draws_the_same():
    a, b = correct(80, 12, 3, 5)
    assert metrics.paired_bootstrap(a, b, seed=3) == metrics.paired_bootstrap(a, b, seed=3)


def test_the_bootstrap_refuses_different_texts():
    with pytest.raises(ValueError, match="not the same texts"):
        metrics.paired_bootstrap([1, 0], [1, 0, 1], seed=1)


def test_the_smallest_difference_is_that_of_the_method():
    assert metrics.smallest_difference(1200) == pytest.approx(0.01697, abs=1e-5)
    assert metrics.smallest_difference(247) == pytest.approx(0.03741, abs=1e-5)
    assert metrics.smallest_difference(100, discordant_share=0.25) == pytest.approx(0.098, abs=1e-4)


def test_gap_closed_is_a_share_of_the_way_to_the_teacher():
    assert metrics.gap_closed(0.933, 0.920, 0.952) == pytest.approx(0.40625)
    assert metrics.gap_closed(0.91, 0.92, 0.95) == pytest.approx(-1 / 3)


def test_no_gap_is_closed_where_the_teacher_is_no_better():
    assert metrics.gap_closed(0.95, 0.92, 0.92) is None
    assert metrics.gap_closed(0.95, 0.92, 0.91) is None
