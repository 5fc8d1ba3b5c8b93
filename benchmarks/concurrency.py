"""How many texts a second an export classifies for callers at the same time, and how long each waits.

    python -m benchmarks.concurrency --export_dir=output/classifier/export --input_file=texts.txt

Callers are threads that ask for one text after the other. "alone": each computes its own (`Predictor`); "together":
what waits is computed together (`SharedPredictor`). Both are measured in turns; standard output gets the table.
"""

import itertools
import threading
import time

from absl import flags

from training import command
import numpy as np

from serving.predictor import Predictor
from serving.shared import SharedPredictor
from training import files

CALLERS = (1, 8, 32)


def define_flags():
    flags.DEFINE_string("export_dir", None, "An export, or the folder that holds them.", required=True)
    flags.DEFINE_string("input_file", None, "Texts, one a line.", required=True)
    flags.DEFINE_integer("batch_size", 4, "Texts of similar length computed together.", lower_bound=1)
    flags.DEFINE_float("seconds", 4.0, "Of each measurement.", lower_bound=0.1)
    flags.DEFINE_integer("rounds", 3, "Turns.", lower_bound=1)


def main():
    values = flags.FLAGS
    texts = [text for text in files.read_lines(values.input_file) if text.strip()]
    predictor = Predictor(values.export_dir, values.batch_size)
    with SharedPredictor(predictor) as shared:
        ways = (("alone", lambda text: predictor.predict([text])), ("together", shared.predict))
        waits = {}
        for _, callers, (name, ask) in itertools.product(range(values.rounds), CALLERS, ways):
            waits.setdefault((callers, name), []).append(measure(ask, texts, callers, values.seconds))
    print("| callers | computed | texts/s | p50, ms | p99, ms |\n|---|---|---|---|---|")
    for (callers, name), rounds in sorted(waits.items()):
        every = np.concatenate(rounds)
        print("| %d | %s | %.0f | %.2f | %.2f |" % (
            callers, name, len(every) / (values.rounds * values.seconds), *np.percentile(1e3 * every, [50, 99])))


def measure(ask, texts, callers, seconds):
    """Seconds that each answer took, float [N]; a few more ran before, uncounted."""
    waits, end = [], time.perf_counter() + seconds + 0.5
    begin = end - seconds

    def call(number):
        for text in itertools.cycle(texts[number::callers]):
            start = time.perf_counter()
            if start > end:
                return
            ask(text)
            if start > begin:
                waits.append(time.perf_counter() - start)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(waits)


if __name__ == "__main__":
    command.run(main, define_flags)
