import collections
import glob
import json
import os
import shutil
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from bert import masking
from bert import records
from bert.draws import Draws, keys_of
from bert.tokenization import load_vocab
from tests import commands
from tests import graphs
from tests import tiny
from tests.commands import contents
from tests.commands import read
from tests.graphs import largest_difference
from tests.graphs import weights_in
from training import lock
from training import saved

HELP = {
    "run_pretraining.py": "--input_file", "run_distill.py": "--layer_map", "run_classifier.py": "--data_dir",
    "bert.create_pretraining_data": "--dupe_factor", "bert.vocabulary": "build",
    "serving.predictor": "--export_dir", "experiments.demo": "--folder"}
NOISE = ("Warning", "WARNING", "deprecated", "INFO", "tensorflow/", "\r", "\x1b")


def last_weights(folder):
    return weights_in(tf.train.latest_checkpoint(folder))


# path: TFRecords without masks; texts: list of (input_ids, word_starts).
Unmasked = collections.namedtuple("Unmasked", "path texts")


@pytest.fixture(scope="module")
def unmasked(world, tmp_path_factory):
    """240 texts of ten characters, with words of one or two."""
    vocab, draw = load_vocab(world.vocabulary), np.random.RandomState(0)
    found = []
    for number in range(240):
        words = [draw.choice(tiny.CHARACTERS[:10], 1 + (place + number) % 2) for place in range(2 + number % 14)]
        tokens = ["[CLS]"] + [character for word in words for character in word] + ["[SEP]"]
        starts = [1] + [start for word in words for start in [1, 0][:len(word)]] + [1]
        found.append(([vocab[token] for token in tokens], starts))
    path = str(tmp_path_factory.mktemp("unmasked") / "x.tfrecord")
    records.write_records(path, [records.serialize({"input_ids": ids, "word_starts": starts})
                                 for ids, starts in found])
    return Unmasked(path, found)


@pytest.fixture
def pretrain(world, corpus_records, forks, tmp_path):
    """Trains a BiLSTM in `name` for two updates, or as the flags say; returns (folder, Result)."""
    def run(name, *flags, by=forks):
        folder = str(tmp_path / name)
        result = by.run("run_pretraining.py", "--input_file=" + corpus_records, "--output_dir=" + folder,
                        "--vocab_file=" + world.vocabulary, "--student_config_file=" + world.student,
                        "--do_train", "--num_train_steps=2", "--train_batch_size=16", *flags)
        return folder, result

    return run


@pytest.mark.parametrize("command", sorted(HELP))
def test_help_lists_the_flags_and_ends_with_code_0(command, forks):
    result = forks.run(command, "--help")
    assert (result.code, result.err) == (0, "")
    assert HELP[command] in result.out and len(result.out.splitlines()) > 5


@pytest.mark.parametrize("flag", ["--use_fp16", "--use_xla"])
def test_what_only_gpus_can_is_refused_on_a_cpu_and_leaves_no_folder(flag, pretrain):
    folder, result = pretrain("run", flag)
    assert result.code == 1 and flag + ": for GPUs, and --num_gpus=0 asks for none" in result.err
    assert not os.path.exists(folder)


@graphs.ON_TENSORFLOW_2
def test_profile_writes_a_chrome_trace_of_every_so_many_updates(pretrain):
    folder, result = pretrain("run", "--profile=2", "--num_train_steps=5", "--lstm_kernel=block")
    assert result.code == 0
    traces = glob.glob(os.path.join(folder, "profile", "timeline-*.json"))
    assert len(traces) == 2
    events = json.loads(read(traces[0]))["traceEvents"]
    assert any(event["name"] == "BlockLSTM" and event["dur"] > 0 for event in events if event["ph"] == "X")


def test_a_run_folder_holds_what_a_later_command_needs(teacher, world):
    assert json.loads(read(teacher.folder, "config.json"))["num_hidden_layers"] == 3
    assert read(teacher.folder, "vocab.txt") == read(world.vocabulary)
    assert json.loads(read(teacher.folder, "run.json"))["num_train_steps"] == 20
    finished = json.loads(read(teacher.folder, "finished.json"))
    assert (finished["steps"], finished["reason"]) == (20, "all steps made")
    names = {name for name, _ in tf.train.list_variables(os.path.join(teacher.folder, "best", "model.ckpt"))}
    assert "bert/encoder/layer_2/output/dense/kernel" in names and "cls/predictions/output_bias" in names
    assert not any("adam" in name for name in names)


def test_a_run_says_nothing_but_its_own_plain_lines(teacher):
    assert teacher.result.err == ""
    assert not [word for word in NOISE if word in teacher.result.out]
    first, *lines = teacher.result.out.splitlines()
    assert first == "training on /cpu:0, 240 texts, 20 updates of 16"
    assert [line.split()[1] for line in lines if line.startswith("step ")] == ["10/20", "20/20"]
    assert lines[-1] == teacher.folder + ": finished at step 20: all steps made"


def test_a_finished_run_given_again_says_so_and_changes_nothing(teacher, forks):
    before = contents(teacher.folder)
    result = forks.run(*teacher.command)
    assert result == (0, teacher.folder + ": finished at step 20 (all steps made); nothing to do\n", "")
    assert contents(teacher.folder) == before


def test_a_run_folder_refuses_other_settings_and_names_the_flag(teacher, forks):
    before = contents(teacher.folder)
    result = forks.run(*(teacher.command + ("--learning_rate=2e-3",)))
    assert result.code == 1 and len(result.err.splitlines()) == 1
    assert "learning_rate=0.001, now it is 0.002" in result.err
    assert contents(teacher.folder) == before


def test_a_run_folder_refuses_other_records_under_the_same_name(teacher, corpus_records, forks, tmp_path):
    records = str(tmp_path / "corpus.tfrecord")
    with open(corpus_records, "rb") as source, open(records, "wb") as target:
        target.write(source.read() * 2)
    folder = shutil.copytree(teacher.folder, str(tmp_path / "run"))
    settings = json.loads(read(folder, "run.json"))
    tiny.write_lines(os.path.join(folder, "run.json"), [json.dumps(dict(settings, input_file=records))])
    result = forks.run(*(teacher.command + ("--input_file=" + records, "--output_dir=" + folder)))
    assert result.code == 1 and "begun with corpus.tfrecord=" in result.err


@pytest.mark.parametrize("masks", [
    pytest.param("written", marks=graphs.ON_TENSORFLOW_2), pytest.param("drawn", marks=graphs.ON_REFERENCE)])
def test_a_run_killed_in_the_middle_ends_with_the_weights_of_an_unbroken_one(
        masks, pretrain, world, corpus_records, unmasked):
    path = corpus_records if masks == "written" else unmasked.path
    flags = ("--input_file=" + path, "--eval_file=" + path, "--num_train_steps=24", "--save_checkpoints_steps=6",
             "--learning_rate=1e-2")
    unbroken, result = pretrain("unbroken", *flags, by=commands)
    assert result.code == 0, result.err
    killed = os.path.join(os.path.dirname(unbroken), "killed")
    process = commands.start(
        "run_pretraining.py", "--output_dir=" + killed, "--vocab_file=" + world.vocabulary,
        "--student_config_file=" + world.student, "--do_train", "--train_batch_size=16", *flags)
    deadline = time.time() + 60
    while saved.last_step(killed) < 6:
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not os.path.exists(os.path.join(killed, "finished.json"))
    result = pretrain("killed", *flags, by=commands)[1]
    assert result.code == 0 and "going on from step " in result.out
    assert largest_difference(last_weights(killed), last_weights(unbroken)) == 0.0
    assert json.loads(read(killed, "evaluations.json")) == json.loads(read(unbroken, "evaluations.json"))


@graphs.ON_REFERENCE
def test_records_without_masks_are_masked_as_the_flags_say(pretrain, unmasked, world):
    flags = ("--masked_lm_prob=0.4", "--max_predictions_per_seq=6", "--max_ngram=2")
    folder, result = pretrain(
        "run", "--input_file=" + unmasked.path, "--eval_file=" + unmasked.path, "--do_eval", "--num_train_steps=60",
        "--save_checkpoints_steps=20", "--learning_rate=1e-2", *flags)
    assert (result.code, result.err) == (0, "")
    losses = [found["masked_lm_loss"] for found in json.loads(read(folder, "evaluations.json"))]
    assert len(losses) == 3 and losses[0] > losses[1] > losses[2]
    assert losses[2] < 2.5  # log(154), of any character, is 5.04, and of the ten that occur 2.30
    figures = json.loads(read(folder, "eval.json"))
    assert figures["masked_lm_loss"] == losses[2]  # measured again, with the same masks
    longest = max(len(ids) for ids, _ in unmasked.texts)
    input_ids, starts = (np.array([values + [0] * (longest - len(values)) for values in rows])
                         for rows in zip(*unmasked.texts))
    written = masking.mask(
        input_ids, [len(ids) for ids, _ in unmasked.texts], masking.rules_for(load_vocab(world.vocabulary), 0.4, 6, 2),
        Draws(keys_of(records.EVALUATION_SEED, np.arange(len(input_ids)))), starts == 1)
    assert figures["predictions"] == written.counts.sum()


# weights: as from `weights_in`; lines, errors: the last of what each process wrote to stdout, and all of stderr.
Trained = collections.namedtuple("Trained", "weights lines errors")


@pytest.fixture(scope="module")
def without_dropout(world, corpus_records, tmp_path_factory):
    """Function of flags, and a worker's environment each, that trains a BiLSTM without dropout: Trained."""
    vocab_size = len(read(world.vocabulary).splitlines())
    model = tiny.write_model(str(tmp_path_factory.mktemp("model") / "no_dropout.json"), tiny.STUDENT, vocab_size,
                             embedding_dropout_prob=0.0, hidden_dropout_prob=0.0)

    def train(*flags, workers=({},)):
        folder = str(tmp_path_factory.mktemp("no_dropout") / "run")
        processes = [commands.start(
            "run_pretraining.py", "--input_file=" + corpus_records, "--output_dir=" + folder,
            "--vocab_file=" + world.vocabulary, "--student_config_file=" + model, "--do_train",
            "--num_train_steps=10", "--train_batch_size=16", *flags, **worker) for worker in workers]
        try:
            ends = [process.communicate(timeout=commands.TIME_LIMIT) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0] * len(processes), ends
        lines, errors = zip(*[(out.decode("utf-8").splitlines()[-1], err.decode("utf-8")) for out, err in ends])
        return Trained(last_weights(folder), lines, errors)

    return train


@pytest.fixture(scope="module")
def in_one_piece(without_dropout):
    return without_dropout()


@pytest.mark.parametrize("flag", ["--num_cpu_replicas=2", "--gradient_accumulation_steps=2"])
def test_an_update_cut_in_two_gives_the_weights_of_one_in_one_piece(flag, without_dropout, in_one_piece):
    cut = without_dropout(flag)
    assert largest_difference(cut.weights, in_one_piece.weights) < 1e-5
    assert cut.errors == ("",)


def test_two_machines_give_the_weights_of_one_and_the_chief_tells_the_end(without_dropout, in_one_piece):
    both = without_dropout(workers=commands.cluster())
    assert largest_difference(both.weights, in_one_piece.weights) < 1e-5
    assert both.lines[0].endswith(": finished at step 10: all steps made")
    assert "this worker has done its part" in both.lines[1] and "Traceback" not in "".join(both.errors)


@graphs.ON_TENSORFLOW_2
def test_chosen_layers_of_a_checkpoint_become_the_first_ones(teacher, corpus_records, world, forks, tmp_path):
    folder = str(tmp_path / "cut")
    # At rate 0 the weights stay those that were restored.
    result = forks.run("run_pretraining.py", "--input_file=" + corpus_records, "--output_dir=" + folder,
                       "--init_checkpoint=" + teacher.folder, "--init_layers=0,2", "--do_train",
                       "--learning_rate=0", "--num_train_steps=1")
    assert result.code == 0, result.err
    assert json.loads(read(folder, "config.json"))["num_hidden_layers"] == 2
    source, cut = (weights_in(os.path.join(name, "best", "model.ckpt")) for name in (teacher.folder, folder))
    name = "bert/encoder/layer_%d/intermediate/dense/kernel"
    assert (cut[name % 1] == source[name % 2]).all() and name % 2 not in cut
    assert "layers 0,2" in result.out


REFUSED = {
    "no model": ([], "--bert_config_file or --student_config_file: one of them is needed"),
    "two models": (["--bert_config_file={teacher}", "--student_config_file={student}"],
                   "--student_config_file={student}: --bert_config_file is given too"),
    "an unknown flag": (["--lerning_rate=1"], "Unknown command line flag 'lerning_rate'. Did you mean"),
    "a misspelt value": (["--select_by=los"], "flag --select_by=los: value should be one of"),
    "a stray word": (["stray"], "stray: not a flag"),
    "a missing file": (["{model}", "--input_file=/absent*"], "--input_file=/absent*: no such file"),
    "a missing vocabulary": (["{model}", "--vocab_file=/absent.txt"], "/absent.txt: No such file"),
    "another vocabulary": (["{model}", "--vocab_file={longer}"],
                           "155 tokens, and {student} has 'vocab_size' 154"),
    "a missing checkpoint": (["{model}", "--init_checkpoint=/absent"], "--init_checkpoint=/absent: no such"),
    "layers of nothing": (["{model}", "--init_layers=0"], "--init_layers=0: needs --init_checkpoint"),
    "missing GPUs": (["{model}", "--num_gpus=64"], "--num_gpus=64: "),
    "replicas": (["{model}", "--train_batch_size=15", "--num_cpu_replicas=2"],
                 "--train_batch_size=15: cannot be divided among 2 replicas"),
    "parts": (["{model}", "--train_batch_size=15", "--gradient_accumulation_steps=2"],
              "--train_batch_size=15: cannot be divided among 1 replicas and 2 accumulated parts"),
    "no records": (["{model}", "--input_file={corpus}"], "{corpus}: record 0 is cut off"),
    "nothing to measure on": (["{model}", "--do_eval"], "--eval_file: --do_eval needs it"),
    "texts too long": (["--bert_config_file={short}"], "corpus.tfrecord: the model takes 16 tokens"),
    "unmasked texts too long": (["--bert_config_file={short}", "--input_file={unmasked}"],
                                "{unmasked}: the model takes 16 tokens"),
    "masks that are written": (["{model}", "--max_ngram=2"],
                               "--max_ngram=2: {records} holds masks already; leave the flag out, or make records"),
    "some masks that are written": (["{model}", "--input_file={unmasked},{records}"],
                                    "{unmasked}: records without masks, and those of {records} have masks"),
    "a share over 1": (["{model}", "--masked_lm_prob=1.5"], "flag --masked_lm_prob=1.5: "),
    "nothing to do": (["{model}", "--nodo_train"], "--do_train or --do_eval: at least one is needed")}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_refused_is_told_in_one_line_and_leaves_no_folder(
        case, world, corpus_records, unmasked, forks, tmp_path):
    short = tiny.write_model(tmp_path / "short.json", tiny.TEACHER,
                             len(read(world.vocabulary).splitlines()), max_position_embeddings=16)
    longer = tiny.write_lines(tmp_path / "longer.txt", read(world.vocabulary).splitlines() + ["more"])
    places = dict(world._asdict(), short=short, longer=longer, model="--student_config_file=" + world.student,
                  records=corpus_records, unmasked=unmasked.path)
    flags, message = REFUSED[case]
    result = forks.run(
        "run_pretraining.py", "--input_file=" + corpus_records, "--vocab_file=" + world.vocabulary,
        "--output_dir=%s" % (tmp_path / "run"), "--do_train", *[flag.format(**places) for flag in flags])
    assert result.code == 1
    assert result.err.startswith("run_pretraining.py: error: ") and len(result.err.splitlines()) == 1
    assert message.format(**places) in result.err
    assert not os.path.exists(str(tmp_path / "run"))


@graphs.ON_REFERENCE
def test_a_checkpoint_that_does_not_fit_holds_no_folder_to_its_settings(teacher, pretrain):
    folder, result = pretrain("run", "--init_checkpoint=" + teacher.folder)
    assert result.code == 1 and len(result.err.splitlines()) == 1 and "in the checkpoint" in result.err
    assert not glob.glob(os.path.join(folder, "*"))
    assert pretrain("run")[1].code == 0


def test_measuring_a_checkpoint_without_the_head_is_told_in_one_line(
        several_classifier, corpus_records, forks):
    result = forks.run("run_pretraining.py", "--do_eval", "--eval_file=" + corpus_records,
                       "--output_dir=" + several_classifier.folder)
    assert result.code == 1 and len(result.err.splitlines()) == 1
    assert "Key cls/predictions/" in result.err


def refused(result):
    """What a command said that ended with one line."""
    assert result.code == 1 and len(result.err.splitlines()) == 1, result.err
    return result.err


def test_a_loss_that_is_no_number_is_told_with_term_and_step_and_the_checkpoint_before_is_kept(pretrain):
    folder, result = pretrain("run", "--learning_rate=1e30", "--num_train_steps=20", "--save_checkpoints_steps=1")
    told = refused(result)
    steps = saved.steps_of(folder)
    assert "error: step %d: loss is " % (steps[-1] + 1) in told
    assert told.endswith("; the last good checkpoint is %s\n" % saved.prefix_of(folder, steps[-1]))
    saved.verify(saved.last(folder))
    assert all(np.isfinite(value).all() for value in last_weights(folder).values())


def flip(path, place):
    with open(path, "r+b") as stream:
        stream.seek(place)
        byte, = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("flag", ["--input_file", "--eval_file"])
def test_a_damaged_record_is_named_when_training_comes_upon_it(flag, pretrain, corpus_records, tmp_path):
    damaged = shutil.copy(corpus_records, str(tmp_path / "damaged.tfrecord"))
    flip(damaged, os.path.getsize(damaged) - 50)
    told = refused(pretrain("run", "%s=%s" % (flag, damaged), "--num_train_steps=40")[1])
    assert "error: %s: record 239 at byte " % damaged in told and "checksum of the data is wrong" in told


@graphs.ON_REFERENCE
def test_a_run_does_not_go_on_from_a_damaged_checkpoint_and_does_from_the_one_before(pretrain, forks):
    flags = ("--num_train_steps=4", "--save_checkpoints_steps=2")
    folder, result = pretrain("run", *flags)
    assert result.code == 0, result.err
    expected = last_weights(folder)
    os.remove(os.path.join(folder, "finished.json"))
    flip(saved.prefix_of(folder, 4) + ".data-00000-of-00001", 1000)
    told = refused(pretrain("run", *flags)[1])
    assert saved.prefix_of(folder, 4) + ": damaged: " in told and "repair --output_dir=" + folder in told
    result = forks.run("bert.checkpoints", "repair", "--output_dir=" + folder)
    assert result.out == "%s: removed the damaged checkpoints of step 4; the run goes on from step 2\n" % folder
    assert pretrain("run", *flags)[1].out.count("going on from step 2") == 1
    assert largest_difference(last_weights(folder), expected) < 1e-6


def test_a_second_run_on_the_same_folder_is_refused(pretrain, tmp_path):
    with lock.held(str(tmp_path / "run"), "output_dir"):
        told = refused(pretrain("run")[1])
    assert "--output_dir=%s: process %d on " % (tmp_path / "run", os.getpid()) in told
    assert pretrain("run")[1].code == 0
