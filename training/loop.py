"""One training run: it trains, is evaluated at every checkpoint, keeps the best, stops, and goes on after a kill."""

import os

import tensorflow.compat.v1 as tf

from training import files
from training import run_folder
from training import runtime


class Selection(tf.estimator.CheckpointSaverListener):
    """Evaluates every checkpoint that is saved, copies the best, and says when to stop.

    What was found is in `evaluations.json`, so a run that goes on knows it.
    """

    def __init__(self, folder, copy_checkpoint, evaluate=None, select_by=None, better=max, patience=0):
        """Args:
          folder: the run folder.
          copy_checkpoint: function of (prefix, new prefix).
          evaluate: function of a checkpoint's prefix -> dict of figures, in JSON's types; None: the last
            checkpoint is the best.
          select_by: which figure decides; the earliest checkpoint wins a tie.
          better: max or min.
          patience: evaluations without a better one after which training stops; 0: it never does.
        """
        self._folder, self._copy_checkpoint, self._evaluate = folder, copy_checkpoint, evaluate
        self._select_by, self._better, self._patience = select_by, better, patience
        if runtime.is_chief():
            files.recover_folder(os.path.join(folder, "best"))
        path = os.path.join(folder, run_folder.EVALUATIONS)
        self._evaluations = files.read_json(path) if os.path.exists(path) else []

    def after_save(self, session, global_step_value):
        del session
        return self.consider(int(global_step_value))

    def consider(self, step):
        """Evaluates the checkpoint of a step, once; returns whether training is to stop."""
        if step > 0 and step not in [found["step"] for found in self._evaluations]:
            checkpoint = os.path.join(self._folder, "model.ckpt-%d" % step)
            figures = dict({"step": step}, **(self._evaluate(checkpoint) if self._evaluate else {}))
            if self._is_best(figures):
                with files.whole_folder(os.path.join(self._folder, "best")) as best:
                    self._copy_checkpoint(checkpoint, os.path.join(best, "model.ckpt"))
                    files.write_json(os.path.join(best, "figures.json"), figures)
            # Last: a kill before this line means one evaluation too many, not one too few.
            self._evaluations.append(_numbers(figures))
            files.write_json(os.path.join(self._folder, run_folder.EVALUATIONS), self._evaluations)
        return self.should_stop()

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
        """Whether the last `patience` evaluations were none the best."""
        if not self._patience or not self._evaluate or not self._evaluations:
            return False
        return len(self._evaluations) - 1 - self._evaluations.index(self.best()) >= self._patience


def _numbers(figures):
    return {name: value for name, value in figures.items() if isinstance(value, (int, float))}


# Replicas would otherwise run what AutoGraph makes of model_fn, where TF 2.15 hides a UserError in another error.
@tf.autograph.experimental.do_not_convert
def train(model_fn, make_input_fn, config, num_train_steps, selection):
    """Trains to the end or until the selection says stop; goes on where an earlier run stopped.

    Args:
      model_fn: for tf.estimator.Estimator.
      make_input_fn: function of the step to start at -> input_fn.
      config: RunConfig; its model_dir is the run folder.
      num_train_steps: updates.
      selection: Selection.

    Returns:
      dict, as in finished.json.
    """
    folder = config.model_dir
    start = last_step(folder)
    if runtime.is_chief():
        selection.consider(start)  # of a run that was killed before it could
    if not selection.should_stop() and start < num_train_steps:
        estimator = tf.estimator.Estimator(model_fn, config=config)
        runtime.train(estimator, make_input_fn(start), num_train_steps, saving_listeners=[selection])
    step = last_step(folder)
    if not runtime.is_chief():
        return {"steps": step}
    reason = "early stopping" if selection.should_stop() and step < num_train_steps else "all steps made"
    result = {"steps": step, "reason": reason, "best": selection.best()}
    run_folder.finish(folder, result)
    return result


def last_step(folder):
    """The step of the last checkpoint in a run folder; 0 without one."""
    checkpoint = tf.train.latest_checkpoint(folder)
    return int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0
