"""Classifies files of any size: each comes out again with predictions, whole or not at all.

    python -m serving.batch_predict --export_dir=output/classifier/export --input_file='texts-*.jsonl.gz' \\
        --output_dir=predicted
    python -m serving.batch_predict --export_dir=output/classifier/export --input_file=/data/jobs.csv \\
        --text_column=description --output_dir=predicted --num_workers=8

Input: .txt (one text a line), .tsv and .csv (with a header), .jsonl, and .tfrecord (tf.train.Examples with the text as
bytes, or with input_ids as records of training have), each also with .gz. Output: a file of the same name and form in
--output_dir, rows in the same order, with predicted_label and probability (.tsv, .csv; in front of the text in .txt),
or predicted_label and the probabilities of all labels (.jsonl, .tfrecord). Rows that cannot be used are left out, and
stand in <name>.bad.jsonl with their place and the reason.

Files are worked on side by side, one a worker. A job that was stopped goes on with the files that are not there yet;
an input that is newer than its predictions is done again. On many machines: --runner names a Beam runner
(requirements-beam.txt, Python 3.7), whose workers must find the files, the export and this project under the same
names.
"""

import collections
import functools
import itertools
import json
import os
import shlex

from absl import flags

from training import command
from bert import workers
from serving import row_files
from serving.predictor import Predictor, find_export
from training import files
from training import progress
from training.command import UserError

JOB = "job.json"
BAD_END = ".bad.jsonl"
ROWS_AT_ONCE = 2048

# What decides a file's predictions besides its content. columns: of the text, and of the second one of pairs.
Settings = collections.namedtuple("Settings", "export_dir columns batch_size output_dir")

# predicted, bad: rows.
Done = collections.namedtuple("Done", "path predicted bad")


def define_flags():
    flags.DEFINE_string("export_dir", None, "An export, or the folder that holds them: then the newest.",
                        required=True)
    flags.DEFINE_string("input_file", None, "Files, comma-separated, with * and ?.", required=True)
    flags.DEFINE_string("output_dir", None, "Where the files with predictions go.", required=True)
    flags.DEFINE_string("text_column", "text_a", "Column, key or feature of the text.")
    flags.DEFINE_string("text_b_column", None, "Of the second text, for a model of pairs.")
    flags.DEFINE_integer("batch_size", 64, "Texts computed together; of short ones more.", lower_bound=1)
    flags.DEFINE_integer("num_workers", 1, "Processes, each with the model in its memory.", lower_bound=1)
    flags.DEFINE_string("runner", None, "A Beam runner, such as DirectRunner or FlinkRunner. Default: this machine.")
    flags.DEFINE_string("beam_options", "", "Beam's own options, for --runner.")


def main():
    values = flags.FLAGS
    columns = (values.text_column,) + ((values.text_b_column,) if values.text_b_column else ())
    settings = Settings(os.path.abspath(find_export(values.export_dir)), columns, values.batch_size,
                        os.path.abspath(values.output_dir))
    inputs = [os.path.abspath(name) for name in files.matching_files(values.input_file, "input_file")]
    begin(inputs, settings)
    files.sweep(settings.output_dir)
    waiting = [name for name in inputs if not _is_done(name, settings)]
    if len(waiting) < len(inputs):
        print("%d of %d files are there already" % (len(inputs) - len(waiting), len(inputs)), flush=True)
    if values.runner:
        _run_on_beam(waiting, settings, values.runner, values.beam_options)
        return
    done = collections.Counter()
    for one in _run_here(waiting, settings, values.num_workers):
        done.update(predicted=one.predicted, bad=one.bad)
        if one.bad:
            print("%s: %d rows left out, see %s" % (one.path, one.bad, os.path.basename(
                output_of(one.path, settings)) + BAD_END), flush=True)
    print("%s: %d files, %d rows predicted, %d left out" % (
        values.output_dir, len(waiting), done["predicted"], done["bad"]), flush=True)


def begin(inputs, settings):
    """Records what a job is, or checks that it is the one that was begun there.

    Raises:
      UserError: names that clash, a format that is not known, or another job's folder.
    """
    names = collections.Counter(map(os.path.basename, inputs))
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError("--input_file: two files are called %s; their predictions would be one file" % twice[0])
    for name in inputs:
        row_files.format_of(name)
        if os.path.dirname(name) == settings.output_dir:
            raise UserError("--output_dir=%s: holds the input %s; name another folder" % (settings.output_dir, name))
    asked = {"export": files.digest(os.path.join(settings.export_dir, "saved_model.pb")),
             "variables": files.digest(os.path.join(settings.export_dir, "variables", "variables.index")),
             "columns": list(settings.columns)}
    path = os.path.join(settings.output_dir, JOB)
    begun = files.read_json(path) if os.path.exists(path) else None
    if begun is not None and begun != asked:
        raise UserError("--output_dir=%s: the job there was begun with another model or other columns; name another "
                        "folder" % settings.output_dir)
    files.write_json(path, asked)


def _is_done(path, settings):
    """Whether a file's predictions are there, and no older than the file."""
    target = output_of(path, settings)
    return os.path.exists(target) and os.path.getmtime(target) >= os.path.getmtime(path)


def output_of(path, settings):
    """Where a file's predictions go."""
    return os.path.join(settings.output_dir, os.path.basename(path))


def _run_here(inputs, settings, num_workers):
    """Yields `Done` of each file as it is finished, and shows how far all are."""
    tally = workers.Tally("bytes")
    with progress.bar(sum(map(os.path.getsize, inputs)), "classifying", "B") as bar:
        def show():
            bar.update(tally["bytes"] - bar.n)

        work = functools.partial(predict_file, settings=settings, tally=tally)
        yield from workers.run(work, inputs, min(num_workers, max(1, len(inputs))), show)
        show()


def _run_on_beam(inputs, settings, runner, options):
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    with beam.Pipeline(options=PipelineOptions(shlex.split(options), runner=runner, save_main_session=False)) as pipe:
        pipe | beam.Create(inputs) | beam.Reshuffle() | beam.Map(
            functools.partial(predict_file, settings=Settings(*settings)))
    print("%s: %d files" % (settings.output_dir, len(inputs)), flush=True)


def predict_file(path, settings, tally=None):
    """Writes a file's predictions, and its bad rows beside them; returns `Done`.

    Args:
      path: the file.
      settings: Settings.
      tally: `workers.Tally` of "bytes"; None: nobody looks.

    Raises:
      UserError: the file cannot be read, or its header lacks a column.
    """
    target, form = output_of(path, settings), row_files.format_of(path)
    model = _model(settings.export_dir, settings.batch_size)
    size, counts = os.path.getsize(path), collections.Counter()
    with files.whole_file(target) as unfinished, files.whole_file(target + BAD_END) as unfinished_bad:
        with row_files.opened_to_write(unfinished, target) as stream, open(unfinished_bad, "wb") as bad_stream:
            rows = form.read(path, settings.columns)
            while True:
                block = list(itertools.islice(rows, ROWS_AT_ONCE))
                if not block:
                    break
                counts.update(_write_block(block, model, form, stream, bad_stream))
                # About: what a row is in memory is not what it is in the file, packed at that.
                step = min(sum(len(str(row.content)) for row in block), size - counts["told"])
                counts["told"] += step
                if tally:
                    tally.add(bytes=step)
    if tally:
        tally.add(bytes=size - counts["told"])
    if not counts["bad"]:
        os.remove(target + BAD_END)
    return Done(path, counts["predicted"], counts["bad"])


def _write_block(block, model, form, stream, bad_stream):
    """Predicts some rows and writes them in their order: dict of how many were "predicted" and "bad"."""
    good = [row for row in block if row.texts]
    predictions = iter(model.predict_features([
        row.texts if isinstance(row.texts, dict) else model.features(row.texts) for row in good]))
    bad = 0
    for row in block:
        if row.texts:
            form.write(stream, row.content, next(predictions), model.labels.names)
        elif row.problem:
            bad += 1
            bad_stream.write((json.dumps({"row": row.place, "problem": row.problem, "content": row.content},
                                         ensure_ascii=False) + "\n").encode("utf-8"))
        else:
            form.write(stream, row.content, None, model.labels.names)  # a header
    return {"predicted": len(good), "bad": bad}


@functools.lru_cache(maxsize=1)
def _model(export_dir, batch_size):
    """The model of this process: loaded where it is used, for TensorFlow does not survive a fork."""
    return Predictor(export_dir, batch_size)


if __name__ == "__main__":
    command.run(main, define_flags, writes="output_dir")
