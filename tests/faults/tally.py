"""What came of each trial: a JSON line for each, a file for each TensorFlow."""

import glob
import json
import os
import re
import time

from tests.faults import processes
from training import files
from training import hooks


class Tally:
    """What came of the trials under one TensorFlow, kept in a file.

    Attributes:
      found: dict of fault -> dict of trial's number -> dict with "failed" (text, "" for none), "took" (seconds) and
        what the fault tells.
    """

    def __init__(self, folder, version):
        self._path, self.found = os.path.join(folder, "tensorflow-%s.jsonl" % version), {}
        for line in files.read_lines(self._path) if os.path.exists(self._path) else ():
            told = json.loads(line)
            self.found.setdefault(told.pop("fault"), {})[told.pop("trial")] = told

    def lacks(self, name, number, enough):
        """Whether a trial is to be made: it failed before, or the fault has not happened often enough in the others."""
        trials = self.found.get(name, {})
        happened = sum(trial.get("count", 1) for trial in trials.values() if not trial["failed"])
        return happened < enough or bool(trials.get(number, {"failed": ""})["failed"])

    def do(self, name, number, run):
        """Makes a trial, unless it was made and went well."""
        trials = self.found.setdefault(name, {})
        if number in trials and not trials[number]["failed"]:
            return
        began, failed, told = time.time(), "", {}
        try:
            told = run()
        except (processes.Failed, AssertionError) as error:
            failed = str(error)
        trials[number] = dict(told, failed=failed, took=round(time.time() - began, 1))
        files.write_text(self._path, "".join(
            json.dumps(dict({"fault": name, "trial": number}, **trials[number]), ensure_ascii=False) + "\n"
            for name, trials in self.found.items() for number in sorted(trials)))
        print("%s %d: %s" % (name, number, failed or "as it must be, %s" % hooks.duration(time.time() - began)),
              flush=True)


def table(folder, names):
    """Markdown of every tally in a folder, its faults in the order of `names`."""
    lines = ["| fault | TensorFlow | trials | what happened | failed |", "|---|---|---|---|---|"]
    versions = [re.search(r"tensorflow-(.*)\.jsonl$", path).group(1)
                for path in sorted(glob.glob(os.path.join(folder, "tensorflow-*.jsonl")))]
    tallies = [(version, Tally(folder, version).found) for version in versions]
    for name in names:
        for version, found in tallies:
            trials = list(found.get(name, {}).values())
            if trials:
                lines.append("| %s | %s | %d | %s | %d |" % (
                    name, version, len(trials), _told(trials), sum(bool(trial["failed"]) for trial in trials)))
    return "\n".join(lines) + "\n"


def _told(trials):
    good = [found for found in trials if not found["failed"]]
    if not good:
        return ""
    if "unit" in good[0]:
        return "%d %s" % (sum(found["count"] for found in good), good[0]["unit"])
    if "cases" in good[0]:
        return "{:,} cases, the slowest {:.1f} ms, memory {:+.0f} MB".format(
            good[0]["cases"], 1000 * good[0]["slowest"], good[0]["grown"])
    return "%.0f minutes, %.0f MB at the end, %+.1f MB an hour" % (
        good[0]["minutes"], good[0]["megabytes"], good[0]["an_hour"])
