"""The Transformer encoder of BERT (Devlin et al. 2019, arXiv 1810.04805).

Variable names and shapes are those of Google's released checkpoints, so any of them loads by name. ALBERT and
ELECTRA are this encoder with other names and a word table that may be narrower than the layers (`bert/albert.py`,
`bert/electra.py`).

Letters: B batch, S sequence, E width of the word table, H width, A heads, D width of a head, V vocabulary, M = B * S.
"""

import collections
import dataclasses
import math

import tensorflow.compat.v1 as tf

from bert import attention
from bert import fused
from bert.randomness import dropout
from bert.randomness import new_variable
from bert.randomness import normal
from training import config as configs
from training import native

POOLINGS = ("first", "mean")
PARTS = 4           # of a batch that are computed side by side, where nothing is trained
LEAST_TOKENS = 512  # of a part; products of fewer rows are slower

# Scopes within a layer's: of attention, of the map of its result, of the norm after it, of the two dense layers
# that follow, and of the last norm.
LayerNames = collections.namedtuple(
    "LayerNames", "attention attention_output attention_norm intermediate output output_norm")

# Keys of released JSON files that describe nothing these encoders have.
IGNORED_KEYS = (
    "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
    "pooler_size_per_head", "pooler_type", "architectures", "layer_norm_eps", "output_past", "pad_token_id",
    "gradient_checkpointing", "position_embedding_type", "transformers_version", "use_cache",
    "classifier_dropout")


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of a BertModel; the names are those of Google's bert_config.json.

    One key is ours: `pooling`, what the pooler looks at, the "first" token as in Google's code or the "mean" of
    the real ones.
    """
    vocab_size: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    model_type: str = "bert"
    pooling: str = "first"

    def __post_init__(self):
        configs.check_positive(self, "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                               "intermediate_size", "max_position_embeddings", "type_vocab_size")
        configs.check_probability(self, "hidden_dropout_prob", "attention_probs_dropout_prob")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("'hidden_size' (%d) is not a multiple of 'num_attention_heads' (%d)"
                             % (self.hidden_size, self.num_attention_heads))
        activation(self.hidden_act)
        if self.pooling not in POOLINGS:
            raise ValueError("'pooling' must be one of %s, found %r" % (", ".join(POOLINGS), self.pooling))

    @property
    def embedding_size(self):
        """Width of the word table."""
        return self.hidden_size

    @property
    def num_layers(self):
        """Layers that can be distilled from or into."""
        return self.num_hidden_layers

    @property
    def classifier_dropout_prob(self):
        """Dropout of the pooled vector in front of a classifier."""
        return self.hidden_dropout_prob

    @property
    def max_length(self):
        """The longest sequence the model takes, in tokens."""
        return self.max_position_embeddings

    @classmethod
    def from_dict(cls, values, source):
        """Reads Google's keys; raises UserError naming `source` for any other."""
        return configs.from_dict(cls, values, source, ignored=IGNORED_KEYS)


class BertModel:
    """A BERT encoder over one batch of token ids."""

    _layer_names = LayerNames("attention/self", "attention/output", "attention/output/LayerNorm", "intermediate",
                              "output", "output/LayerNorm")

    def __init__(self, config, is_training, input_ids, input_mask=None, segment_ids=None, scope="bert",
                 perturbation=None):
        """Builds the graph.

        Args:
          config: BertConfig.
          is_training: bool; False switches dropout off.
          input_ids: int32 [B, S].
          input_mask: int32 [B, S], 1 for a real token, 0 for padding; None: no padding.
          segment_ids: int32 [B, S], 0 or 1; None: all 0.
          scope: variable scope.
          perturbation: float32 [B, S, E], added to the output of the embeddings; None: nothing is.
        """
        self._config, self._is_training = config, is_training
        self._hidden_dropout = config.hidden_dropout_prob if is_training else 0.0
        self._attention_dropout = config.attention_probs_dropout_prob if is_training else 0.0
        self._draw = normal(config.initializer_range)
        self._pooled_output = None
        batch_size, length = shape_list(input_ids)
        if input_mask is None:
            input_mask = tf.ones_like(input_ids)
        self._input_mask = input_mask
        if segment_ids is None:
            segment_ids = tf.zeros_like(input_ids)

        with tf.variable_scope(scope) as self._scope:
            with tf.variable_scope("embeddings"):
                self._embed(input_ids, segment_ids, length)
            if perturbation is not None:
                self._embedding_output += perturbation
            with tf.variable_scope("encoder") as self._encoder_scope:
                self._encode(batch_size, length, input_mask)

    def _embed(self, input_ids, segment_ids, length):
        config = self._config
        self._embedding_table = self._variable("word_embeddings", [config.vocab_size, config.embedding_size])
        types = self._variable("token_type_embeddings", [config.type_vocab_size, config.embedding_size])
        positions = self._variable(
            "position_embeddings", [config.max_position_embeddings, config.embedding_size])
        with tf.control_dependencies([tf.debugging.assert_less_equal(
                length, config.max_position_embeddings,
                message="a sequence is longer than max_position_embeddings")]):
            places = tf.range(length)
        # A product with one-hot rows: the gradient of a gather from so few rows would be a slow scatter.
        kind = tf.tensordot(tf.one_hot(segment_ids, config.type_vocab_size), types, axes=1)
        words = tf.nn.embedding_lookup(self._embedding_table, input_ids)
        added = kind + tf.gather(positions, places)
        rows = [tf.reshape(part, [-1, config.embedding_size]) for part in (words, added)]
        no_bias = tf.zeros([config.embedding_size])
        normal_rows = fused.add_norm(rows[0], no_bias, rows[1], *norm_variables(config.embedding_size), 0.0, "")
        self._embedding_output = tf.reshape(normal_rows, tf.shape(words))

    def _encode(self, batch_size, length, input_mask):
        config = self._config
        # Added to scores before the softmax: 0 for real tokens, -10000 for padding.  [B, 1, 1, S]
        mask = (tf.cast(input_mask, tf.float32)[:, None, None, :] - 1.0) * 10000.0
        hidden = dropout(self._embedding_output, self._hidden_dropout, "embeddings")
        hidden = self._widen(tf.reshape(hidden, [-1, config.embedding_size]))
        self._hiddens, self._scored = [], []  # of each layer those of each part; of all these in turn
        self._outputs, self._output_shape = {}, [batch_size, length, config.hidden_size]
        parts = self._cut(hidden, mask, batch_size, length)
        for layer in range(config.num_hidden_layers):
            with self._layer_scope(layer):
                hiddens = [self._transform(layer, *parts[0])]
            hiddens += [self.apply_layer(layer, *part) for part in parts[1:]]
            parts = [(hidden, mask) for hidden, (_, mask) in zip(hiddens, parts)]
            self._hiddens.append(hiddens)

    def _cut(self, hidden, mask, batch_size, length):
        """Parts of the texts, for layers that see them side by side: list of (float32 [M', H], float32 [B', 1, 1, S]).

        While one part's products are computed, another waits for memory. In training there is enough beside them: the
        gradients. Without our ops, so in exports and on GPUs, there is one part.
        """
        count = min(PARTS, batch_size) if isinstance(batch_size, int) else PARTS
        if count == 1 or self._is_training or not native.available():
            return [(hidden, mask)]
        texts = tf.maximum(-(-batch_size // count), -(-LEAST_TOKENS // tf.maximum(length, 1)))
        ends = [tf.minimum(batch_size, number * texts) for number in range(count + 1)]
        return [(hidden[first * length:end * length], mask[first:end]) for first, end in zip(ends, ends[1:])]

    def _transform(self, layer, hidden, mask):
        """What a layer, counted from 0, makes of float32 [M, H]; called in its scope."""
        return self._layer(hidden, mask, self._dropout_site(layer))

    def apply_layer(self, layer, hidden, mask):
        """Applies a layer of this model once more, to float32 [M, H] from elsewhere; its variables are the same.

        Args:
          layer: counted from 0.
          hidden: float32 [M, H], M = B S.
          mask: float32 [B, 1, 1, S], added to scores before the softmax.
        """
        with tf.variable_scope(self._encoder_scope, reuse=True), self._layer_scope(layer):
            return self._transform(layer, hidden, mask)

    def _widen(self, embedded):
        """From the word table's width to that of the layers, [M, E] -> [M, H]; BERT's are the same."""
        return embedded

    def _layer_scope(self, layer):
        """The scope of a layer's variables; layers are counted from 0."""
        return tf.variable_scope("layer_%d" % layer)

    def _dropout_site(self, layer):
        """Tells the layer's dropout from that of another in the same scope, see `bert.randomness.dropout`."""
        del layer
        return "dropout"

    def _layer(self, hidden, mask, site):
        """One Transformer layer over float32 [M, H]."""
        config, names = self._config, self._layer_names
        with tf.variable_scope(names.attention):
            context = self._attend(hidden, mask, site)
        attended = self._add(context, hidden, names.attention_output, names.attention_norm, site)
        wide = activation(config.hidden_act)(
            *product(attended, config.intermediate_size, names.intermediate + "/dense", self._draw))
        return self._add(wide, attended, names.output, names.output_norm, site)

    def _add(self, inputs, residual, scope, norm, site):
        """Maps [M, F] to [M, H], adds it to `residual` [M, H] and normalises the sum."""
        mapped = product(inputs, self._config.hidden_size, scope + "/dense", self._draw)
        gamma, beta = norm_variables(self._config.hidden_size, norm)
        return fused.add_norm(*mapped, residual, gamma, beta, self._hidden_dropout, "%s/%s" % (scope, site))

    def _attend(self, hidden, mask, site):
        """Multi-head self-attention, [M, H] -> [M, H]."""
        heads = self._config.num_attention_heads
        query, key, value = [product(hidden, self._config.hidden_size, name, self._draw)
                             for name in ("query", "key", "value")]
        self._scored.append((query, key, mask, heads))
        return attention.attend(query, key, value, mask, heads, self._attention_dropout, site)

    def _variable(self, name, shape):
        return new_variable(name, shape, self._draw)

    def get_embedding_output(self):
        """float32 [B, S, E]: word + position + type after LayerNorm, before dropout and any map to H.

        That map is linear: in front of it nothing is missing that an embedding term could teach.
        """
        return self._embedding_output

    def get_all_encoder_layers(self):
        """List of float32 [B, S, H], the first layer's output first."""
        return [self._layer_output(layer) for layer in range(len(self._hiddens))]

    def get_sequence_output(self):
        """float32 [B, S, H]: the top layer's output."""
        return self._layer_output(len(self._hiddens) - 1)

    def _layer_output(self, layer):
        # Joined when first asked for: most layers' are not read.
        if layer not in self._outputs:
            self._outputs[layer] = tf.reshape(_joined(self._hiddens[layer]), self._output_shape)
        return self._outputs[layer]

    def get_pooled_output(self):
        """float32 [B, H]: tanh of a projection of the top layer's first token ([CLS]), or of its mean."""
        # Built when first asked for: masked-LM training has no use for it, and would keep it untrained.
        if self._pooled_output is None:
            with tf.variable_scope(self._scope), tf.variable_scope("pooler"):
                self._pooled_output = tf.tanh(dense(
                    self._one_vector(), self._config.hidden_size, "dense", self._draw))
        return self._pooled_output

    def _one_vector(self):
        """What the pooler looks at: [B, H]."""
        sequence = self.get_sequence_output()
        if self._config.pooling == "first":
            return sequence[:, 0]
        weights = tf.cast(self._input_mask, tf.float32)[:, :, None]
        return tf.reduce_sum(sequence * weights, axis=1) / tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)

    def get_embedding_table(self):
        """float32 [V, E]: the word table."""
        return self._embedding_table

    def get_attention_scores(self):
        """List of float32 [B, A, S, S]: scaled products of query and key, before mask and softmax."""
        # Made when asked for: our op for attention has none to give away.
        count = len(self._hiddens[0])
        return [_joined([attention.scores(*scored) for scored in self._scored[layer * count:(layer + 1) * count]])
                for layer in range(len(self._hiddens))]


def _joined(parts):
    """Tensors with parts of the texts, one after the other."""
    return tf.concat(parts, axis=0) if len(parts) > 1 else parts[0]


def dense(inputs, units, name, draw):
    """Affine map over the last axis of a matrix: float32 [N, units]; arguments as of `product`."""
    return fused.bias_add(*product(inputs, units, name, draw))


def product(inputs, units, name, draw):
    """An affine map whose bias what follows is to add, variables `<name>/kernel` and `<name>/bias`.

    Args:
      inputs: float32 [N, F].
      units: width of the output.
      draw: how the kernel starts, see `bert.randomness.new_variable`; the bias starts at 0.

    Returns:
      (float32 [N, units], the bias, float32 [units]).
    """
    with tf.variable_scope(name):
        kernel = new_variable("kernel", [inputs.shape.as_list()[-1], units], draw)
        bias = tf.get_variable("bias", [units], initializer=tf.zeros_initializer())
    return tf.matmul(inputs, kernel), bias


def layer_norm(tensor, name="LayerNorm"):
    """Normalises the last axis, variables `<name>/gamma` and `<name>/beta`."""
    return fused.layer_norm(tensor, *norm_variables(tensor.shape.as_list()[-1], name))


def norm_variables(width, name="LayerNorm"):
    """`<name>/gamma` and `<name>/beta`, float32 [width] each."""
    with tf.variable_scope(name):
        beta = tf.get_variable("beta", [width], initializer=tf.zeros_initializer())
        gamma = tf.get_variable("gamma", [width], initializer=tf.ones_initializer())
    return gamma, beta


def gelu_erf(tensor):
    """Gaussian error linear unit itself, x P(X <= x) for a standard normal X; its tanh form is up to 5e-4 away."""
    return tensor * 0.5 * (1.0 + tf.math.erf(tensor / math.sqrt(2.0)))


def activation(name):
    """The function of that name, a key of the table below, of float32 [M, F] and a bias [F] that is added first.

    Raises:
      ValueError: another name.
    """
    # Who tells the two forms of gelu apart in a JSON calls the tanh form gelu_new.
    known = {"gelu": fused.gelu, "gelu_new": fused.gelu, "gelu_erf": _biased(gelu_erf), "relu": _biased(tf.nn.relu),
             "tanh": _biased(tf.tanh), "linear": fused.bias_add}
    if name not in known:
        raise ValueError("unknown activation %r; known: %s" % (name, ", ".join(sorted(known))))
    return known[name]


def _biased(function):
    return lambda tensor, bias: function(fused.bias_add(tensor, bias))


def shape_list(tensor):
    """The tensor's shape: an int where it is known when the graph is built, a scalar tensor elsewhere."""
    dynamic = tf.shape(tensor)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(tensor.shape.as_list())]
