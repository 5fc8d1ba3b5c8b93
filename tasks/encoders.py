"""From a model's JSON to its encoder: the one place that knows all kinds."""

import dataclasses

from bert.albert import FIXED_KEYS, AlbertConfig, AlbertModel
from bert.electra import ElectraConfig, ElectraModel
from bert.modeling import BertConfig, BertModel
from student.modeling import BiLstmConfig, BiLstmModel
from training.command import UserError
from training.files import read_json

SCOPES = ("bert/", "electra/", "student/")  # names of encoders' variables begin so, of no others

KINDS = {"bert": (BertConfig, BertModel), "albert": (AlbertConfig, AlbertModel),
         "electra": (ElectraConfig, ElectraModel), "bilstm": (BiLstmConfig, BiLstmModel)}


def read_config(path):
    """Reads a model's JSON.

    Returns:
      the configuration, by its "model_type"; without one, as in released files, an AlbertConfig where keys of
      ALBERT alone are, else a BertConfig.

    Raises:
      UserError: an unknown kind or key, or a wrong value; the file is named.
    """
    values = read_json(path)
    kind = _kind(values, path) if isinstance(values, dict) else "bert"
    if kind not in list(KINDS):  # a list: the value may be anything, and not all can be looked up in a dict
        raise UserError("%s: 'model_type' must be one of %s, found %r" % (path, ", ".join(sorted(KINDS)), kind))
    return KINDS[kind][0].from_dict(values, path)


def _kind(values, path):
    """The "model_type" of a dict, or what its keys tell."""
    if "model_type" in values:
        return values["model_type"]
    if set(FIXED_KEYS) & set(values):
        return "albert"
    if "embedding_size" in values:
        raise UserError("%s: 'model_type' is missing, and a BERT has no 'embedding_size'; add \"electra\" or another"
                        % path)
    return "bert"


def build_encoder(config, is_training, features, perturbation=None):
    """The encoder of a configuration over one batch.

    Args:
      config: as from `read_config`.
      is_training: bool; False switches dropout off.
      features: dict of "input_ids", "input_mask" and "segment_ids", int32 [B, S].
      perturbation: float32 [B, S, E], added to the output of the embeddings; None: nothing is.

    Returns:
      the model of that kind, see `KINDS`.
    """
    return KINDS[config.model_type][1](
        config, is_training, features["input_ids"], features["input_mask"], features["segment_ids"],
        perturbation=perturbation)


def in_encoder(name):
    """Whether the variable of that name is an encoder's, of any kind."""
    return name.startswith(SCOPES)


def cut_layers(config, layers, source):
    """The configuration of a Transformer that keeps some layers of a checkpoint.

    ALBERT's layers are one, so only the number of those kept matters: it is applied that often.

    Args:
      config: BertConfig (or one derived from it) of the checkpoint, or already of the cut model.
      layers: numbers of the checkpoint's layers, from 0; (): all.
      source: the file of `config`, for messages.

    Raises:
      UserError: not a Transformer, or a layer that is not there.
    """
    if not layers:
        return config
    flag = "--init_layers=%s" % ",".join(map(str, layers))
    if not isinstance(config, BertConfig):
        raise UserError("%s: only a Transformer is cut, and %s is a %s" % (flag, source, config.model_type))
    if max(layers) >= config.num_layers:
        if len(layers) == config.num_layers:
            return config
        raise UserError("%s: the model has %d layers (%s), counted from 0: layer %d does not exist"
                        % (flag, config.num_layers, source, max(layers)))
    return dataclasses.replace(config, num_hidden_layers=len(layers))
