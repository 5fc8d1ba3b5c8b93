"""From a model's JSON to its encoder: the one place that knows both kinds."""

import dataclasses

from bert.modeling import BertConfig, BertModel
from student.modeling import BiLstmConfig, BiLstmModel
from training.command import UserError
from training.files import read_json

KINDS = {"bert": (BertConfig, BertModel), "bilstm": (BiLstmConfig, BiLstmModel)}
DEFAULT_KIND = "bert"  # Google's files do not say


def read_config(path):
    """Reads a model's JSON.

    Returns:
      BertConfig or BiLstmConfig, by its "model_type".

    Raises:
      UserError: an unknown kind or key, or a wrong value; the file is named.
    """
    values = read_json(path)
    kind = values.get("model_type", DEFAULT_KIND) if isinstance(values, dict) else DEFAULT_KIND
    if kind not in list(KINDS):  # a list: the value may be anything, and not all can be looked up in a dict
        raise UserError("%s: 'model_type' must be one of %s, found %r" % (path, ", ".join(sorted(KINDS)), kind))
    return KINDS[kind][0].from_dict(values, path)


def build_encoder(config, is_training, features):
    """The encoder of a configuration over one batch.

    Args:
      config: as from `read_config`.
      is_training: bool; False switches dropout off.
      features: dict of "input_ids", "input_mask" and "segment_ids", int32 [B, S].

    Returns:
      BertModel or BiLstmModel.
    """
    return KINDS[config.model_type][1](
        config, is_training, features["input_ids"], features["input_mask"], features["segment_ids"])


def cut_layers(config, layers, source):
    """The configuration of a BERT that keeps some layers of a checkpoint.

    Args:
      config: BertConfig of the checkpoint, or already of the cut model.
      layers: numbers of the checkpoint's layers, from 0; (): all.
      source: the file of `config`, for messages.

    Raises:
      UserError: not a BERT, or a layer that is not there.
    """
    if not layers:
        return config
    flag = "--init_layers=%s" % ",".join(map(str, layers))
    if config.model_type != "bert":
        raise UserError("%s: only a BERT is cut, and %s is a %s" % (flag, source, config.model_type))
    if max(layers) >= config.num_layers:
        if len(layers) == config.num_layers:
            return config
        raise UserError("%s: the model has %d layers (%s), counted from 0: layer %d does not exist"
                        % (flag, config.num_layers, source, max(layers)))
    return dataclasses.replace(config, num_hidden_layers=len(layers))
