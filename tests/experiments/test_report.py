import pytest

from experiments import report


def results(teacher, distilled, plain, bayes=0.7):
    return {"test_texts": 1000, "labelled_texts": 300,
            "distilled_over_plain": {"difference": distilled - plain, "low": -0.01, "high": 0.03,
                                     "p_value": 0.2, "discordant_share": 0.1},
            "models": [{"name": name, "accuracy": accuracy, "macro_f1": accuracy, "parameters": 12345,
                        "latency_ms_p50": 1.5} for name, accuracy in [
                            ("teacher", teacher), ("student_distilled", distilled),
                            ("student_plain", plain), ("naive_bayes", bayes)]]}


def test_every_model_has_its_row():
    text = report.table(results(0.8, 0.78, 0.76))
    for title in report.TITLES.values():
        assert title in text
    assert "12,345" in text and "0.7800" in text


def test_the_closed_gap_is_told_where_the_teacher_is_better():
    assert "gap closed 50 %" in report.table(results(0.8, 0.78, 0.76))


def test_a_teacher_that_is_no_better_is_no_evidence():
    text = report.table(results(0.76, 0.78, 0.76))
    assert "no evidence" in text and "gap closed" not in text


@pytest.mark.parametrize("teacher, told", [(0.7, True), (0.71, False)])
def test_a_teacher_no_better_than_naive_bayes_is_told(teacher, told):
    assert ("no better than naive Bayes" in report.table(results(teacher, 0.6, 0.6))) == told


def test_the_plot_is_a_picture(tmp_path):
    path = tmp_path / "results.png"
    report.plot(results(0.8, 0.78, 0.76), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
