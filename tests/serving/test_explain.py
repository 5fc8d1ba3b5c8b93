import html
import os
import re
import shutil

import numpy as np
import pytest

from serving import explain
from serving.predictor import Predictor
from tests import graphs
from tests import tiny
from tests.commands import read

pytest.importorskip("jinja2")
pytestmark = graphs.ON_TENSORFLOW_2


@pytest.fixture(scope="module")
def small(student_classifier):
    return Predictor(os.path.join(student_classifier.folder, "export"))


@pytest.fixture(scope="module")
def large(teacher_classifier):
    return Predictor(os.path.join(teacher_classifier.folder, "export"))


def test_a_tokens_effect_is_what_the_answer_loses_without_it(small, large):
    text = tiny.texts(5, seed=4)[4][1]
    found = explain.explain(text, small, large)
    assert [token for token, _ in found.tokens] == list(text)
    whole = small.probabilities([text])[0]
    chosen = int(whole.argmax())
    for place, (_, effect) in enumerate(found.tokens):
        without = small.probabilities([text[:place] + text[place + 1:]])[0]
        np.testing.assert_allclose(effect, whole[chosen] - without[chosen], atol=1e-6)
    assert found.teacher.label == large.predict([text])[0].label
    assert found.student.label == small.labels.names[chosen]


def test_a_text_without_a_token_is_explained_too(small):
    assert explain.explain("", small).tokens == []


def test_the_page_shows_disagreement_first_and_takes_no_text_for_markup(small, large):
    explained = [explain.explain(text, small, large) for _, text in tiny.texts(6, seed=4)]
    explained = [one._replace(teacher=one.student) for one in explained]
    other = explained[3].teacher._replace(label="<b>&other")
    explained[3] = explained[3]._replace(teacher=other, tokens=[("<script>", 0.5)])
    page = explain.page(explained, small.labels.names)
    assert page.index("&lt;script&gt;") < page.index(html.escape(explained[0].tokens[0][0]))
    assert "<script>" not in page and "&lt;b&gt;&amp;other" in page
    assert "student and teacher agree on 5 of them" in page
    assert not re.search(r"(src|href)=", page)  # nothing else is needed


def test_the_command_writes_a_page(student_classifier, teacher_classifier, forks, tmp_path):
    (tmp_path / "texts.txt").write_text("一丁七\n\n万丈\n三\n", encoding="utf-8")
    result = forks.run("serving.explain", "--export_dir=%s/export" % student_classifier.folder,
                       "--teacher_export_dir=%s/export" % teacher_classifier.folder, "--max_texts=2",
                       "--input_file=%s" % (tmp_path / "texts.txt"), "--output_file=%s" % (tmp_path / "page.html"))
    assert result.code == 0, result.err
    page = read(str(tmp_path), "page.html")
    assert page.count("<article>") == 2 and "万" in page and "三" not in page


def test_a_teacher_of_other_labels_is_refused(student_classifier, forks, tmp_path):
    (tmp_path / "texts.txt").write_text("一\n", encoding="utf-8")
    copied = tmp_path / "copied"
    shutil.copytree(os.path.join(student_classifier.folder, "export"), str(copied))
    for name in os.listdir(str(copied)):
        (copied / name / "assets.extra" / "labels.txt").write_text("甲\n乙\n丙\n", encoding="utf-8")
    result = forks.run("serving.explain", "--export_dir=%s/export" % student_classifier.folder,
                       "--teacher_export_dir=%s" % copied, "--input_file=%s" % (tmp_path / "texts.txt"),
                       "--output_file=%s" % (tmp_path / "page.html"))
    assert result.code == 1 and "its labels are 甲, 乙, 丙, and the student's are" in result.err
