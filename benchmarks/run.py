"""How fast this project is, beside its peers: measures, and writes docs/performance.md.

    python -m benchmarks.run
    python -m benchmarks.run --only=lstm_training --rounds=9 --peers_python=.venv-peers/bin/python

Each contender is a process of its own, and they are measured in turns (benchmarks/turns.py), so that only what ran side
by side is compared. Interpreters: this one (of `scripts/setup.sh --tests`), --other_python (a second TensorFlow),
--intel_python (Intel's build of 1.15, requirements-intel.txt), --peers_python (PyTorch, requirements-peers.txt), and
ONNX Runtime where one of the first two has it; what is not there is left out, and named. Writes <case>.json for each
case that is measured, and the page from all that are there; a second machine has a page and results of its own:

    python -m benchmarks.run --results_dir=benchmarks/results/epyc --page=docs/performance_epyc.md
"""

import datetime
import os
import platform
import subprocess

from absl import flags

from training import command
from benchmarks import cases
from benchmarks import material
from benchmarks import performance_page
from benchmarks import turns
from training import files
from training.command import UserError


def define_flags():
    flags.DEFINE_list("only", [], "Cases to measure: %s. Default: all." % ", ".join(cases.CASES))
    flags.DEFINE_string("other_python", ".venv-tf2/bin/python", "An interpreter with another TensorFlow.")
    flags.DEFINE_string("intel_python", ".venv-intel/bin/python", "An interpreter with Intel's build of TensorFlow "
                        "1.15, see requirements-intel.txt.")
    flags.DEFINE_string("peers_python", ".venv-peers/bin/python", "An interpreter with PyTorch.")
    flags.DEFINE_string("data_dir", None, "Labelled texts, as of run_classifier.py, for the cases that train.")
    flags.DEFINE_string("unlabeled_file", None, "Texts without labels, one a line, for those cases.")
    flags.DEFINE_string("vocab_file", None, "The vocabulary, for those cases; as many tokens as configs/*.json say.")
    flags.DEFINE_string("about_texts", "", "What these texts are, a sentence for the page.")
    flags.DEFINE_integer("rounds", 7, "Turns of each contender.", lower_bound=3)
    flags.DEFINE_integer("repetitions", 3, "Repetitions in a turn; some cases take several times as many.",
                         lower_bound=1)
    flags.DEFINE_string("results_dir", os.path.join("benchmarks", "results"), "Where a file of each case goes.")
    flags.DEFINE_string("page", os.path.join("docs", "performance.md"), "Where the page goes.")


def main():
    values = flags.FLAGS
    for name in values.only:
        if name not in cases.CASES:
            raise UserError("--only=%s: no case %s; there are %s"
                            % (",".join(values.only), name, ", ".join(cases.CASES)))
    setting = material.prepare(values, [cases.CASES[name] for name in values.only or cases.CASES])
    for kind, python in setting.pythons.items():
        print("%s: %s" % (kind, python or "not there, left out"), flush=True)
    for name in values.only or cases.CASES:
        if cases.CASES[name].needs_text and not setting.data_dir:
            print("%s: left out, it needs --data_dir, --unlabeled_file and --vocab_file" % name, flush=True)
            continue
        races = cases.CASES[name].races(setting)
        if races:
            measure(name, races, setting, values)
        else:
            print("%s: left out, nobody who takes part is here" % name, flush=True)
    paths = {name: _path(values, name) for name in cases.CASES}
    results = {name: files.read_json(path) for name, path in paths.items() if os.path.exists(path)}
    performance_page.write(values.page, cases.CASES, results, " ".join(["python -m benchmarks.run"] + [
        values[name].serialize() for name in ("results_dir", "page") if values[name].present]))
    print("%s: written" % values.page)


def measure(name, races, setting, values):
    """Measures the races of a case and writes its file; values: the flags."""
    case, measured = cases.CASES[name], []
    for race in races:
        print("== %s, %s" % (name, race.title), flush=True)
        yardstick, gflop = cases.yardstick(setting) if race.work[1] == "GFLOP" else ([], 0)
        try:
            found = turns.race(race.contenders + yardstick, values.rounds, values.repetitions * case.repetitions)
        except RuntimeError as error:
            raise UserError(str(error))
        for result in found:
            print("   %-36s %9.2f ms" % (
                result["title"], 1e3 * result["seconds"][case.statistic]), flush=True)
        product = found.pop() if yardstick else None
        rate = {"machine_rate": gflop / product["seconds"][case.statistic],
                "machine_library": product["about"]["library"]} if product else {}
        measured.append({"title": race.title, "work": race.work, "sizes": race.sizes, **rate, "contenders": found})
    os.makedirs(values.results_dir, exist_ok=True)
    files.write_json(_path(values, name), {
        "date": datetime.date.today().isoformat(), "machine": machine(), "rounds": values.rounds,
        "repetitions": values.repetitions, "about_texts": values.about_texts if case.needs_text else "",
        "absent": sorted(kind for kind, python in setting.pythons.items() if not python), "races": measured,
        "texts": {flag: os.path.basename(getattr(setting, flag)) for flag in (
            "data_dir", "unlabeled_file", "vocab_file") if case.needs_text}})


def machine():
    """What the figures were measured on: dict."""
    model = [line.split(":")[1].strip() for line in files.read_bytes("/proc/cpuinfo").decode().splitlines()
             if line.startswith("model name")]
    return {"cpu": model[0] if model else platform.processor(), "cores": os.cpu_count(),
            "system": platform.release().split("-")[0],
            "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=turns.CHECKOUT, check=False,
                                     stdout=subprocess.PIPE, universal_newlines=True).stdout.strip()}


def _path(values, name):
    return os.path.join(values.results_dir, name + ".json")


if __name__ == "__main__":
    command.run(main, define_flags)
