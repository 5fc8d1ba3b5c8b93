"""One training run: it trains, is evaluated at every checkpoint, keeps the best, stops, and goes on after a kill.

A run has one stage or several. Each has graphs and data of its own, and goes on from the checkpoint of the one
before it.
"""

import collections
import contextlib
import os

import tensorflow.compat.v1 as tf

from training import cluster
from training import files
from training import interruption
from training import run_folder
from training import runtime
from training import saved


# name: for people; num_steps: updates; model_fns: function of the stage's first step -> list of (step until which it
# trains, model_fn), the last being the stage's end; make_input_fn: function of (the stage's first step, the step to
# start at) -> input_fn; patience: evaluations without a better one after which the stage ends, 0 for never;
# evaluate: function of a checkpoint -> the loss by which the stage ends, None where `select_by` decides that too.
Stage = collections.namedtuple("Stage", "name num_steps model_fns make_input_fn patience evaluate",
                               defaults=(0, None))

STAGE_LOSS = "stage_loss"


class Selection(tf.estimator.CheckpointSaverListener):
    """Evaluates every checkpoint that is saved, copies the best, and says when to stop.

    What was found is in `evaluations.json`, so a run that goes on knows it.
    """

    def __init__(self, folder, copy_checkpoint, evaluate=None, select_by=None, better=max):
        """Args:
          folder: the run folder.
          copy_checkpoint: function of (prefix, new prefix).
          evaluate: function of a checkpoint's prefix -> dict of figures, in JSON's types; None: the last
            checkpoint is the best.
          select_by: which figure decides; the earliest checkpoint wins a tie.
          better: max or min.
        """
        self._folder, self._copy_checkpoint, self._evaluate = folder, copy_checkpoint, evaluate
        self._select_by, self._better = select_by, better
        self.begin_stage(0)
        if cluster.is_chief():
            files.recover_folder(os.path.join(folder, "best"))
        path = os.path.join(folder, run_folder.EVALUATIONS)
        self._evaluations = files.read_json(path) if os.path.exists(path) else []

    def begin_stage(self, first_step, patience=0, evaluate=None):
        """From here on only checkpoints after `first_step` decide whether to stop; see `Stage`."""
        self._first_step, self._patience, self._evaluate_stage = first_step, patience, evaluate

    def after_save(self, session, global_step_value):
        del session
        return self.consider(int(global_step_value))

    def consider(self, step):
        """Evaluates the checkpoint of a step, once; returns whether training is to stop."""
        if step > 0 and step not in [found["step"] for found in self._evaluations]:
            with interruption.at_once():
                self._measure(step)
        return self.should_stop()

    def _measure(self, step):
        checkpoint = saved.prefix_of(self._folder, step)
        figures = dict({"step": step}, **(self._evaluate(checkpoint) if self._evaluate else {}))
        if self._evaluate_stage:
            figures[STAGE_LOSS] = self._evaluate_stage(checkpoint)
        if self._is_best(figures):
            with files.whole_folder(os.path.join(self._folder, "best")) as best:
                self._copy_checkpoint(checkpoint, os.path.join(best, "model.ckpt"))
                files.write_json(os.path.join(best, "figures.json"), figures)
        # Last: a kill before this line means one evaluation too many, not one too few.
        self._evaluations.append(_numbers(figures))
        files.write_json(os.path.join(self._folder, run_folder.EVALUATIONS), self._evaluations)

    def _is_best(self, figures):
        if not self._evaluate or not self._evaluations:
            return True
        best = self.best()[self._select_by]
        found = figures[self._select_by]
        return found != best and self._better(found, best) == found

    def best(self):
        """The best evaluation so far: dict with "step"; None before the first."""
        if not self._evaluations:
            return None
        if not self._evaluate:
            return self._evaluations[-1]
        return self._better(self._evaluations, key=lambda found: found[self._select_by])

    def should_stop(self):
        """Whether the last `patience` evaluations of the stage were none its best."""
        decides, better = (STAGE_LOSS, min) if self._evaluate_stage else (self._select_by, self._better)
        found = [figures[decides] for figures in self._evaluations
                 if figures["step"] > self._first_step and decides in figures]
        return bool(self._patience and found) and len(found) - 1 - found.index(better(found)) >= self._patience


def _numbers(figures):
    return {name: value for name, value in figures.items() if isinstance(value, (int, float))}


# Replicas would otherwise run what AutoGraph makes of model_fn, where TF 2.15 hides a UserError in another error.
@tf.autograph.experimental.do_not_convert
def train(stages, config, selection, hooks=()):
    """Trains to the end or until the selection says stop; goes on where an earlier run stopped.

    Args:
      stages: list of Stage.
      config: RunConfig; its model_dir is the run folder.
      selection: Selection.
      hooks: SessionRunHooks.

    Returns:
      dict, as in finished.json; empty for a worker that is not the chief, which alone saves and knows the end.
    """
    if cluster.is_chief():
        saved.sweep(config.model_dir)
        last = saved.last(config.model_dir)
        if last:
            saved.verify(last)
    ended = run_folder.ended_stages(config.model_dir)
    first_step = ended[-1]["step"] if ended else 0
    for stage in stages[len(ended):]:
        step, reason = _train_stage(stage, first_step, config, selection, hooks)
        if stage is not stages[-1]:
            ended.append({"name": stage.name, "step": step, "reason": reason})
            run_folder.end_stages(config.model_dir, ended)
            print("stage %s: ended at step %d: %s" % (stage.name, step, reason), flush=True)
        first_step = step
    if not cluster.is_chief():
        return {}
    result = {"steps": step, "reason": reason, "best": selection.best()}
    run_folder.finish(config.model_dir, result)
    return result


def _train_stage(stage, first_step, config, selection, hooks):
    """Trains one stage, or the rest of it; returns the step where it ended and why."""
    folder = config.model_dir
    selection.begin_stage(first_step, stage.patience, stage.evaluate)
    if cluster.is_chief() and saved.last_step(folder) != run_folder.stopped_at(folder):
        selection.consider(saved.last_step(folder))  # of a run that was killed before it could
    end, begin = first_step + stage.num_steps, first_step
    complete = selection.should_stop() or saved.last_step(folder) >= end
    for until, model_fn in [] if complete else stage.model_fns(first_step):
        start = saved.last_step(folder)
        if not selection.should_stop() and start < until:
            estimator = tf.estimator.Estimator(model_fn, config=config)
            # Of several machines only the chief saves; the others end at once.
            with interruption.deferred() if cluster.is_chief() else contextlib.nullcontext():
                runtime.train(
                    estimator, stage.make_input_fn(first_step, start), until, hooks, [selection], begin)
        begin = until
    step = saved.last_step(folder)
    early = selection.should_stop() and step < end
    return step, "early stopping" if early else "all steps made"
