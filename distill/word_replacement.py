"""Words of a text replaced by what a masked LM predicts in their place.

Cross-domain augmentation (Feng et al. 2021, arXiv 2101.08106) in plain form: words are masked, and each of their
tokens is drawn from the model's likeliest there; the paper's learned choice among what was drawn is left out.

Replaced are words of Chinese characters that the vocabulary has, by such characters: each is a token by itself
whatever stands beside it, so a copy has as many tokens as its text. All else, punctuation, digits, Latin letters,
white space and unknown characters, stays as it is.

Letters: B copies run together, S tokens, P masked positions of a copy, R of all of them, T tokens of one text,
N copies of it, K characters to choose from.
"""

import collections

import numpy as np
import tensorflow.compat.v1 as tf

from bert import checkpoints
from bert import tokenization
from bert.draws import Draws
from bert.encoding import Encoder
from tasks.encoders import build_encoder
from tasks.masked_lm import MaskedLm
from training import graph_mode  # noqa: F401
from training.command import UserError

HEAD = "cls/predictions/output_bias"
WORDS, TOKENS = range(2)  # sites of `draws.Draws`

# A text's tokens. ids: int32 [T]; starts: bool [T], whether a word begins there; places: int64 [T], as of `Encoder`.
Tokens = collections.namedtuple("Tokens", "ids starts places")

# A copy before it is run. text, copy: their numbers; ids: int32 [T], [MASK] in some places; chosen: int64 [P], which,
# ascending; draws: float64 [P], from [0, 1).
Masked = collections.namedtuple("Masked", "text copy ids chosen draws")


def characters_of(vocab):
    """The ids of the vocabulary's Chinese characters, ascending: int32 [A]."""
    return np.array(sorted(number for token, number in vocab.items()
                           if len(token) == 1 and tokenization.is_chinese(token)), np.int32)


def replaceable(text, ids, places, vocab):
    """bool [T]: which tokens are Chinese characters that stand in the text as in the vocabulary.

    Args:
      text: str.
      ids, places: [T], of `Encoder.encode_with_places`.
      vocab: dict of token -> id.
    """
    return np.array([place >= 0 and tokenization.is_chinese(text[place]) and vocab.get(text[place]) == number
                     for number, place in zip(ids.tolist(), places.tolist())], bool)


def choose_words(starts, may, share, draws):
    """Draws a share of the words of a text, at least one, all equally likely.

    Args:
      starts: bool [T], True at the first token of each word.
      may: bool [T]; only a word whose tokens all may be replaced is chosen.
      share: of those words.
      draws: `draws.Draws` of N streams.

    Returns:
      bool [N, T], the tokens of the words chosen; none where no word may be replaced.
    """
    word_of = np.cumsum(starts) - starts[0]
    allowed = np.bincount(word_of, ~may) == 0  # [W]
    numbers = np.where(allowed, draws.uniform(WORDS, len(allowed)), 2.0)
    wanted = min(max(1, int(round(share * allowed.sum()))), allowed.sum())
    chosen = np.zeros(numbers.shape, bool)
    np.put_along_axis(chosen, np.argsort(numbers, axis=1, kind="stable")[:, :wanted], True, axis=1)
    return chosen[:, word_of]


def put_back(text, places, characters):
    """The text with other characters in some places, all else untouched."""
    letters = list(text)
    for place, character in zip(places, characters):
        letters[place] = character
    return "".join(letters)


def sample_top(logits, draws, k):
    """Draws from each row's k greatest logits, by their softmax.

    Args:
      logits: float32 [R, K].
      draws: float32 [R], evenly from [0, 1).

    Returns:
      int32 [R], columns.
    """
    values, columns = tf.math.top_k(logits, k)
    ends = tf.cumsum(tf.nn.softmax(values), axis=1)[:, :-1]  # the last may be drawn up to 1, however sums round
    rank = tf.reduce_sum(tf.cast(ends <= draws[:, tf.newaxis], tf.int32), axis=1)
    # TF 1.15's `gather` refuses rank 1 indices with batch_dims.
    return tf.gather_nd(columns, tf.stack([tf.range(tf.size(rank)), rank], axis=1))


def check_head(checkpoint):
    """Raises UserError unless a checkpoint (its prefix) has a masked-LM head."""
    if HEAD not in dict(tf.train.list_variables(checkpoint)):
        raise UserError("%s: no masked-LM head (%s) is in it; give a run folder of run_pretraining.py, or a released "
                        "checkpoint that has one" % (checkpoint, HEAD))


class Predictor:
    """A masked LM in a session, which draws characters for masked places."""

    def __init__(self, config, checkpoint, vocab, top_k):
        """Builds the graph, once.

        Args:
          config: the model's, as from `encoders.read_config`.
          checkpoint: its prefix.
          vocab: dict of token -> id.
          top_k: how many characters, the likeliest, are drawn from at each place; at most those of `characters_of`.

        Raises:
          UserError: a variable of the model or of its masked-LM head is missing.
        """
        self._ends = [[vocab[token]] for token in (tokenization.CLS, tokenization.SEP)]
        characters = characters_of(vocab)
        with tf.Graph().as_default():
            self._features = {name: tf.placeholder(tf.int32, [None, None]) for name in (
                "input_ids", "input_mask", "masked_lm_positions", "masked_lm_weights")}
            self._draws = tf.placeholder(tf.float32, [None])
            features = dict(self._features, segment_ids=tf.zeros_like(self._features["input_ids"]))
            logits = MaskedLm().logits(build_encoder(config, False, features), config, features)
            columns = sample_top(tf.gather(logits, characters, axis=1), self._draws, top_k)
            self._drawn = tf.gather(characters, columns)
            checkpoints.restore(checkpoint, tf.trainable_variables(), optional=lambda name: False)
            self._session = tf.Session(config=tf.ConfigProto(allow_soft_placement=True))
            self._session.run(tf.global_variables_initializer())

    def __call__(self, batch):
        """Draws for B `Masked`, each with a place at least: list of B int32 [P]."""
        cls, sep = self._ends
        texts = [np.concatenate([cls, copy.ids, sep]) for copy in batch]
        fed = {"input_ids": _padded(texts), "input_mask": _padded([np.ones(len(text)) for text in texts]),
               "masked_lm_positions": _padded([copy.chosen + 1 for copy in batch]),  # behind [CLS]
               "masked_lm_weights": _padded([np.ones(len(copy.chosen)) for copy in batch])}
        feed = {self._features[name]: values for name, values in fed.items()}
        feed[self._draws] = np.concatenate([copy.draws for copy in batch])
        drawn = self._session.run(self._drawn, feed)
        return np.split(drawn, np.cumsum([len(copy.chosen) for copy in batch])[:-1])


def _padded(rows):
    """Rows of different lengths -> int32 [B, longest], zeros behind."""
    table = np.zeros([len(rows), max(map(len, rows))], np.int32)
    for line, row in zip(table, rows):
        line[:len(row)] = row
    return table


class Replacer:
    """Makes copies of texts."""

    def __init__(self, tokenizer, segmenter, predictor, share, max_seq_length, batch_size):
        """Brings together what is needed.

        Args:
          tokenizer: `FullTokenizer`.
          segmenter: `words.Segmenter`, or None: each token is a word.
          predictor: `Predictor`, or what is called like it.
          share: of a text's words that may be replaced, see `choose_words`.
          max_seq_length: tokens that the model sees of a text, [CLS] and [SEP] counted; what is behind stays.
          batch_size: B.
        """
        self._vocab, self._characters = tokenizer.vocab, tokenizer.inv_vocab
        self._encoder, self._segmenter, self._predictor = Encoder(tokenizer), segmenter, predictor
        self._share, self._room, self._batch_size = share, max_seq_length - 2, batch_size

    def copies(self, texts, keys):
        """Copies of texts, which are run together.

        Args:
          texts: list of str.
          keys: list of uint64 [N], the streams of each text's copies.

        Returns:
          (list of N str for each text, Counter of "tokens" that the model sees, "masked" and "replaced" by another
           among them, in all copies, and of "cut", texts that it does not see whole).
        """
        seen, counts = self._tokens(texts)
        made = [[text] * len(streams) for text, streams in zip(texts, keys)]
        masked = [copy for number, streams in enumerate(keys)
                  for copy in self._masked(number, texts[number], seen[number], Draws(streams))]
        counts["tokens"] = sum(len(tokens.ids) * len(streams) for tokens, streams in zip(seen, keys))
        for copy, new_ids in self._drawn(masked):
            tokens = seen[copy.text]
            counts.update(masked=len(new_ids), replaced=int((tokens.ids[copy.chosen] != new_ids).sum()))
            made[copy.text][copy.copy] = put_back(
                texts[copy.text], tokens.places[copy.chosen], [self._characters[number] for number in new_ids])
        return made, counts

    def _tokens(self, texts):
        """What the model sees of the texts: (list of `Tokens`, Counter of "cut")."""
        ids, ends, places = self._encoder.encode_with_places(texts)
        if self._segmenter:
            starts, _ = self._segmenter.word_starts(texts, ends, places)
        else:
            starts = np.ones(len(ids), bool)
        found = [Tokens(ids[start:end], starts[start:end], places[start:end])
                 for start, end in zip([0] + ends[:-1].tolist(), ends.tolist())]
        cut = sum(len(tokens.ids) > self._room for tokens in found)
        return [self._in_room(tokens) for tokens in found], collections.Counter(cut=cut)

    def _in_room(self, tokens):
        """As many whole words as the model takes."""
        if len(tokens.ids) <= self._room:
            return tokens
        end = max(np.flatnonzero(tokens.starts[:self._room + 1]), default=0)
        return Tokens(*(values[:end] for values in tokens))

    def _masked(self, number, text, tokens, draws):
        """Yields a `Masked` for each copy of a text in which something can be replaced."""
        if not len(tokens.ids):
            return
        may = replaceable(text, tokens.ids, tokens.places, self._vocab)
        chosen = choose_words(tokens.starts, may, self._share, draws)
        numbers = draws.uniform(TOKENS, len(tokens.ids))
        for copy, row in enumerate(chosen):
            if row.any():
                ids = np.where(row, self._vocab[tokenization.MASK], tokens.ids)
                yield Masked(number, copy, ids, np.flatnonzero(row), numbers[copy, row])

    def _drawn(self, masked):
        """Yields (`Masked`, int32 [P] drawn for it) of a list, in any order."""
        by_length = sorted(masked, key=lambda copy: len(copy.ids))  # a batch is padded to its longest
        for start in range(0, len(by_length), self._batch_size):
            batch = by_length[start:start + self._batch_size]
            yield from zip(batch, self._predictor(batch))
