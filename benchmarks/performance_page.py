"""docs/performance.md, from the files of benchmarks/results."""

from benchmarks import turns
from training import files

HEAD = """# Performance

Written by `python -m benchmarks.run`. Contenders of a table are processes of their own, measured in turns in one run:
what counts is the ratio; milliseconds of two tables are not to be compared. Median of all repetitions (the mean where
their texts differ), quartiles in brackets. The first line is what the others are divided by.
"""


def write(path, cases, results):
    """Writes the page.

    Args:
      path: its file.
      cases: dict of name -> Case.
      results: dict of name -> what `benchmarks.run` found.
    """
    files.write_text(path, "\n".join([HEAD] + [
        section(cases[name], result, name) for name, result in results.items()]))


def section(case, result, name):
    """The part of one case, Markdown."""
    machine = result["machine"]
    lines = ["## %s" % case.title, "", case.text, ""]
    for race in result["races"]:
        lines += table(race, case.statistic)
    absent = "; absent: " + ", ".join(result["absent"]) if result["absent"] else ""
    lines.append("`python -m benchmarks.run --only=%s --rounds=%d --repetitions=%d`, %s, commit %s, on %d cores of "
                 "%s%s." % (name, result["rounds"], result["repetitions"], result["date"], machine["commit"],
                            machine["cores"], machine["cpu"], absent))
    return "\n".join(lines + [""])


def table(race, statistic="median"):
    """Lines of a race's table; statistic: as of a Case."""
    amount, unit = race["work"]
    first = turns.summary(race["contenders"][0]["seconds"])[statistic]
    lines = ["| %s | ms | ratio | %s/s |" % (race["title"], unit), "|---|---|---|---|"]
    for contender in race["contenders"]:
        found = turns.summary(contender["seconds"])
        lines.append("| %s | %.2f [%.2f, %.2f] | %.2f | %.0f |" % (
            contender["title"], *(1e3 * found[key] for key in (statistic, "low", "high")),
            found[statistic] / first, amount / found[statistic]))
    return lines + [""]


