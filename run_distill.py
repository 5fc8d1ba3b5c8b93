"""Distils a teacher into a student, on a corpus or on a labelled task.

    python run_distill.py --task=masked_lm --input_file='records/corpus.tfrecord-*' \\
        --teacher_checkpoint=output/teacher --student_config_file=configs/student.json \\
        --output_dir=output/student --do_train
    python run_distill.py --task=classification --data_dir=data --unlabeled_file=texts.txt \\
        --teacher_checkpoint=output/teacher_classifier --init_checkpoint=output/student \\
        --output_dir=output/student_classifier --do_train --do_eval --do_export

The loss is a weighted sum of terms: embedding, hidden_1 ... (each a student layer, learnt through a
projection from the teacher's layer that --layer_map names), prediction (the teacher's soft answers) and label
(the true ones, where there are some). More, those of other methods, wait for a weight: hard_label, logit_mse,
cosine, token_similarity_1 ..., text_similarity, patience_1 ..., attention_1 ...; the help of --<term>_weight says
what each is. Each term is logged by its own name, unweighted; weight 0 switches one off.
On a task, every text of --unlabeled_file is mixed with the labelled ones. The teacher is a folder or
checkpoint of run_pretraining.py or run_classifier.py, or of Google's; vocabulary, labels and text settings
are the teacher's. A run that was stopped goes on when the same command is given again.
"""

import dataclasses

from absl import flags

from training import command
from bert import checkpoints
from distill import measure
from distill import methods
from distill import recipe
from distill import terms
from distill.cache import TeacherCache
from distill.teacher import define_teacher_flags
from distill.teacher import open_teacher
from serving import export
from serving import variants
from tasks import classify
from tasks import models
from tasks import runs
from tasks import text_settings
from tasks.classification import Classification
from tasks.masked_lm import MaskedLm
from training import files
from training import flags as common
from training.command import UserError

# Terms that are off unless they are given a weight, and what they are.
MORE_TERMS = {
    "hard_label": "cross-entropy with the teacher's likeliest class; of several labels a text, with those it "
                  "gives more than a half.",
    "logit_mse": "squared error of the logits, over classes (Tang et al. 2019).",
    "cosine": "1 - cos between the states of the last pair of --layer_map, the student's projected (DistilBERT).",
    "token_similarity": "squared error of the cosines between the tokens of a text, for each pair of --layer_map.",
    "text_similarity": "squared error of the cosines between the texts of an update, each the mean of its states in "
                       "the last pair of --layer_map. Only for updates in one part, on one device.",
    "contrast": "nearness of a text's direction to the teacher's of it, and distance from those of the update's other "
                "texts, for each pair of --layer_map (LRC-BERT). Only for updates in one part, on one device.",
    "patience": "squared error of the first states ([CLS]), each of length 1, for each pair of --layer_map; the "
                "student's is projected where it has another width (PKD).",
    "attention": "squared error of the attention scores before the softmax, for each pair of --layer_map (TinyBERT). "
                 "Both models must have attention, with as many heads."}


def define_flags():
    flags.DEFINE_string(
        "method", None,
        "Sets the flags of a known method, which those given beside it override: %s. `python -m distill.methods` "
        "tells what each is." % ", ".join(methods.METHODS))
    flags.DEFINE_enum(
        "task", None, ["masked_lm", "classification"], "Needed: what is distilled on.", required=True)
    _define_models()
    _define_terms()
    _define_stages()
    _define_data()
    common.define_masking_flags()
    common.define_text_flags("--teacher_checkpoint")
    common.define_model_flags("--teacher_checkpoint")
    common.define_training_flags(32, 3.0, "1e-3 for a BiLSTM student, 5e-5 for a BERT")
    flags.DEFINE_string(
        "select_by", None,
        "The figure that chooses the best checkpoint: %s on a task, %s on a corpus. Default: the "
        "first of them."
        % (", ".join(Classification.figures_to_select), ", ".join(MaskedLm.figures_to_select)))


def _define_models():
    define_teacher_flags()
    flags.DEFINE_string(
        "teacher_cache", None,
        "Folder of distill.cache_teacher, from which the teacher's outputs on the training texts are read instead of "
        "computed.")
    flags.DEFINE_string(
        "student_config_file", None,
        "JSON of the student, a BiLSTM or a BERT. Default: the one beside --init_checkpoint.")


def _define_terms():
    flags.DEFINE_string(
        "layer_map", "interval",
        "Which layer of the student learns from which of the teacher: pairs student:teacher, counted from "
        "1, such as 1:1,2:3,3:5, or a preset: interval (f(h) = 2h - 1), shallow (the lowest), deep (the "
        "highest), uniform (evenly, up to the top), top (the highest of each alone). Layers left out have no hidden "
        "term.")
    flags.DEFINE_float("embedding_weight", 1.0, "Weight of the embedding term.", lower_bound=0.0)
    flags.DEFINE_list(
        "hidden_weights", ["1"],
        "Weights of the hidden terms, one for each pair of --layer_map, or one for all.")
    flags.DEFINE_float("prediction_weight", 1.0, "Weight of the prediction term.", lower_bound=0.0)
    flags.DEFINE_float(
        "label_weight", None, "Weight of the label term. Default: 1 on a task, 0 on a corpus.",
        lower_bound=0.0)
    for name, meaning in MORE_TERMS.items():
        flags.DEFINE_float("%s_weight" % name, 0.0, "Weight of the %s term: %s" % (name, meaning), lower_bound=0.0)
    flags.DEFINE_float(
        "temperature", 1.0, "T of the prediction term: both models' logits are divided by it, the term is "
        "multiplied by its square.", lower_bound=1e-3)
    flags.DEFINE_float(
        "perturbation", 0.0,
        "Make each text harder by a step up the gradient of the loss, from its embedding, so long a share of that "
        "(LRC-BERT); every update takes twice the time. 0: none.", lower_bound=0.0)
    flags.DEFINE_bool(
        "balance_terms", False,
        "Divide each weight by what its term amounts to when a stage begins, on %d batches of its texts, so that the "
        "weights say how much each term counts at first; their own scales differ by orders of magnitude."
        % measure.BALANCE_BATCHES)


def _define_stages():
    flags.DEFINE_string(
        "strategy", "joint",
        "When what is learnt: joint (all terms together); two_stage (embedding and states, then answers and labels); "
        "three_stage (states, answers, labels); layerwise (embedding, states, answers, labels); or the JSON of your "
        "own stages, see configs/recipes; lrc and theseus are of methods. A stage none of whose terms has a weight is "
        "left out.")
    flags.DEFINE_list(
        "stage_steps", [], "Updates of each stage of --strategy, with commas. Default: an even share of the run's.")
    flags.DEFINE_list(
        "stage_learning_rates", [], "Peak learning rate of each stage of --strategy. Default: --learning_rate.")
    flags.DEFINE_float(
        "replacing_base", 0.5,
        "In a stage that is replacing, as the first of theseus: probability with which a layer is the student's at "
        "first; it grows in a line to 1.", lower_bound=0.0, upper_bound=1.0)
    flags.DEFINE_integer(
        "unfreeze_steps", None,
        "In stages that are gradual, as those after the first of two_stage and three_stage: updates until the next "
        "group of the student's variables trains too, from the top: head, layers, embeddings. 0: nothing is frozen. "
        "Default: a tenth of the stage's.", lower_bound=0)


def _define_data():
    flags.DEFINE_string(
        "input_file", None, "TFRecords of the corpus, comma-separated, with * and ? (--task=masked_lm).")
    flags.DEFINE_string(
        "eval_file", None,
        "TFRecords to measure the student on; they choose the best checkpoint (--task=masked_lm).")
    flags.DEFINE_string(
        "unlabeled_file", None,
        "Texts without labels (.txt, .tsv, .csv, .jsonl), comma-separated, with * and ? "
        "(--task=classification).")


def main():
    values = flags.FLAGS
    runs.choose_kernels(values)
    on_task = values.task == "classification"
    if values.method:
        methods.apply(values, values.method, values.task)
    _check_flags(values, on_task)
    teacher, teacher_files = open_teacher(values, on_task)
    if values.teacher_cache and values.do_train:
        teacher = teacher._replace(cache=TeacherCache(values.teacher_cache, teacher))
    model = _open_student(values, teacher, teacher_files)
    stages, make_plans = recipe.read(values, teacher, model)
    settings = {"teacher": dataclasses.asdict(teacher.config), "stages": list(map(dataclasses.asdict, stages))}
    if on_task:
        _on_task(values, teacher, teacher_files, model, make_plans, settings)
    else:
        task = MaskedLm()
        runs.on_corpus(
            values, model, task,
            lambda train, selecting, rules: make_plans(task, recipe.Files(train, (), selecting, rules)),
            teacher.config, settings)


def _check_flags(values, on_task):
    of_corpus, of_task = ("input_file", "eval_file", *common.MASKING_FLAGS), ("unlabeled_file", *common.TEXT_FLAGS)
    for name in of_corpus if on_task else of_task:
        if values[name].present:
            raise UserError("--%s=%s: not for --task=%s" % (name, values[name].value, values.task))
    if on_task:
        classify.check_flags(values)
        variants.check_flags(values)
    elif not (values.do_train or values.do_eval):
        raise UserError("--do_train or --do_eval: at least one is needed")
    task = Classification if on_task else MaskedLm
    values.select_by = values.select_by or ("accuracy" if on_task else "masked_lm_loss")
    if values.select_by not in task.figures_to_select:
        raise UserError("--select_by=%s: must be one of %s"
                        % (values.select_by, ", ".join(task.figures_to_select)))


def _open_student(values, teacher, teacher_files):
    """The student's Model; its vocabulary is the teacher's."""
    values.vocab_file = values.vocab_file or teacher_files.vocab_file
    if not values.vocab_file:
        raise UserError("--vocab_file: needed, no vocab.txt is beside %s" % teacher_files.checkpoint)
    teacher_config = values.bert_config_file or teacher_files.config_file
    models.check_vocabulary(teacher.config, teacher_config, values.vocab_file)
    model = models.open_model(values, values.student_config_file, "--student_config_file:", teacher)
    if values.init_checkpoint:
        own = checkpoints.find_model(values.init_checkpoint, "init_checkpoint").vocab_file
        if own and files.digest(own) != files.digest(values.vocab_file):
            raise UserError("--init_checkpoint=%s: its vocabulary (%s) is not the teacher's (%s)"
                            % (values.init_checkpoint, own, values.vocab_file))
    return model


def _on_task(values, teacher, teacher_files, model, make_plans, settings):
    known = teacher_files if values.do_train else models.own_files(values) or teacher_files
    head = values.head or text_settings.read(model.files.text_file, {}).head
    data = classify.open_data(values, known, values.vocab_file, head)
    for config in (teacher.config, model.config):
        models.check_length(config, data.text.max_seq_length, "--max_seq_length")
    if values.do_train:
        asked = [name for name, kind in terms.TERMS.items()
                 if kind.needs == "logits" and getattr(values, terms.flag_of(name))]
        if asked:
            _check_classes(values, teacher_files, data, asked)
        unlabeled_files = files.matching_files(values.unlabeled_file, "unlabeled_file", optional=True)
        classify.train(values, model, data, unlabeled_files,
                       lambda task, labelled, others, selecting: make_plans(
                           task, recipe.Files(labelled, others, selecting)), settings)
    if values.do_eval:
        classify.evaluate(values, model, data)
    if values.do_predict:
        classify.predict(values, model, data)
    if values.do_export:
        export.export_best(values, model, data)


def _check_classes(values, teacher_files, data, asked):
    """Raises UserError unless the teacher's logits are those of the data's labels, in their order.

    asked: names of the terms that look at them.
    """
    remedy = "%s does without its answers" % terms.without(asked)
    if not teacher_files.labels_file:
        if not values.labels_file:
            raise UserError("--teacher_checkpoint=%s: not fine-tuned by run_classifier.py, no labels.txt "
                            "is beside it; %s, or --labels_file names its classes in their order"
                            % (teacher_files.checkpoint, remedy))
        return
    if files.read_lines(teacher_files.labels_file) != data.labels.names:
        raise UserError("--labels_file=%s: not the classes of the teacher, which are those of %s; %s"
                        % (values.labels_file, teacher_files.labels_file, remedy))
    several = bool(text_settings.read(teacher_files.text_file, {}).label_separator)
    if several != bool(data.text.label_separator):
        raise UserError("--label_separator=%s: the teacher (%s) gives a text %s; %s" % (
            data.text.label_separator, teacher_files.checkpoint,
            "any number of labels" if several else "one label", remedy))


if __name__ == "__main__":
    command.run(main, define_flags, writes="output_dir")
