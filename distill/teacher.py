"""The frozen teacher: in the graph under `teacher/`, never trained, never in a checkpoint of the student."""

import collections

import tensorflow.compat.v1 as tf

from bert import checkpoints
from tasks.encoders import build_encoder

SCOPE = "teacher"

# config: as from `encoders.read_config`; checkpoint: its prefix; layers: which of the checkpoint's layers, () for all;
# head: of a classifier, one of `heads.HEADS`, None for the task's; others: further checkpoints of such a model, whose
# outputs are averaged with those of the first.
Teacher = collections.namedtuple("Teacher", "config checkpoint layers head others", defaults=(None, ()))

# embedding: [B, S, D]; hidden: list of [B, S, D]; logits: rows of the task, or None; attention: list of
# [B, A, S, S] before the softmax, or None; encoder: the model itself, None of several.
TeacherOutputs = collections.namedtuple("TeacherOutputs", "embedding hidden logits attention encoder")


def build_teacher(teacher, task, features, with_logits, with_attention=False):
    """The teacher's outputs for one batch, in inference mode, its variables restored.

    Args:
      teacher: Teacher.
      task: MaskedLm or Classification.
      features: dict of the batch's features.
      with_logits: whether the task's head is needed; then the checkpoint must have it.
      with_attention: whether its attention scores are needed; then it must have some, as a BiLSTM has not.

    Returns:
      TeacherOutputs; of several checkpoints their mean. That of logits is the logarithm of the geometric mean of
      their probabilities, but for a constant.

    Raises:
      UserError: the checkpoint lacks a variable, or one has another shape.
    """
    found = [_build_one(teacher, checkpoint, "%s_%d" % (SCOPE, number) if number else SCOPE, task, features,
                        with_logits, with_attention)
             for number, checkpoint in enumerate((teacher.checkpoint, *teacher.others))]
    if len(found) == 1:
        return found[0]
    alone = [outputs._replace(encoder=None) for outputs in found]
    return TeacherOutputs(*map(_mean, zip(*alone)))


def _build_one(teacher, checkpoint, scope, task, features, with_logits, with_attention):
    task = task.with_head(teacher.head) if teacher.head else task
    with checkpoints.frozen_scope(scope):
        encoder = build_encoder(teacher.config, False, features)
        logits = task.logits(encoder, teacher.config, features) if with_logits else None
    prefix = scope + "/"
    variables = [variable for variable in tf.local_variables() if checkpoints.name_of(variable).startswith(prefix)]
    checkpoints.restore(checkpoint, variables, teacher.layers, prefix, optional=lambda name: False)
    return TeacherOutputs(encoder.get_embedding_output(), encoder.get_all_encoder_layers(), logits,
                          encoder.get_attention_scores() if with_attention else None, encoder)


def _mean(outputs):
    """The mean of some tensors, or of each place of some lists of tensors; None of None."""
    if outputs[0] is None:
        return None
    if isinstance(outputs[0], list):
        return [_mean(tensors) for tensors in zip(*outputs)]
    return tf.add_n(list(outputs)) / len(outputs)
