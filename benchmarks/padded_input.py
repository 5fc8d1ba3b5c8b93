"""A command's input at a fixed length, or again and again the same, for comparison with what it has by itself.

    python -m benchmarks.padded_input 128 run_classifier.py --do_train ...

That is a training command whose every text has 128 tokens, and whose updates have texts of any lengths together, as a
plain loop would have them.
"""

import os
import runpy
import sys

from training import command  # noqa: F401  quiets TensorFlow's log
import tensorflow.compat.v1 as tf

from benchmarks import turns
from bert import records

PREDICTIONS = 20  # masked tokens of a text at most, as create_pretraining_data makes them
REPEATED = 32     # batches; of one alone the word table's rows would stay in the caches


def changed(make_input_fn, repeat=False, pad_to=0, filled=False):
    """`records.training_input_fn` or `records.evaluation_input_fn` with another input.

    Args:
      make_input_fn: one of the two.
      repeat: whether some batches come again and again.
      pad_to: tokens of every text; predictions are then padded too, to `PREDICTIONS`. 0: as they are.
      filled: whether padding passes for text and for predictions, so that no model leaves it out.
    """
    widths = dict(dict.fromkeys(records.SEQUENCE, pad_to), **dict.fromkeys(records.PREDICTIONS, PREDICTIONS))

    def pad(features):
        def wider(name, values):
            if name not in widths:
                return values
            value = int(filled and name in ("input_mask", "masked_lm_weights"))
            return tf.pad(values, [[0, 0], [0, widths[name] - tf.shape(values)[1]]], constant_values=value)

        return {name: wider(name, values) for name, values in features.items()}

    def make(*arguments, **more):
        input_fn = make_input_fn(*arguments, **more)

        def changed_input_fn(input_context=None):
            batches = input_fn(input_context) if input_context else input_fn()
            batches = batches.map(pad) if pad_to else batches
            return batches.take(REPEATED).cache().repeat() if repeat else batches

        return changed_input_fn

    return make


def main():
    pad_to, script = sys.argv[1:3]
    records.MAX_POOL_UPDATES = 1  # a pool is an update: nothing is sorted
    records.training_input_fn = changed(records.training_input_fn, pad_to=int(pad_to))
    sys.argv = sys.argv[2:]
    runpy.run_path(os.path.join(turns.CHECKOUT, script), run_name="__main__")


if __name__ == "__main__":
    main()
