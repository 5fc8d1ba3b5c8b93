"""Where a model's word table starts: --init_embeddings.

The table becomes a checkpoint of one variable, and a model starts from it as from any other.
"""

import collections
import contextlib
import os
import tempfile

import numpy as np
import tensorflow.compat.v1 as tf

from bert import checkpoints
from bert import word_vectors
from bert.tokenization import load_vocab
from tasks.encoders import build_encoder
from tasks.model_fn import Init
from training.command import UserError

TEACHER = "teacher"

# name: of the variable; values: float32 [V, E].
WordTable = collections.namedtuple("WordTable", "name values")


def open_word_table(source, config, config_file, vocab_file, seed, teacher=None):
    """The word table that --init_embeddings names; says what was found.

    Args:
      source: "teacher", or a file that `word_vectors.read` reads.
      config: the model's.
      config_file: its file, for messages.
      vocab_file: the vocabulary.
      seed: of the run; decides the rows of tokens that have no vector, which are those of a run without the flag.
      teacher: its `config` and `checkpoint`; None: there is none.

    Returns:
      WordTable.

    Raises:
      UserError: no teacher, no such file, or vectors that are narrower than the table.
    """
    if source != TEACHER:
        return _from_file(source, config, config_file, vocab_file, seed)
    if not teacher:
        raise UserError("--init_embeddings=teacher: run_distill.py alone has a teacher; name a file of word vectors")
    table = tf.train.load_variable(teacher.checkpoint, _fresh(teacher.config, seed).name)
    reduced = _fit(table, config, config_file, teacher.checkpoint)
    print("%s: the word table, %s" % (teacher.checkpoint, _widths(table, reduced)), flush=True)
    return WordTable(_fresh(config, seed).name, reduced)


def _from_file(path, config, config_file, vocab_file, seed):
    if not os.path.exists(path):
        raise UserError("--init_embeddings=%s: no such file (and not \"teacher\")" % path)
    vocabulary = load_vocab(vocab_file)
    ids, vectors = word_vectors.read(path, vocabulary)
    reduced = _fit(vectors, config, config_file, path)
    length = np.sqrt(np.mean(np.sum(np.square(reduced, dtype=np.float64), axis=1)))
    if not length:
        raise UserError("%s: the vectors of all tokens are 0" % path)
    name, values = _fresh(config, seed)
    # Of length 1, their products with a normalised state of a masked-LM head have variance 1.
    values[ids] = reduced / length
    print("%s: %d of %d tokens found, %s" % (path, len(ids), len(vocabulary), _widths(vectors, reduced)), flush=True)
    return WordTable(name, values)


def _fit(table, config, config_file, source):
    """The table, as wide as the model's."""
    if table.shape[1] < config.embedding_size:
        raise UserError("%s: its vectors have %d values, and the model's ('embedding_size' in %s) %d; wider ones are "
                        "needed, or a narrower model" % (source, table.shape[1], config_file, config.embedding_size))
    return word_vectors.reduce(table, config.embedding_size)


def _widths(table, reduced):
    if table.shape == reduced.shape:
        return "%d values each" % table.shape[1]
    kept = np.square(reduced, dtype=np.float64).sum() / np.square(table, dtype=np.float64).sum()
    return "%d values each reduced to %d (%.1f %% of their squares kept)" % (
        table.shape[1], reduced.shape[1], 100 * kept)


def _fresh(config, seed):
    """The WordTable a model starts with when nothing else is said."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(seed)
        features = {name: tf.ones([1, 1], tf.int32) for name in ("input_ids", "input_mask", "segment_ids")}
        table = build_encoder(config, False, features).get_embedding_table()
        session.run(table.initializer)
        return WordTable(checkpoints.name_of(table), session.run(table))


@contextlib.contextmanager
def as_init(table):
    """Yields the Init of a model that starts with a WordTable and is fresh elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = os.path.join(folder, "word_table.ckpt")
        checkpoints.write({table.name: table.values}, checkpoint)
        yield Init(checkpoint, (), same_labels=False)
