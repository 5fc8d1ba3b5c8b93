"""The frozen teacher: in the graph under `teacher/`, never trained, never in a checkpoint of the student."""

import collections

import tensorflow.compat.v1 as tf
from absl import flags

from bert import checkpoints
from tasks import encoders
from tasks import text_settings
from tasks.encoders import build_encoder
from training import files
from training.command import UserError

flags.disclaim_key_flags()  # so that --help lists them as the command's own

SCOPE = "teacher"

# config: as from `encoders.read_config`; checkpoint: its prefix; layers: which of the checkpoint's layers, () for all;
# head: of a classifier, one of `heads.HEADS`, None for the task's; others: further checkpoints of such a model, whose
# outputs are averaged with those of the first; cache: TeacherCache where its outputs are read from, None: computed.
Teacher = collections.namedtuple("Teacher", "config checkpoint layers head others cache", defaults=(None, (), None))

# embedding: [B, S, D]; hidden: list of [B, S, D]; logits: rows of the task, or None; attention: list of
# [B, A, S, S] before the softmax, or None; pooled: in place of `hidden`, where there is none, list of dict of
# "first" [B, 1, D] and "mean" [B, D], the first and the mean of a layer's states; encoder: the model itself, None of
# several. What is not there is None, of a layer too.
TeacherOutputs = collections.namedtuple("TeacherOutputs", "embedding hidden logits attention pooled encoder")


def define_teacher_flags():
    """Flags that choose the teacher, of commands that need one."""
    flags.DEFINE_multi_string(
        "teacher_checkpoint", None,
        "Needed: run folder or checkpoint of the teacher. Given several times, the outputs of all are averaged; they "
        "must be models of one kind and size, with one vocabulary and the same labels.", required=True)
    flags.DEFINE_string("bert_config_file", None, "JSON of the teacher. Default: the one beside it.")
    flags.DEFINE_string(
        "teacher_layers", "",
        "Layers of --teacher_checkpoint that the teacher has, counted from 0. Default: all.")


def open_teacher(values, on_task):
    """The teacher that the flags choose, from one checkpoint or several.

    Args:
      values: flags of `define_teacher_flags`.
      on_task: whether it is asked as a classifier, which has a head of its own.

    Returns:
      (Teacher, ModelFiles of the first checkpoint).

    Raises:
      UserError: nothing is there, no JSON is beside it, or several are not alike.
    """
    all_files = [checkpoints.find_model(path, "teacher_checkpoint") for path in values.teacher_checkpoint]
    layers = checkpoints.parse_layers(values.teacher_layers)
    configs, first = [], all_files[0]
    for found in all_files:
        config_file = values.bert_config_file or found.config_file
        if not config_file:
            raise UserError("--bert_config_file: needed, no config.json is beside %s" % found.checkpoint)
        configs.append(encoders.cut_layers(encoders.read_config(config_file), layers, config_file))
        differs = [name for name, one, other in (
            ("model", configs[0], configs[-1]), ("vocabulary", *map(_digest, (first.vocab_file, found.vocab_file))),
            ("labels", *map(_digest, (first.labels_file, found.labels_file))),
            ("text.json", *map(_digest, (first.text_file, found.text_file)))) if one != other]
        if differs:
            raise UserError("--teacher_checkpoint=%s: differs in its %s from %s; teachers that are averaged must be "
                            "alike" % (found.checkpoint, differs[0], first.checkpoint))
    head = text_settings.read(first.text_file, {}).head if on_task else None
    others = tuple(found.checkpoint for found in all_files[1:])
    return Teacher(configs[0], first.checkpoint, layers, head, others), first


def _digest(path):
    return path and files.digest(path)


def build_teacher(teacher, task, features, needs):
    """The teacher's outputs for one batch, in inference mode, its variables restored.

    Args:
      teacher: Teacher.
      task: MaskedLm or Classification.
      features: dict of the batch's features.
      needs: what of the teacher is needed, see `terms.needs`: for "logits" the checkpoint must have the task's head,
        for "attention" the model some, as a BiLSTM has not.

    Returns:
      TeacherOutputs; of several checkpoints their mean. That of logits is the logarithm of the geometric mean of
      their probabilities, but for a constant.

    Raises:
      UserError: the checkpoint lacks a variable, or one has another shape.
    """
    if teacher.cache:
        # What is not fetched of a graph is not computed: of the model, the embedding alone.
        live = _build_all(teacher, task, features, ()) if "embedding" in needs else None
        return teacher.cache.outputs(features, needs)._replace(embedding=live and live.embedding)
    return _build_all(teacher, task, features, needs)


def _build_all(teacher, task, features, needs):
    found = [_build_one(teacher, checkpoint, "%s_%d" % (SCOPE, number) if number else SCOPE, task, features, needs)
             for number, checkpoint in enumerate((teacher.checkpoint, *teacher.others))]
    if len(found) == 1:
        return found[0]
    alone = [outputs._replace(encoder=None) for outputs in found]
    return TeacherOutputs(*map(_mean, zip(*alone)))


def _build_one(teacher, checkpoint, scope, task, features, needs):
    task = task.with_head(teacher.head) if teacher.head else task
    with checkpoints.frozen_scope(scope):
        encoder = build_encoder(teacher.config, False, features)
        logits = task.logits(encoder, teacher.config, features) if "logits" in needs else None
    prefix = scope + "/"
    variables = [variable for variable in tf.local_variables() if checkpoints.name_of(variable).startswith(prefix)]
    checkpoints.restore(checkpoint, variables, teacher.layers, prefix, optional=lambda name: False)
    return TeacherOutputs(encoder.get_embedding_output(), encoder.get_all_encoder_layers(), logits,
                          encoder.get_attention_scores() if "attention" in needs else None, None, encoder)


def _mean(outputs):
    """The mean of some tensors, or of each place of some lists of tensors; None of None."""
    if outputs[0] is None:
        return None
    if isinstance(outputs[0], list):
        return [_mean(tensors) for tensors in zip(*outputs)]
    return tf.add_n(list(outputs)) / len(outputs)
