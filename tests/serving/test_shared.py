import concurrent.futures
import os
import threading

import numpy as np
import pytest

from serving.predictor import Predictor
from serving.shared import SharedPredictor
from tests import tiny

TEXTS = [text for _, text in tiny.texts(60, seed=5)]


@pytest.fixture(scope="module")
def predictor(student_classifier):
    return Predictor(os.path.join(student_classifier.folder, "export"), batch_size=4)


def test_every_caller_gets_the_answer_of_its_own_text(predictor):
    expected = predictor.predict(TEXTS)
    with SharedPredictor(predictor, max_batch=7) as shared, concurrent.futures.ThreadPoolExecutor(16) as threads:
        found = list(threads.map(shared.predict, TEXTS * 3))
    for one, other in zip(found, expected * 3):
        assert one.label == other.label
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


class Slow:
    """A predictor that waits for `go` and counts the texts of each batch."""

    def __init__(self):
        self.go, self.began, self.batches = threading.Event(), threading.Event(), []

    def features(self, text):
        return text

    def predict_features(self, features):
        self.batches.append(len(features))
        self.began.set()
        self.go.wait(10)
        if "bad" in features:
            raise ValueError("a bad one")
        return features


def test_what_waits_together_is_computed_together_up_to_the_largest_batch():
    slow = Slow()
    with SharedPredictor(slow, max_batch=4) as shared:
        futures = [shared.submit("first")]
        assert slow.began.wait(10)
        futures += [shared.submit("text %d" % number) for number in range(6)]
        slow.go.set()
        assert [future.result(10) for future in futures] == ["first"] + ["text %d" % number for number in range(6)]
    assert slow.batches == [1, 4, 2]


def test_an_error_reaches_those_it_concerns_and_the_next_are_served():
    slow = Slow()
    slow.go.set()
    with SharedPredictor(slow) as shared:
        with pytest.raises(ValueError, match="a bad one"):
            shared.predict("bad")
        assert shared.predict("good") == "good"


def test_what_waits_is_answered_before_it_closes_and_nothing_after():
    slow = Slow()
    shared = SharedPredictor(slow)
    futures = [shared.submit(str(number)) for number in range(3)]
    slow.go.set()
    shared.close()
    shared.close()
    assert [future.result(0) for future in futures] == ["0", "1", "2"]
    with pytest.raises(RuntimeError, match="is closed"):
        shared.submit("late")


@pytest.mark.parametrize("text", [None, 5, b"bytes", ("a", "b", "c"), ("a", None), []])
def test_what_is_no_text_is_refused_in_the_callers_thread(predictor, text):
    with SharedPredictor(predictor) as shared:
        with pytest.raises(TypeError, match="a text is a str, or a pair of them"):
            shared.predict(text)
        assert shared.predict(TEXTS[0]).label
