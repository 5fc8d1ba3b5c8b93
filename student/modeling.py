"""The student: word embeddings and a stack of bidirectional LSTM layers, with the outputs of a BertModel.

Letters: B batch, S sequence, E embedding, H width of a layer's output (d' in the paper), V vocabulary.
"""

import dataclasses

import tensorflow.compat.v1 as tf

from bert import padding
from bert.randomness import dropout
from bert.randomness import new_variable
from bert.randomness import normal
from student import lstm as lstms
from training import config as configs

MERGES = ("concat", "sum")
POOLINGS = ("last", "max", "mean")


@dataclasses.dataclass(frozen=True)
class BiLstmConfig:
    """Sizes of a BiLstmModel.

    `hidden_size` is the width of every layer's output. `merge` "concat" runs half of it in each direction
    and joins the two, "sum" runs all of it in each direction and adds them. `embedding_size` 0 means
    `hidden_size`. Dropout: of the embeddings, of each layer's output, of the pooled vector (by the classifier
    over it).
    """
    vocab_size: int
    model_type: str = "bilstm"
    hidden_size: int = 200
    num_hidden_layers: int = 3
    embedding_size: int = 0
    merge: str = "concat"
    pooling: str = "last"
    embedding_dropout_prob: float = 0.1
    hidden_dropout_prob: float = 0.1
    pooled_dropout_prob: float = 0.1
    initializer_range: float = 0.02

    def __post_init__(self):
        configs.check_positive(self, "vocab_size", "hidden_size", "num_hidden_layers")
        configs.check_probability(
            self, "embedding_dropout_prob", "hidden_dropout_prob", "pooled_dropout_prob")
        if self.embedding_size < 0:
            raise ValueError("'embedding_size' must be above 0, or 0 for 'hidden_size'")
        if self.embedding_size == 0:
            object.__setattr__(self, "embedding_size", self.hidden_size)
        if self.merge not in MERGES:
            raise ValueError("'merge' must be one of %s, found %r" % (", ".join(MERGES), self.merge))
        if self.pooling not in POOLINGS:
            raise ValueError("'pooling' must be one of %s, found %r" % (", ".join(POOLINGS), self.pooling))
        if self.merge == "concat" and self.hidden_size % 2:
            raise ValueError(
                "'hidden_size' must be even with 'merge' \"concat\", found %d" % self.hidden_size)

    @property
    def num_layers(self):
        """Layers that can be distilled from or into."""
        return self.num_hidden_layers

    @property
    def classifier_dropout_prob(self):
        """Dropout of the pooled vector in front of a classifier."""
        return self.pooled_dropout_prob

    @property
    def hidden_act(self):
        """What a masked-LM head over this encoder uses."""
        return "gelu"

    @property
    def max_length(self):
        """None: a recurrent model takes a sequence of any length."""
        return None

    @classmethod
    def from_dict(cls, values, source):
        """Raises UserError naming `source` for an unknown key or a wrong value."""
        return configs.from_dict(cls, values, source)


class BiLstmModel:
    """A BiLSTM encoder over one batch of token ids; padding reaches no state, in neither direction."""

    def __init__(self, config, is_training, input_ids, input_mask=None, segment_ids=None, scope="student",
                 kernel=None, perturbation=None):
        """Builds the graph.

        Args:
          config: BiLstmConfig.
          is_training: bool; False switches dropout off.
          input_ids: int32 [B, S].
          input_mask: int32 [B, S], ones and then zeros (padding stands at the end); None: no padding.
          segment_ids: ignored; a BertModel takes it, and either can stand in the other's place.
          scope: variable scope.
          kernel: as of `student.lstm.chosen`.
          perturbation: float32 [B, S, E], added to the output of the embeddings; None: nothing is.
        """
        del segment_ids
        if input_mask is None:
            input_mask = tf.ones_like(input_ids)
        self._config, self._is_training = config, is_training
        self._kernel = lstms.chosen(kernel)
        self._lengths = tf.reduce_sum(input_mask, axis=1)  # [B]
        self._weights = tf.cast(input_mask, tf.float32)[:, :, None]  # [B, S, 1]
        self._input_mask = input_mask
        embedding_dropout = config.embedding_dropout_prob if is_training else 0.0
        hidden_dropout = config.hidden_dropout_prob if is_training else 0.0

        with tf.variable_scope(scope):
            with tf.variable_scope("embeddings"):
                self._embedding_table = new_variable(
                    "word_embeddings", [config.vocab_size, config.embedding_size],
                    normal(config.initializer_range))
                self._embedding_output = tf.nn.embedding_lookup(self._embedding_table, input_ids)
            if perturbation is not None:
                self._embedding_output += perturbation
            hidden = dropout(self._embedding_output, embedding_dropout, "embeddings")
            self._all_encoder_layers = []
            for layer in range(1, config.num_hidden_layers + 1):
                with tf.variable_scope("layer_%d" % layer):
                    hidden = self._layer(hidden)
                    self._all_encoder_layers.append(hidden)
                    hidden = dropout(hidden, hidden_dropout, "output")

    def _layer(self, inputs):
        """One bidirectional layer, [B, S, F] -> [B, S, H]; zero at padding."""
        config = self._config
        units = config.hidden_size // 2 if config.merge == "concat" else config.hidden_size

        def run(direction):
            with tf.variable_scope(direction):
                return lstms.lstm(inputs, units, self._lengths, self._kernel, direction == "backward",
                                  self._is_training)

        forward, backward = run("forward"), run("backward")
        self._top_forward, self._top_backward = forward, backward
        merged = tf.concat([forward, backward], axis=-1) if config.merge == "concat" else forward + backward
        return merged if self._kernel in lstms.ZERO_AT_PADDING else padding.zeroed(merged, self._input_mask)

    def get_embedding_output(self):
        """float32 [B, S, E]: the word vectors, before dropout."""
        return self._embedding_output

    def get_all_encoder_layers(self):
        """List of float32 [B, S, H], the first layer's output first, before dropout; zero at padding."""
        return self._all_encoder_layers

    def get_sequence_output(self):
        """float32 [B, S, H]: the top layer's output."""
        return self._all_encoder_layers[-1]

    def get_pooled_output(self):
        """float32 [B, H]: one vector a text.

        "last" merges the forward state at the last real token with the backward state at the first, "max"
        and "mean" run over the top layer's real tokens. A text without any token gives zeros.
        """
        return {"last": self._last_state, "max": self._max, "mean": self._mean}[self._config.pooling]()

    def _last_state(self):
        config = self._config
        texts = tf.range(tf.shape(self._lengths)[0])
        last = tf.stack([texts, tf.maximum(self._lengths - 1, 0)], axis=1)
        if config.merge == "concat":
            units = config.hidden_size // 2
            ends = tf.gather_nd(self.get_sequence_output(), last)
            return tf.concat([ends[:, :units], self.get_sequence_output()[:, 0, units:]], axis=-1)
        return self._any_token() * (tf.gather_nd(self._top_forward, last) + self._top_backward[:, 0])

    def _any_token(self):
        return tf.cast(self._lengths > 0, tf.float32)[:, None]

    def _max(self):
        lowest = (1.0 - self._weights) * -1e9
        return self._any_token() * tf.reduce_max(self.get_sequence_output() + lowest, axis=1)

    def _mean(self):
        count = tf.maximum(tf.reduce_sum(self._weights, axis=1), 1.0)
        return tf.reduce_sum(self.get_sequence_output(), axis=1) / count

    def get_embedding_table(self):
        """float32 [V, E]: the word table."""
        return self._embedding_table
