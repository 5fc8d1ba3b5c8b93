"""Results as a table for people, and as a picture."""

import contextlib

from training import metrics

TITLES = {"teacher": "teacher (BERT, 6 layers)", "student_distilled": "student, distilled",
          "student_plain": "student, labels only", "naive_bayes": "naive Bayes"}

COLUMNS = [("accuracy", "accuracy", "{:.4f}"), ("macro_f1", "macro-F1", "{:.4f}"),
           ("parameters", "parameters", "{:,}"), ("latency_ms_p50", "ms a text (p50)", "{:.2f}")]


def table(results):
    """Lines: a row for each model, then what the figures say about distillation."""
    models = {model["name"]: model for model in results["models"]}
    columns = [column for column in COLUMNS if column[0] in results["models"][0]]
    rows = [[""] + [title for _, title, _ in columns]]
    for name, model in models.items():
        rows.append([TITLES[name]] + [form.format(model[key]) for key, _, form in columns])
    return "\n".join([metrics.table(rows), ""] + conclusions(results, models))


def conclusions(results, models):
    """What the figures allow to say: sentences."""
    found = results["distilled_over_plain"]
    smallest = metrics.smallest_difference(results["test_texts"], found["discordant_share"])
    lines = ["{:,} test texts, {:,} labelled training texts; the smallest difference they could show: "
             "{:.1f} points".format(results["test_texts"], results["labelled_texts"], 100 * smallest)]
    teacher, distilled, plain = (models[name]["accuracy"] for name in (
        "teacher", "student_distilled", "student_plain"))
    closed = metrics.gap_closed(distilled, plain, teacher)
    if closed is None:
        lines.append("no evidence for distillation: the teacher is no better than the plain student")
    else:
        lines.append("gap closed %.0f %% (distilled - plain) / (teacher - plain)" % (100 * closed))
    lines.append("distilled - plain: %+.1f points, 95 %% of resampled test sets between %+.1f and %+.1f" % (
        100 * found["difference"], 100 * found["low"], 100 * found["high"]))
    if teacher <= models["naive_bayes"]["accuracy"]:
        lines.append("the teacher is no better than naive Bayes on the same labels")
    return lines


def plot(results, path):
    """Accuracy over latency, a point for each model, its area by the number of parameters."""
    with picture(path) as axes:
        for model in results["models"]:
            place = model["latency_ms_p50"], 100 * model["accuracy"]
            axes.scatter(*place, s=20 + model["parameters"] / 5e3, alpha=0.6)
            axes.annotate("{}\n{:,} parameters".format(TITLES[model["name"]], model["parameters"]), place,
                          xytext=(8, 6), textcoords="offset points", fontsize=8)
        axes.set_xlabel("milliseconds a text (median, one at a time, CPU)")
        axes.set_ylabel("test accuracy, %")
        axes.margins(0.25)


@contextlib.contextmanager
def picture(path):
    """Yields axes to draw on, and writes them to a .png file; no display is needed."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    yield axes
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
