"""ALBERT (Lan et al. 2020, arXiv 1909.11942): one layer applied again and again, and a narrow word table.

Variable names and shapes are those of Google's released checkpoints. Letters as in `bert/modeling.py`.
"""

import dataclasses

import tensorflow.compat.v1 as tf

from bert.modeling import BertConfig
from bert.modeling import BertModel
from bert.modeling import IGNORED_KEYS
from bert.modeling import LayerNames
from bert.modeling import dense
from training import config as configs

# Keys of released albert_config.json files that allow for other networks than all those released.
FIXED_KEYS = {"num_hidden_groups": 1, "inner_group_num": 1, "net_structure_type": 0, "gap_size": 0,
              "num_memory_blocks": 0, "down_scale_factor": 1}
_IGNORED_KEYS = IGNORED_KEYS + ("bos_token_id", "eos_token_id")


@dataclasses.dataclass(frozen=True)
class AlbertConfig(BertConfig):
    """Sizes of an AlbertModel; the names are those of Google's albert_config.json.

    `embedding_size` is the width of the word table. Nothing is dropped out but the pooled vector in front of a
    classifier, as the second version of ALBERT was trained and is fine-tuned.
    """
    embedding_size: int = 128
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout_prob: float = 0.1
    model_type: str = "albert"

    def __post_init__(self):
        super().__post_init__()
        configs.check_positive(self, "embedding_size")
        configs.check_probability(self, "classifier_dropout_prob")

    @classmethod
    def from_dict(cls, values, source):
        """Reads Google's keys; raises UserError naming `source` for any other, or a network not implemented."""
        return configs.from_dict(cls, values, source, ignored=_IGNORED_KEYS, fixed=FIXED_KEYS)


class AlbertModel(BertModel):
    """An ALBERT encoder over one batch of token ids, with the outputs of a BertModel.

    `num_hidden_layers` is how often the one layer is applied; the number of variables does not depend on it.
    """

    _layer_names = LayerNames("attention_1/self", "attention_1/output", "LayerNorm", "ffn_1/intermediate",
                              "ffn_1/intermediate/output", "LayerNorm_1")

    def _widen(self, embedded):
        config = self._config
        if config.embedding_size == config.hidden_size:
            return embedded
        return dense(embedded, config.hidden_size, "embedding_hidden_mapping_in", self._draw)

    def _layer_scope(self, layer):
        del layer
        return tf.variable_scope("transformer/group_0/inner_group_0", reuse=tf.AUTO_REUSE)

    def _dropout_site(self, layer):
        return "layer_%d/dropout" % layer
