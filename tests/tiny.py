"""A tiny world for tests of the commands: a corpus, labelled texts that can be learned, tiny models.

A text speaks of one of `TOPICS`; its characters are drawn from those of its topic, with some of any.
"""

import json
import os

import numpy as np

CHARACTERS = [chr(0x4E00 + number) for number in range(150)]
TOPICS = ("正面", "负面", "中性")
MAX_LENGTH = 32  # tokens of a text, [CLS] and [SEP] counted

TEACHER = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
           "intermediate_size": 32, "max_position_embeddings": MAX_LENGTH}
STUDENT = {"model_type": "bilstm", "hidden_size": 12, "num_hidden_layers": 2}


def texts(number, seed):
    """`number` of (topic, text), 3 to 24 characters each; the topics take turns."""
    random = np.random.RandomState(seed)
    found = []
    for place in range(number):
        topic = place % len(TOPICS)
        own = CHARACTERS[topic * 50:topic * 50 + 50]
        drawn = [random.choice(CHARACTERS if random.rand() < 0.2 else own)
                 for _ in range(random.randint(3, 25))]
        found.append((TOPICS[topic], "".join(drawn)))
    return found


def several_topics(number, seed):
    """`number` of (labels joined by ",", text): one to three topics a text, no topic in some."""
    random = np.random.RandomState(seed)
    found = []
    for _ in range(number):
        chosen = [topic for topic in range(len(TOPICS)) if random.rand() < 0.5]
        drawn = "".join(CHARACTERS[topic * 50 + random.randint(50)] for topic in chosen for _ in range(6))
        found.append((",".join(TOPICS[topic] for topic in chosen), drawn or "。"))
    return found


def write_lines(path, lines):
    """Writes a UTF-8 file and returns its path as str."""
    path = str(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("".join(line + "\n" for line in lines))
    return path


def write_tsv(path, rows):
    """Writes labelled texts with their header."""
    return write_lines(path, ["label\ttext_a"] + ["\t".join(row) for row in rows])


def write_task(folder, make=texts):
    """Writes train.tsv, dev.tsv, test.tsv; returns the folder as str."""
    for seed, (name, number) in enumerate((("train", 90), ("dev", 30), ("test", 31))):
        write_tsv(os.path.join(str(folder), name + ".tsv"), make(number, seed))
    return str(folder)


def write_corpus(path):
    """Writes documents of 3 sentences."""
    sentences = [text for _, text in texts(120, seed=5)]
    return write_lines(path, [line for start in range(0, len(sentences), 3)
                              for line in sentences[start:start + 3] + [""]])


def write_vocabulary(path):
    """Writes a vocabulary with every character of the texts, less one; returns (path, its size)."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + CHARACTERS[:-1]
    return write_lines(path, tokens), len(tokens)


def write_model(path, model, vocab_size, **changes):
    """Writes a model's JSON; returns the path as str."""
    return write_lines(path, [json.dumps(dict(model, vocab_size=vocab_size, **changes))])
