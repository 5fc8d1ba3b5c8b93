"""Distillation as an Estimator's model_fn: one loss between two encoders.

    L = a MSE(E_s W_e, E_t) + sum_h b_h MSE(H_s^h W_h, H_t^f(h)) + c CE(z_t / T, z_s / T) + d CE(y, z_s)

after Li et al. 2021, whose first three terms it is; the last, over labelled texts, is their section 4.3.2.
"""

import collections

import tensorflow.compat.v1 as tf

from bert.modeling import shape_list
from bert.randomness import glorot, new_variable
from distill import losses
from distill.teacher import build_teacher
from tasks.encoders import build_encoder
from tasks.model_fn import Term, start_from, training_spec

# How much each term counts. hidden: dict of student layer -> weight, layers counted from 1.
# 0 switches a term off: it is not built.
Weights = collections.namedtuple("Weights", "embedding hidden prediction label")


def distillation_model_fn(config, teacher, task, layer_map, weights, temperature=1.0, schedule=None, init=None,
                          progress=None):
    """A model_fn for training only; `tasks.model_fn.task_model_fn` evaluates and exports the student.

    Args:
      config: the student's BertConfig or BiLstmConfig.
      teacher: Teacher.
      task: MaskedLm or Classification.
      layer_map: list of (student layer, teacher layer), counted from 1.
      weights: Weights.
      temperature: T, above 0.
      schedule, init, progress: as in `task_model_fn`.
    """
    def model_fn(features):
        student = build_encoder(config, True, features)
        logits = task.logits(student, config, features, is_training=True)
        if init:
            start_from(init, task)
        taught = build_teacher(teacher, task, features, with_logits=weights.prediction > 0)
        terms = (_representation_terms(student, taught, features, layer_map, weights)
                 + _prediction_terms(task, logits, taught.logits, features, weights, temperature))
        return training_spec(terms, schedule, progress)

    return model_fn


def _representation_terms(student, taught, features, layer_map, weights):
    """Embedding and hidden terms, over real tokens."""
    def term(name, weight, ours, theirs):
        projected = project(ours, theirs.shape.as_list()[-1], name)
        total, _ = losses.masked_mse(projected, theirs, features["input_mask"])
        return Term(name, weight, total, features["total_tokens"])

    terms = []
    if weights.embedding:
        terms.append(term("embedding", weights.embedding, student.get_embedding_output(), taught.embedding))
    for layer, teacher_layer in layer_map:
        if weights.hidden[layer]:
            terms.append(term("hidden_%d" % layer, weights.hidden[layer],
                              student.get_all_encoder_layers()[layer - 1], taught.hidden[teacher_layer - 1]))
    return terms


def _prediction_terms(task, logits, teacher_logits, features, weights, temperature):
    """The teacher's answers, and the labels where there are some."""
    terms = []
    if weights.prediction:
        soft = losses.soft_binary_cross_entropy if task.independent_classes else losses.soft_cross_entropy
        rows = soft(logits, teacher_logits, temperature)
        terms.append(Term("prediction", weights.prediction, tf.reduce_sum(rows), features[task.row_total]))
    if weights.label:
        terms.append(Term("label", weights.label, *task.loss(logits, features)))
    return terms


def project(tensor, width, name):
    """[B, S, F] times a learned matrix, `distill/<name>/kernel` [F, width]; never exported."""
    batch, length, features = shape_list(tensor)
    with tf.variable_scope("distill/%s" % name):
        kernel = new_variable("kernel", [features, width], glorot)
    return tf.reshape(tf.matmul(tf.reshape(tensor, [-1, features]), kernel), [batch, length, width])
