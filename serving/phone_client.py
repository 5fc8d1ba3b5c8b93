"""Classifies texts with a model of this folder: Python, NumPy, and a TFLite interpreter are all it needs.

    python client.py model_int8.tflite < texts.txt

Prints the label and its probability for each line; where a text may have several labels, all that reach their
thresholds, and the highest probability. On a phone the same steps are a few lines of Java or Swift.
"""

import json
import os
import sys
import unicodedata

import numpy as np

try:
    from tflite_runtime.interpreter import Interpreter
except ImportError:
    from tensorflow.lite.python.interpreter import Interpreter

CHINESE = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
           (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))


class Classifier:
    def __init__(self, model_file):
        folder = os.path.dirname(os.path.abspath(model_file))
        with open(os.path.join(folder, "text.json"), encoding="utf-8") as stream:
            self._settings = json.load(stream)
        with open(os.path.join(folder, "labels.txt"), encoding="utf-8") as stream:
            self.labels = stream.read().rstrip("\n").split("\n")
        self._thresholds = None
        if os.path.exists(os.path.join(folder, "thresholds.json")):
            with open(os.path.join(folder, "thresholds.json"), encoding="utf-8") as stream:
                self._thresholds = json.load(stream)
        with open(os.path.join(folder, "vocab.txt"), "rb") as stream:
            self._vocab = {line.decode("utf-8").strip(): number for number, line in enumerate(stream)}
        self._longest = max(map(len, self._vocab))
        self._model = Interpreter(model_path=model_file)

    def probabilities(self, text):
        """float32 [C] of one text."""
        ids = self._ids(text)
        given, answer = self._model.get_input_details()[0], self._model.get_output_details()[0]
        self._model.resize_tensor_input(given["index"], [1, len(ids)])
        self._model.allocate_tensors()
        self._model.reset_all_variables()  # or the last text would leak into this one
        self._model.set_tensor(given["index"], np.array([ids], np.int32))
        self._model.invoke()
        return self._model.get_tensor(answer["index"])[0]

    def label(self, probabilities):
        """The label of a text's probabilities, or all of them."""
        if self._thresholds is None:
            return self.labels[int(probabilities.argmax())]
        chosen = [name for name, value, least in zip(self.labels, probabilities, self._thresholds) if value >= least]
        return self._settings["label_separator"].join(chosen)

    def _ids(self, text):
        tokens = [piece for word in self._words(text) for piece in self._pieces(word)]
        room = self._settings["max_seq_length"] - 2
        if len(tokens) > room:
            head = {"head": room, "tail": 0, "head_tail": (room + 2) // 4}[self._settings["truncation"]]
            tokens = tokens[:head] + tokens[len(tokens) - (room - head):]
        return [self._vocab[token] for token in ["[CLS]", *tokens, "[SEP]"]]

    def _words(self, text):
        text = "".join(map(_spaced, text))
        if self._settings["do_lower_case"]:
            text = "".join(char for char in unicodedata.normalize("NFD", text.lower())
                           if unicodedata.category(char) != "Mn")
        return "".join(" %s " % char if _is_punctuation(char) else char for char in text).split()

    def _pieces(self, word):
        pieces, start, prefix = [], 0, ""
        while start < len(word) <= 200:
            end = next((end for end in range(min(len(word), start + self._longest), start, -1)
                        if prefix + word[start:end] in self._vocab), None)
            if end is None:
                break
            pieces.append(prefix + word[start:end])
            start, prefix = end, "##"
        return pieces if start == len(word) else ["[UNK]"]


def _spaced(char):
    category = unicodedata.category(char)
    if char in "\t\n\r" or category == "Zs":
        return " "
    if char == "\ufffd" or category in ("Cc", "Cf"):
        return ""
    return " %s " % char if any(first <= ord(char) <= last for first, last in CHINESE) else char


def _is_punctuation(char):
    if "!" <= char <= "~":
        return not char.isalnum()
    return unicodedata.category(char).startswith("P")


if __name__ == "__main__":
    classifier = Classifier(sys.argv[1])
    for line in sys.stdin.buffer:
        found = classifier.probabilities(line.decode("utf-8", "ignore").strip())
        print("%s\t%.4f" % (classifier.label(found), found.max()))
