"""The compared methods, each as data: what flags of run_distill.py it sets, and which student it needs.

A method is not more than that: `run_distill.py --method=NAME` is the command with those flags, and a flag that is
given beside it wins. What a method does before a run, such as more texts or another start, is a command of its own
(`Method.before`).
"""

import collections

from training.command import UserError

# source: paper; student: "bilstm", "bert" or "any"; corpus, task: dict of flag -> value for --task=masked_lm and
# --task=classification, None where the method has no such part; before: what is run or made before, for people.
Method = collections.namedtuple("Method", "source student corpus task before", defaults=("",))

# No term of the paper's but what is named beside it, and a map that fits any two models.
_NONE = {"embedding_weight": 0.0, "hidden_weights": ["0"], "prediction_weight": 0.0, "label_weight": 0.0,
         "layer_map": "uniform"}
_LABELS = dict(_NONE, label_weight=1.0)
_ANSWERS = dict(_NONE, prediction_weight=1.0, label_weight=1.0)
_LOGITS = dict(_NONE, logit_mse_weight=1.0)

METHODS = collections.OrderedDict([
    ("none", Method("no teacher: labels alone", "bilstm", None, _LABELS)),
    ("mlm", Method("no teacher: masked LM on a corpus, then labels", "any", _LABELS, _LABELS)),
    ("mlm_logits", Method("Turc et al. 2019, arXiv 1908.08962: masked LM without a teacher, then its answers", "any",
                          _LABELS, _ANSWERS)),
    ("logits", Method("Tang et al. 2019, arXiv 1903.12136: squared error of the logits", "bilstm", None, _LOGITS,
                      "python -m distill.augment makes its texts, see docs/data.md")),
    ("paper", Method("Li et al. 2021: embedding, hidden and prediction terms", "any", {}, {})),
    ("structured", Method("similarities between tokens and between texts", "any", dict(
        _NONE, token_similarity_weight=1.0, text_similarity_weight=1.0, prediction_weight=1.0), dict(
            _ANSWERS, token_similarity_weight=1.0, text_similarity_weight=1.0))),
    # Its search is over 10 to 1,000; the mean over features is that of its code.
    ("pkd", Method("Sun et al. 2019, arXiv 1908.09355: normalised first states", "any", None, dict(
        _ANSWERS, patience_weight=100.0, temperature=5.0))),
    ("tinybert", Method("Jiao et al. 2020, arXiv 1909.10351: attention, states and embedding, then answers", "bert",
                        dict(_NONE, attention_weight=1.0, hidden_weights=["1"], embedding_weight=1.0),
                        dict(_NONE, attention_weight=1.0, hidden_weights=["1"], embedding_weight=1.0,
                             prediction_weight=1.0, strategy="two_stage", unfreeze_steps=0))),
    ("theseus", Method("Xu et al. 2020, arXiv 2002.02925: layers of the student in the place of the teacher's", "bert",
                       None, dict(_LABELS, strategy="theseus"),
                       "--init_checkpoint is the teacher, --init_layers its lowest layers")),
    # How long its perturbation is could not be looked up; with a tenth a fresh student learned nothing, see
    # docs/results.md.
    ("lrc", Method("Fu et al. 2021, arXiv 2012.07335: directions of texts, against other texts, with perturbed "
                   "embeddings", "any", None,
                   dict(_ANSWERS, contrast_weight=1.0, strategy="lrc", perturbation=0.01))),
    # Its released training weighs soft answers 5, masked LM 2, cosine 1.
    ("distilbert", Method("Sanh et al. 2019, arXiv 1910.01108: soft answers, masked LM and cosine", "any",
                          dict(_NONE, prediction_weight=5.0, label_weight=2.0, cosine_weight=1.0, temperature=2.0),
                          dict(_ANSWERS, temperature=2.0))),
    ("etd", Method("Chen et al. 2021, arXiv 2104.11928: cut out of the teacher, then its last layer", "bert",
                   dict(_NONE, attention_weight=1.0, hidden_weights=["1"], layer_map="top"),
                   dict(_ANSWERS, attention_weight=1.0, hidden_weights=["1"], layer_map="top"),
                   "python -m distill.extraction makes the start, for --init_checkpoint")),
    ("augment", Method("Qiu et al. 2021, arXiv 2101.08106: texts reworded by the teacher's masked LM", "any", None,
                       dict(_ANSWERS), "python -m distill.augment --method=masked_lm makes its texts")),
    ("assistant", Method("Mirzadeh et al. 2020, arXiv 1902.03393: from teacher to a model in between, from it to the "
                         "student", "any", None, dict(_ANSWERS, temperature=2.0),
                         "the same command makes the model in between, which then is --teacher_checkpoint"))])


def apply(flag_values, name, task):
    """Sets the flags of a method that were not given themselves.

    Args:
      flag_values: absl's FlagValues of run_distill.py.
      name: of the method.
      task: "masked_lm" or "classification".

    Raises:
      UserError: no such method, or it has no part on that task.
    """
    if name not in METHODS:
        raise UserError("--method=%s: must be one of %s" % (name, ", ".join(METHODS)))
    chosen = METHODS[name].corpus if task == "masked_lm" else METHODS[name].task
    if chosen is None:
        raise UserError("--method=%s: it learns nothing on a corpus; give --task=classification" % name)
    for flag, value in chosen.items():
        if not flag_values[flag].present:
            flag_values[flag].value = value


def describe():
    """A line for each method."""
    return "\n".join("  %-11s %s%s" % (name, method.source, "; " + method.before if method.before else "")
                     for name, method in METHODS.items())


if __name__ == "__main__":
    print(describe())
