"""Distillation as an Estimator's model_fn: one loss between two encoders.

    L = a MSE(E_s W_e, E_t) + sum_h b_h MSE(H_s^h W_h, H_t^f(h)) + c CE(z_t / T, z_s / T) + d CE(y, z_s) + ...

after Li et al. 2021, whose first three terms it is; the fourth, over labelled texts, is their section 4.3.2. The
others are of methods it is compared with; `terms` has all of them.
"""

from distill import terms
from distill.teacher import build_teacher
from tasks.encoders import build_encoder
from tasks.model_fn import start_from, training_spec


def distillation_model_fn(config, teacher, task, layer_map, weights, temperature=1.0, schedule=None, init=None,
                          progress=None, freeze_encoder=False):
    """A model_fn for training only; `tasks.model_fn.task_model_fn` evaluates and exports the student.

    Args:
      config: the student's BertConfig or BiLstmConfig.
      teacher: Teacher.
      task: MaskedLm or Classification.
      layer_map: list of (student layer, teacher layer), counted from 1.
      weights: dict of what a term is logged as -> how much it counts, see `terms.instances`. 0 switches a term
        off: it is not built. One update with "text_similarity" must be one part, see `relations`.
      temperature: T, above 0.
      schedule, init, progress, freeze_encoder: as in `task_model_fn`, of the student.
    """
    def model_fn(features):
        student = build_encoder(config, not freeze_encoder, features)
        logits = task.logits(student, config, features, is_training=True)
        if init:
            start_from(init, task, freeze_encoder)
        taught = build_teacher(teacher, task, features,
                               with_logits=bool(terms.needing("logits", layer_map, weights)),
                               with_attention=bool(terms.needing("attention", layer_map, weights)))
        compared = terms.Compared(student, logits, taught, task, features, temperature)
        return training_spec(terms.build_terms(compared, layer_map, weights), schedule, progress, freeze_encoder)

    return model_fn
