"""Contenders that are measured in turns, each a process of its own with an interpreter of its own.

Times on a shared machine drift, so only what ran side by side can be compared. All contenders of a race are started and
warmed up; then, round after round, each repeats its work while the others wait. This module needs nothing but Python:
contenders run where TensorFlow is not.
"""

import collections
import json
import os
import resource
import statistics
import subprocess
import sys
import time

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAUSE = 0.3  # seconds, in which the threads of the one before stop spinning
WARM_UP = 3  # repetitions that are not counted
MEMORY = "memory\n"  # what a contender is asked for in place of repetitions

# title: for people; python: path of the interpreter; module: of contenders; name: of a function in it; arguments: dict;
# environment: dict of variables that are added.
Contender = collections.namedtuple("Contender", "title python module name arguments environment", defaults=({},))


def serve(makers, warm_up=WARM_UP):
    """The main of a module of contenders: does what its command line and stdin say, until stdin ends.

    Args:
      makers: dict of name -> function of the arguments -> (function that is measured, dict of what it ran on). A dict
        that the measured function returns are its figures: name -> number.
      warm_up: repetitions that are not counted.
    """
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    work, about = makers[name](**arguments)
    for _ in range(warm_up):
        work()
    print(json.dumps(dict(about, python=sys.version.split()[0])), flush=True)
    for line in sys.stdin:
        found = peak_megabytes() if line == MEMORY else [_measured(work) for _ in range(int(line))]
        print(json.dumps(found), flush=True)


def peak_megabytes():
    """Of this process's memory, or of the largest it has started."""
    with open("/proc/self/status") as lines:  # getrusage would begin with that of the process that started this one
        own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def _measured(work):
    """(seconds, figures) of one repetition."""
    started = time.perf_counter()
    gave = work()
    return time.perf_counter() - started, gave if isinstance(gave, dict) else {}


def race(contenders, rounds=5, repetitions=3):
    """Measures contenders in turns.

    Args:
      contenders: list of Contender.
      rounds: turns that each has.
      repetitions: of the work in a turn.

    Returns:
      list of dict: "title", "about", "seconds" (`summary` of every repetition), "figures" (dict of name -> `summary`),
      "megabytes" (at most).

    Raises:
      RuntimeError: one has failed; what it said stands above.
    """
    running = [_start(contender) for contender in contenders]
    try:
        found = [{"title": contender.title, "about": _answer(process, contender)}
                 for contender, process in zip(contenders, running)]
        measured = [[] for _ in contenders]
        for _ in range(rounds):
            for repeated, process, contender in zip(measured, running, contenders):
                time.sleep(PAUSE)
                repeated += _ask(process, contender, "%d\n" % repetitions)
        for result, repeated, process, contender in zip(found, measured, running, contenders):
            result["seconds"] = summary([seconds for seconds, _ in repeated])
            result["figures"] = {name: summary([figures[name] for _, figures in repeated]) for name in repeated[0][1]}
            result["megabytes"] = round(_ask(process, contender, MEMORY))
    finally:
        for process in running:
            process.kill()
            process.wait()
    return found


def _start(contender):
    return subprocess.Popen(
        [contender.python, "-m", contender.module, contender.name, json.dumps(contender.arguments)], cwd=CHECKOUT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True,
        env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", PYTHONWARNINGS="ignore", **contender.environment))


def _ask(process, contender, question):
    process.stdin.write(question)
    process.stdin.flush()
    return _answer(process, contender)


def _answer(process, contender):
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("%s (%s) has ended: see above" % (contender.title, contender.python))
    return json.loads(line)


def summary(values):
    """Of some numbers: dict of "count", "median", "mean", "low" and "high" (quartiles), "p95"."""
    found = sorted(values)
    low, high, p95 = [found[round(share * (len(found) - 1))] for share in (0.25, 0.75, 0.95)]
    return {"count": len(found), "median": statistics.median(found), "mean": statistics.mean(found), "low": low,
            "high": high, "p95": p95}
