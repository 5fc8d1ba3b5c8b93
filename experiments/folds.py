"""Divides a labelled set into folds, for sets too small to be judged by one test file.

    python -m experiments.folds --data_dir=data --output_dir=build/folds --num_folds=5

All rows of the folder's train, dev and test files are put together and divided into folds that keep the shares
of the labels. <output_dir>/fold_1 ... are folders for --data_dir of the commands: a fold is test.tsv, a random
tenth of the others is dev.tsv, which selects, and the rest is train.tsv. `python -m experiments.compare` pools what
models answer on the folds.
"""

import os

from absl import flags

from training import command
from sklearn.model_selection import StratifiedKFold
from sklearn.model_selection import train_test_split

from tasks.classification_data import find_splits
from tasks.text_files import labels_from_data, read_rows
from training import files
from training.command import UserError

SELECTING_SHARE = 0.1


def define_flags():
    flags.DEFINE_string("data_dir", None, "Folder with train, dev, test (.tsv, .csv, .jsonl).", required=True)
    flags.DEFINE_string("output_dir", None, "Where fold_1, fold_2 ... are written.", required=True)
    flags.DEFINE_integer("num_folds", 5, "Folds.", lower_bound=2)
    flags.DEFINE_integer("random_seed", 1, "Decides which text is in which fold.", lower_bound=0)


def main():
    values = flags.FLAGS
    make(values.data_dir, values.output_dir, values.num_folds, values.random_seed)


def make(data_dir, output_dir, num_folds, seed):
    """Writes the folds of a folder's texts; returns their paths.

    Raises:
      UserError: as `read_all` and `divide`.
    """
    made = []
    for number, parts in enumerate(divide(read_all(data_dir), num_folds, seed), start=1):
        made.append(os.path.join(output_dir, "fold_%d" % number))
        write(made[-1], parts)
        print("%s: %s" % (made[-1], ", ".join("%d %s" % (len(part), name) for name, part in parts.items())), flush=True)
    return made


def write(folder, parts):
    """Writes a data folder whole; parts: dict of "train", "dev", "test" -> list of (label, text)."""
    with files.whole_folder(folder) as temporary:
        for name, part in parts.items():
            # A tab can stand in the text of a .csv or .jsonl file.
            lines = ["%s\t%s\n" % (label, " ".join(text.split())) for label, text in [("label", "text_a"), *part]]
            files.write_text(os.path.join(temporary, name + ".tsv"), "".join(lines))


def read_all(data_dir):
    """(label, text) of every row of a folder's files; a text that stands twice is kept once.

    Raises:
      UserError: pairs of texts, which the folds' files have no column for.
    """
    paths, found = find_splits(data_dir), {}
    labels = labels_from_data(paths["train"])
    for path in paths.values():
        for row in read_rows(path, labels):
            if row.text_b is not None:
                raise UserError("%s:%d: text_b: folds are made of single texts" % (path, row.line))
            found.setdefault(" ".join(row.text_a.split()), row.labels[0])
    return [(label, text) for text, label in found.items()]


def divide(rows, num_folds, seed):
    """Yields for each fold a dict of "train", "dev", "test" -> list of (label, text).

    Args:
      rows: list of (label, text).
      num_folds: int.
      seed: int.

    Raises:
      UserError: a label has fewer texts than there are folds.
    """
    labels = [label for label, _ in rows]
    rarest = min(set(labels), key=labels.count)
    if labels.count(rarest) < num_folds:
        raise UserError("%d folds: label %s has only %d texts; fewer folds, or leave that label out"
                        % (num_folds, rarest, labels.count(rarest)))
    for rest, test in StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(labels, labels):
        train, dev = train_test_split(rest, test_size=SELECTING_SHARE, random_state=seed)
        yield {name: [rows[number] for number in sorted(part)]
               for name, part in (("train", train), ("dev", dev), ("test", test))}


if __name__ == "__main__":
    command.run(main, define_flags, writes="output_dir")
