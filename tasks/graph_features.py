"""`classification_data.Featurizer` as a graph: raw texts in, the features of a batch out.

Letters: B texts, S tokens of the longest text of a batch, T tokens of all texts.
"""

import collections

import tensorflow.compat.v1 as tf

from bert import tokenization
from bert.graph_tokenization import GraphTokenizer
from bert.records import SEQUENCE

# ids int32 [T], of one text after the other; text int32 [T], which text each is of; counts int32 [B].
_Tokens = collections.namedtuple("_Tokens", "ids text counts")


class GraphFeaturizer:
    """Text to token ids, as `Featurizer` makes them: [CLS] a [SEP], or [CLS] a [SEP] b [SEP]."""

    def __init__(self, settings, vocab):
        """Args:
          settings: `text_settings.TextSettings` of the tokenizer "wordpiece".
          vocab: dict of token -> id.
        """
        self._tokenizer = GraphTokenizer(vocab, settings.do_lower_case)
        self._max_seq_length, self._truncation = settings.max_seq_length, settings.truncation
        self._cls, self._sep = vocab[tokenization.CLS], vocab[tokenization.SEP]

    def features(self, texts, second_texts):
        """The features of a batch, padded with 0 to its longest text.

        Args:
          texts: string [B].
          second_texts: string [B], or [0]: there are no pairs.

        Returns:
          (dict of `records.SEQUENCE` -> int32 [B, S], int32 [B]: tokens of each text before it was cut).
        """
        with tf.name_scope("featurize"):
            pairs = tf.size(second_texts) > 0
            needed = tf.where(pairs, tf.size(texts), 0)
            with tf.control_dependencies([tf.debugging.assert_equal(
                    tf.size(second_texts), needed, message="as many second texts as texts are needed, or none")]):
                one, other = self._tokens(texts, second_texts)
            kept, other_kept = self._room(one.counts, other.counts, pairs)
            behind = 1 + kept + 1  # of each text, where the second one begins
            lengths = behind + tf.where(pairs, other_kept + 1, tf.zeros_like(other_kept))
            ids = self._placed(one, kept, tf.ones_like(kept), lengths)
            ids += self._placed(other, other_kept, behind, lengths)
            columns = tf.range(tf.shape(ids)[1])[None, :]
            separators = tf.equal(columns, behind[:, None] - 1) | (tf.equal(columns, lengths[:, None] - 1))
            ids += self._sep * tf.cast(separators, tf.int32) + self._cls * tf.cast(tf.equal(columns, 0), tf.int32)
            mask = columns < lengths[:, None]
            segments = mask & (columns >= behind[:, None])
            found = dict(zip(SEQUENCE, (ids, tf.cast(mask, tf.int32), tf.cast(segments, tf.int32))))
            return found, one.counts + other.counts

    def _tokens(self, texts, second_texts):
        """`_Tokens` of the first and of the second texts; where there are no second ones, all have no token."""
        ids, text = self._tokenizer.tokenize(tf.concat([texts, second_texts], axis=0))
        size = tf.size(texts)
        counts = tf.math.unsorted_segment_sum(tf.ones_like(text), text, 2 * size)
        edge = tf.reduce_sum(counts[:size])
        return (_Tokens(ids[:edge], text[:edge], counts[:size]),
                _Tokens(ids[edge:], text[edge:] - size, counts[size:]))

    def _room(self, counts, other_counts, pairs):
        """How many tokens of each first and second text stay: the longer one is cut until both fit."""
        room = self._max_seq_length - 2 - tf.cast(pairs, tf.int32)
        other_kept = tf.minimum(other_counts, tf.maximum(room // 2, room - counts))
        return tf.minimum(counts, room - other_kept), other_kept

    def _placed(self, tokens, kept, begins, lengths):
        """The kept tokens of each text from its place in `begins` on, 0 elsewhere: int32 [B, S]."""
        first = tf.cumsum(tokens.counts, exclusive=True)
        place = tf.range(tf.size(tokens.ids)) - tf.gather(first, tokens.text)
        head = {"head": kept, "tail": tf.zeros_like(kept), "head_tail": (kept + 2) // 4}[self._truncation]
        # Where nothing is cut, a head and a tail that meet are the whole text.
        cut = tf.gather(tokens.counts - kept, tokens.text)
        in_tail = place - cut >= tf.gather(head, tokens.text)
        stays = (place < tf.gather(head, tokens.text)) | in_tail
        column = tf.gather(begins, tokens.text) + place - tf.where(in_tail, cut, tf.zeros_like(cut))
        where = tf.boolean_mask(tf.stack([tokens.text, column], axis=1), stays)
        longest = tf.reduce_max(tf.concat([[0], lengths], axis=0))
        return tf.scatter_nd(where, tf.boolean_mask(tokens.ids, stays), tf.stack([tf.size(lengths), longest]))
