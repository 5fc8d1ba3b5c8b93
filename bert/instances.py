"""Documents -> instances -> serialized records: pure functions of text, settings and seed.

Whoever computes an instance, in whatever company, the random stream of (seed, file, byte offset of the document,
copy, number in the document) decides how it is cut and masked and where it goes, so the work can be divided in any
way.

Letters: N instances, T tokens of all of them.
"""

import collections

import numpy as np

from bert import corpus
from bert import duplicates
from bert import masking
from bert import samples
from bert import tokenization
from bert import words
from bert.draws import Draws, keys_of
from bert.encoding import Encoder
from bert.examples import MaskedLmSerializer, TokensSerializer

Settings = collections.namedtuple("Settings", [
    "vocab_file", "do_lower_case", "max_seq_length", "max_predictions_per_seq", "masked_lm_prob", "random_seed",
    "dupe_factor", "samples", "masking", "do_whole_word_mask", "user_dict", "max_ngram", "pad", "dedup",
    "text_key", "document_per_line", "split_sentences", "errors",
])

Instances = collections.namedtuple("Instances", [
    "keys",     # uint64 [N], of their random streams
    "lengths",  # int64 [N], tokens without [CLS] and [SEP]
    "tokens",   # uint16 or uint32 [T]: ids; the highest bit says that a token goes on the word before it
])

COINS, BUCKETS = masking.CALLERS, masking.CALLERS + 1  # sites of an instance's random stream
PLACE_BITS = 40  # of a document's place, for its offset; the file's number stands above


def format_of(settings):
    """The `corpus.Format` of the texts."""
    return corpus.Format(settings.text_key, settings.document_per_line, settings.split_sentences, settings.errors)


def places_of(documents):
    """The documents' keys, in the order of the corpus: uint64 [D]."""
    return np.array([document.file_index << PLACE_BITS | document.offset for document in documents], np.uint64)


class Sampler:
    """Documents to instances, not masked yet."""

    def __init__(self, settings, num_buckets, dropped=None):
        """Args:
          settings: `Settings`.
          num_buckets: int.
          dropped: `duplicates.Dropped`, or None.
        """
        self._settings, self._num_buckets, self.dropped = settings, num_buckets, dropped
        tokenizer = tokenization.FullTokenizer(settings.vocab_file, settings.do_lower_case)
        self._unknown = tokenizer.vocab[tokenization.UNK]
        self._encoder = Encoder(tokenizer)
        self._token_type = token_type(tokenizer.vocab)
        self._segmenter = None
        if settings.do_whole_word_mask:
            self._segmenter = words.Segmenter(settings.user_dict)

    def sample(self, documents):
        """All copies of the instances of documents.

        Args:
          documents: list of `corpus.Document`.

        Returns:
          (`Instances`; int64 [N], the bucket of each; Counter of what was done).
        """
        counts = collections.Counter(documents=sum(not document.continues for document in documents))
        documents = self._without_duplicates(documents, counts)
        tokens, ends = self._tokens([text for document in documents for text in document.sentences], counts)
        num_sentences = np.array([len(document.sentences) for document in documents], np.int64)
        room = self._settings.max_seq_length - 2
        found, packed = samples.sentences(ends, num_sentences), samples.packed(ends, num_sentences, room)
        counts.update(sentences=len(found.start), packed_instances=len(packed.start))
        if self._settings.samples == "packed":
            found = packed
        copies = [self._copy(tokens, found, documents, copy) for copy in range(self._settings.dupe_factor)]
        instances = Instances(*(np.concatenate(parts) for parts in zip(*copies)))
        buckets = Draws(instances.keys).integers(BUCKETS, self._num_buckets, 1)[:, 0]
        counts.update(instances=len(instances.keys), real_positions=int((instances.lengths + 2).sum()))
        return instances, buckets, counts

    def _without_duplicates(self, documents, counts):
        if self.dropped is None or not documents:
            return documents
        drop = self.dropped.contains(places_of(documents))
        counts["duplicates"] = int(drop.sum())
        return [document for document, is_dropped in zip(documents, drop.tolist()) if not is_dropped]

    def _tokens(self, sentences, counts):
        """(tokens as in `Instances`, ends int64 [sentences])."""
        if self._segmenter is None:
            ids, ends = self._encoder.encode(sentences)
            tokens = ids.astype(self._token_type)
        else:
            ids, ends, places = self._encoder.encode_with_places(sentences)
            starts, unaligned = self._segmenter.word_starts(sentences, ends, places)
            tokens = np.where(starts, ids, ids | goes_on(self._token_type)).astype(self._token_type)
            counts.update(words=int(starts.sum()), unaligned_tokens=unaligned)
        counts.update(tokens=len(ids), unknown_tokens=int(np.sum(ids == self._unknown)))
        return tokens, ends

    def _copy(self, tokens, found, documents, copy):
        """One copy of all instances.

        Args:
          tokens: as in `Instances`, of the documents.
          found: `samples.Samples` of them.
          documents: list of `corpus.Document`.
          copy: int.
        """
        place = np.array([(document.file_index, document.offset) for document in documents], np.int64).reshape(-1, 2)
        place = place[found.document]
        keys = keys_of(self._settings.random_seed, place[:, 0], place[:, 1], copy, found.number)
        start, length = samples.shorten(
            found.start, found.length, self._settings.max_seq_length - 2, keys, COINS)
        return Instances(keys, length, tokens[pieces(start, length)])


class Masker:
    """Instances to serialized `tf.train.Example`s."""

    def __init__(self, settings):
        """Args: settings: `Settings`."""
        vocab = tokenization.load_vocab(settings.vocab_file)
        self._cls, self._sep = vocab[tokenization.CLS], vocab[tokenization.SEP]
        self.tokens_type = token_type(vocab)
        self._goes_on = goes_on(self.tokens_type)
        self._dynamic, self._whole_words = settings.masking == "dynamic", settings.do_whole_word_mask
        self._rules = masking.rules_for(
            vocab, settings.masked_lm_prob, settings.max_predictions_per_seq, settings.max_ngram)
        self._serializer = TokensSerializer() if self._dynamic else MaskedLmSerializer(
            settings.max_seq_length, settings.max_predictions_per_seq, settings.pad)

    def records(self, instances):
        """Masks and serializes.

        Args:
          instances: `Instances`.

        Returns:
          (list of N bytes, how many predictions they hold).
        """
        start = np.cumsum(instances.lengths) - instances.lengths
        tokens = samples.rows(
            instances.tokens.astype(np.int64), start, instances.lengths, self._cls, self._sep)
        input_ids, word_starts = (tokens & self._goes_on - 1).astype(np.int32), tokens & self._goes_on == 0
        lengths = instances.lengths + 2
        if self._dynamic:
            return self._serializer.serialize(input_ids, word_starts, lengths), 0
        masked = masking.mask(
            input_ids, lengths, self._rules, Draws(instances.keys), word_starts if self._whole_words else None)
        return self._serializer.serialize(masked, lengths), int(masked.counts.sum())


def token_type(vocab):
    """The NumPy type of `Instances.tokens`."""
    return np.uint16 if len(vocab) <= goes_on(np.uint16) else np.uint32


def goes_on(tokens_type):
    """The highest bit of a type of tokens."""
    return 1 << 8 * np.dtype(tokens_type).itemsize - 1


def take(instances, order):
    """The instances with the numbers in `order` (int [M]), in that order."""
    start = np.cumsum(instances.lengths) - instances.lengths
    lengths = instances.lengths[order]
    return Instances(instances.keys[order], lengths, instances.tokens[pieces(start[order], lengths)])


def pieces(start, length):
    """The numbers from each start, as many as its length, one piece after the other: int64 [sum of the lengths]."""
    ends = np.cumsum(length)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(start - ends + length, length)


class DocumentSigner:
    """Documents to the signatures that tell duplicates."""

    def __init__(self, kind):
        """Args: kind: as of `duplicates.Signer`."""
        self._signer = duplicates.Signer(kind)

    def sign(self, documents):
        """(places uint64 [D], signatures uint64 [D, W])."""
        return places_of(documents), self._signer.signatures(
            ["\n".join(document.sentences) for document in documents])
