"""`FullTokenizer` as a graph of TensorFlow's core operations: strings in, ids out, for every string the same ones.

Texts of a batch are one array of code points, and all of them are worked on side by side. Letters: B texts, N code
points, M characters of words, W words, T tokens.
"""

import tensorflow.compat.v1 as tf

from bert import code_points
from bert import tokenization

WORD_START, WORD_REST = 0, 1  # states of the trie: before a word's first piece, and before a later one ("##")
CODE_BITS = 21                # of a code point, below the state in a key of the trie
CAPITAL_SIGMA, FINAL_SIGMA = 0x03A3, 0x03C2


class GraphTokenizer:
    """Built in a graph whose session runs `tf.tables_initializer()`."""

    def __init__(self, vocab, do_lower_case=True):
        """Args:
          vocab: dict of token -> id, as from `load_vocab`.
          do_lower_case: whether to lower-case and to drop accents.
        """
        self._lower = do_lower_case
        self._unknown = vocab[tokenization.UNK]
        self._replacements = code_points.replacements(do_lower_case)
        self._kinds = code_points.kinds()
        if do_lower_case:
            self._casing, self._classes = code_points.casing(), code_points.combining_classes()
        edges, tokens = _trie(vocab)
        self._tokens = tf.constant(tokens, tf.int32)
        self._edges = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(
            list(edges), list(edges.values()), tf.int64, tf.int64), -1)

    def tokenize(self, texts):
        """Ids of all texts, one after the other.

        Args:
          texts: string [B], UTF-8; what cannot be decoded is left out.

        Returns:
          (ids int32 [T], text int32 [T]: which text each is of).
        """
        with tf.name_scope("tokenize"):
            codes, text = _decode(texts)
            if self._lower:
                codes = self._with_final_sigmas(codes, text)
            codes, text, alone = self._replace(codes, text)
            if self._lower:
                codes, text, alone = self._in_canonical_order(codes, text, alone)
            words = self._words(codes, text, alone)
            tokens, ends = self._longest_pieces(words)
            ids = self._chain(words, tokens, ends)
            found = ids >= 0
            return tf.boolean_mask(ids, found), tf.boolean_mask(words.text, found)

    def _with_final_sigmas(self, codes, text):
        """A capital sigma behind a cased letter and before none is a final one; what is ignored does not count."""
        # What is dropped as a control character is not there for Python either.
        kept = tf.not_equal(_look_up(self._replacements.row_of, codes), code_points.DROPPED)
        casing = _look_up(self._casing, codes)
        seen = tf.where(tf.logical_and(kept, tf.not_equal(casing, code_points.IGNORED)))[:, 0]
        cased = tf.equal(tf.gather(casing, seen), code_points.CASED)
        seen_text = tf.gather(text, seen)
        together = tf.equal(seen_text[1:], seen_text[:-1])
        edge = tf.zeros([tf.minimum(tf.size(seen), 1)], tf.bool)
        behind = tf.concat([edge, tf.logical_and(cased[:-1], together)], axis=0)
        before = tf.concat([tf.logical_and(cased[1:], together), edge], axis=0)
        sigma = tf.equal(tf.gather(codes, seen), CAPITAL_SIGMA)
        final = tf.boolean_mask(seen, sigma & behind & tf.logical_not(before))
        return tf.tensor_scatter_nd_update(codes, final[:, None], tf.fill([tf.size(final)], FINAL_SIGMA))

    def _replace(self, codes, text):
        """Each code point by what it becomes; also whether that is a word of its own."""
        numbers = _look_up(self._replacements.row_of, codes)
        rows = tf.gather(tf.constant(self._replacements.rows), numbers)  # [N, K]
        rows = tf.where(tf.equal(rows, code_points.ITSELF), tf.broadcast_to(codes[:, None], tf.shape(rows)), rows)
        present = tf.where(tf.not_equal(rows, code_points.NOTHING))
        place = present[:, 0]
        alone = tf.gather(tf.constant(self._replacements.alone), tf.gather(numbers, place))
        return tf.gather_nd(rows, present), tf.gather(text, place), alone

    def _in_canonical_order(self, codes, text, alone):
        """Marks in a row sorted by their class (Unicode 3.11, D109); breaks have done their work and go."""
        classes = _look_up(self._classes, tf.maximum(codes, 0))
        begins = tf.logical_or(tf.equal(classes, 0), _changes(text))
        keys = tf.cumsum(tf.cast(begins, tf.int32)) * 256 + classes
        order = tf.cond(tf.reduce_any(classes > 0), lambda: tf.argsort(keys, stable=True),
                        lambda: tf.range(tf.size(codes)))
        order = tf.boolean_mask(order, tf.not_equal(tf.gather(codes, order), code_points.BREAK))
        return tf.gather(codes, order), tf.gather(text, order), tf.gather(alone, order)

    def _words(self, codes, text, alone):
        kinds = _look_up(self._kinds, codes)
        alone = tf.logical_or(alone, tf.equal(kinds, code_points.ALONE))
        space = tf.equal(kinds, code_points.SPACE)
        cut = tf.logical_or(space, alone)
        starts = _changes(text) | alone | tf.concat([cut[:1], cut[:-1]], axis=0)
        kept = tf.where(tf.logical_not(space))[:, 0]
        return _Words(tf.gather(codes, kept), tf.gather(text, kept), tf.gather(starts, kept))

    def _longest_pieces(self, words):
        """Of every character the longest piece that begins there.

        Returns:
          (its id int32 [M], -1 where there is none; the character behind it, int64 [M]).
        """
        tokens, ends = tf.fill(tf.shape(words.codes), -1), tf.zeros(tf.shape(words.codes), tf.int64)
        starts = tf.where(words.size_of_character <= tokenization.MAX_WORD_CHARS)[:, 0]
        states = tf.where(tf.gather(words.starts, starts), tf.fill(tf.shape(starts), tf.constant(WORD_START, tf.int64)),
                          tf.fill(tf.shape(starts), tf.constant(WORD_REST, tf.int64)))

        def step(length, starts, states, tokens, ends):
            inside = starts + length < tf.gather(words.end_of_character, starts)
            starts, states = tf.boolean_mask(starts, inside), tf.boolean_mask(states, inside)
            codes = tf.cast(tf.gather(words.codes, starts + length), tf.int64)
            states = self._edges.lookup(states * 2 ** CODE_BITS + codes)
            goes_on = states >= 0
            starts, states = tf.boolean_mask(starts, goes_on), tf.boolean_mask(states, goes_on)
            found = tf.gather(self._tokens, states)
            piece = found >= 0
            where = tf.boolean_mask(starts, piece)
            tokens = tf.tensor_scatter_nd_update(tokens, where[:, None], tf.boolean_mask(found, piece))
            ends = tf.tensor_scatter_nd_update(ends, where[:, None], where + length + 1)
            return length + 1, starts, states, tokens, ends

        return _loop(lambda length, starts, *_: tf.size(starts) > 0, step,
                     [tf.constant(0, tf.int64), starts, states, tokens, ends])[3:]

    def _chain(self, words, tokens, ends):
        """Piece after piece from each word's start: int32 [M], an id where a piece begins, -1 elsewhere."""
        def step(numbers, places, failed, ids):
            found = tf.gather(tokens, places)
            good = found >= 0
            failed = tf.tensor_scatter_nd_update(failed, numbers[:, None], tf.logical_not(good))
            numbers, places = tf.boolean_mask(numbers, good), tf.boolean_mask(places, good)
            ids = tf.tensor_scatter_nd_update(ids, places[:, None], tf.boolean_mask(found, good))
            places = tf.gather(ends, places)
            inside = places < tf.gather(words.ends, numbers)
            return tf.boolean_mask(numbers, inside), tf.boolean_mask(places, inside), failed, ids

        count = tf.size(words.begins, out_type=tf.int64)
        *_, failed, ids = _loop(lambda numbers, *_: tf.size(numbers) > 0, step, [
            tf.range(count), words.begins, tf.fill([count], False), tf.fill(tf.shape(words.codes), -1)])
        unknown = tf.where(words.starts, tf.fill(tf.shape(ids), self._unknown), tf.fill(tf.shape(ids), -1))
        return tf.where(tf.gather(failed, words.word_of_character), unknown, ids)


class _Words:
    """Characters [M] of words [W], and where each begins and ends."""

    def __init__(self, codes, text, starts):
        self.codes, self.text, self.starts = codes, text, starts
        self.begins = tf.where(starts)[:, 0]
        size = tf.size(codes, out_type=tf.int64)
        self.ends = tf.concat([self.begins[1:], tf.fill([tf.minimum(tf.size(self.begins), 1)], size)], axis=0)
        self.word_of_character = tf.cumsum(tf.cast(starts, tf.int64)) - 1
        self.end_of_character = tf.gather(self.ends, self.word_of_character)
        self.size_of_character = tf.gather(self.ends - self.begins, self.word_of_character)


def _trie(vocab):
    """The vocabulary as a trie.

    Returns:
      (dict of (state << CODE_BITS | code point) -> state, list: of each state the id of the token that ends there,
      or -1).
    """
    edges, tokens = {}, [-1, -1]

    def add(state, piece, number):
        for char in piece:
            key = state << CODE_BITS | ord(char)
            if key not in edges:
                edges[key] = len(tokens)
                tokens.append(-1)
            state = edges[key]
        tokens[state] = number

    for token, number in vocab.items():
        if token:
            add(WORD_START, token, number)
        if token.startswith("##") and token != "##":
            add(WORD_REST, token[2:], number)
    return edges, tokens


def _decode(texts):
    """(code points int32 [N], which text each is of, int32 [N])."""
    decoded = tf.raw_ops.UnicodeDecode(
        input=texts, input_encoding="UTF-8", errors="ignore", replacement_char=0xFFFD, replace_control_characters=False)
    splits = tf.cast(decoded.row_splits, tf.int32)
    return decoded.char_values, tf.repeat(tf.range(tf.size(texts)), splits[1:] - splits[:-1])


def _look_up(table, codes):
    """Values of code points, int32, in `code_points.Pages`."""
    pages, entries = tf.constant(table.pages), tf.constant(table.entries)
    bits = code_points.PAGE_BITS
    return tf.gather(entries, tf.gather(pages, tf.bitwise.right_shift(codes, bits)) + tf.bitwise.bitwise_and(
        codes, 2 ** bits - 1))


def _changes(text):
    """bool [N]: where another text begins."""
    first = tf.fill([tf.minimum(tf.size(text), 1)], True)
    return tf.concat([first, tf.not_equal(text[1:], text[:-1])], axis=0)


def _loop(condition, body, values):
    """`tf.while_loop` over vectors that may get shorter."""
    shapes = [value.shape if value.shape.ndims == 0 else tf.TensorShape([None]) for value in values]
    return tf.while_loop(condition, body, values, shapes, back_prop=False)
