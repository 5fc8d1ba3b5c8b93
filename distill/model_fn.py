"""Distillation as an Estimator's model_fn: one loss between two encoders.

    L = a MSE(E_s W_e, E_t) + sum_h b_h MSE(H_s^h W_h, H_t^f(h)) + c CE(z_t / T, z_s / T) + d CE(y, z_s) + ...

after Li et al. 2021, whose first three terms it is; the fourth, over labelled texts, is their section 4.3.2. The
others are of methods it is compared with; `terms` has all of them.
"""

import collections

import tensorflow.compat.v1 as tf

from bert import padding
from distill import terms
from distill import theseus
from distill.teacher import build_teacher
from tasks.encoders import build_encoder
from tasks.model_fn import loss_of, over_encoder, start_from, training_spec

# config: the student's, as from `encoders.read_config`; teacher: Teacher; task: MaskedLm or Classification;
# layer_map: list of (student layer, teacher layer), counted from 1; weights: dict of what a term is logged as -> how
# much it counts, see `terms.instances`, 0 leaves it out; temperature: T, above 0.
# freeze_encoder: whether the student is trained over its encoder alone; perturbation: see `perturbed`, 0 for none.
# One update with "text_similarity" must be one part, see `relations`.
Distillation = collections.namedtuple("Distillation", "config teacher task layer_map weights temperature "
                                                      "freeze_encoder perturbation", defaults=(1.0, False, 0.0))


def distillation_model_fn(distillation, schedule, init=None, progress=None, trains=None, weights=None,
                          replacing_base=None):
    """A model_fn for training only; `tasks.model_fn.task_model_fn` evaluates and exports the student.

    Args:
      distillation: Distillation; all of its terms are built, for a checkpoint must hold the variables of every stage.
      schedule, init, progress, trains: as in `task_model_fn`.
      weights: dict of logged name -> weight, of the terms that count in this stage; the others are not computed. None:
        those of `distillation`.
      replacing_base: in a stage that replaces the teacher's layers, b of `theseus`; None in others.
    """
    def model_fn(features):
        probability = None
        if replacing_base is not None:
            probability = theseus.probability_at(tf.train.get_or_create_global_step(), schedule, replacing_base)
        counting = distillation.weights if weights is None else weights
        built = build_terms(distillation, features, True, init, probability, counting)
        frozen = distillation.freeze_encoder
        return training_spec(_counted(built, counting), schedule, progress, over_encoder(trains) if frozen else trains,
                             None if frozen else tf.trainable_variables())

    return model_fn


def build_terms(distillation, features, is_training, init=None, replacing_probability=None, counting=None):
    """Student and teacher over one batch, and what they are compared by: list of Term.

    Args:
      distillation: Distillation.
      features: dict of the batch's features.
      is_training: bool; False switches the student's dropout off.
      init: Init, where the student starts; None: fresh.
      replacing_probability: p of `theseus`, for a student among its teacher's layers; None: it stands alone.
      counting: dict of logged name -> weight, the loss against which the student is perturbed; None: it is not.
    """
    config, teacher, task, layer_map, weights, temperature, frozen, perturbation = distillation
    replacing = replacing_probability is not None
    needs = terms.needs(layer_map, weights)
    taught = build_teacher(teacher, task, features, needs) if replacing or needs else None
    if replacing:
        student = theseus.MixedModel(taught.encoder, replacing_probability, config, is_training, features["input_ids"],
                                     features["input_mask"], features["segment_ids"])
    else:
        student = build_encoder(config, is_training and not frozen, features)

    def with_teacher(student):
        logits = task.logits(student, config, features, is_training=is_training)
        return terms.Compared(student, logits, taught, task, features, temperature)

    compared = with_teacher(student)
    if init:
        start_from(init, task, frozen)
    built = terms.build_terms(compared, layer_map, weights)
    if not perturbation or counting is None:
        return built
    loss = loss_of(_counted(built, counting))
    step = perturbed(loss, student.get_embedding_output(), features["input_mask"], perturbation)
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
        student = build_encoder(config, is_training and not frozen, features, step)
        return terms.build_terms(with_teacher(student), layer_map, weights)


def _counted(built, counting):
    """The terms that count, with their weights."""
    return [term._replace(weight=counting[term.name]) for term in built if counting.get(term.name)]


def perturbed(loss, embedding, mask, size):
    """A step up the gradient of the loss, for each text: size |e| g / |g|, which makes it harder (Fu et al. 2021).

    After Miyato et al. 2017 (arXiv 1605.07725, eq. 5), whose embeddings are of one size; here the step is a share of
    that of the text's.

    Args:
      loss: scalar.
      embedding: float32 [B, S, E], what the loss was computed from.
      mask: int [B, S].
      size: float.

    Returns:
      float32 [B, S, E], through which no gradient goes.
    """
    gradient, = tf.gradients(loss, embedding)
    direction = tf.math.l2_normalize(gradient, axis=[1, 2])
    real = padding.zeroed(embedding, mask)
    return tf.stop_gradient(size * tf.norm(real, axis=[1, 2], keepdims=True) * direction)
