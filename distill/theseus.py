"""Module replacement (Xu et al. 2020, BERT-of-Theseus, arXiv 2002.02925).

The teacher's n layers are m modules of n / m layers, and each of the student's m layers takes the place of one. In
every update each module is the student's with probability p, else the teacher's, which is frozen; p grows to 1:

    y_i+1 = r_i student_i(y_i) + (1 - r_i) teacher_i(y_i),    r_i ~ Bernoulli(p),    p = min(1, k t + b)

Afterwards the student trains alone.
"""

import os
import zlib

import tensorflow.compat.v1 as tf

from bert.modeling import BertModel
from training.command import UserError


class MixedModel(BertModel):
    """A student among the modules of its teacher, with the outputs of a BertModel."""

    def __init__(self, predecessor, probability, config, is_training, input_ids, input_mask, segment_ids):
        """Builds the graph.

        Args:
          predecessor: BertModel, the frozen teacher over the same batch.
          probability: float32 scalar, p.
          config, is_training, input_ids, input_mask, segment_ids: the student's, as of a BertModel.
        """
        self._predecessor, self._probability = predecessor, probability
        super().__init__(config, is_training, input_ids, input_mask, segment_ids)

    def _transform(self, layer, hidden, mask):
        ours = super()._transform(layer, hidden, mask)
        theirs = hidden
        module = len(self._predecessor.get_all_encoder_layers()) // self._config.num_hidden_layers
        for number in range(layer * module, (layer + 1) * module):
            theirs = self._predecessor.apply_layer(number, theirs, mask)
        return tf.where(_draw(layer) < self._probability, ours, theirs)


def _draw(layer):
    """Uniform in [0, 1), by the graph's seed, the step and the layer: every replica and part draws the same."""
    site = zlib.crc32(("%d/theseus/%d" % (tf.get_default_graph().seed or 0, layer)).encode("utf-8"))
    key = tf.stack([tf.constant(site, tf.int64), tf.cast(tf.train.get_or_create_global_step(), tf.int64)])
    return tf.random.stateless_uniform([], key)


def probability_at(step, schedule, base):
    """p after `step` updates: in a line from `base`, at the schedule's first, to 1 at its last; float32 scalar."""
    done = tf.cast(step - schedule.first_step, tf.float32) / schedule.num_train_steps
    return tf.minimum(1.0, base + (1.0 - base) * done)


def check(student, teacher, init):
    """Raises UserError unless a student's layers can stand in the place of its teacher's.

    Args:
      student: its configuration.
      teacher: Teacher.
      init: Init, where the student starts, or None; it must be the teacher, for its embeddings and head.
    """
    name = "replacement of the teacher's layers (%s)" % teacher.checkpoint
    for config in (student, teacher.config):
        if config.model_type != "bert":
            raise UserError("%s: both models must be BERTs, and one is a %s" % (name, config.model_type))
    if teacher.others:
        raise UserError("%s: several teachers have no layers in common; give one --teacher_checkpoint" % name)
    if student.hidden_size != teacher.config.hidden_size:
        raise UserError("%s: the student is %d wide, the teacher %d; they must be equal"
                        % (name, student.hidden_size, teacher.config.hidden_size))
    if teacher.config.num_layers % student.num_layers:
        raise UserError("%s: its %d layers cannot be divided among the student's %d"
                        % (name, teacher.config.num_layers, student.num_layers))
    if not init or os.path.abspath(init.checkpoint) != os.path.abspath(teacher.checkpoint):
        raise UserError("%s: the student must start with the teacher's embeddings and head; give --init_checkpoint=%s "
                        "--init_layers=%s" % (name, teacher.checkpoint, ",".join(map(str, range(student.num_layers)))))

