"""docs/performance.md and its plots, from the files of benchmarks/results."""

import os

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks import scaling
from benchmarks.cases import YARDSTICK
from training import files

HEAD = """# Performance

Written by `{command}`.

Contenders of a table are processes of their own, measured in turns in one run: what counts is the ratio; milliseconds
of two tables are not to be compared. Median of all repetitions (the mean where their texts differ), quartiles in
brackets. The first line is what the others are divided by. GFLOP are those of the matrix products that the model
needs; "of MKL's" or "of oneDNN's" says what share that is of the machine's rate, which is that of PyTorch's product
of [{rows} x {depth}] with [{depth} x {columns}] by that library (where both were tried the faster one), measured in
turn with the others.
"""


def write(path, cases, results, command):
    """Writes the page, and a plot of each case into a folder of its name beside it.

    Args:
      path: its file.
      cases: dict of name -> Case.
      results: dict of name -> what `benchmarks.run` found.
      command: what writes this page, without what each case has besides.
    """
    folder = os.path.splitext(path)[0]
    os.makedirs(folder, exist_ok=True)
    for name, result in results.items():
        plot(result["races"], cases[name].statistic, os.path.join(folder, name + ".svg"))
    files.write_text(path, "\n".join([HEAD.format(command=command, **YARDSTICK)] + [
        section(cases[name], result, name, os.path.basename(folder), command) for name, result in results.items()]
        + [scaling.section(results)]))


def section(case, result, name, folder, command):
    """The part of one case, Markdown; folder: of the plots, beside the page; command: as of `write`."""
    machine = result["machine"]
    lines = ["## %s" % case.title, "", " ".join(filter(None, (case.text, result.get("about_texts")))), ""]
    for race in result["races"]:
        lines += table(race, case.statistic)
    for goal in case.goals:
        lines += [told(goal, result["races"], case.statistic), ""]
    lines += ["![%s](%s/%s.svg)" % (case.title, folder, name), ""]
    absent = "; absent: " + ", ".join(result["absent"]) if result["absent"] else ""
    texts = "".join(" --%s=%s" % item for item in result["texts"].items())
    lines += [versions(result["races"]), ""]
    lines.append("`%s --only=%s --rounds=%d --repetitions=%d%s`, %s, commit %s, on %d cores of %s%s." % (
        command, name, result["rounds"], result["repetitions"], texts, result["date"], machine["commit"],
        machine["cores"], machine["cpu"], absent))
    return "\n".join(lines + [""])


def versions(races):
    """A sentence of what the contenders ran on: packages, Pythons, and threads where not all cores are taken anyway."""
    def told(about):
        return ", ".join("%s %s" % (name.replace("python", "Python"), about[name])
                         for name in sorted(about, key=lambda name: (name == "python", name)))

    kinds = {told(contender["about"]) for race in races for contender in race["contenders"]}
    return "Versions: %s." % "; ".join(sorted(filter(None, kinds)))


def table(race, statistic="median"):
    """Lines of a race's table; statistic: as of a Case."""
    sizes, times = race.get("sizes"), [contender["seconds"] for contender in race["contenders"]]
    more = _columns(race, statistic)
    lines = ["| %s | ms | p95 | ratio |" % race["title"] + "".join(" %s |" % heading for heading, _ in more),
             "|---|---|---|---|" + "---|" * len(more)]
    for contender, found in zip(race["contenders"], times):
        lines.append("| %s | %.2f [%.2f, %.2f] | %.2f | %.2f |" % (
            contender["title"], *(1e3 * found[key] for key in (statistic, "low", "high", "p95")),
            found[statistic] / times[0][statistic]) + "".join(" %s |" % told_of(contender) for _, told_of in more))
    if sizes:
        lines += ["", "Time grows with the power %.2f of it, memory with %.2f." % (
            exponent(sizes, [found[statistic] for found in times]),
            exponent(sizes, [contender["megabytes"] for contender in race["contenders"]]))]
    return lines + [""]


def _columns(race, statistic):
    """What a table tells besides times: list of (heading, function of a contender -> text)."""
    amount, unit = race["work"]

    def rate(contender):
        return amount / contender["seconds"][statistic]

    def figure(name):
        def of(contender):
            found = contender["figures"].get(name)
            return "%.3g [%.3g, %.3g]" % tuple(found[key] for key in ("median", "low", "high")) if found else ""
        return of

    columns = [("MB", lambda contender: "%d" % contender["megabytes"]) if race.get("sizes")
               else (unit + "/s", lambda contender: "%.0f" % rate(contender))]
    if race.get("machine_rate"):
        columns.append(("of %s's %.0f" % (race["machine_library"], race["machine_rate"]),
                        lambda contender: "%.0f %%" % (100 * rate(contender) / race["machine_rate"])))
    names = sorted({name for contender in race["contenders"] for name in contender.get("figures", {})})
    return columns + [(name, figure(name)) for name in names]


def told(goal, races, statistic="median"):
    """A line of what was asked for, and whether it was reached; goal: `cases.Goal`."""
    found = [one for race in races if goal.race in race["title"] for one in _ratios(goal, race, statistic)]
    missed = ["%.3g (%s)" % one for one in found if one[0] > goal.most]
    if missed:
        answer = "Missed in %d of %d: %s" % (len(missed), len(found), "; ".join(missed))
    else:
        answer = "Reached: %s" % ", ".join("%.3g" % ratio for ratio, _ in found) if found else "Not measured"
    where = ", %s" % goal.race.strip(", ") if goal.race else ""
    return "Goal: `%s` in at most %.3g of the time of `%s`%s. %s." % (
        goal.of, goal.most, goal.against, where, answer)


def _ratios(goal, race, statistic):
    """Yields (ratio, what it is of) for each contender that a goal is for."""
    def times(beginning):
        return {contender["title"]: contender["seconds"][statistic] for contender in race["contenders"]
                if contender["title"].startswith(beginning)}

    others = times(goal.against)
    of_kind = {_kind(title): seconds for title, seconds in others.items()}
    for title, seconds in times(goal.of).items() if others else ():
        yield seconds / of_kind.get(_kind(title), next(iter(others.values()))), "%s: %s" % (race["title"], title)


def _kind(title):
    """The TensorFlow of a contender, where its title says one."""
    return title.rsplit(", ", 1)[-1]


def exponent(sizes, values):
    """k of the values ~ sizes^k, by least squares of the logarithms."""
    return round(float(np.polyfit(np.log(sizes), np.log(values), 1)[0]), 6) + 0.0  # not -1e-17, and not -0


def plot(races, statistic, path):
    """One row of axes a race: bars, or a line where something grows."""
    figure = Figure(figsize=(8, 1.0 + sum(0.6 + 0.3 * len(race["contenders"]) for race in races)))
    rows = figure.subplots(len(races), 1, squeeze=False, gridspec_kw={
        "height_ratios": [2 + len(race["contenders"]) for race in races]})
    for race, (axes,) in zip(races, rows):
        values = [1e3 * contender["seconds"][statistic] for contender in race["contenders"]]
        if race.get("sizes"):
            axes.loglog(race["sizes"], values, marker="o")
            axes.set_ylabel("ms")
        else:
            titles = [contender["title"] for contender in race["contenders"]]
            axes.barh(titles[::-1], values[::-1])
            axes.set_xlabel("ms")
        axes.set_title(race["title"], fontsize=9)
    figure.tight_layout()
    with files.whole_file(path) as temporary:
        # Neither date nor random names: the same figures give the same file. Text stays text.
        with matplotlib.rc_context({"svg.hashsalt": "0", "svg.fonttype": "none"}):
            figure.savefig(temporary, format="svg", metadata={"Date": None})
