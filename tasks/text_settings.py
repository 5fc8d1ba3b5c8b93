"""What a classifier does with a text: `text.json` of a run folder and of an export.

How it becomes token ids, and which head makes one vector of the encoder's.
"""

import dataclasses

from bert.tokenization import FullTokenizer
from bert.word_tokenization import WordTokenizer
from tasks.classification_data import Featurizer, TRUNCATIONS
from tasks.heads import HEADS
from training import config as configs
from training.command import UserError

FILE = "text.json"
TOKENIZERS = {"wordpiece": FullTokenizer, "words": WordTokenizer}


@dataclasses.dataclass(frozen=True)
class TextSettings:
    """`label_separator` "": a text has one label; else what stands between several. `head`: one of `heads.HEADS`."""
    max_seq_length: int = 128
    truncation: str = "head"
    do_lower_case: bool = True
    label_separator: str = ""
    tokenizer: str = "wordpiece"
    head: str = "pooled"

    def __post_init__(self):
        if self.max_seq_length < 3:
            raise ValueError("'max_seq_length' must be at least 3, for [CLS], a token and [SEP], found %d"
                             % self.max_seq_length)
        if self.truncation not in TRUNCATIONS:
            raise ValueError("'truncation' must be one of %s, found %r" % (", ".join(TRUNCATIONS), self.truncation))
        if self.tokenizer not in TOKENIZERS:
            raise ValueError("'tokenizer' must be one of %s, found %r" % (", ".join(TOKENIZERS), self.tokenizer))
        if self.head not in HEADS:
            raise ValueError("'head' must be one of %s, found %r" % (", ".join(HEADS), self.head))


def read(path, overrides, flags_source="the flags"):
    """The settings of a model, some of them overridden.

    Args:
      path: text.json, or None for the defaults.
      overrides: dict of field -> value; None leaves the field as it is.
    """
    base = configs.read(TextSettings, path) if path else TextSettings()
    values = {name: value for name, value in overrides.items() if value is not None}
    try:
        return dataclasses.replace(base, **values)
    except ValueError as error:
        raise UserError("%s: %s" % (flags_source, error))


def as_dict(settings):
    """The settings as they are stored: dict of field -> value."""
    values = dataclasses.asdict(settings)
    for name in ("tokenizer", "head"):  # so what was made when there was no other choice stays the same
        if values[name] == getattr(TextSettings, name):
            del values[name]
    return values


def featurizer(settings, vocab_file):
    """The `Featurizer` of the settings."""
    tokenizer = TOKENIZERS[settings.tokenizer](vocab_file, settings.do_lower_case)
    return Featurizer(tokenizer, settings.max_seq_length, settings.truncation)
