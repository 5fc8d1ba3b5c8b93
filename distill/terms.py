"""The terms of the distillation loss: which tensors of student and teacher each compares, and how it is averaged."""

import collections

import tensorflow.compat.v1 as tf

from bert.modeling import shape_list
from bert.randomness import glorot, new_variable
from distill import losses
from distill import relations
from tasks.model_fn import Term

# What terms are built from. student: encoder; logits: the student's; taught: TeacherOutputs; task: MaskedLm or
# Classification; features: dict of the batch's features; temperature: T.
Compared = collections.namedtuple("Compared", "student logits taught task features temperature")

# build: function of (Compared, logged name, (student layer, teacher layer)) -> (sum, total).
# per_layer: whether each pair of the layer map has a term of its own; else there is one, and the last pair is its.
# group: what of the teacher is learnt, one of `GROUPS`.
# needs: what of the teacher it looks at: "embedding", "states", "pooled" (of each text its first state, or the mean of
# all), "logits", "attention" or None.
Kind = collections.namedtuple("Kind", "build per_layer group needs")

# Of terms that compare the texts of an update with each other, so that it must not be cut into parts.
WHOLE_UPDATE = ("text_similarity", "contrast")

GROUPS = ("embedding", "states", "answers", "labels")


def build_terms(compared, layer_map, weights):
    """The terms whose weight is not 0, in the order of `TERMS`.

    Args:
      compared: Compared.
      layer_map: list of (student layer, teacher layer), counted from 1.
      weights: dict of logged name -> weight; what is not there has none.

    Returns:
      list of Term.
    """
    return [Term(logged, weights[logged], *kind.build(compared, logged, pair))
            for name, kind in TERMS.items() for logged, pair in instances(name, layer_map) if weights.get(logged)]


def instances(name, layer_map):
    """What a term is logged as and the pair of layers it looks at: list of (logged name, pair).

    Either one for each pair of the map, `<name>_<student layer>`, or one in all, with the last pair.
    """
    if TERMS[name].per_layer:
        return [("%s_%d" % (name, pair[0]), pair) for pair in layer_map]
    return [(name, layer_map[-1])]


def flag_of(name):
    """The flag that weighs a term, without its dashes."""
    return "hidden_weights" if name == "hidden" else name + "_weight"


def without(names):
    """The flags that switch terms off, for messages."""
    return " ".join("--%s=0" % flag_of(name) for name in names)


def of_groups(groups, layer_map, weights):
    """The terms of some of `GROUPS` that have a weight: list of names."""
    return _weighted((name for name, kind in TERMS.items() if kind.group in groups), layer_map, weights)


def needs(layer_map, weights):
    """What the terms with a weight look at of the teacher: dict of `Kind.needs` -> list of their names."""
    found = {}
    for name in _weighted(TERMS, layer_map, weights):
        if TERMS[name].needs:
            found.setdefault(TERMS[name].needs, []).append(name)
    return found


def _weighted(names, layer_map, weights):
    return [name for name in names if any(weights.get(logged) for logged, _ in instances(name, layer_map))]


def project(tensor, width, name):
    """[B, S, F] times a learned matrix, `distill/<name>/kernel` [F, width]; never exported."""
    batch, length, features = shape_list(tensor)
    with tf.variable_scope("distill/%s" % name):
        kernel = new_variable("kernel", [features, width], glorot)
    return tf.reshape(tf.matmul(tf.reshape(tensor, [-1, features]), kernel), [batch, length, width])


def _states(compared, pair):
    """The two models' outputs of a pair of layers, [B, S, D] and [B, S, F]."""
    return _ours(compared, pair), compared.taught.hidden[pair[1] - 1]


def _ours(compared, pair):
    return compared.student.get_all_encoder_layers()[pair[0] - 1]


def _theirs(compared, pair, what):
    """Of what is pooled of a layer of the teacher's, one: its states [B, S, F], where they are there, else that.

    what: "first" [B, 1, F] or "mean" [B, F].
    """
    taught = compared.taught
    return taught.hidden[pair[1] - 1] if taught.hidden else taught.pooled[pair[1] - 1][what]


def _over_tokens(loss, compared, name, ours, theirs):
    """(sum, total) of a loss between states, the student's projected, over real tokens."""
    projected = project(ours, theirs.shape.as_list()[-1], name)
    return loss(projected, theirs, compared.features["input_mask"])[0], compared.features["total_tokens"]


def _over_texts(per_text, compared):
    return tf.reduce_sum(per_text), compared.features["total_examples"]


def _over_rows(rows, compared):
    return tf.reduce_sum(rows), compared.features[compared.task.row_total]


def _embedding(compared, name, _):
    return _over_tokens(losses.masked_mse, compared, name, compared.student.get_embedding_output(),
                        compared.taught.embedding)


def _hidden(compared, name, pair):
    return _over_tokens(losses.masked_mse, compared, name, *_states(compared, pair))


def _cosine(compared, name, pair):
    return _over_tokens(losses.masked_cosine_distance, compared, name, *_states(compared, pair))


def _prediction(compared, _name, _):
    soft = losses.soft_binary_cross_entropy if compared.task.independent_classes else losses.soft_cross_entropy
    return _over_rows(soft(compared.logits, compared.taught.logits, compared.temperature), compared)


def _hard_label(compared, _name, _):
    hard = losses.hard_binary_cross_entropy if compared.task.independent_classes else losses.hard_cross_entropy
    return _over_rows(hard(compared.logits, compared.taught.logits), compared)


def _logit_mse(compared, _name, _):
    return _over_rows(losses.logit_mse(compared.logits, compared.taught.logits), compared)


def _label(compared, _name, _):
    return compared.task.loss(compared.logits, compared.features)


def _token_similarity(compared, _name, pair):
    mask = compared.features["input_mask"]
    return _over_texts(relations.token_similarity(*_states(compared, pair), mask), compared)


def _text_similarity(compared, _name, pair):
    mask = compared.features["input_mask"]
    return _over_texts(relations.text_similarity(
        _ours(compared, pair), _theirs(compared, pair, "mean"), mask), compared)


def _contrast(compared, name, pair):
    theirs = _theirs(compared, pair, "mean")
    projected = project(_ours(compared, pair), theirs.shape.as_list()[-1], name)
    return _over_texts(relations.contrast(projected, theirs, compared.features["input_mask"]), compared)


def _patience(compared, name, pair):
    ours, theirs = _ours(compared, pair), _theirs(compared, pair, "first")
    width = theirs.shape.as_list()[-1]
    first = ours[:, :1]
    if ours.shape.as_list()[-1] != width:
        first = project(first, width, name)
    return losses.patience(first, theirs, compared.features["input_mask"])[0], compared.features["total_examples"]


def _attention(compared, _name, pair):
    ours = compared.student.get_attention_scores()[pair[0] - 1]
    theirs = compared.taught.attention[pair[1] - 1]
    return _over_texts(relations.attention(ours, theirs, compared.features["input_mask"]), compared)


TERMS = collections.OrderedDict([
    ("embedding", Kind(_embedding, False, "embedding", "embedding")),
    ("hidden", Kind(_hidden, True, "states", "states")),
    ("prediction", Kind(_prediction, False, "answers", "logits")),
    ("label", Kind(_label, False, "labels", None)),
    ("hard_label", Kind(_hard_label, False, "answers", "logits")),
    ("logit_mse", Kind(_logit_mse, False, "answers", "logits")),
    ("cosine", Kind(_cosine, False, "states", "states")),
    ("token_similarity", Kind(_token_similarity, True, "states", "states")),
    ("text_similarity", Kind(_text_similarity, False, "states", "pooled")),
    ("contrast", Kind(_contrast, True, "states", "pooled")),
    ("patience", Kind(_patience, True, "states", "pooled")),
    ("attention", Kind(_attention, True, "states", "attention"))])
