import collections
import json

import pytest
import tensorflow.compat.v1 as tf

from bert import create_pretraining_data as creation
from bert.instances import Settings
from tests import commands
from tests.bert.creation import SETTINGS
from training.command import UserError

pytest.importorskip("apache_beam", reason="optional, for Python 3.7")

from bert import beam_runner  # noqa: E402
from bert import corpus  # noqa: E402

TEXT = "".join("%s第%d句，氯化钠与聚氯乙烯。\n%s" % ("\n" * (number % 3 == 0), number, "x" * (number % 50))
               for number in range(300))


@pytest.fixture
def folder(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list("第句氯化钠与聚乙烯，。0123456789x")
    tokens += ["##" + char for char in "0123456789x"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "b.txt").write_text(TEXT[:2000] + "\n\n" + TEXT[1500:4000], encoding="utf-8")
    return tmp_path


def settings_of(folder, **changes):
    return Settings(**dict(SETTINGS, vocab_file=str(folder / "vocab.txt"), dupe_factor=3))._replace(**changes)


def records(*paths):
    return collections.Counter(record for path in paths for record in tf.io.tf_record_iterator(str(path)))


@pytest.mark.parametrize("changes", [
    {}, {"samples": "packed", "dedup": "exact", "pad": False},
    {"do_whole_word_mask": True, "max_ngram": 3}, {"masking": "dynamic", "document_per_line": True}],
    ids=["plain", "duplicates", "words", "dynamic"])
def test_beam_and_the_local_runner_make_the_same_records(folder, monkeypatch, changes):
    monkeypatch.setattr(corpus, "CELL_BYTES", 1000)
    monkeypatch.setattr(corpus, "WINDOW_BYTES", 100)
    settings = settings_of(folder, **changes)
    inputs = [str(folder / name) for name in ("a.txt", "b.txt")]
    local = creation.create(inputs, [str(folder / "local")], str(folder / "local.json"), settings)
    counts = beam_runner.make_shards(",".join(inputs), str(folder / "beam"), 2, settings, "DirectRunner", "")
    made = records(folder / "beam-00000-of-00002", folder / "beam-00001-of-00002")
    assert made == records(folder / "local")
    assert sum(made.values()) == counts["instances"] > 100
    told = ("documents", "sentences", "tokens", "unknown_tokens", "instances", "predictions", "duplicates")
    assert [counts[name] for name in told] == [local[name] for name in told]


def test_missing_and_empty_input_is_told(folder):
    with pytest.raises(UserError, match="^--input_file=.*none.txt: no such file$"):
        beam_runner.ranges("%s,%s" % (folder / "a.txt", folder / "none.txt"))
    (folder / "empty.txt").write_text("\n\n")
    with pytest.raises(UserError, match="empty.txt: no text to make samples of$"):
        beam_runner.make_shards(str(folder / "empty.txt"), str(folder / "beam"), 1, settings_of(folder),
                                "DirectRunner", "")


def test_the_command_runs_beam(folder):
    (folder / "c.jsonl").write_text(json.dumps({"t": "第1句"}) + "\n" + json.dumps({"t": "第2句"}))
    result = commands.run(
        "bert.create_pretraining_data", "--runner=DirectRunner", "--input_file=%s" % (folder / "c.jsonl"),
        "--text_key=t", "--vocab_file=%s" % (folder / "vocab.txt"), "--output_file=%s" % (folder / "c.tfrecord"),
        "--dupe_factor=2", "--beam_options=--direct_num_workers=1")
    assert result.code == 0 and result.out.startswith("documents 2, sentences 2, tokens 6\n")
    assert sum(records(folder / "c.tfrecord").values()) == 4
