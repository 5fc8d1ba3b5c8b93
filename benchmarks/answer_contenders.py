"""What is measured of a classifier's answers, for `turns.race`: functions of plain arguments -> (work, about)."""

import os

from training import command  # noqa: F401  quiets TensorFlow's log
import tensorflow.compat.v1 as tf

from benchmarks import padded_input
from benchmarks import turns
from bert import checkpoints
from bert import records
from serving.predictor import Predictor
from tasks import measuring
from tasks.classification import Classification
from tasks.encoders import read_config
from tasks.text_files import labels_from_file
from training import files

BATCH = 64   # as the commands have it
TEXTS = 960  # that are predicted


def evaluation(run, record_file, **changes):
    """The best checkpoint's answers to all records, as --do_eval computes them.

    Args:
      run: folder of a classifier.
      record_file: labelled TFRecords.
      changes: as of `padded_input.changed`.
    """
    if changes:
        records.evaluation_input_fn = padded_input.changed(records.evaluation_input_fn, **changes)
    answer = measuring.answering(read_config(os.path.join(run, "config.json")),
                                 Classification(labels_from_file(os.path.join(run, "labels.txt"))),
                                 [record_file], BATCH)
    checkpoint = os.path.join(run, checkpoints.BEST)

    def work():
        answer(checkpoint)

    return work, {"tensorflow": tf.__version__}


def prediction(export, text_file, pad_to=0, filled=False):
    """The predictor's answers to a file's first texts, from ids to labels, as `serving.batch_predict` has them.

    Args:
      export: folder of an export.
      text_file: a text a line.
      pad_to: tokens of every text; 0: as they are.
      filled: whether padding passes for text.
    """
    model = Predictor(export, BATCH)

    def padded(features):
        missing = max(0, pad_to - len(features["input_ids"]))
        return {name: list(values) + [int(filled and name == "input_mask")] * missing
                for name, values in features.items()}

    features = [padded(model.features(text)) for text in files.read_lines(text_file)[:TEXTS]]
    return lambda: model.predict_features(features), {"tensorflow": tf.__version__}


if __name__ == "__main__":
    turns.serve({"evaluation": evaluation, "prediction": prediction})
