"""A training command as a contender of `turns.race`: one update is one repetition.

The command runs as a user would run it, in a run folder of its own; a hook holds it between updates while others have
their turn.
"""

import json
import os
import runpy
import sys
import tempfile
import time

from training import command  # noqa: F401  quiets TensorFlow's log
import tensorflow.compat.v1 as tf

from benchmarks import turns
from bert import records
from tasks import runs


PREDICTIONS = 20  # masked tokens of a text at most, as create_pretraining_data makes them
REPEATED = 32     # batches; of one alone the word table's rows would stay in the caches


class Turns(tf.estimator.SessionRunHook):
    """Measures updates, as `turns.serve` does; between turns the run stands still."""

    def __init__(self, answers):
        """answers: stream that `turns.race` reads."""
        self._answers, self._seconds, self._left, self._turns = answers, [], turns.WARM_UP, 0

    def before_run(self, run_context):
        del run_context
        if not self._left:
            self._wait()
        self._started = time.perf_counter()

    def after_run(self, run_context, run_values):
        del run_context, run_values
        self._seconds.append(time.perf_counter() - self._started)
        self._left -= 1

    def _wait(self):
        self._answer(self._seconds if self._turns else {"tensorflow": tf.__version__})
        line = sys.stdin.readline()
        while line == turns.MEMORY:
            self._answer(turns.peak_megabytes())
            line = sys.stdin.readline()
        if not line:
            os._exit(0)
        self._seconds, self._left, self._turns = [], int(line), self._turns + 1


    def _answer(self, found):
        print(json.dumps(found), file=self._answers, flush=True)


def changed_input(make_input_fn, repeat=False, pad_to=0, filled=False):
    """`records.training_input_fn` with another input.

    Args:
      make_input_fn: that function.
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

    def training_input_fn(*arguments, **more):
        input_fn = make_input_fn(*arguments, **more)

        def changed(input_context=None):
            batches = input_fn(input_context)
            batches = batches.map(pad) if pad_to else batches
            return batches.take(REPEATED).cache().repeat() if repeat else batches

        return changed

    return training_input_fn


def main():
    script, arguments = sys.argv[1], json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the command's own lines
    runs.hooks_of = lambda values: [Turns(answers)]
    changes = {name: value for name, value in arguments.items() if name != "flags"}
    if changes:
        records.training_input_fn = changed_input(records.training_input_fn, **changes)
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = [script, *arguments["flags"], "--do_train", "--output_dir=" + os.path.join(folder, "run"),
                    "--num_train_steps=1000000", "--save_checkpoints_steps=1000000"]
        runpy.run_path(os.path.join(turns.CHECKOUT, script), run_name="__main__")


if __name__ == "__main__":
    main()
