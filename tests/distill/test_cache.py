import os
import shutil

import numpy as np
import pytest

from bert import records
from bert import tfrecord
from bert.optimization import Schedule
from distill import cache
from distill import cache_teacher
from distill import measure
from distill import terms
from distill.model_fn import Distillation
from distill.model_fn import distillation_model_fn
from tests import batches
from tests import graphs
from tests.distill.pairs import MAP
from tests.distill.pairs import MORE_WEIGHTS
from tests.distill.pairs import STUDENTS
from tests.distill.pairs import WEIGHTS
from training import files
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2

LAYERS = [1, 3]
OF_POOLED = ("text_similarity", "contrast_1", "contrast_2", "patience_1", "patience_2")
ALL = dict(WEIGHTS, **{name: weight for name, weight in MORE_WEIGHTS.items() if not name.startswith("attention")})


@pytest.fixture(scope="module")
def cached(saved_teacher, tmp_path_factory):
    """By task and kinds: (Teacher with a cache of several parts, [TFRecord files])."""
    made = {}

    def get(task, *what):
        if (task, what) not in made:
            folder = tmp_path_factory.mktemp("cache")
            texts = batches.texts(several_labels=task == "several_labels")
            names = [batches.write(folder / "one", texts[:10]), batches.write(folder / "other", texts[10:])]
            teacher, _ = saved_teacher("bert", task)
            patch = pytest.MonkeyPatch()
            patch.setattr(cache_teacher, "SHARD_BYTES", 2000)
            cache_teacher.write_cache(str(folder / "cache"), names, teacher, batches.TASKS[task], list(what), LAYERS, 3)
            patch.undo()
            made[task, what] = teacher._replace(cache=cache.TeacherCache(str(folder / "cache"), teacher)), names
        return made[task, what]

    return get


def means(teacher, task, weights, names):
    """What the terms amount to, a part of 5 texts at a time."""
    needs = terms.needs(MAP, weights)
    input_fn = records.evaluation_input_fn(names, batches.TASKS[task].feature_names, 5,
                                           beside=teacher.cache and teacher.cache.beside(names, needs))
    asked = Distillation(STUDENTS["bilstm"], teacher, batches.TASKS[task], MAP, weights, 2.0)
    return measure.term_means(asked, input_fn, seed=4)


@pytest.mark.parametrize("task, what, names", [
    ("masked_lm", ["logits", "states"], ALL), ("classification", ["states", "logits", "pooled"], ALL),
    ("several_labels", ["logits"], ["prediction", "hard_label", "logit_mse", "label"]),
    ("classification", ["pooled"], OF_POOLED), ("masked_lm", ["states"], OF_POOLED)])
def test_terms_of_cached_outputs_are_those_of_live_ones_within_float16(task, what, names, cached):
    teacher, record_files = cached(task, *what)
    weights = {name: ALL[name] for name in names}
    live = means(teacher._replace(cache=None), task, weights, record_files)
    found = means(teacher, task, weights, record_files)
    assert list(found) == list(live) and len(found) == len(weights)
    for name, value in live.items():
        assert found[name] == pytest.approx(value, rel=2e-3), name


def test_training_by_cached_outputs_ends_with_the_weights_of_live_ones(cached, tmp_path):
    teacher, (record_file, _) = cached("classification", "logits", "states")
    found = []
    for name, given in (("live", teacher._replace(cache=None)), ("cached", teacher)):
        asked = Distillation(STUDENTS["bilstm"], given, batches.TASKS["classification"], MAP, WEIGHTS)
        beside = given.cache and given.cache.beside([record_file], terms.needs(MAP, WEIGHTS))
        found.append(batches.train(
            tmp_path / name, distillation_model_fn(asked, Schedule(1e-3, 25, num_parts=2)), record_file, 4,
            replicas=2, num_parts=2, beside=beside))
    assert graphs.largest_difference(*found) < 3e-4
    first = graphs.weights_in(str(tmp_path / "live" / "model.ckpt-0"))
    assert max(np.abs(found[0][name] - first[name]).max() for name in first if "adam" not in name) > 2e-3


def test_what_a_stage_does_not_look_at_is_not_read(cached, monkeypatch):
    teacher, names = cached("classification", "logits", "states")
    read = []
    monkeypatch.setattr(teacher.cache, "_read", lambda kind, texts: read.append(kind) or [
        np.zeros(3, np.float16)] * len(texts))
    means(teacher, "classification", {"prediction": 1.0, "label": 1.0}, names)
    assert set(read) == {"logits"}


@pytest.mark.parametrize("what, of_stage", [
    (["logits", "states"], {"prediction": 1.0}), (["logits", "pooled"], {"prediction": 1.0}),
    (["states", "logits", "pooled"], {"contrast_1": 1.0, "patience_2": 1.0})], ids=str)
def test_a_stage_has_the_variables_of_all_terms_though_nothing_is_read_for_them(what, of_stage, cached, tmp_path):
    teacher, (record_file, _) = cached("classification", *what)
    weights = ALL if "states" in what else {name: ALL[name] for name in ("prediction",) + OF_POOLED}
    found = {}
    for kind, given in (("live", teacher._replace(cache=None)), ("cached", teacher)):
        asked = Distillation(STUDENTS["bilstm"], given, batches.TASKS["classification"], MAP, weights)
        needs = [terms.needs(MAP, some) for some in (of_stage, weights)]
        beside = given.cache and given.cache.beside([record_file], *needs)
        found[kind] = batches.train(tmp_path / kind, distillation_model_fn(asked, Schedule(1e-3, 25), weights=of_stage),
                                    record_file, 2, beside=beside)
    assert sorted(found["cached"]) == sorted(found["live"])
    assert any(name.startswith("distill/") for name in found["live"])
    assert graphs.largest_difference(found["cached"], found["live"]) < 3e-4


def test_outputs_are_float16_without_padding_in_parts_that_are_small(cached):
    teacher, names = cached("classification", "logits", "states")
    shards = [name for name in sorted(os.listdir(teacher.cache.folder)) if "-of-" in name]
    digest = files.digest(names[0])[:16]
    one = [name for name in shards if name.startswith(digest + "-states")]
    assert len(one) > 1 and one[0] == "%s-states-00000-of-%05d" % (digest, len(one))
    arrays = [cache._parse(record) for name in one for record in tfrecord.read(
        os.path.join(teacher.cache.folder, name))]
    lengths = batches.values(batches.texts()[:10])["input_mask"].sum(axis=1)
    assert [array.size for array in arrays] == [length * len(LAYERS) * 8 for length in lengths]
    assert {array.dtype for array in arrays} == {np.dtype(np.float16)}
    assert max(os.path.getsize(os.path.join(teacher.cache.folder, name)) for name in shards) < 4000


def write(folder, saved_teacher, what=("logits", "pooled", "states")):
    """A cache of several parts, into <folder>/cache; returns the Teacher."""
    texts = batches.write(folder / "texts", batches.texts())
    teacher, _ = saved_teacher("bert", "classification")
    cache_teacher.write_cache(str(folder / "cache"), [texts], teacher, batches.TASKS["classification"], list(what),
                              LAYERS, 3)
    return teacher


def test_what_is_told_beforehand_is_what_is_written(saved_teacher, tmp_path, capsys):
    write(tmp_path, saved_teacher)
    told = float(capsys.readouterr().out.split(" texts, ")[1].split(" MB")[0])
    written = sum(os.path.getsize(str(tmp_path / "cache" / name)) for name in os.listdir(str(tmp_path / "cache"))
                  if "-of-" in name)
    assert abs(told - written / 1e6) < 0.06


def test_a_cache_that_was_stopped_goes_on_and_is_the_same(saved_teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache_teacher, "SHARD_BYTES", 2000)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    write(tmp_path / "whole", saved_teacher)
    folder, made, write_records = tmp_path / "stopped", [], records.write_records

    def stop(path, serialized):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(path)
        return write_records(path, serialized)

    monkeypatch.setattr(records, "write_records", stop)
    with pytest.raises(KeyboardInterrupt):
        write(folder, saved_teacher)
    assert not (folder / "cache" / "cache.json").exists()
    times = {path: os.path.getmtime(path) for path in made[1:4]}  # behind the texts, the first part
    monkeypatch.setattr(records, "write_records", write_records)
    teacher = write(folder, saved_teacher)
    assert {path: os.path.getmtime(path) for path in times} == times
    names = sorted(os.listdir(str(folder / "cache")))
    assert names == sorted(os.listdir(str(tmp_path / "whole" / "cache"))) and len(names) > 8
    for name in names:
        assert (folder / "cache" / name).read_bytes() == (tmp_path / "whole" / "cache" / name).read_bytes(), name
    capsys.readouterr()
    write(folder, saved_teacher)
    assert "finished; nothing to do" in capsys.readouterr().out
    cache.TeacherCache(str(folder / "cache"), teacher)


def test_without_room_nothing_is_begun(saved_teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1000))
    with pytest.raises(UserError, match="0.0 MB are needed and 0.0 MB are free; fewer --layers, or --what=logits"):
        write(tmp_path, saved_teacher)
    assert os.listdir(str(tmp_path / "cache")) == []


def test_another_cache_is_not_put_into_the_folder_of_one(saved_teacher, tmp_path):
    write(tmp_path, saved_teacher, ["logits"])
    with pytest.raises(UserError, match=r"begun with what=\['logits'\], now it is \['pooled'\]"):
        write(tmp_path, saved_teacher, ["pooled"])


def test_a_cache_of_another_teacher_or_of_other_texts_is_refused(saved_teacher, tmp_path):
    teacher = write(tmp_path, saved_teacher, ["logits"])
    folder = str(tmp_path / "cache")
    other, _ = batches.save_model(tmp_path / "m.ckpt", teacher.config, batches.TASKS["classification"], scale=0.3)
    with pytest.raises(UserError, match=r"of another teacher than .*m.ckpt \(checkpoints differ\)"):
        cache.TeacherCache(folder, teacher._replace(checkpoint=other))
    with pytest.raises(UserError, match=r"\(layers differ\)"):
        cache.TeacherCache(folder, teacher._replace(layers=(0, 1)))
    texts = batches.write(tmp_path / "others", batches.texts(seed=9))
    with pytest.raises(UserError, match=r"not for the texts of .*others; .* \(texts\)"):
        cache.TeacherCache(folder, teacher).beside([texts], {})
    os.remove(folder + "/cache.json")
    with pytest.raises(UserError, match="no cache.json is in it"):
        cache.TeacherCache(folder, teacher)


@pytest.mark.parametrize("weights, message", [
    ({"hidden_1": 1.0, "cosine": 1.0}, "holds no states, for hidden and cosine; --hidden_weights=0 --cosine_weight=0 "
                                       "does without, or make it with --what=states"),
    ({"attention_1": 1.0}, "holds no attention, for attention; --attention_weight=0 does without, or leave the flag"),
    ({"prediction": 1.0}, "holds no logits, for prediction; --prediction_weight=0")])
def test_what_is_needed_and_not_there_is_named(weights, message, cached):
    teacher, _ = cached("classification", "pooled")
    with pytest.raises(UserError) as error:
        teacher.cache.check(terms.needs(MAP, weights), MAP)
    assert message in str(error.value)


def test_layers_that_are_not_there_are_named_where_they_are_looked_at(cached):
    teacher, _ = cached("classification", "logits", "states")
    teacher.cache.check({"logits": ["prediction"]}, [(1, 2)])
    with pytest.raises(UserError, match="holds the teacher's layers 1,3, and --layer_map wants 2"):
        teacher.cache.check({"states": ["hidden"]}, [(1, 2)])
