import json
import os

import pytest

from experiments import cells
from experiments import demo
from tests import graphs

pytestmark = graphs.ON_REFERENCE
TINY = demo.Recipe(
    vocab_size=200,
    max_seq_length=16,
    teacher={"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 6, "num_attention_heads": 2,
             "intermediate_size": 8, "max_position_embeddings": 16},
    fine_tuned_teacher={"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 6,
                        "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 16},
    student={"model_type": "bilstm", "hidden_size": 8},
    records=["--dupe_factor=1"],
    pretrain=["--num_train_steps=2"],
    fine_tune=["--num_train_steps=2"],
    distill_corpus=["--num_train_steps=2"],
    distill_task=["--num_train_steps=2"],
    plain=["--num_train_steps=2"])

# Every character of `corpus` is in the vocabulary, whose size must be the models'.
CHARACTERS = [chr(0x4E00 + number) for number in range(200 - 103)]


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory, forks):
    """(folder, what `run` returned, times of what was trained)."""
    def run(arguments):
        result = forks.run(*arguments[arguments[0] == "-m":])
        assert result.code == 0, result.err

    folder = tmp_path_factory.mktemp("demo")
    task = folder / "task"
    task.mkdir()
    texts = ["".join(CHARACTERS[start:start + 12]) for start in range(len(CHARACTERS) - 12)]
    rows = ["%s\t%s" % (("negative", "positive")[number % 2], text) for number, text in enumerate(texts)]
    for name in ("train", "dev", "test"):
        (task / (name + ".tsv")).write_text("\n".join(["label\ttext_a"] + rows) + "\n", encoding="utf-8")
    (task / "unlabeled.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    (task / "corpus.txt").write_text("".join(CHARACTERS) + "\n\n".join(texts) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "run", run)
        results = demo.run(str(folder), str(task), TINY)
        times = {name: os.path.getmtime(str(folder / name / "finished.json")) for name in ("teacher", "plain")}
        demo.run(str(folder), str(task), TINY)
    return folder, results, times


def test_the_demo_measures_all_four_models(demo_run):
    _, results, _ = demo_run
    assert [model["name"] for model in results["models"]] == [
        "teacher", "student_distilled", "student_plain", "naive_bayes"]
    for model in results["models"]:
        assert 0.0 <= model["accuracy"] <= 1.0 and 0.0 <= model["macro_f1"] <= 1.0
        assert model["parameters"] > 0 and model["latency_ms_p50"] > 0
    assert results["seconds"] > 0


def test_twins_have_equal_parameters(demo_run):
    _, results, _ = demo_run
    distilled, plain = (model["parameters"] for model in results["models"][1:3])
    assert distilled == plain


def test_results_and_plot_are_written(demo_run):
    folder, results, _ = demo_run
    assert json.loads((folder / "results.json").read_text())["models"]
    assert (folder / "results.png").stat().st_size > 0


def test_a_second_demo_trains_nothing(demo_run):
    folder, _, times = demo_run
    for name, time in times.items():
        assert os.path.getmtime(str(folder / name / "finished.json")) == time
