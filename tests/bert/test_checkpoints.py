import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import checkpoints
from bert.optimization import SLOTS
from tasks.encoders import build_encoder
from tests import batches
from tests import graphs
from training import runtime
from training.command import UserError

MASKED_LM = batches.TASKS["masked_lm"]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


@pytest.fixture
def run_folder(tmp_path):
    """A run folder as training leaves it: two checkpoints and the best."""
    folder = tmp_path / "run"
    touch(folder, "config.json", "vocab.txt", "labels.txt", "text.json")
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("v", [])
        saver = tf.train.Saver()
        session.run(tf.global_variables_initializer())
        for step in (10, 20):
            saver.save(session, str(folder / "model.ckpt"), global_step=step)
        (folder / "best").mkdir()
        saver.save(session, str(folder / "best" / "model.ckpt"), write_state=False)
    return folder


def files_of(folder, checkpoint, config="config.json", vocab="vocab.txt", labels="labels.txt", text="text.json"):
    return checkpoints.ModelFiles(str(checkpoint), *[
        name and str(folder / name) for name in (config, vocab, labels, text)])


def test_a_run_folder_gives_its_best_checkpoint_and_the_files_beside(run_folder):
    expected = files_of(run_folder, run_folder / "best" / "model.ckpt")
    assert checkpoints.find_model(str(run_folder), "init_checkpoint") == expected
    slash = checkpoints.find_model(str(run_folder) + "/", "init_checkpoint")
    assert os.path.samefile(slash.checkpoint + ".index", expected.checkpoint + ".index")
    assert slash._replace(checkpoint=None) == expected._replace(checkpoint=None)


def test_a_run_folder_without_a_best_gives_its_last_checkpoint(run_folder):
    shutil.rmtree(str(run_folder / "best"))
    assert checkpoints.find_model(str(run_folder), "init_checkpoint") == files_of(
        run_folder, run_folder / "model.ckpt-20")


def test_one_checkpoint_that_was_copied_out_of_a_run_folder_is_found(run_folder):
    copy = run_folder.parent / "copy"
    copy.mkdir()
    for name in run_folder.glob("model.ckpt-20.*"):
        shutil.copy(str(name), str(copy))
    assert checkpoints.find_model(str(copy), "x") == files_of(
        copy, copy / "model.ckpt-20", config=None, vocab=None, labels=None, text=None)


@pytest.mark.parametrize("name", ["model.ckpt-10", "model.ckpt-20", "best/model.ckpt"])
@pytest.mark.parametrize("end", ["", ".index", ".data-00000-of-00001"])
def test_a_checkpoint_in_a_run_folder_gives_the_files_of_the_folder(name, end, run_folder):
    assert checkpoints.find_model(str(run_folder / (name + end)), "init_checkpoint") == files_of(
        run_folder, run_folder / name)


def test_the_folder_of_the_best_gives_the_files_of_the_run(run_folder):
    assert checkpoints.find_model(str(run_folder / "best"), "x") == files_of(
        run_folder, run_folder / "best" / "model.ckpt")


def test_a_run_folder_may_be_called_best(run_folder):
    best = run_folder.parent / "best"
    run_folder.rename(best)
    assert checkpoints.find_model(str(best / "model.ckpt-20"), "x") == files_of(best, best / "model.ckpt-20")
    assert checkpoints.find_model(str(best), "x") == files_of(best, best / "best" / "model.ckpt")


def test_a_run_whose_vocabulary_is_not_the_one_it_was_begun_with_is_refused(run_folder):
    (run_folder / "run.json").write_text('{"vocabulary": "another"}')
    with pytest.raises(UserError, match="vocab.txt: damaged: not the vocabulary that the run was begun with"):
        checkpoints.find_model(str(run_folder), "init_checkpoint")


@pytest.fixture
def unread(monkeypatch):
    """Lets empty files be checkpoints."""
    monkeypatch.setattr(checkpoints.saved, "verify", lambda checkpoint: None)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("given", ["", "bert_model.ckpt", "bert_model.ckpt.index", "bert_model.ckpt.meta"])
def test_a_folder_as_google_releases_it_gives_its_one_checkpoint(given, tmp_path):
    touch(tmp_path, "bert_model.ckpt.index", "bert_model.ckpt.meta", "bert_model.ckpt.data-00000-of-00001",
          "bert_config.json", "vocab.txt")
    assert checkpoints.find_model(str(tmp_path / given), "init_checkpoint") == files_of(
        tmp_path, tmp_path / "bert_model.ckpt", config="bert_config.json", labels=None, text=None)


@pytest.mark.usefixtures("unread")
def test_googles_names_of_alberts_files_are_known(tmp_path):
    touch(tmp_path, "model.ckpt-best.index", "model.ckpt-best.meta", "albert_config.json", "vocab_chinese.txt")
    assert checkpoints.find_model(str(tmp_path), "init_checkpoint") == files_of(
        tmp_path, tmp_path / "model.ckpt-best", "albert_config.json", "vocab_chinese.txt", labels=None, text=None)


@pytest.mark.usefixtures("unread")
def test_a_path_may_be_relative(tmp_path, monkeypatch):
    touch(tmp_path, "model.ckpt.index", "vocab.txt")
    monkeypatch.chdir(str(tmp_path))
    found = checkpoints.find_model("model.ckpt", "init_checkpoint")
    assert found.checkpoint == "model.ckpt" and os.path.samefile(found.vocab_file, str(tmp_path / "vocab.txt"))


@pytest.mark.parametrize("name, message", [
    ("none", "--init_checkpoint={0}/none: no such folder, and no checkpoint ({0}/none.index is missing)"),
    ("empty", "--init_checkpoint={0}/empty: the folder holds no checkpoint"),
    ("two", "--init_checkpoint={0}/two: the folder holds several checkpoints; name one")])
def test_where_no_checkpoint_is_found_the_error_names_flag_and_path(name, message, tmp_path):
    touch(tmp_path, "empty/vocab.txt", "two/a.ckpt.index", "two/b.ckpt.index")
    with pytest.raises(UserError) as error:
        checkpoints.find_model(str(tmp_path / name), "init_checkpoint")
    assert str(error.value) == message.format(tmp_path)


def test_layers_are_parsed_in_the_order_they_are_given():
    assert checkpoints.parse_layers("") == ()
    assert checkpoints.parse_layers("0") == (0,)
    assert checkpoints.parse_layers("5,1,3") == (5, 1, 3)


@pytest.mark.parametrize("text, message", [
    ("0,,1", "numbers with commas between them"), ("0-5", "numbers with commas between them"),
    ("0,-1", "layers are counted from 0"), ("0,1,0", "a layer stands twice")])
def test_layers_that_are_none_are_an_error_that_names_the_flag(text, message):
    with pytest.raises(UserError, match="^--init_layers=%s: %s" % (text, message)):
        checkpoints.parse_layers(text)
    with pytest.raises(UserError, match="^--teacher_layers=%s: " % text):
        checkpoints.parse_layers(text, "teacher_layers")


def restored(checkpoint, config, task=MASKED_LM, **arguments):
    """The variables of a model that starts from a checkpoint: dict of name -> value."""
    def build():
        batch = batches.features(batches.texts())
        encoder = build_encoder(config, True, batch)
        if task:
            task.logits(encoder, config, batch)
        checkpoints.restore(checkpoint, tf.trainable_variables(), **arguments)
        return {variable.op.name: variable for variable in tf.trainable_variables()}

    return graphs.run(build)


@graphs.ON_REFERENCE
@pytest.mark.parametrize("config", [batches.bert(), batches.albert(), batches.electra()])
def test_a_model_starts_with_the_values_of_the_checkpoint_and_says_so(config, tmp_path, capsys):
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", config, MASKED_LM)
    found = restored(checkpoint, config)
    assert sorted(found) == sorted(saved)
    for name, value in saved.items():
        assert np.array_equal(found[name], value), name
    assert capsys.readouterr().out == "%s: %d of %d variables restored\n" % (checkpoint, len(saved), len(saved))


@pytest.mark.parametrize("model", [batches.bert, pytest.param(batches.electra, marks=graphs.ON_REFERENCE)])
def test_a_layer_starts_with_the_values_of_the_layer_that_was_chosen_for_it(model, tmp_path, capsys):
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", model(layers=4), MASKED_LM, slots=SLOTS)
    found = restored(checkpoint, model(layers=2), layers=(3, 1))
    for ours, theirs in (("layer_0/", "layer_3/"), ("layer_1/", "layer_1/")):
        names = [name for name in found if ours in name]
        assert len(names) == 16
        for name in names:
            assert np.array_equal(found[name], saved[name.replace(ours, theirs)]), name
    others = [name for name in found if "layer_" not in name]
    assert len(others) == len(found) - 32
    for name in others:
        assert np.array_equal(found[name], saved[name]), name
    assert capsys.readouterr().out == (
        "%s: %d of %d variables restored (layers 3,1; 32 of other layers left out; %d optimiser slots left out)\n"
        % (checkpoint, len(found), len(found), 2 * len(saved)))


def test_an_albert_that_is_cut_takes_all_of_its_one_layer(tmp_path, capsys):
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", batches.albert(layers=4), MASKED_LM)
    found = restored(checkpoint, batches.albert(layers=2), layers=(0, 1))
    assert sorted(found) == sorted(saved)
    for name, value in saved.items():
        assert np.array_equal(found[name], value), name
    assert capsys.readouterr().out == "%s: %d of %d variables restored (layers 0,1)\n" % (
        checkpoint, len(saved), len(saved))


def test_electras_generator_and_its_heads_stay_behind_and_are_named(tmp_path, capsys):
    config = batches.electra(layers=1)
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", config, None)
    released = str(tmp_path / "released.ckpt")
    with tf.Graph().as_default(), tf.Session() as session:
        values = dict(saved, **{"generator/embeddings_project/bias": np.zeros(2, np.float32),
                                "discriminator_predictions/dense/bias": np.zeros(8, np.float32)})
        saver = tf.train.Saver({name: tf.Variable(value) for name, value in values.items()})
        session.run(tf.global_variables_initializer())
        saver.save(session, released, write_state=False)
    found = restored(released, config, batches.TASKS["classification"])
    for name, value in saved.items():
        assert np.array_equal(found[name], value), name
    assert capsys.readouterr().out == (
        "%s: %d of %d variables restored (fresh: output_bias, output_weights; left out: discriminator_predictions/"
        "dense/bias, generator/embeddings_project/bias)\n" % (released, len(saved), len(saved) + 2))


def test_a_checkpoint_with_berts_names_but_neither_pooler_nor_head_is_taken(tmp_path, capsys):
    # Such are those of SpanBERT; RoBERTa-wwm has all of BERT's names.
    checkpoint, saved = batches.save_model(
        tmp_path / "m.ckpt", batches.bert(), None, only=lambda name: "pooler" not in name)
    found = restored(checkpoint, batches.bert(), batches.TASKS["classification"])
    for name, value in saved.items():
        assert np.array_equal(found[name], value), name
    assert capsys.readouterr().out == (
        "%s: %d of %d variables restored (fresh: bert/pooler/dense/bias, bert/pooler/dense/kernel, output_bias, "
        "output_weights)\n" % (checkpoint, len(saved), len(saved) + 4))


def test_what_the_checkpoint_lacks_starts_fresh_and_is_named(tmp_path, capsys):
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", batches.bert(layers=1), None)
    found = restored(checkpoint, batches.bert(layers=1))
    fresh = sorted(name for name in found if name not in saved)
    assert len(fresh) == 5 and all(name.startswith("cls/predictions/") for name in fresh)
    assert np.all(found["cls/predictions/output_bias"] == 0)
    assert np.array_equal(found["bert/embeddings/word_embeddings"], saved["bert/embeddings/word_embeddings"])
    assert capsys.readouterr().out == (
        "%s: %d of %d variables restored (fresh: %s and 2 more; left out: bert/pooler/dense/bias, "
        "bert/pooler/dense/kernel)\n" % (checkpoint, len(found) - 5, len(found), ", ".join(fresh[:3])))


def restore_error(*args, **kwargs):
    with pytest.raises(UserError) as error:
        restored(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_checkpoint_of_which_nothing_fits_is_refused(tmp_path):
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", batches.bilstm(), None, with_step=False)
    assert restore_error(checkpoint, batches.bert()) == (
        "%s: none of its %d variables is one of the model's; it starts with %s"
        % (checkpoint, len(saved), ", ".join(sorted(saved)[:3])))


def test_a_shape_that_differs_is_refused(tmp_path):
    checkpoint, _ = batches.save_model(tmp_path / "m.ckpt", batches.bilstm(embedding=5), None)
    assert restore_error(checkpoint, batches.bilstm(embedding=4), None) == (
        "%s: student/embeddings/word_embeddings is [50, 5] in the checkpoint, and [50, 4] in the model; the "
        "configuration or the vocabulary is another" % checkpoint)


def test_a_chosen_layer_that_the_checkpoint_lacks_is_refused(tmp_path):
    checkpoint, _ = batches.save_model(tmp_path / "m.ckpt", batches.bert(layers=4), MASKED_LM)
    assert restore_error(checkpoint, batches.bert(layers=2), layers=(0, 7)) == (
        "%s: bert/encoder/layer_7/attention/output/LayerNorm/beta is not in the checkpoint, nor are 15 other variables "
        "of the model" % checkpoint)


def test_a_variable_that_may_not_be_absent_is_refused(tmp_path):
    checkpoint, _ = batches.save_model(
        tmp_path / "m.ckpt", batches.bert(layers=1), MASKED_LM, only=lambda name: not name.endswith("output_bias"))
    assert restore_error(checkpoint, batches.bert(layers=1), optional=lambda name: False) == (
        "%s: cls/predictions/output_bias is not in the checkpoint" % checkpoint)
    found = restored(checkpoint, batches.bert(layers=1), optional=lambda name: name.startswith("cls/"))
    assert np.all(found["cls/predictions/output_bias"] == 0)


def test_a_frozen_scope_neither_trains_nor_reaches_a_checkpoint():
    with tf.Graph().as_default():
        with checkpoints.frozen_scope("teacher"):
            build_encoder(batches.bert(layers=1), False, batches.features(batches.texts())).get_pooled_output()
        names = {variable.op.name for variable in tf.local_variables()}
        assert len(names) == 23 and all(name.startswith("teacher/bert/") for name in names)
        assert not tf.trainable_variables() and not tf.global_variables()


def test_a_frozen_model_starts_with_the_values_of_the_checkpoint(tmp_path):
    config = batches.bert(layers=1)
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", batches.bert(layers=3), None)

    def build():
        with checkpoints.frozen_scope("teacher"):
            build_encoder(config, False, batches.features(batches.texts())).get_pooled_output()
        checkpoints.restore(checkpoint, tf.local_variables(), (2,), "teacher/", optional=lambda name: False)
        return {variable.op.name: variable for variable in tf.local_variables()}

    for name, value in graphs.run(build).items():
        source = name[len("teacher/"):].replace("layer_0", "layer_2")
        assert np.array_equal(value, saved[source]), name


@pytest.mark.parametrize("config", [
    batches.bilstm(layers=1), pytest.param(batches.albert(), marks=graphs.ON_REFERENCE),
    pytest.param(batches.electra(layers=1), marks=graphs.ON_REFERENCE)])
def test_every_replica_starts_with_the_values_of_the_checkpoint(config, tmp_path, capsys):
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", config, None, only=lambda name: "pooler" not in name)

    def build():
        batch = batches.features(batches.texts())
        build_encoder(config, True, batch)
        variables = tf.trainable_variables()
        with checkpoints.frozen_scope("teacher"):
            build_encoder(config, False, batch)
        checkpoints.restore(checkpoint, variables)
        checkpoints.restore(checkpoint, [variable for variable in tf.local_variables()
                                         if variable.op.name.startswith("teacher/")], prefix="teacher/")
        return tf.constant(0.0)

    strategy, _ = runtime.distribution_strategy(num_cpu_replicas=2)

    def mirrored():
        with strategy.scope():
            strategy.extended.call_for_each_replica(build)
        found = {}
        for variable in tf.global_variables() + tf.local_variables():
            for replica, copy in enumerate(strategy.experimental_local_results(variable)):
                name = variable.op.name.replace("teacher/", "")
                if name in saved:
                    found[variable.op.name, replica] = copy.read_value()
        return found

    found = graphs.run(mirrored)
    assert len(found) == 2 * 2 * len(saved)
    for (name, _), value in found.items():
        assert np.array_equal(value, saved[name.replace("teacher/", "")]), name
    assert capsys.readouterr().out.count("variables restored") == 2  # once for each call, not for each replica


def test_a_slim_copy_keeps_every_value_but_the_slots(tmp_path):
    checkpoint, saved = batches.save_model(tmp_path / "m.ckpt", batches.bert(layers=1), MASKED_LM, slots=SLOTS)
    checkpoints.copy_slim(checkpoint, str(tmp_path / "slim" / "model.ckpt"))
    found = graphs.weights_in(str(tmp_path / "slim" / "model.ckpt"))
    assert sorted(found) == sorted(list(saved) + ["global_step"])
    assert found["global_step"].dtype == np.int64
    for name, value in saved.items():
        assert np.array_equal(found[name], value), name
    assert sorted(os.listdir(str(tmp_path / "slim"))) == ["model.ckpt.data-00000-of-00001", "model.ckpt.index"]
    assert sum(map(os.path.getsize, map(str, (tmp_path / "slim").iterdir()))) < 0.5 * os.path.getsize(
        checkpoint + ".data-00000-of-00001")
