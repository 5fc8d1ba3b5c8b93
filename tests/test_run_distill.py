import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tests import graphs
from tests import tiny
from tests.commands import contents
from tests.commands import read
from tests.graphs import weights_in


def best(folder):
    return weights_in(os.path.join(folder, "best", "model.ckpt"))


def terms(result):
    """Names of the terms in the last progress line."""
    line = [line for line in result.out.splitlines() if line.startswith("step ")][-1]
    return [part.split()[0] for part in line.split("  ")[3:]]


@pytest.fixture
def distil(world, forks, corpus_records, teacher, tmp_path):
    """Distils on the corpus for one update, or as the flags say; returns (folder, Result)."""
    def run(*flags):
        folder = str(tmp_path / "run")
        if not any(flag.startswith("--teacher_checkpoint") for flag in flags):
            flags = ("--teacher_checkpoint=" + teacher.folder,) + flags
        return folder, forks.run(
            "run_distill.py", "--task=masked_lm", "--input_file=" + corpus_records, "--output_dir=" + folder,
            "--student_config_file=" + world.student, "--do_train",
            "--num_train_steps=1", *flags)

    return run


@pytest.fixture
def distil_on_task(world, forks, teacher_classifier, tmp_path):
    """The same, on the task."""
    def run(*flags):
        folder = str(tmp_path / "run")
        if not any(flag.startswith("--teacher_checkpoint") for flag in flags):
            flags = ("--teacher_checkpoint=" + teacher_classifier.folder,) + flags
        return folder, forks.run(
            "run_distill.py", "--task=classification", "--data_dir=" + world.task, "--output_dir=" + folder,
            "--student_config_file=" + world.student,
            "--do_train", "--num_train_steps=1", *flags)

    return run


def test_each_term_is_told_by_its_name(student, student_classifier):
    assert terms(student.result) == ["loss", "embedding", "hidden_1", "hidden_2", "prediction"]
    assert terms(student_classifier.result) == [
        "loss", "embedding", "hidden_1", "hidden_2", "prediction", "label"]


def test_neither_the_teacher_nor_its_head_is_in_the_students_checkpoints(student, student_classifier):
    for folder in (student.folder, student_classifier.folder):
        names = [name for name, _ in tf.train.list_variables(tf.train.latest_checkpoint(folder))]
        assert names and not [name for name in names if name.startswith(("teacher/", "bert/"))]


def test_the_students_run_folder_has_the_teachers_vocabulary_labels_and_text_settings(
        student_classifier, teacher_classifier):
    for name in ("vocab.txt", "labels.txt", "text.json"):
        assert read(student_classifier.folder, name) == read(teacher_classifier.folder, name)
    assert json.loads(read(student_classifier.folder, "config.json"))["model_type"] == "bilstm"


def test_unlabelled_texts_are_mixed_with_the_labelled_ones(student_classifier):
    assert "training on /cpu:0, 150 texts" in student_classifier.result.out
    assert "unlabeled.txt: 60 texts" in student_classifier.result.out


@graphs.ON_TENSORFLOW_2
def test_every_one_of_several_unlabelled_files_is_read(distil_on_task, world, tmp_path):
    other = tiny.write_lines(tmp_path / "other.txt", [text for _, text in tiny.texts(7, seed=11)])
    _, result = distil_on_task("--unlabeled_file=%s,%s" % (world.unlabeled, other))
    assert result.code == 0, result.err
    assert "157 texts, 1 updates" in result.out


def test_the_student_goes_on_from_its_distillation_on_the_corpus(student, student_classifier):
    assert "%s: 9 of 9 variables restored" % os.path.join(student.folder, "best", "model.ckpt") \
        in student_classifier.result.out


def test_the_student_learns_the_task(student_classifier):
    figures = json.loads(read(student_classifier.folder, "best", "figures.json"))
    assert figures["accuracy"] > 0.6


def test_a_finished_distillation_given_again_says_so_and_changes_nothing(
        student_classifier, forks):
    before = contents(student_classifier.folder)
    result = forks.run(*student_classifier.command)
    assert (result.code, result.err) == (0, "")
    assert "finished at step 60 (all steps made); nothing to do" in result.out
    assert "exported already; nothing to do" in result.out
    after = contents(student_classifier.folder)
    assert {name: content for name, (content, _) in before.items()} == {
        name: content for name, (content, _) in after.items()}


@graphs.ON_REFERENCE
def test_the_teachers_head_is_the_teachers_and_the_students_its_own(distil_on_task, frozen_classifier):
    folder, result = distil_on_task("--teacher_checkpoint=" + frozen_classifier.folder, "--layer_map=1:1,2:2")
    assert result.code == 0, result.err
    assert not [name for name in best(folder) if name.startswith("head/")]
    assert "head" not in json.loads(read(folder, "text.json"))


@graphs.ON_TENSORFLOW_2
def test_a_head_over_a_frozen_student_learns_the_teachers_answers(distil_on_task, student):
    folder, result = distil_on_task("--init_checkpoint=" + student.folder, "--freeze_encoder", "--head=attention",
                                    "--embedding_weight=0", "--hidden_weights=0", "--do_eval")
    assert result.code == 0, result.err
    assert terms(result) == ["loss", "prediction", "label"]
    before, after = best(student.folder), best(folder)
    assert all((after[name] == before[name]).all() for name in before if name.startswith("student/"))
    assert "head/attention/context" in after


@graphs.ON_TENSORFLOW_2
def test_a_weight_of_0_switches_its_term_off(distil):
    folder, result = distil("--embedding_weight=0", "--hidden_weights=0,1", "--layer_map=1:1,2:3")
    assert result.code == 0, result.err
    assert terms(result) == ["loss", "hidden_2", "prediction"]
    names = [name for name, _ in tf.train.list_variables(tf.train.latest_checkpoint(folder))]
    assert "distill/hidden_2/kernel" in names and "distill/hidden_1/kernel" not in names


MORE = ("hard_label", "logit_mse", "cosine", "token_similarity", "text_similarity", "contrast", "patience")
MORE_FLAGS = ["--%s_weight=0.5" % name for name in MORE]


@graphs.ON_TENSORFLOW_2
def test_a_bilstm_learns_by_the_terms_of_other_methods_when_they_have_weights(distil):
    folder, result = distil(*MORE_FLAGS)
    assert result.code == 0, result.err
    assert terms(result) == [
        "loss", "embedding", "hidden_1", "hidden_2", "prediction", "hard_label", "logit_mse", "cosine",
        "token_similarity_1", "token_similarity_2", "text_similarity", "contrast_1", "contrast_2", "patience_1",
        "patience_2"]
    assert "nan" not in result.out
    names = [name for name, _ in tf.train.list_variables(tf.train.latest_checkpoint(folder))]
    projected = ("embedding", "hidden_1", "hidden_2", "cosine", "contrast_1", "contrast_2", "patience_1", "patience_2")
    assert {name for name in names if name.startswith("distill/") and name.endswith("/kernel")} == {
        "distill/%s/kernel" % name for name in projected}


@graphs.ON_TENSORFLOW_2
def test_a_bert_learns_from_the_teachers_attention_too(distil_on_task, world, tmp_path):
    bert = tiny.write_model(tmp_path / "bert.json", tiny.TEACHER, size_of(world), num_hidden_layers=2)
    folder, result = distil_on_task(
        "--student_config_file=" + bert, "--attention_weight=1", "--label_weight=0", "--hidden_weights=0",
        "--embedding_weight=0", "--prediction_weight=0", "--num_train_steps=2", *MORE_FLAGS)
    assert result.code == 0, result.err
    assert terms(result) == [
        "loss", "hard_label", "logit_mse", "cosine", "token_similarity_1", "token_similarity_2", "text_similarity",
        "contrast_1", "contrast_2", "patience_1", "patience_2", "attention_1", "attention_2"]
    assert "nan" not in result.out
    names = [name for name, _ in tf.train.list_variables(tf.train.latest_checkpoint(folder))]
    assert not [name for name in names if name.startswith(("teacher/", "distill/patience"))]


@graphs.ON_TENSORFLOW_2
def test_a_method_by_its_name_learns_in_stages_from_several_teachers(distil_on_task, teacher_classifier, tmp_path):
    folder, result = distil_on_task(
        *["--teacher_checkpoint=" + teacher_classifier.folder] * 2, "--method=lrc", "--num_train_steps=4",
        "--log_steps=1", "--prediction_weight=0.5")
    assert result.code == 0, result.err
    assert "stage states: ended at step 2: all steps made" in result.out
    lines = [line for line in result.out.splitlines() if line.startswith("step ")]
    assert lines[0].startswith("step 1/4 (states)  ") and lines[3].startswith("step 4/4 (all)  ")
    assert "  contrast_2 " in lines[1] and "  label " not in lines[1] and "  label " in lines[3]
    settings = json.loads(read(folder, "run.json"))
    assert settings["teacher_checkpoint"] == [teacher_classifier.folder] * 2
    assert (settings["strategy"], settings["contrast_weight"], settings["prediction_weight"]) == ("lrc", 1.0, 0.5)


def figures(result):
    """Of each progress line the terms, as numbers."""
    lines = [line.split("  ")[3:] for line in result.out.splitlines() if line.startswith("step ")]
    return [[float(part.split()[1]) for part in line] for line in lines]


@graphs.ON_TENSORFLOW_2
def test_losses_by_cached_outputs_of_the_teacher_are_those_of_live_ones(
        distil_on_task, world, forks, teacher_classifier, tmp_path):
    cache = str(tmp_path / "cache")
    made = forks.run(
        "distill.cache_teacher", "--task=classification", "--data_dir=" + world.task,
        "--unlabeled_file=" + world.unlabeled, "--teacher_checkpoint=" + teacher_classifier.folder,
        "--what=logits,states", "--layers=1,3", "--output_dir=" + cache)
    assert made.code == 0 and "MB to write" in made.out, made.err
    shared = ["--unlabeled_file=" + world.unlabeled, "--num_train_steps=3", "--log_steps=1"]
    _, live = distil_on_task(*shared)
    _, cached = distil_on_task(*shared, "--teacher_cache=" + cache, "--output_dir=%s" % (tmp_path / "cached"))
    assert cached.code == 0, cached.err
    assert len(figures(live)) == 3
    np.testing.assert_allclose(figures(cached), figures(live), rtol=3e-3)
    _, other = distil_on_task("--teacher_cache=" + cache, "--max_seq_length=10", "--output_dir=%s" % (tmp_path / "o"))
    assert other.code == 1 and "it was made for others, or with other flags of how texts become tokens" in other.err


@graphs.ON_REFERENCE
def test_a_cache_of_a_corpus_needs_its_masks(forks, world, teacher, corpus_records, distil, tmp_path):
    unmasked_records = str(tmp_path / "unmasked.tfrecord")
    forks.run("bert.create_pretraining_data", "--input_file=" + world.corpus, "--output_file=" + unmasked_records,
              "--vocab_file=" + world.vocabulary, "--masking=dynamic", "--max_seq_length=%d" % tiny.MAX_LENGTH)
    command = ["distill.cache_teacher", "--task=masked_lm", "--teacher_checkpoint=" + teacher.folder]
    made = forks.run(*command, "--input_file=" + corpus_records, "--output_dir=%s" % (tmp_path / "cache"))
    assert made.code == 0, made.err
    _, cached = distil("--hidden_weights=0", "--teacher_cache=%s" % (tmp_path / "cache"))
    assert cached.code == 0 and terms(cached) == ["loss", "embedding", "prediction"], cached.err
    refused = forks.run(*command, "--input_file=" + unmasked_records, "--output_dir=%s" % (tmp_path / "other"))
    assert refused.code == 1 and "the records hold no masks" in refused.err
    _, drawn = distil("--hidden_weights=0", "--teacher_cache=%s" % (tmp_path / "cache"),
                      "--input_file=" + unmasked_records, "--output_dir=%s" % (tmp_path / "drawn"))
    assert drawn.code == 1 and "the teacher would see others in each epoch" in drawn.err


@pytest.mark.parametrize("flags, message", [
    (["--what=state"], "--what=state: must be some of logits, pooled, states"),
    (["--layers=1,4"], "--layers=1,4: layers of the teacher"), (["--data_dir="], "--data_dir: --task=classification"),
    (["--unlabeled_file=/absent"], "--unlabeled_file=/absent: no such")])
def test_what_cannot_be_cached_is_told(flags, message, forks, world, teacher_classifier, tmp_path):
    result = forks.run(
        "distill.cache_teacher", "--task=classification", "--data_dir=" + world.task,
        "--teacher_checkpoint=" + teacher_classifier.folder, "--output_dir=%s" % (tmp_path / "cache"), *flags)
    assert result.code == 1 and message in result.err


@graphs.ON_REFERENCE
def test_a_run_whose_stages_have_changed_since_is_refused(distil_on_task, tmp_path):
    path = tmp_path / "mine.json"
    for terms_, code in (["labels"], 0), (["answers", "labels"], 1):
        path.write_text(json.dumps({"stages": [{"name": "all", "terms": terms_}]}))
        _, result = distil_on_task("--strategy=%s" % path, "--num_train_steps=1")
        assert result.code == code, result.err
    assert "was begun with stages=[{" in result.err


def test_teachers_that_are_not_alike_are_refused(distil_on_task, teacher, teacher_classifier):
    _, result = distil_on_task(*["--teacher_checkpoint=" + one.folder for one in (teacher_classifier, teacher)])
    assert result.code == 1 and "differs in its labels from" in result.err


def size_of(world):
    return len(read(world.vocabulary).splitlines())


@graphs.ON_REFERENCE
def test_the_teachers_json_is_not_taken_for_the_students(
        world, forks, student, teacher, corpus_records, tmp_path):
    result = forks.run(
        "run_distill.py", "--task=masked_lm", "--input_file=" + corpus_records,
        "--bert_config_file=" + world.teacher, "--teacher_checkpoint=" + teacher.folder,
        "--init_checkpoint=" + student.folder, "--do_train", "--num_train_steps=1", "--learning_rate=0",
        "--output_dir=%s" % (tmp_path / "run"))
    assert result.code == 0, result.err
    name = "student/embeddings/word_embeddings"
    assert (best(str(tmp_path / "run"))[name] == best(student.folder)[name]).all()


@graphs.ON_REFERENCE
def test_a_bilstm_starts_with_the_teachers_word_table(distil, teacher):
    folder, result = distil("--init_embeddings=teacher", "--learning_rate=0")
    assert result.code == 0, result.err
    assert "best/model.ckpt: the word table, 16 values each reduced to 12 (" in result.out
    wide, ours = best(teacher.folder)["bert/embeddings/word_embeddings"], best(folder)[
        "student/embeddings/word_embeddings"]
    left, values, _ = np.linalg.svd(wide, full_matrices=False)
    np.testing.assert_allclose(np.abs(ours), np.abs(left[:, :12] * values[:12]), atol=1e-5)


@graphs.ON_REFERENCE
def test_a_bert_starts_with_chosen_layers_of_the_teacher(distil, teacher, world, tmp_path):
    bert = tiny.write_model(tmp_path / "bert.json", tiny.TEACHER, size_of(world), num_hidden_layers=2)
    folder, result = distil("--student_config_file=" + bert, "--init_checkpoint=" + teacher.folder,
                            "--init_layers=2,0", "--learning_rate=0")
    assert result.code == 0, result.err
    ours, theirs = best(folder), best(teacher.folder)
    for place, layer in ((0, 2), (1, 0)):
        name = "bert/encoder/layer_%d/output/dense/kernel"
        assert np.array_equal(ours[name % place], theirs[name % layer])


@graphs.ON_REFERENCE
def test_a_bert_is_trained_from_what_was_cut_out_of_the_teacher(distil, forks, teacher, world, tmp_path):
    bert = tiny.write_model(tmp_path / "bert.json", tiny.TEACHER, size_of(world), num_hidden_layers=2, hidden_size=8,
                            num_attention_heads=1, intermediate_size=20)
    cut = str(tmp_path / "cut")
    command = ("distill.extraction", "--teacher_checkpoint=" + teacher.folder, "--student_config_file=" + bert,
               "--output_dir=" + cut)
    result = forks.run(*command)
    assert (result.code, result.err) == (0, "")
    assert result.out == ("%s: layers 1, 2 of 3, counted from 0; 8 of 16 hidden units; 1 of 2 heads; 20 of 32 "
                          "intermediate units\n" % cut)
    again = forks.run(*command)
    assert again.code == 1 and "--output_dir=%s: exists already" % cut in again.err
    folder, result = distil("--student_config_file=" + bert, "--init_checkpoint=" + cut, "--num_train_steps=3")
    assert result.code == 0, result.err
    names = [name for name in best(folder) if name.startswith(("bert/", "cls/"))]
    assert "%s/model.ckpt: %d of %d variables restored\n" % (cut, len(names), len(names)) in result.out
    assert "loss" in result.out and "nan" not in result.out


REFUSED_ON_CORPUS = {
    "two word tables": (["--init_embeddings=teacher", "--init_checkpoint=/x"],
                        "--init_embeddings=teacher: --init_checkpoint is given too"),
    "missing word vectors": (["--init_embeddings=/absent"], "--init_embeddings=/absent: no such file"),
    "a word table wider than the teacher's": (
        ["--init_embeddings=teacher", "--student_config_file={wide}"],
        "best/model.ckpt: its vectors have 16 values, and the model's ('embedding_size' in {wide}) 18; wider ones "
        "are needed"),
    "layers of nothing": (["--init_layers=0,1"], "--init_layers=0,1: needs --init_checkpoint"),
    "a layer beyond the teacher": (["--layer_map=1:1,2:7"],
                                   "has 3 layers, counted from 1: layer 7 does not exist"),
    "a broken layer map": (["--layer_map=1:1,2"], "--layer_map=1:1,2: pairs student:teacher are needed"),
    "weights for other layers": (["--hidden_weights=1,2,3"],
                                 "--hidden_weights=1,2,3: one weight, or one for each"),
    "all weights 0": (["--embedding_weight=0", "--hidden_weights=0", "--prediction_weight=0"], "all are 0"),
    "labelled texts": (["--data_dir=/data"], "--data_dir=/data: not for --task=masked_lm"),
    "words": (["--tokenizer=words"], "--tokenizer=words: not for --task=masked_lm"),
    "a head": (["--head=cnn"], "--head=cnn: not for --task=masked_lm"),
    "an export": (["--do_export"], "--do_export=True: not for --task=masked_lm"),
    "a figure of the other task": (["--select_by=accuracy"],
                                   "--select_by=accuracy: must be one of masked_lm_loss"),
    "an unknown task": (["--task=tagging"], "flag --task=tagging: value should be one of"),
    "a missing teacher": (["--teacher_checkpoint=/absent"], "--teacher_checkpoint=/absent: no such folder"),
    "another vocabulary": (["--student_config_file={small}"], "154 tokens, and {small} has 'vocab_size' 99"),
    "missing GPUs": (["--num_gpus=64"], "--num_gpus=64: "),
    "a weight below 0": (["--cosine_weight=-1"], "--cosine_weight=-1"),
    "attention of a BiLSTM": (["--attention_weight=1"], "student.json) is a bilstm and has no attention"),
    "other heads": (["--attention_weight=1", "--student_config_file={heads}"],
                    "--attention_weight=1: the student ({heads}) has 4 heads a layer, and the teacher ("),
    "texts compared over parts": (["--text_similarity_weight=1", "--gradient_accumulation_steps=2"],
                                  "--text_similarity_weight=1: compares all texts of an update, and "
                                  "--gradient_accumulation_steps=2 cuts it into parts"),
    "texts compared over replicas": (["--text_similarity_weight=1", "--num_cpu_replicas=2"],
                                     "and --num_cpu_replicas=2 cuts it into parts")}

REFUSED_ON_TASK = {
    "records": (["--input_file=/x"], "--input_file=/x: not for --task=classification"),
    "masking": (["--masked_lm_prob=0.3"], "--masked_lm_prob=0.3: not for --task=classification"),
    "a missing file": (["--unlabeled_file=/absent.txt"], "--unlabeled_file=/absent.txt: no such file"),
    "a teacher that is no classifier": (["--teacher_checkpoint={pretrained}", "--max_seq_length=32"],
                                        "no labels.txt is beside it; --prediction_weight=0 does without"),
    "answers of a teacher that is no classifier": (
        ["--teacher_checkpoint={pretrained}", "--max_seq_length=32", "--prediction_weight=0", "--logit_mse_weight=1",
         "--hard_label_weight=1"], "--hard_label_weight=0 --logit_mse_weight=0 does without its answers"),
    "labels in another order": (["--labels_file={labels}"],
                                "--labels_file={labels}: not the classes of the teacher"),
    "several labels": (["--label_separator=,"], "--label_separator=,: the teacher"),
    "other tokens than the teacher's": (["--tokenizer=words"], "was trained with --tokenizer=wordpiece; leave"),
    "a frozen encoder that is taught": (
        ["--freeze_encoder", "--init_checkpoint={pretrained}", "--cosine_weight=1"],
        "stay as they are, and embedding and hidden and cosine teach them; --embedding_weight=0 --hidden_weights=0 "
        "--cosine_weight=0 goes with it"),
    "texts too long": (["--max_seq_length=64"], "--max_seq_length: the model takes 32 tokens"),
    "a layer beyond the teacher": (["--layer_map=1:1,2:7"], "layer 7 does not exist"),
    "replicas": (["--train_batch_size=15", "--num_cpu_replicas=2"],
                 "--train_batch_size=15: cannot be divided")}


def check_refused(run, flags, message, **places):
    folder, result = run(*[flag.format(**places) for flag in flags])
    assert result.code == 1
    assert result.err.startswith("run_distill.py: error: ") and len(result.err.splitlines()) == 1
    assert message.format(**places) in result.err
    assert not os.path.exists(folder)


@pytest.mark.parametrize("case", sorted(REFUSED_ON_CORPUS))
def test_what_is_refused_on_a_corpus_is_told_in_one_line_and_leaves_no_folder(case, distil, world, tmp_path):
    small = tiny.write_model(tmp_path / "small.json", tiny.STUDENT, 99)
    heads = tiny.write_model(tmp_path / "heads.json", tiny.TEACHER, size_of(world), num_hidden_layers=2,
                             num_attention_heads=4)
    wide = tiny.write_model(tmp_path / "wide.json", tiny.STUDENT, size_of(world), embedding_size=18)
    check_refused(distil, *REFUSED_ON_CORPUS[case], small=small, heads=heads, wide=wide)


@pytest.mark.parametrize("case", sorted(REFUSED_ON_TASK))
def test_what_is_refused_on_a_task_is_told_in_one_line_and_leaves_no_folder(
        case, distil_on_task, teacher, tmp_path):
    labels = tiny.write_lines(tmp_path / "labels.txt", tiny.TOPICS)
    check_refused(distil_on_task, *REFUSED_ON_TASK[case], labels=labels, pretrained=teacher.folder)


def test_needed_flags_are_asked_for(forks, tmp_path):
    result = forks.run("run_distill.py", "--output_dir=%s" % (tmp_path / "run"), "--do_train")
    assert result.code == 1 and "--task" in result.err and "--teacher_checkpoint" in result.err
    assert len(result.err.splitlines()) == 1
