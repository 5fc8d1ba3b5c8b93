"""Which model a command trains or applies, and whether it fits what it is given.

Functions here take a command's flags as `values`, an object with an attribute for each.
"""

import collections
import os

from bert import checkpoints
from bert import records
from bert import tfrecord
from bert.tokenization import load_vocab
from tasks import encoders
from tasks import word_table
from tasks.model_fn import Init
from training import saved
from training.command import UserError

# config: as from `encoders.read_config`; init: Init or None; files: ModelFiles, where the model starts, whose
# vocab_file is the one to use; word_table: WordTable it starts with, or None.
Model = collections.namedtuple("Model", "config init files word_table")


def open_model(values, config_file,
               config_flags="--bert_config_file or --student_config_file: one of them is", teacher=None):
    """The model a command trains or applies, from its flags and what stands beside its checkpoint.

    Its checkpoint is --init_checkpoint; without one, or where nothing is trained, the run folder's own.

    Args:
      values: flags of `training.flags.define_model_flags`.
      config_file: JSON of the model, already chosen; None: the one beside the checkpoint.
      config_flags: who could have chosen it, for the message.
      teacher: as in `word_table.open_word_table`.

    Raises:
      UserError: no configuration or vocabulary, or they do not fit together, nor does what --init_embeddings names.
    """
    if values.init_embeddings and values.init_checkpoint:
        raise UserError("--init_embeddings=%s: --init_checkpoint is given too, which has a word table; give one of "
                        "the two" % values.init_embeddings)
    found = checkpoints.NO_FILES
    if values.init_checkpoint:
        found = checkpoints.find_model(values.init_checkpoint, "init_checkpoint")
    if not values.do_train:
        found = best_model(values)
    elif not values.init_checkpoint:
        found = own_files(values) or found
    layers = checkpoints.parse_layers(values.init_layers)
    if layers and not values.init_checkpoint:
        raise UserError("--init_layers=%s: needs --init_checkpoint, whose layers are meant"
                        % values.init_layers)
    config_file = config_file or found.config_file
    if not config_file:
        raise UserError("%s needed (or an --init_checkpoint with a config.json beside it)" % config_flags)
    config = encoders.cut_layers(encoders.read_config(config_file), layers, config_file)
    vocab_file = values.vocab_file or found.vocab_file
    if not vocab_file:
        raise UserError("--vocab_file: needed (or an --init_checkpoint with a vocab.txt beside it)")
    check_vocabulary(config, config_file, vocab_file)
    init = Init(found.checkpoint, layers, same_labels=False) if values.init_checkpoint else None
    found = found._replace(config_file=config_file, vocab_file=vocab_file)
    return Model(config, init, found, _read_word_table(values, config, found, teacher))


def _read_word_table(values, config, model_files, teacher):
    """The WordTable of a run that begins with one."""
    if not values.init_embeddings or not values.do_train or saved.last(values.output_dir):
        return None
    return word_table.open_word_table(values.init_embeddings, config, model_files.config_file,
                                      model_files.vocab_file, values.random_seed, teacher)


def own_files(values):
    """The ModelFiles of the run in --output_dir; None where no checkpoint is there yet."""
    best = os.path.join(values.output_dir, checkpoints.BEST + ".index")
    if os.path.exists(best) or saved.last(values.output_dir):
        return checkpoints.find_model(values.output_dir, "output_dir")
    return None


def best_model(values):
    """The ModelFiles of what is applied: the run folder's, else those of --init_checkpoint."""
    own = own_files(values)
    if own or not values.init_checkpoint:
        return own or checkpoints.find_model(values.output_dir, "output_dir")
    return checkpoints.find_model(values.init_checkpoint, "init_checkpoint")


def one_config_file(values):
    """The file that one of the flags of `training.flags.define_config_flags` names, or None."""
    if values.bert_config_file and values.student_config_file:
        raise UserError("--student_config_file=%s: --bert_config_file is given too; give one of the two"
                        % values.student_config_file)
    return values.bert_config_file or values.student_config_file


def check_vocabulary(config, config_file, vocab_file):
    """Raises UserError unless the model has a row for every token."""
    tokens = len(load_vocab(vocab_file))
    if tokens != config.vocab_size:
        raise UserError("%s: %d tokens, and %s has 'vocab_size' %d; they must be equal"
                        % (vocab_file, tokens, config_file, config.vocab_size))


def check_length(config, length, source):
    """Raises UserError, naming `source`, when the model cannot take texts of that many tokens."""
    if config.max_length and length > config.max_length:
        raise UserError("%s: the model takes %d tokens a text at most ('max_position_embeddings'), not %d"
                        % (source, config.max_length, length))


def check_records(config, names):
    """Raises UserError unless these TFRecord files hold records that the model can take."""
    tfrecord.count_records(names[0])  # TensorFlow's reader tells less about a file that holds none
    check_length(config, records.longest_of_first(names), names[0])
