"""The frozen teacher: in the graph under `teacher/`, never trained, never in a checkpoint of the student."""

import collections

import tensorflow.compat.v1 as tf

from bert import checkpoints
from tasks.encoders import build_encoder

SCOPE = "teacher"

# config: BertConfig or BiLstmConfig; checkpoint: its prefix; layers: which of the checkpoint's layers,
# () for all; head: of a classifier, one of `heads.HEADS`; None: the task's.
Teacher = collections.namedtuple("Teacher", "config checkpoint layers head", defaults=[None])

# embedding: [B, S, D]; hidden: list of [B, S, D]; logits: rows of the task, or None; attention: list of
# [B, A, S, S] before the softmax, or None.
TeacherOutputs = collections.namedtuple("TeacherOutputs", "embedding hidden logits attention")


def build_teacher(teacher, task, features, with_logits, with_attention=False):
    """The teacher's outputs for one batch, in inference mode, its variables restored.

    Args:
      teacher: Teacher.
      task: MaskedLm or Classification.
      features: dict of the batch's features.
      with_logits: whether the task's head is needed; then the checkpoint must have it.
      with_attention: whether its attention scores are needed; then it must have some, as a BiLSTM has not.

    Raises:
      UserError: the checkpoint lacks a variable, or one has another shape.
    """
    task = task.with_head(teacher.head) if teacher.head else task
    with checkpoints.frozen_scope(SCOPE):
        encoder = build_encoder(teacher.config, False, features)
        logits = task.logits(encoder, teacher.config, features) if with_logits else None
    prefix = SCOPE + "/"
    variables = [variable for variable in tf.local_variables() if checkpoints.name_of(variable).startswith(prefix)]
    checkpoints.restore(teacher.checkpoint, variables, teacher.layers, prefix, optional=lambda name: False)
    return TeacherOutputs(encoder.get_embedding_output(), encoder.get_all_encoder_layers(), logits,
                          encoder.get_attention_scores() if with_attention else None)
