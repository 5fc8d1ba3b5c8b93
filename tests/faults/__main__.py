"""Kills, starves and feeds rubbish to every command, many times, and says what came of it.

    python -m tests.faults --trials=20                      everything; hours on 2 cores
    python -m tests.faults --trials=3 --only=kill,damage    some kinds of fault
    python -m tests.faults --trials=20 --only=kill_tables   one

A trial may kill a job several times, or find it ended: there are so many that each fault has happened --trials times,
but not more than twice as many. Each is drawn from its number, so it can be repeated. What came of it is kept, a line
for each: what is done is not done again, and a driver that was stopped goes on. The project's own tally, of which
docs/reliability.md tells, is --tally_dir=tests/faults/results; it goes on on any machine. Ends with a table, which
--write puts into docs/reliability.md; the exit code is 1 when a trial failed. Runs in the environment of the tests
(`bash scripts/setup.sh --tests`). A full disk is played on a tmpfs, which needs root; guided_* needs atheris (`pip
install atheris`).
"""

import collections
import functools
import importlib.util
import os
import sys

from absl import flags

from training import command
from tests.faults import cluster
from tests.faults import damage
from tests.faults import disk
from tests.faults import fuzz
from tests.faults import kill
from tests.faults import soak
from tests.faults import tally as tallies
from tests.faults import world as worlds
from training import files
from training import runtime
from training.command import UserError

PAGE = os.path.join("docs", "reliability.md")
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"

KILLED = [name for name in worlds.JOBS if name != "records"]
SIGNALLED = [name for name in KILLED if name not in ("vocabulary", "export")]  # which are short
# A distillation stands for all of them: what they write is the same.
ON_DISK = ("create_pretraining_data", "pretraining", "classifier", "distill_joint", "cache_teacher", "export",
           "batch_predict")

# run: function of (world, job, number of the trial) -> a count of what happened; job: its name, or ""; unit: of the
# count; enough: how often it must have happened, 0 for as often as is asked for.
Case = collections.namedtuple("Case", "run job unit enough", defaults=(0,))


def cases():
    """OrderedDict of name -> Case."""
    found = collections.OrderedDict()
    for name in KILLED:
        found["kill_" + name] = Case(kill.trial, name, "kills")
        found["again_" + name] = Case(kill.again, name, "times the same", 2)
    for name in SIGNALLED:
        found["signal_" + name] = Case(kill.signalled, name, "signals")
    for name in ON_DISK:
        found["disk_" + name] = Case(disk.trial, name, "full disks")
    found["damage"] = Case(damage.trial, "", "files damaged")
    found["cluster"] = Case(cluster.trial, "", "workers killed")
    found["cluster_waits"] = Case(cluster.waiting, "", "workers waited for")
    return found


def define_flags():
    flags.DEFINE_integer("trials", 20, "How often each fault must have happened.", lower_bound=1)
    flags.DEFINE_list("only", [], "Names of faults, or how they begin. Default: all.")
    flags.DEFINE_float("cases", 1.0, "Share of the cases of rubbish: 1 is a million texts for the tokenizer.",
                       lower_bound=0.0)
    flags.DEFINE_float("soak_minutes", 60.0, "Of distillation and of prediction.", lower_bound=0.1)
    flags.DEFINE_string("output_dir", os.path.join("build", "faults"), "The world, and what is broken.")
    flags.DEFINE_string("tally_dir", None, "What came of each trial, a file for each TensorFlow. Default: "
                        "--output_dir.")
    flags.DEFINE_bool("write", False, "Put the table into %s." % PAGE)


def main():
    values = flags.FLAGS
    world = worlds.World(os.path.abspath(values.output_dir))
    tally_dir = values.tally_dir or values.output_dir
    tally = tallies.Tally(tally_dir, runtime.tf.__version__)
    possible = [name for name in everything() if importlib.util.find_spec("atheris") or not name.startswith("guided_")]
    chosen = [name for name in possible if not values.only or name.startswith(tuple(values.only))]
    if not chosen:
        raise UserError("--only=%s: no such fault; there are %s" % (",".join(values.only), ", ".join(possible)))
    for name in chosen:
        enough = min(values.trials, cases()[name].enough or values.trials) if name in cases() else 1
        for number in range(2 * enough):
            if tally.lacks(name, number, enough):
                tally.do(name, number, functools.partial(_trial, world, name, number, values))
    table = tallies.table(tally_dir, everything())
    print(table)
    if values.write:
        write(table)
    sys.exit(1 if any(found["failed"] for trials in tally.found.values() for found in trials.values()) else 0)


def everything():
    """The names of all faults."""
    return [*cases(), *("fuzz_" + name for name in [*fuzz.READERS, "batch_predict"]),
            *("guided_" + name for name in fuzz.READERS), "soak_distillation", "soak_prediction"]


def _trial(world, name, number, values):
    """Makes one trial; returns what it tells, as in `Tally`."""
    if name in cases():
        case = cases()[name]
        return {"count": case.run(world, case.job, number), "unit": case.unit}
    kind, what = name.split("_", 1)
    if kind == "soak":
        size, slope = soak.run(world, what, values.soak_minutes)
        return {"minutes": values.soak_minutes, "megabytes": size, "an_hour": slope}
    if kind == "guided":
        return {"count": fuzz.guided(world, what, int(fuzz.CASES * values.cases)), "unit": "cases"}
    if what == "batch_predict":
        found = fuzz.batch_predict(world, number, int(fuzz.CASES * values.cases))
    else:
        found = fuzz.run(world, what, number, int(fuzz.READERS[what].cases * values.cases))
    return dict(zip(("cases", "slowest", "grown"), found))


def write(table):
    """Puts the table into the page, between its marks."""
    page = "\n".join(files.read_lines(PAGE)) + "\n"
    head, rest = page.split(BEGIN)
    files.write_text(PAGE, "%s%s\n\n%s\n%s%s" % (head, BEGIN, table, END, rest.split(END)[1]))


if __name__ == "__main__":
    command.run(main, define_flags, writes="output_dir")
