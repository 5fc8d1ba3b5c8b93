"""A BERT under the names of Hugging Face's `transformers`, and under Google's.

Both hold the same numbers; a dense layer's matrix stands transposed. Files are safetensors, read and written with the
package of that name (requirements-export.txt), without torch. There `gelu` means the one with erf and `gelu_new` the
tanh form, which Google calls gelu.
"""

import dataclasses
import re

import numpy as np

from bert.modeling import BertConfig
from training import command
from training.command import UserError

try:
    from safetensors import SafetensorError
    from safetensors import numpy as safetensors
except ImportError:
    safetensors = None

_TABLES = {  # Google's name -> theirs
    "bert/embeddings/word_embeddings": "bert.embeddings.word_embeddings.weight",
    "bert/embeddings/token_type_embeddings": "bert.embeddings.token_type_embeddings.weight",
    "bert/embeddings/position_embeddings": "bert.embeddings.position_embeddings.weight",
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
    "output_weights": "classifier.weight",
    "output_bias": "classifier.bias"}
_DENSE = ("bert/encoder/layer_%/attention/self/query", "bert/encoder/layer_%/attention/self/key",
          "bert/encoder/layer_%/attention/self/value", "bert/encoder/layer_%/attention/output/dense",
          "bert/encoder/layer_%/intermediate/dense", "bert/encoder/layer_%/output/dense", "bert/pooler/dense",
          "cls/predictions/transform/dense")
_NORMS = ("bert/embeddings/LayerNorm", "bert/encoder/layer_%/attention/output/LayerNorm",
          "bert/encoder/layer_%/output/LayerNorm", "cls/predictions/transform/LayerNorm")


def _all_names():
    """dict of Google's name, in which % is a layer's number -> (theirs, whether the matrix is transposed)."""
    found = {name: (theirs, False) for name, theirs in _TABLES.items()}
    for scopes, weight, bias, transposed in ((_DENSE, "kernel", "bias", True), (_NORMS, "gamma", "beta", False)):
        for scope in scopes:
            theirs = scope.replace("layer_%", "layer.%").replace("/", ".")
            found["%s/%s" % (scope, weight)] = (theirs + ".weight", transposed)
            found["%s/%s" % (scope, bias)] = (theirs + ".bias", False)
    return found


_NAMES = _all_names()
_GOOGLES = {theirs: (name, transposed) for name, (theirs, transposed) in _NAMES.items()}

# Copies and counters that files of theirs may hold.
_WITHOUT_USE = re.compile(r"(^|\.)(position_ids|predictions\.decoder\.(weight|bias))$")
_ACTIVATIONS = {"gelu": "gelu_new", "gelu_new": "gelu_new", "gelu_erf": "gelu"}  # ours -> theirs
_ARCHITECTURES = (("output_weights", "BertForSequenceClassification"),
                  ("cls/predictions/output_bias", "BertForMaskedLM"))


def check_package():
    """Raises UserError without the package."""
    command.check_packages(safetensors is not None, "convert", "safetensors")


def read(path):
    """Google's names and float32 arrays of a safetensors file.

    Returns:
      (dict of name -> array, sorted list of the file's names that are left out).

    Raises:
      UserError: no such file, a broken one, or no BERT.
    """
    try:
        stored = safetensors.load_file(path)
    except (OSError, SafetensorError, TypeError, KeyError) as error:
        raise UserError("%s: cannot be read as safetensors: %s; float32 and float16 are" % (path, error))
    found, left_out = {}, []
    for name, values in stored.items():
        google = to_google(name)
        if google is None:
            left_out.append(name)
        else:
            found[google[0]] = np.ascontiguousarray(values.T if google[1] else values).astype(np.float32)
    if "bert/embeddings/word_embeddings" not in found:
        raise UserError("%s: no BERT; it starts with %s" % (path, ", ".join(sorted(stored)[:3])))
    return found, sorted(left_out)


def write(path, values):
    """Writes a safetensors file.

    Args:
      path: the file.
      values: dict of Google's name -> array; what has no name there is left out.

    Returns:
      sorted list of the names that are left out.
    """
    found = {}
    for name, array in values.items():
        theirs = from_google(name)
        if theirs is not None:
            found[theirs[0]] = np.ascontiguousarray(array.T if theirs[1] else array)
    if "bert.embeddings.word_embeddings.weight" not in found:
        raise UserError("convert: no BERT; the checkpoint starts with %s" % ", ".join(sorted(values)[:3]))
    safetensors.save_file(found, path, {"format": "pt"})
    return sorted(name for name in values if from_google(name) is None)


def to_google(name):
    """(Google's name, whether it is transposed) of one of theirs; None where there is none."""
    name = re.sub(r"^(?=embeddings\.|encoder\.|pooler\.)", "bert.", name)  # a BertModel by itself
    name = re.sub(r"LayerNorm\.(gamma|beta)$",  # as older files call them
                  lambda match: "LayerNorm." + {"gamma": "weight", "beta": "bias"}[match.group(1)], name)
    return None if _WITHOUT_USE.search(name) else _renamed(name, r"(?<=layer\.)(\d+)", _GOOGLES)


def from_google(name):
    """(their name, whether it is transposed) of one of Google's; None where there is none."""
    return _renamed(name, r"(?<=/layer_)(\d+)", _NAMES)


def _renamed(name, number, names):
    layer = re.search(number, name)
    found = names.get(re.sub(number, "%", name))
    return found and (found[0].replace("%", layer.group(1)) if layer else found[0], found[1])


def config_to_google(config):
    """Their config.json -> Google's keys; what describes nothing of the encoder is left out.

    Raises:
      UserError: it is another kind of model, or its positions are told otherwise than by a table.
    """
    for key, known in (("model_type", "bert"), ("position_embedding_type", "absolute")):
        if config.get(key, known) != known:
            raise UserError("convert: a BERT's has \"%s\": \"%s\", and this model's is %s" % (key, known, config[key]))
    known = {field.name for field in dataclasses.fields(BertConfig)}
    ours = {"gelu_new": "gelu", "gelu": "gelu_erf"}
    found = {name: value for name, value in config.items() if name in known}
    activation = config.get("hidden_act", "gelu")
    return dict(found, hidden_act=ours.get(activation, activation))


def config_from_google(config, values, labels):
    """Google's keys -> their config.json.

    Args:
      config: dict.
      values: names in the checkpoint.
      labels: names of a classifier's classes; None: not known.

    Raises:
      UserError: it has what they have not.
    """
    if config.get("model_type", "bert") != "bert":
        raise UserError("convert: for BERTs, and this model is a %s" % config["model_type"])
    if config.get("pooling", "first") != "first":
        raise UserError("convert: a pooler over the mean of the tokens (\"pooling\": \"mean\") has no name there")
    found = {name: value for name, value in config.items() if name != "pooling"}
    found.update(model_type="bert", layer_norm_eps=1e-12, pad_token_id=0, hidden_act=_ACTIVATIONS.get(
        config.get("hidden_act", "gelu"), config.get("hidden_act")))
    found["architectures"] = [next((kind for name, kind in _ARCHITECTURES if name in values), "BertModel")]
    if labels:
        found["id2label"] = {str(number): label for number, label in enumerate(labels)}
        found["label2id"] = {label: number for number, label in enumerate(labels)}
    return found
