"""Files in, the same files with predictions out."""

import csv
import gzip
import io
import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import records
from bert import tfrecord
from serving import batch_predict
from serving import row_files
from serving.predictor import Predictor
from tests import graphs
from tests import tiny
from tests.commands import read

TEXTS = [text for _, text in tiny.texts(30, seed=8)]


@pytest.fixture(scope="module")
def exports(student_classifier):
    return os.path.join(student_classifier.folder, "export")


@pytest.fixture(scope="module")
def expected(exports):
    return Predictor(exports).predict(TEXTS)


def write(path, content):
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return str(path)


def predict(forks, exports, folder, pattern, *more):
    return forks.run("serving.batch_predict", "--export_dir=" + exports, "--input_file=" + str(pattern),
                     "--output_dir=%s" % (folder / "out"), *more)


def as_lines(rows):
    return "".join(row + "\n" for row in rows).encode("utf-8")


@graphs.ON_REFERENCE
def test_every_form_comes_out_in_its_own_with_the_labels_in_order(exports, expected, forks, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.txt", as_lines(TEXTS))
    write(folder / "b.tsv.gz", as_lines(["id\ttext_a"] + ["%d\t%s" % pair for pair in enumerate(TEXTS)]))
    stream = io.StringIO()
    csv.writer(stream).writerows([["text_a", "note"]] + [[text, 'a "b",\nc'] for text in TEXTS])
    write(folder / "c.csv", b"\xef\xbb\xbf" + stream.getvalue().encode("utf-8"))
    write(folder / "d.jsonl", as_lines(json.dumps({"text_a": text, "deep": {"x": [1, None]}}) for text in TEXTS))
    write(folder / "e.tfrecord", tfrecord.frame([tf.train.Example(features=tf.train.Features(feature={
        "text_a": tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode("utf-8")])),
        "id": tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))})).SerializeToString()
        for number, text in enumerate(TEXTS)]))
    result = predict(forks, exports, tmp_path, folder / "*", "--num_workers=2")
    assert result.code == 0, result.err
    assert "5 files, 150 rows predicted, 0 left out" in result.out
    out, labels = tmp_path / "out", [one.label for one in expected]
    assert sorted(os.listdir(str(out))) == ["a.txt", "b.tsv.gz", "c.csv", "d.jsonl", "e.tfrecord", "job.json"]

    lines = [line.split("\t") for line in read(str(out), "a.txt").splitlines()]
    assert [line[0] for line in lines] == labels and [line[2] for line in lines] == TEXTS
    header, *lines = [line.split("\t") for line in gzip.decompress(
        (out / "b.tsv.gz").read_bytes()).decode("utf-8").splitlines()]
    assert header == ["id", "text_a", "predicted_label", "probability"]
    assert [line[0] for line in lines] == [str(number) for number in range(30)]
    assert [line[2] for line in lines] == labels
    header, *lines = list(csv.reader(io.StringIO((out / "c.csv").read_text(encoding="utf-8"))))
    assert header == ["text_a", "note", "predicted_label", "probability"]
    assert [line[:3] for line in lines] == [[text, 'a "b",\nc', label] for text, label in zip(TEXTS, labels)]
    rows = [json.loads(line) for line in read(str(out), "d.jsonl").splitlines()]
    assert [row["predicted_label"] for row in rows] == labels and rows[3]["deep"] == {"x": [1, None]}
    np.testing.assert_allclose([list(row["probabilities"].values()) for row in rows],
                               [one.probabilities for one in expected], atol=1e-5)
    for number, record in enumerate(tfrecord.read(str(out / "e.tfrecord"))):
        feature = tf.train.Example.FromString(record).features.feature
        assert feature["id"].int64_list.value[0] == number
        assert feature["predicted_label"].bytes_list.value[0].decode("utf-8") == labels[number]


@graphs.ON_REFERENCE
@pytest.mark.parametrize("name, content, problems", [
    ("x.txt", b"\xe4\xb8\n\xe4\xb8\x80\n\n", [(1, "not UTF-8: byte 1 of the line is 0xe4")]),
    ("x.tsv", "id\ttext_a\n1\t一\n2\n3\t丁\t七\n".encode(), [(3, "1 columns where 2 are needed"),
                                                      (4, "3 columns where 2 are needed")]),
    ("x.csv", 'text_a\n一\n"a"b\n'.encode(), [(3, "not CSV")]),
    ("x.jsonl", '{"text_a": "一"}\n{"text_a": 5}\n[]\n{"text": "一"}\n{"text_a": "\\ud800"}\noops\n'.encode(), [
        (2, "text_a is not a string"), (3, "not an object"), (4, "key text_a is missing"),
        (5, "half a surrogate pair"), (6, "not JSON")]),
])
def test_rows_that_cannot_be_used_stand_beside_with_place_and_reason(name, content, problems, exports, forks, tmp_path):
    result = predict(forks, exports, tmp_path, write(tmp_path / name, content))
    assert result.code == 0, result.err
    assert "1 rows predicted, %d left out" % len(problems) in result.out
    bad = [json.loads(line) for line in read(str(tmp_path / "out"), name + ".bad.jsonl").splitlines()]
    assert [row["row"] for row in bad] == [place for place, _ in problems]
    for row, (_, problem) in zip(bad, problems):
        assert row["problem"].startswith(problem)


@graphs.ON_REFERENCE
def test_texts_of_every_kind_get_an_answer(exports, forks, tmp_path):
    texts = ["", " ", "😀😀", "\x00\x07", "一" * 100000, "\ufeff", "a\u0301", "\u202e"]
    result = predict(forks, exports, tmp_path, write(tmp_path / "x.jsonl", as_lines(
        json.dumps({"text_a": text}) for text in texts)))
    assert result.code == 0, result.err
    rows = [json.loads(line) for line in read(str(tmp_path / "out"), "x.jsonl").splitlines()]
    assert [row["text_a"] for row in rows] == texts
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-4 for row in rows)


@graphs.ON_REFERENCE
@pytest.mark.parametrize("name, content, said", [
    ("x.tsv", b"id\ttext\n1\ta\n", "x.tsv:1: column text_a is missing; there are id, text"),
    ("x.csv", b"text_a,predicted_label\na,b\n", "x.csv:1: column predicted_label is there already"),
    ("x.csv", b'text_a\n"open\n', 'x.csv:2: a " opens here and nothing closes it'),
    ("x.txt.gz", None, "x.txt.gz: cannot be unpacked"),
    ("x.tfrecord", b"\0" * 30, "x.tfrecord: record 0"),
    ("x.tfrecord.gz", None, "x.tfrecord.gz: cannot be unpacked"),
    ("x.parquet", b"", "x.parquet: the name must end in one of .csv .jsonl .tfrecord .tsv .txt, with or without .gz"),
])
def test_files_that_cannot_be_read_are_named_and_leave_nothing_behind(name, content, said, exports, forks, tmp_path):
    path = tmp_path / name
    path.write_bytes(gzip.compress("一\n".encode() * 50)[:-9] if content is None else content)
    result = predict(forks, exports, tmp_path, path)
    assert result.code == 1 and said in result.err, result.err
    left = os.listdir(str(tmp_path / "out")) if (tmp_path / "out").exists() else []
    assert set(left) <= {"job.json"}


@graphs.ON_REFERENCE
def test_a_job_goes_on_with_the_files_that_are_not_there_yet(exports, forks, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        write(folder / name, as_lines(TEXTS[:5]))
    assert predict(forks, exports, tmp_path, folder / "*").code == 0
    whole = (tmp_path / "out" / "b.txt").read_bytes()
    (tmp_path / "out" / "b.txt").unlink()
    (tmp_path / "out" / "a.txt").write_bytes(b"not touched")
    result = predict(forks, exports, tmp_path, folder / "*")
    assert "1 of 2 files are there already" in result.out and result.code == 0
    assert (tmp_path / "out" / "b.txt").read_bytes() == whole
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"not touched"


@graphs.ON_REFERENCE
def test_an_input_that_is_newer_than_its_predictions_is_done_again(exports, forks, tmp_path):
    path = write(tmp_path / "x.txt", as_lines(TEXTS[:5]))
    assert predict(forks, exports, tmp_path, path).code == 0
    write(tmp_path / "x.txt", as_lines(TEXTS[5:9]))
    later = os.path.getmtime(str(tmp_path / "out" / "x.txt")) + 10
    os.utime(path, (later, later))
    assert predict(forks, exports, tmp_path, path).code == 0
    assert [line.split("\t")[2] for line in read(str(tmp_path / "out"), "x.txt").splitlines()] == TEXTS[5:9]


@graphs.ON_REFERENCE
def test_records_of_training_are_classified_by_their_ids(exports, expected, forks, tmp_path):
    features = list(map(Predictor(exports).features, TEXTS))
    longest = max(len(one["input_ids"]) for one in features)
    padded = [{name: values + [0] * (longest - len(values)) for name, values in one.items()} for one in features]
    path = write(tmp_path / "x.tfrecord.gz", tfrecord.frame([records.serialize(one) for one in padded]))
    result = predict(forks, exports, tmp_path, path)
    assert result.code == 0, result.err
    content = gzip.decompress((tmp_path / "out" / "x.tfrecord.gz").read_bytes())
    (tmp_path / "unpacked.tfrecord").write_bytes(content)
    found = [tf.train.Example.FromString(record).features.feature for record in tfrecord.read(
        str(tmp_path / "unpacked.tfrecord"))]
    assert [one["predicted_label"].bytes_list.value[0].decode("utf-8") for one in found] == [
        one.label for one in expected]
    assert list(found[0]["input_ids"].int64_list.value) == padded[0]["input_ids"]


@graphs.ON_REFERENCE
def test_another_model_does_not_go_on_with_a_job(exports, several_classifier, forks, tmp_path):
    path = write(tmp_path / "x.txt", as_lines(TEXTS[:3]))
    assert predict(forks, exports, tmp_path, path).code == 0
    other = os.path.join(several_classifier.folder, "export")
    result = predict(forks, other, tmp_path, path)
    assert result.code == 1 and "the job there was begun with another model or other columns" in result.err


@graphs.ON_REFERENCE
def test_the_folder_of_the_input_is_not_written_to(exports, forks, tmp_path):
    (tmp_path / "out").mkdir()
    result = predict(forks, exports, tmp_path, write(tmp_path / "out" / "x.txt", b"a\n"))
    assert result.code == 1 and "holds the input" in result.err


@graphs.ON_REFERENCE
def test_a_pair_is_two_columns(teacher_classifier, forks, tmp_path):
    exports = os.path.join(teacher_classifier.folder, "export")
    pairs = list(zip(TEXTS[:5], TEXTS[5:10]))
    path = write(tmp_path / "x.tsv", as_lines(["one\ttwo"] + ["\t".join(pair) for pair in pairs]))
    result = predict(forks, exports, tmp_path, path, "--text_column=one", "--text_b_column=two")
    assert result.code == 0, result.err
    found = [line.split("\t")[2] for line in read(str(tmp_path / "out"), "x.tsv").splitlines()[1:]]
    assert found == [one.label for one in Predictor(exports).predict(pairs)]


def test_blocks_are_written_in_order_and_bytes_are_always_the_same(exports, forks, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_predict, "ROWS_AT_ONCE", 4)
    path = write(tmp_path / "x.jsonl.gz", as_lines(json.dumps({"text_a": text}) for text in TEXTS))
    written = []
    for name in ("one", "two"):
        settings = batch_predict.Settings(batch_predict.find_export(exports), ("text_a",), 64, str(tmp_path / name))
        assert batch_predict.predict_file(path, settings) == (path, 30, 0)
        written.append((tmp_path / name / "x.jsonl.gz").read_bytes())
    assert written[0] == written[1]
    rows = [json.loads(line) for line in gzip.decompress(written[0]).splitlines()]
    assert [row["text_a"] for row in rows] == TEXTS


@graphs.ON_REFERENCE
def test_beam_gives_the_same_files(exports, forks, tmp_path):
    pytest.importorskip("apache_beam")
    path = write(tmp_path / "x.txt", as_lines(TEXTS))
    assert predict(forks, exports, tmp_path, path).code == 0
    by_beam = tmp_path / "beam"
    result = predict(forks, exports, by_beam, path, "--runner=DirectRunner")
    assert result.code == 0, result.err
    assert (by_beam / "out" / "x.txt").read_bytes() == (tmp_path / "out" / "x.txt").read_bytes()


def test_what_a_name_ends_in_decides_the_form():
    assert row_files.format_of("a.b.tsv.gz") is row_files.FORMATS[".tsv"]
