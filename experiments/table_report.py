"""The tables as report.md and report.html, with plots, for people."""

import base64
import glob
import os
import re

import markdown
import tensorflow.compat.v1 as tf

from experiments import curves
from experiments import report
from training import files
from training import metrics

TABLES = {"methods": "Compared methods", "ablations": "Ablations"}
ALWAYS = ("teacher", "majority", "naive_bayes", "linear", "linear_taught")

# Name of a figure, title, format. A figure that a line has not is a dash.
COLUMNS = [
    ("accuracy_mean", "accuracy", "{:.4f}"), ("accuracy_sd", "± sd", "{:.4f}"),
    ("macro_f1_mean", "macro-F1", "{:.4f}"), ("parameters", "parameters", "{:,}"),
    ("parameters_without_words", "without words", "{:,}"), ("megabytes", "MB", "{:.1f}"),
    ("latency_ms_p50", "ms a text", "{:.2f}"), ("texts_per_second", "texts/s", "{:,.0f}"),
    ("seconds", "training s", "{:,.0f}"), ("of_teacher", "of teacher", "{:.1%}"),
    ("gap_closed", "gap closed", "{:.0%}")]

NO_TERMS = ("learning_rate", "gradient_norm", "examples_per_second")  # what TensorBoard has beside the terms

STYLE = ("body{font-family:sans-serif;max-width:70em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
         "td,th{border:1px solid #ccc;padding:.2em .5em;text-align:right}td:first-child,th:first-child{text-align:left}"
         "pre{background:#f4f4f4;padding:1em;overflow:auto}img{max-width:100%}")


def lines_of(results, table):
    """The lines that stand in a table."""
    return [line for line in results["lines"] if line["name"] in ALWAYS or table in line.get("tables", ())]


def cells_of(results, lines):
    """Rows of strings, the header first; columns that no line has are left out."""
    columns = [column for column in COLUMNS if any(line.get(column[0]) is not None for line in lines)]
    found = [[""] + [title for _, title, _ in columns]]
    for line in lines:
        found.append([line["title"]] + [form.format(line[name]) if line.get(name) is not None else "-"
                                        for name, _, form in columns])
    return found


def text(results):
    """Both tables and what they allow to say, for a terminal."""
    parts = []
    for name, title in TABLES.items():
        parts.append("%s\n\n%s" % (title, metrics.table(cells_of(results, lines_of(results, name)))))
    return "\n\n".join(parts + ["\n".join(conclusions(results))])


def conclusions(results):
    """What the figures allow to say: sentences."""
    found = ["{:,} test texts, {:,} labelled training texts, {} seeds, {} folds; the smallest difference that they "
             "could show: {:.1f} points".format(results["test_texts"], results["labelled_texts"], len(results["seeds"]),
                                                results["folds"], 100 * results["smallest_difference"])]
    if not results["evidence"]:
        found.append("No evidence for distillation: the teacher is no better than the student on labels alone.")
    for line in results["lines"]:
        over = line["over_plain"]
        if "tables" in line and line["name"] != "none":
            verdict = "better" if over["low"] > 0 else "worse" if over["high"] < 0 else "no difference shown"
            found.append("%s, against the student on labels alone: %+.1f points, 95 %% of resampled test sets between "
                         "%+.1f and %+.1f: %s." % (line["title"], 100 * over["difference"], 100 * over["low"],
                                                   100 * over["high"], verdict))
    return found


def write(results, folder):
    """Writes report.md with its pictures, and report.html, which holds all of it."""
    plots = {"accuracy over latency": "latency.png", "accuracy over parameters": "parameters.png"}
    _scatter(results, "latency_ms_p50", "milliseconds a text (median, one at a time)",
             os.path.join(folder, "latency.png"))
    _scatter(results, "parameters", "parameters", os.path.join(folder, "parameters.png"))
    paper = [line for line in results["lines"] if line["name"] == "paper"]
    if paper and _curves(paper[0]["folder"], os.path.join(folder, "curves.png")):
        plots["the paper's terms while it learns"] = "curves.png"
    if results["curves"]:
        teacher, = [line for line in results["lines"] if line["name"] == "teacher"]
        curves.plot(results["curves"], teacher["accuracy_mean"], os.path.join(folder, "amounts.png"))
        plots["the paper's student, by amount of text and labels"] = "amounts.png"
    source = _markdown(results, plots)
    files.write_text(os.path.join(folder, "report.md"), source)
    files.write_text(os.path.join(folder, "report.html"), _html(source, folder))


def _markdown(results, plots):
    parts = ["# Tables"]
    for name, title in TABLES.items():
        parts.append("## %s\n\n%s" % (title, _as_markdown(cells_of(results, lines_of(results, name)))))
    parts.append("## What they say\n\n" + "\n".join("- " + sentence for sentence in conclusions(results)))
    parts += ["## %s\n\n![%s](%s)" % (title.capitalize(), title, name) for title, name in plots.items()]
    if results["curves"]:
        parts.append("## By amount of text and labels\n\nThe teacher is the same for all: it saw all the labels.\n\n"
                     + _as_markdown(curves.as_rows(results["curves"])))
    for line in results["lines"]:
        if line["name"] in ("teacher", "paper"):
            header = [["true class (row), answered (column)"] + line["classes"]]
            parts.append("## Confusion: %s\n\n%s" % (line["title"], _as_markdown(header + [
                [name] + ["%d" % count for count in counts]
                for name, counts in zip(line["classes"], line["confusion"])])))
    commands = ["# %s, seed %d%s\n%s" % (
        line["title"], results["seeds"][0], ", first fold" if results["folds"] > 1 else "",
        "\n".join("python " + " ".join(arguments) for arguments in line["commands"]))
        for line in results["lines"] if "commands" in line]
    parts.append("## Commands\n\nLearning rate and dropout are the best on dev of those tried.\n\n```\n%s\n```"
                 % "\n\n".join(commands))
    return "\n\n".join(parts) + "\n"


def _as_markdown(table):
    head, rows = table[0], table[1:]
    lines = [head, ["---"] * len(head)] + rows
    return "\n".join("| %s |" % " | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)


def _html(source, folder):
    """One file: pictures stand in it as data."""
    body = markdown.markdown(source, extensions=["tables", "fenced_code"])

    def embed(match):
        content = base64.b64encode(files.read_bytes(os.path.join(folder, match.group(1)))).decode("ascii")
        return 'src="data:image/png;base64,%s"' % content

    body = re.sub(r'src="(\w+\.png)"', embed, body)
    return "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>Tables</title><style>%s</style></head><body>%s" \
           "</body></html>\n" % (STYLE, body)


def _scatter(results, figure, label, path):
    with report.picture(path) as axes:
        for line in results["lines"]:
            if line.get(figure):
                place = line[figure], 100 * line["accuracy_mean"]
                axes.errorbar(*place, yerr=100 * line["accuracy_sd"], fmt="o", alpha=0.7)
                axes.annotate(line["name"], place, xytext=(4, 3), textcoords="offset points", fontsize=7)
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel("test accuracy, %")


def _events(path):
    """Those of a file, up to where a run that was killed broke off."""
    try:
        yield from tf.train.summary_iterator(path)
    except tf.errors.DataLossError:
        pass


def _curves(folder, path):
    """Draws the terms of a run as TensorBoard has them; False where there are none."""
    curves = {}
    for name in sorted(glob.glob(os.path.join(glob.escape(folder), "events.out.tfevents.*"))):
        for event in _events(name):
            for value in event.summary.value:
                if value.tag not in NO_TERMS:
                    curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    if not curves:
        return False
    with report.picture(path) as axes:
        for name, points in curves.items():
            axes.plot(*zip(*points), label=name)
        axes.set_yscale("log")
        axes.set_xlabel("updates")
        axes.set_ylabel("term, unweighted")
        axes.legend(fontsize=8)
    return True
