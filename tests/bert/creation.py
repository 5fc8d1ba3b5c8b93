"""A small corpus, the records made of it, and what stands in them."""

import glob
import os

import tensorflow.compat.v1 as tf

from bert import create_pretraining_data as creation
from bert import records
from bert import tokenization

CHARS = "".join(chr(0x4E00 + number) for number in range(300))
SPECIAL = list(tokenization.SPECIAL_TOKENS)
FIRST_WORD = len(SPECIAL)
VOCAB = SPECIAL + list(CHARS)
PAD, UNK, CLS, SEP, MASK = range(FIRST_WORD)
SETTINGS = dict(do_lower_case=True, max_seq_length=16, max_predictions_per_seq=4, masked_lm_prob=0.15,
                random_seed=1, dupe_factor=10, samples="sentence", masking="static", do_whole_word_mask=False,
                user_dict=None, max_ngram=1, pad=True, dedup="none", text_key=None, document_per_line=False,
                split_sentences=False, errors="stop")


def sentence(start, length):
    """Consecutive characters, so that every piece of it shows from where it was cut."""
    return "".join(CHARS[(start + number) % len(CHARS)] for number in range(length))


def documents(number, sentences=4, length=8):
    """Text whose sentences are all different."""
    return "\n\n".join(
        "\n".join(sentence(7 * (document * sentences + place), length) for place in range(sentences))
        for document in range(number)) + "\n"


def create(folder, text, num_shards=1, num_workers=1, **settings):
    """`creation.create` on a.txt in `folder`: (counts, names of the shards)."""
    (folder / "a.txt").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    output = str(folder / "out" / "a.tfrecord")
    shards = creation.shard_names(output, num_shards)
    counts = creation.create(
        [str(folder / "a.txt")], shards, creation.manifest_name(output),
        creation.Settings(vocab_file=str(folder / "vocab.txt"), **dict(SETTINGS, **settings)), num_workers)
    return counts, shards


def read(shards):
    """The records: list of dict of name -> list."""
    found = []
    for shard in shards:
        for record in tf.io.tf_record_iterator(shard):
            features = tf.train.Example.FromString(record).features.feature
            found.append({name: list((feature.float_list if feature.WhichOneof("kind") == "float_list"
                                      else feature.int64_list).value) for name, feature in features.items()})
    return found


def unmasked(record):
    """The text of a record: its tokens between [CLS] and [SEP], as they were."""
    ids = list(record["input_ids"])
    for position, label, weight in zip(*(record[name] for name in records.PREDICTIONS)):
        if weight:
            ids[position] = label
    length = sum(record["input_mask"])
    assert ids[0] == CLS and ids[length - 1] == SEP and not any(ids[length:])
    return "".join(VOCAB[number] for number in ids[1:length - 1])


def contents(folder):
    """dict of every visible file in `folder` -> its bytes."""
    return {name: open(name, "rb").read() for name in glob.glob(str(folder / "*")) if os.path.isfile(name)}
