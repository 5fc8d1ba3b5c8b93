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

from benchmarks import padded_input
from benchmarks import turns
from bert import optimization
from bert import records
from tasks import runs


EXCHANGED = "exchanged_bytes"


class Turns(tf.estimator.SessionRunHook):
    """Measures updates, as `turns.serve` does; between turns the run stands still."""

    def __init__(self, answers):
        """answers: stream that `turns.race` reads."""
        self._answers, self._measured, self._left, self._turns = answers, [], turns.WARM_UP, 0

    def before_run(self, run_context):
        if not self._left:
            self._wait()
        self._started = time.perf_counter()
        return tf.estimator.SessionRunArgs(run_context.session.graph.get_collection(EXCHANGED))

    def after_run(self, run_context, run_values):
        del run_context
        seconds = time.perf_counter() - self._started
        exchanged = {"exchanged, MB": 1e-6 * float(run_values.results[0])} if run_values.results else {}
        self._measured.append((seconds, exchanged))
        self._left -= 1

    def _wait(self):
        self._answer(self._measured if self._turns else {"tensorflow": tf.__version__})
        line = sys.stdin.readline()
        while line == turns.MEMORY:
            self._answer(turns.peak_megabytes())
            line = sys.stdin.readline()
        if not line:
            os._exit(0)
        self._measured, self._left, self._turns = [], int(line), self._turns + 1

    def _answer(self, found):
        print(json.dumps(found), file=self._answers, flush=True)


def counting(update_all):
    """`optimization._update_all`, with what replicas exchange counted in the graph: bytes of gradients, of one of them.

    They are in the collection `EXCHANGED`, where there are several replicas.
    """
    def counted(strategy, gradients, *rest, **more):
        if strategy.num_replicas_in_sync > 1:
            parts = [part for gradient in gradients for part in strategy.experimental_local_results(gradient)]
            tf.add_to_collection(EXCHANGED, tf.add_n([_num_bytes(part) for part in parts])
                                 / len(strategy.extended.worker_devices))
        return update_all(strategy, gradients, *rest, **more)

    return counted


def _num_bytes(gradient):
    """Of a tensor, or of a table's rows and their numbers; float64 scalar."""
    tensors = [gradient.values, gradient.indices] if isinstance(gradient, tf.IndexedSlices) else [gradient]
    return tf.add_n([tf.cast(tf.size(tensor), tf.float64) * tensor.dtype.size for tensor in tensors])


def main():
    script, arguments = sys.argv[1], json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the command's own lines
    runs.hooks_of = lambda values: [Turns(answers)]
    optimization._update_all = counting(optimization._update_all)
    changes = {name: value for name, value in arguments.items() if name != "flags"}
    if changes:
        records.training_input_fn = padded_input.changed(records.training_input_fn, **changes)
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = [script, *arguments["flags"], "--do_train", "--output_dir=" + os.path.join(folder, "run"),
                    "--num_train_steps=1000000", "--save_checkpoints_steps=1000000"]
        runpy.run_path(os.path.join(turns.CHECKOUT, script), run_name="__main__")


if __name__ == "__main__":
    main()
