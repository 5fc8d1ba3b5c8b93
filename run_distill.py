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
import functools

from absl import flags

from training import command
from bert import checkpoints
from distill import layer_map
from distill import terms
from distill.model_fn import distillation_model_fn
from distill.teacher import Teacher
from serving import export
from tasks import classify
from tasks import encoders
from tasks import runs
from tasks import text_settings
from tasks.classification import Classification
from tasks.masked_lm import MaskedLm
from training import files
from training import flags as common
from training import runtime
from training.command import UserError

DEFAULT_LABEL_WEIGHT = {"masked_lm": 0.0, "classification": 1.0}

# Terms that are off unless they are given a weight, and what they are.
MORE_TERMS = {
    "hard_label": "cross-entropy with the teacher's likeliest class; of several labels a text, with those it "
                  "gives more than a half.",
    "logit_mse": "squared error of the logits, over classes (Tang et al. 2019).",
    "cosine": "1 - cos between the states of the last pair of --layer_map, the student's projected (DistilBERT).",
    "token_similarity": "squared error of the cosines between the tokens of a text, for each pair of --layer_map.",
    "text_similarity": "squared error of the cosines between the texts of an update, each the mean of its states in "
                       "the last pair of --layer_map. Only for updates in one part, on one device.",
    "patience": "squared error of the first states ([CLS]), each of length 1, for each pair of --layer_map; the "
                "student's is projected where it has another width (PKD).",
    "attention": "squared error of the attention scores before the softmax, for each pair of --layer_map (TinyBERT). "
                 "Both models must have attention, with as many heads."}


def define_flags():
    flags.DEFINE_enum(
        "task", None, ["masked_lm", "classification"], "Needed: what is distilled on.", required=True)
    flags.DEFINE_string(
        "teacher_checkpoint", None, "Needed: run folder or checkpoint of the teacher.", required=True)
    flags.DEFINE_string("bert_config_file", None, "JSON of the teacher. Default: the one beside it.")
    flags.DEFINE_string(
        "teacher_layers", "",
        "Layers of --teacher_checkpoint that the teacher has, counted from 0. Default: all.")
    flags.DEFINE_string(
        "student_config_file", None,
        "JSON of the student, a BiLSTM or a BERT. Default: the one beside --init_checkpoint.")
    flags.DEFINE_string(
        "layer_map", "interval",
        "Which layer of the student learns from which of the teacher: pairs student:teacher, counted from "
        "1, such as 1:1,2:3,3:5, or a preset: interval (f(h) = 2h - 1), shallow (the lowest), deep (the "
        "highest), uniform (evenly, up to the top). Layers left out have no hidden term.")
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
    flags.DEFINE_string(
        "input_file", None, "TFRecords of the corpus, comma-separated, with * and ? (--task=masked_lm).")
    flags.DEFINE_string(
        "eval_file", None,
        "TFRecords to measure the student on; they choose the best checkpoint (--task=masked_lm).")
    flags.DEFINE_string(
        "unlabeled_file", None,
        "Texts without labels (.txt, .tsv, .csv, .jsonl), comma-separated, with * and ? "
        "(--task=classification).")
    common.define_masking_flags()
    common.define_text_flags("--teacher_checkpoint")
    common.define_model_flags("--teacher_checkpoint")
    common.define_training_flags(32, 3.0, "1e-3 for a BiLSTM student, 5e-5 for a BERT")
    flags.DEFINE_string(
        "select_by", None,
        "The figure that chooses the best checkpoint: %s on a task, %s on a corpus. Default: the "
        "first of them."
        % (", ".join(Classification.figures_to_select), ", ".join(MaskedLm.figures_to_select)))


def main():
    values = flags.FLAGS
    on_task = values.task == "classification"
    _check_flags(values, on_task)
    teacher_files = checkpoints.find_model(values.teacher_checkpoint, "teacher_checkpoint")
    teacher = _open_teacher(values, teacher_files)
    model = _open_student(values, teacher, teacher_files)
    make_model_fn = _read_recipe(values, teacher, model)
    settings = {"teacher": dataclasses.asdict(teacher.config)}
    if on_task:
        _on_task(values, teacher, teacher_files, model, make_model_fn, settings)
    else:
        task = MaskedLm()
        runs.on_corpus(values, model, task, make_model_fn(task), teacher.config, settings)


def _check_flags(values, on_task):
    of_corpus, of_task = ("input_file", "eval_file", *common.MASKING_FLAGS), ("unlabeled_file", *common.TEXT_FLAGS)
    for name in of_corpus if on_task else of_task:
        if values[name].present:
            raise UserError("--%s=%s: not for --task=%s" % (name, values[name].value, values.task))
    if on_task:
        classify.check_flags(values)
    elif not (values.do_train or values.do_eval):
        raise UserError("--do_train or --do_eval: at least one is needed")
    task = Classification if on_task else MaskedLm
    values.select_by = values.select_by or ("accuracy" if on_task else "masked_lm_loss")
    if values.select_by not in task.figures_to_select:
        raise UserError("--select_by=%s: must be one of %s"
                        % (values.select_by, ", ".join(task.figures_to_select)))


def _open_teacher(values, found):
    config_file = values.bert_config_file or found.config_file
    if not config_file:
        raise UserError("--bert_config_file: needed, no config.json is beside %s" % found.checkpoint)
    layers = checkpoints.parse_layers(values.teacher_layers)
    return Teacher(encoders.cut_layers(encoders.read_config(config_file), layers, config_file),
                   found.checkpoint, layers)


def _open_student(values, teacher, teacher_files):
    """The student's Model; its vocabulary is the teacher's."""
    values.vocab_file = values.vocab_file or teacher_files.vocab_file
    if not values.vocab_file:
        raise UserError("--vocab_file: needed, no vocab.txt is beside %s" % teacher_files.checkpoint)
    teacher_config = values.bert_config_file or teacher_files.config_file
    runs.check_vocabulary(teacher.config, teacher_config, values.vocab_file)
    model = runs.open_model(values, values.student_config_file, "--student_config_file:", teacher)
    if values.init_checkpoint:
        own = checkpoints.find_model(values.init_checkpoint, "init_checkpoint").vocab_file
        if own and files.digest(own) != files.digest(values.vocab_file):
            raise UserError("--init_checkpoint=%s: its vocabulary (%s) is not the teacher's (%s)"
                            % (values.init_checkpoint, own, values.vocab_file))
    return model


def _read_recipe(values, teacher, model):
    """The loss: a function of the task -> `make_model_fn` of `runs.train`."""
    pairs = layer_map.parse(values.layer_map, model.config.num_layers, teacher.config.num_layers,
                            "the teacher (%s)" % values.teacher_checkpoint)
    weights = _read_weights(values, pairs)
    if not any(weights.values()):
        raise UserError("--embedding_weight, --hidden_weights, --prediction_weight, --label_weight: "
                        "all are 0, and so are those of the other terms")
    if values.attention_weight:
        _check_heads(values, teacher, model)
    if values.text_similarity_weight:
        _check_one_part(values)
    return lambda task: functools.partial(
        distillation_model_fn, model.config, teacher, task, pairs, weights, values.temperature)


def _read_weights(values, pairs):
    """dict of what a term is logged as -> weight."""
    by_term = {name: getattr(values, "%s_weight" % name) for name in terms.TERMS if name != "hidden"}
    if by_term["label"] is None:
        by_term["label"] = DEFAULT_LABEL_WEIGHT[values.task]
    weights = {logged: weight for name, weight in by_term.items() for logged, _ in terms.instances(name, pairs)}
    hidden = _hidden_weights(values.hidden_weights, pairs)
    weights.update({logged: hidden[layer] for logged, (layer, _) in terms.instances("hidden", pairs)})
    return weights


def _check_heads(values, teacher, model):
    """Raises UserError unless both models have attention, and as many heads."""
    flag = "--attention_weight=%g" % values.attention_weight
    heads = []
    for config, source in ((model.config, "the student (%s)" % model.files.config_file),
                           (teacher.config, "the teacher (%s)" % values.teacher_checkpoint)):
        heads.append(getattr(config, "num_attention_heads", 0))
        if not heads[-1]:
            raise UserError("%s: %s is a %s and has no attention; --attention_weight=0 does without"
                            % (flag, source, config.model_type))
    if heads[0] != heads[1]:
        raise UserError("%s: the student (%s) has %d heads a layer, and the teacher (%s) %d; they must be equal, or "
                        "--attention_weight=0 does without"
                        % (flag, model.files.config_file, heads[0], values.teacher_checkpoint, heads[1]))


def _check_one_part(values):
    """Raises UserError where an update is cut, so that not all of its texts can be compared with each other."""
    for name in ("gradient_accumulation_steps", "num_cpu_replicas", "num_gpus"):
        if getattr(values, name) > 1:
            raise UserError("--text_similarity_weight=%g: compares all texts of an update, and --%s=%d cuts it into "
                            "parts; give one of the two"
                            % (values.text_similarity_weight, name, getattr(values, name)))
    if runtime.cluster():
        raise UserError("--text_similarity_weight=%g: compares all texts of an update, and several machines "
                        "(TF_CONFIG) cut it into parts; leave it out" % values.text_similarity_weight)


def _hidden_weights(texts, pairs):
    """dict of student layer -> weight."""
    flag = "--hidden_weights=%s" % ",".join(texts)
    try:
        weights = [float(text) for text in texts]
    except ValueError:
        raise UserError("%s: numbers with commas between them are needed" % flag)
    weights = weights * len(pairs) if len(weights) == 1 else weights
    if len(weights) != len(pairs) or min(weights) < 0:
        raise UserError("%s: one weight, or one for each of the %d pairs of --layer_map is needed, "
                        "none below 0" % (flag, len(pairs)))
    return {student: weight for (student, _), weight in zip(pairs, weights)}


def _on_task(values, teacher, teacher_files, model, make_model_fn, settings):
    unlabeled_files = []
    if values.unlabeled_file and values.do_train:
        unlabeled_files = files.matching_files(values.unlabeled_file, "unlabeled_file")
    known = teacher_files if values.do_train else runs.own_files(values) or teacher_files
    data = classify.open_data(values, known, values.vocab_file)
    for config in (teacher.config, model.config):
        runs.check_length(config, data.text.max_seq_length, "--max_seq_length")
    if values.do_train:
        asked = [name for name, kind in terms.TERMS.items()
                 if kind.needs == "logits" and getattr(values, "%s_weight" % name)]
        if asked:
            _check_classes(values, teacher_files, data, asked)
        classify.train(values, model, data, unlabeled_files, make_model_fn, settings)
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
    remedy = "%s does without its answers" % " ".join("--%s_weight=0" % name for name in asked)
    if not teacher_files.labels_file:
        if not values.labels_file:
            raise UserError("--teacher_checkpoint=%s: not fine-tuned by run_classifier.py, no labels.txt "
                            "is beside it; %s, or --labels_file names its classes in their order"
                            % (values.teacher_checkpoint, remedy))
        return
    if files.read_lines(teacher_files.labels_file) != data.labels.names:
        raise UserError("--labels_file=%s: not the classes of the teacher, which are those of %s; %s"
                        % (values.labels_file, teacher_files.labels_file, remedy))
    several = bool(text_settings.read(teacher_files.text_file, {}).label_separator)
    if several != bool(data.text.label_separator):
        raise UserError("--label_separator=%s: the teacher (%s) gives a text %s; %s" % (
            data.text.label_separator, values.teacher_checkpoint,
            "any number of labels" if several else "one label", remedy))


if __name__ == "__main__":
    command.run(main, define_flags)
