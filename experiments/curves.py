"""The student against the amount of unlabelled text, and against the share of the labels."""

import os
import random

from experiments import figures
from experiments import folds
from experiments import report
from tasks.classification_data import choose_splits
from tasks.text_files import read_rows
from training import files

SHARES = (0.1, 1.0)         # of the labelled texts
MULTIPLES = (0, 1, 2, 4, 8)  # of their number, all of them: unlabelled texts
SEED = 1                    # of what is drawn


def name_of(share, multiple):
    """Of the cells of a point."""
    return "curve_labels_%d_texts_x%d" % (round(100 * share), multiple)


def labelled_part(data_dir, share, folder):
    """A data folder like another with a share of its training texts, drawn class by class, at least one of each.

    Returns:
      its path; `data_dir` itself for all of them.
    """
    if share == 1.0:
        return data_dir
    train, dev, test = figures.read_labelled(*choose_splits(data_dir))
    by_label, draw = {}, random.Random(SEED)
    for label, text in train:
        by_label.setdefault(label, []).append((label, text))
    kept = [row for label in sorted(by_label) for row in draw.sample(
        by_label[label], max(1, round(share * len(by_label[label]))))]
    folds.write(folder, {"train": kept, "dev": dev, "test": test})
    return folder


def unlabelled_parts(paths, num_labelled, folder):
    """Files of unlabelled texts: dict of multiple of `num_labelled` -> list of paths, as far as there is text.

    Each multiple has the texts of those below it and more.
    """
    texts = sorted({" ".join(row.text_a.split()) for path in paths for row in read_rows(path)})
    random.Random(SEED).shuffle(texts)
    found, parts = {0: []}, []
    for below, multiple in zip(MULTIPLES, MULTIPLES[1:]):
        if multiple * num_labelled > len(texts):
            break
        parts.append(os.path.join(folder, "unlabelled_x%d_to_x%d.txt" % (below, multiple)))
        files.write_text(parts[-1], "\n".join(texts[below * num_labelled:multiple * num_labelled]) + "\n")
        found[multiple] = list(parts)
    return found


def plot(found, teacher_accuracy, path):
    """Accuracy over unlabelled texts, a line for each share of the labels; found: list of dict, as in results.json."""
    with report.picture(path) as axes:
        for share in SHARES:
            line = [point for point in found if point["share"] == share]
            axes.errorbar([point["multiple"] for point in line], [100 * point["accuracy_mean"] for point in line],
                          yerr=[100 * point["accuracy_sd"] for point in line], marker="o",
                          label="%d %% of the labels" % round(100 * share))
        axes.axhline(100 * teacher_accuracy, linestyle=":", color="grey", label="teacher, all labels")
        axes.set_xlabel("unlabelled texts, in multiples of the labelled ones")
        axes.set_ylabel("test accuracy, %")
        axes.legend(fontsize=8)


def as_rows(found):
    """A table of strings, the header first; found: as of `plot`."""
    return [["share of the labels", "unlabelled texts", "accuracy", "± sd", "macro-F1", "± sd"]] + [
        ["%d %%" % round(100 * point["share"]), "{:,} ({}x)".format(point["unlabelled"], point["multiple"])]
        + ["%.4f" % point[name] for name in ("accuracy_mean", "accuracy_sd", "macro_f1_mean", "macro_f1_sd")]
        for point in found]
