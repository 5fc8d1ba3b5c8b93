"""ELECTRA's discriminator (Clark et al. 2020, arXiv 2003.10555): a BERT whose word table may be narrower.

Variable names and shapes are those of Google's released checkpoints, which hold the generator too; it stays
behind. Letters as in `bert/modeling.py`.
"""

import dataclasses

import tensorflow.compat.v1 as tf

from bert.modeling import BertConfig
from bert.modeling import BertModel
from bert.modeling import IGNORED_KEYS
from bert.modeling import dense
from bert.randomness import glorot
from training import config as configs

_IGNORED_KEYS = IGNORED_KEYS + (
    "summary_activation", "summary_last_dropout", "summary_type", "summary_use_proj")


@dataclasses.dataclass(frozen=True)
class ElectraConfig(BertConfig):
    """Sizes of an ElectraModel; the names are those of BERT's JSON, and `embedding_size`.

    `embedding_size` is the width of the word table, 0 means `hidden_size`. `hidden_act` "gelu" means "gelu_erf",
    the form ELECTRA was trained with.
    """
    embedding_size: int = 0
    model_type: str = "electra"

    def __post_init__(self):
        super().__post_init__()
        if self.embedding_size < 0:
            raise ValueError("'embedding_size' must be above 0, or 0 for 'hidden_size'")
        if self.embedding_size == 0:
            object.__setattr__(self, "embedding_size", self.hidden_size)
        if self.hidden_act == "gelu":
            object.__setattr__(self, "hidden_act", "gelu_erf")

    @classmethod
    def from_dict(cls, values, source):
        """Raises UserError naming `source` for an unknown key or a wrong value."""
        return configs.from_dict(cls, values, source, ignored=_IGNORED_KEYS)


class ElectraModel(BertModel):
    """An ELECTRA encoder over one batch of token ids, with the outputs of a BertModel."""

    def __init__(self, config, is_training, input_ids, input_mask=None, segment_ids=None, scope="electra",
                 perturbation=None):
        """Builds the graph; the arguments are those of BertModel, with an ElectraConfig."""
        super().__init__(config, is_training, input_ids, input_mask, segment_ids, scope, perturbation)

    def _widen(self, embedded):
        config = self._config
        if config.embedding_size == config.hidden_size:
            return embedded
        with tf.variable_scope(self._scope):  # beside the encoder, not in it
            return dense(embedded, config.hidden_size, "embeddings_project", glorot)

    def get_pooled_output(self):
        """float32 [B, H]: the top layer's first token ([CLS]), or its mean; ELECTRA has no pooler."""
        return self._one_vector()
