"""Raw text in, labels out: an exported classifier in this process's memory.

    predictor = Predictor("output/classifier/export/1700000000")
    predictor.predict(["聚氯乙烯生产车间招聘操作工"])

    python -m serving.predictor --export_dir=output/classifier/export < texts.txt > predictions.tsv

The command reads one text a line and writes a line for each: the label, the probability of the most probable
class, the text, with tabs between them. A blank line gives a blank line. Where a text may have several labels
they are joined as in the training data, and there may be none.
"""

import collections
import itertools
import os
import sys

from absl import flags

from training import command
import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from bert.records import SEQUENCE
from serving import native_graph
from serving.export import ASSETS
from serving.export import newest
from serving.variants import THRESHOLDS
from tasks import text_settings
from tasks.text_files import labels_from_file
from training import calls
from training import files
from training import metrics
from training.command import UserError

SAVED_MODEL = "saved_model.pb"
TAGS = [tf.saved_model.tag_constants.SERVING]
NEEDED = [os.path.join(ASSETS, name) for name in ("labels.txt", "text.json", "vocab.txt")] + [
    os.path.join("variables", "variables.index")]
BLOCK_BATCHES = 32  # times --batch_size texts are read ahead by the command and sorted by length
SIMILAR = 1.1  # so many times the shortest text's tokens the longest of a large batch may have

# label: str, several joined by the separator; probabilities: float32 [C].
Prediction = collections.namedtuple("Prediction", "label probabilities")


class Predictor:
    """Loads a SavedModel once and classifies any number of texts, in any number of threads.

    A BiLSTM is computed by our op where that is compiled (`python -m training.native`), in half the time and less.
    For threads with a text each, `shared.SharedPredictor` computes together what waits together.
    """

    def __init__(self, export_dir, batch_size=64):
        """Args:
          export_dir: an export, or the folder that holds exports: then the newest.
          batch_size: texts computed together, of similar length; of short ones more, see `batches`.

        Raises:
          UserError: no export is there.
        """
        export_dir = find_export(export_dir)
        assets = os.path.join(export_dir, ASSETS)
        settings = text_settings.read(os.path.join(assets, text_settings.FILE), {})
        self.labels = labels_from_file(os.path.join(assets, "labels.txt"), settings.label_separator or None)
        thresholds = os.path.join(assets, THRESHOLDS)
        self._thresholds = files.read_json(thresholds) if os.path.exists(thresholds) else None
        if self.labels.separator is not None and self._thresholds is None:
            self._thresholds = [metrics.DEFAULT_THRESHOLD] * len(self.labels.names)
        self._featurizer = text_settings.featurizer(settings, os.path.join(assets, "vocab.txt"))
        self._batch_size = batch_size
        session = tf.Session(graph=tf.Graph())
        with session.graph.as_default():
            try:
                loader = SavedModelLoader(export_dir)
                native_graph.use_where_compiled(loader.get_meta_graph_def_from_tags(TAGS).graph_def)
                loaded = loader.load(session, TAGS)
            except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
                # Above all: half copied, or made with a later TensorFlow.
                raise UserError("%s: TensorFlow %s cannot load it: %s" % (export_dir, tf.__version__, str(error)[:300]))
        signature = loaded.signature_def["serving_default"]
        self._inputs = [name for name in SEQUENCE if name in signature.inputs]
        self._run = calls.prepared(session, signature.outputs["probabilities"].name,
                                   [signature.inputs[name].name for name in self._inputs])

    def probabilities(self, texts):
        """float32 [N, C] for a list of str, or of (str, str) for pairs."""
        if isinstance(texts, str):
            raise TypeError("a list of texts is needed, found one text")
        return self._probabilities([self.features(text) for text in texts])

    def features(self, text):
        """What is computed on, of a str or of (str, str) for a pair; TypeError for anything else."""
        pair = (text,) if isinstance(text, str) else text
        if not isinstance(pair, (tuple, list)) or not 1 <= len(pair) <= 2 or not all(
                isinstance(part, str) for part in pair):
            raise TypeError("a text is a str, or a pair of them; found %.60r" % (text,))
        return self._featurizer.features(*pair)[0]

    def tokens(self, ids):
        """The tokens of some ids."""
        return self._featurizer.tokenizer.convert_ids_to_tokens(ids)

    def _probabilities(self, features):
        """float32 [N, C] of a list of what `features` gives."""
        found = np.zeros([len(features), len(self.labels.names)], np.float32)
        for batch in batches([len(one["input_ids"]) for one in features], self._batch_size):
            found[batch] = self._run(*[_pad([features[number][name] for number in batch]) for name in self._inputs])
        return found

    def predict(self, texts):
        """List of Prediction, one a text."""
        return self._predictions(self.probabilities(texts))

    def predict_features(self, features):
        """The same of a list of what `features` gives."""
        return self._predictions(self._probabilities(features))

    def _predictions(self, probabilities):
        return [Prediction(self._label(row), row) for row in probabilities]

    def _label(self, probabilities):
        names = self.labels.names
        chosen = metrics.chosen_classes(probabilities, self._thresholds)
        return (self.labels.separator or "").join(names[number] for number in chosen)


def batches(lengths, batch_size):
    """Which texts are computed together: those of similar length, within a budget of tokens.

    A batch costs something by itself, so more than `batch_size` texts share one where padding allows: their lengths lie
    within `SIMILAR`, and padded they have no more tokens than `batch_size` of the longest texts.

    Args:
      lengths: list of int, tokens of each text.
      batch_size: texts that are computed together whatever their lengths are, one at least.

    Returns:
      list of lists of places in `lengths`, each place once.
    """
    budget, found = batch_size * max(lengths, default=0), []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[place]
        if not found or (len(found[-1]) >= batch_size and (
                length > SIMILAR * lengths[found[-1][0]] or (len(found[-1]) + 1) * length > budget)):
            found.append([])
        found[-1].append(place)
    return found


def find_export(folder):
    """The export that a folder is, or the newest that it holds; UserError where there is none."""
    found = folder if os.path.exists(os.path.join(folder, SAVED_MODEL)) else newest(folder)
    if not found or not os.path.exists(os.path.join(found, SAVED_MODEL)):
        raise UserError("--export_dir=%s: no %s is there" % (folder, SAVED_MODEL))
    for name in NEEDED:
        if not os.path.exists(os.path.join(found, name)):
            raise UserError("--export_dir=%s: %s is missing; copy the export again, whole" % (found, name))
    return found


def _pad(rows):
    """Lists of int -> int32 [N, longest], filled with 0."""
    padded = np.zeros([len(rows), max(map(len, rows))], np.int32)
    for target, row in zip(padded, rows):
        target[:len(row)] = row
    return padded


def define_flags():
    flags.DEFINE_string("export_dir", None, "An export of run_classifier.py or run_distill.py, or the "
                        "folder that holds them: then the newest.", required=True)
    flags.DEFINE_integer("batch_size", 64, "Texts computed together; of short ones more.", lower_bound=1)


def main():
    predictor = Predictor(flags.FLAGS.export_dir, flags.FLAGS.batch_size)
    lines = _decoded(sys.stdin.buffer)
    while True:
        block = list(itertools.islice(lines, BLOCK_BATCHES * flags.FLAGS.batch_size))
        if not block:
            return
        predictions = iter(predictor.predict([text for text in block if text]))
        for text in block:
            print(_line(text, next(predictions)) if text else "")
        sys.stdout.flush()


def _decoded(stream):
    """Yields the texts of a stream of bytes, a line each; "" for a blank one."""
    # Only \n ends a line, as in the files that are trained on: a text may hold \r, U+2028 and the like.
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError("stdin:%d: not UTF-8: byte %d of the line is 0x%02x"
                            % (number, error.start + 1, line[error.start]))


def _line(text, prediction):
    return "%s\t%.4f\t%s" % (prediction.label, prediction.probabilities.max(), text)


if __name__ == "__main__":
    command.run(main, define_flags)
