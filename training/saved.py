"""The checkpoints of a run: when one is written, which is the last, whether it is whole."""

import functools
import glob
import os
import re

import tensorflow.compat.v1 as tf

from training import files
from training import interruption
from training import run_folder
from training.command import UserError

NAME = "model.ckpt"
STATE = "checkpoint"  # TensorFlow's file that names the last


class CheckpointHook(tf.train.CheckpointSaverHook):
    """Saves at steps that do not depend on where a run was stopped, and when a signal asks for its end.

    A checkpoint of the second kind is noted in the run folder: the listeners, and with them what is selected, know
    only what an unbroken run would have saved. Weights that are no numbers are not saved, nor is the graph.

    (Derived so that the Estimator knows it for what it is, and adds none of its own.)
    """

    def __init__(self, folder, is_due, listeners=()):
        """Args:
          folder: the run folder.
          is_due: function of a step: whether a checkpoint belongs there.
          listeners: CheckpointSaverListeners, told of each that was due.
        """
        super().__init__(folder, save_steps=1)
        self._folder, self._is_due, self._told = folder, is_due, list(listeners)

    def begin(self):
        self._step = tf.train.get_global_step()
        self._finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(variable.read_value()))
                                      for variable in tf.trainable_variables()])

    def after_create_session(self, session, coord):
        os.makedirs(self._folder, exist_ok=True)
        self._last = int(session.run(self._step))
        if self._last == 0:  # later ones are there
            self._save(session, 0)

    def before_run(self, run_context):
        return tf.train.SessionRunArgs(self._step)

    def after_run(self, run_context, run_values):
        stale, asked = int(run_values.results), interruption.pending()
        if not (asked or self._is_due(stale) or self._is_due(stale + 1)):
            return
        session = run_context.session
        step = int(session.run(self._step))
        due = self._is_due(step)
        if step > self._last and (asked or due) and session.run(self._finite):
            if not due:
                run_folder.stop(self._folder, step)
            self._save(session, step)
            if due and any([told.after_save(session, step) for told in self._told]):
                run_context.request_stop()
        if asked:
            run_context.request_stop()

    def _save(self, session, step):
        self._last = step
        saver, = tf.get_collection(tf.GraphKeys.SAVERS)
        saver.save(session, os.path.join(self._folder, NAME), step, write_meta_graph=False)

    def end(self, session):
        """Saves nothing: the last step was due."""


def steps_of(folder):
    """Steps of the checkpoints that stand in a run folder, whole or not, in order."""
    found = [re.search(r"-(\d+)\.index$", path)
             for path in glob.glob(os.path.join(glob.escape(folder), NAME + "-*.index"))]
    return sorted(int(match.group(1)) for match in found if match)


def prefix_of(folder, step):
    return os.path.join(folder, "%s-%d" % (NAME, step))


def last(folder):
    """The prefix of the last checkpoint of a run; None before the first.

    Raises:
      UserError: there was one, and it is gone, or what names it is: the run would silently begin anew.
    """
    before, seen = None, ()
    while seen != before:  # a run that saves meanwhile can remove what was just named
        before, state = seen, _state(folder)
        named = state and os.path.join(folder, os.path.basename(state.model_checkpoint_path))
        if named and os.path.exists(named + ".index"):
            return named
        steps = steps_of(folder)
        # A run that is killed while it saves its very first has no such file yet.
        if not (named or os.path.exists(os.path.join(folder, STATE)) or steps and steps[-1] > 0):
            return None
        seen = named, steps
    raise UserError("%s: damaged, or names a checkpoint that is gone; %s" % (
        os.path.join(folder, STATE), _advice(folder, steps)))


def _state(folder):
    try:
        return tf.train.get_checkpoint_state(folder)
    except ValueError:  # of a file that is empty
        return None


def last_step(folder):
    """The step of the last checkpoint of a run; 0 before the first."""
    checkpoint = last(folder)
    return int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0


def verify(checkpoint):
    """Reads all of a checkpoint, which compares its checksums.

    Raises:
      UserError: it is damaged; others that stand beside it are named.
    """
    damage = _damage(checkpoint, _stamp(checkpoint))
    if damage:
        folder = os.path.dirname(checkpoint)
        others = [step for step in steps_of(folder) if prefix_of(folder, step) != checkpoint]
        raise UserError("%s: damaged: %s; %s" % (checkpoint, damage, _advice(folder, others)))


def _stamp(checkpoint):
    """Changes when a file of a checkpoint does."""
    return tuple((path, os.stat(path).st_mtime_ns, os.stat(path).st_size)
                 for path in sorted(glob.glob(glob.escape(checkpoint) + ".*")))


@functools.lru_cache(maxsize=64)  # a command finds the same model several times, and it may be large
def _damage(checkpoint, _stamp):
    """What is wrong with a checkpoint, in words; None when nothing is."""
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except Exception as error:  # of damage TensorFlow makes errors of many kinds
        return str(error).splitlines()[0]
    return None


def _advice(folder, steps):
    if not steps:
        return "no other stands in %s" % (folder or ".")
    return "to go back to the last whole one of those of step %s: python -m bert.checkpoints repair --output_dir=%s" % (
        ", ".join(map(str, steps)), folder or ".")


def repair(folder):
    """Removes the damaged checkpoints of a run and lets it go on from the last whole one.

    Returns:
      (steps of those removed, step of the last whole one or None)
    """
    steps = steps_of(folder)
    damaged = [step for step in steps if _damage(prefix_of(folder, step), _stamp(prefix_of(folder, step)))]
    for step in damaged:
        remove(prefix_of(folder, step))
    whole = [step for step in steps if step not in damaged]
    if whole:
        names = ["%s-%d" % (NAME, step) for step in whole]
        # Absolute: of a relative folder it takes the names to be seen from the working directory.
        tf.train.update_checkpoint_state(os.path.abspath(folder), names[-1], names)
    elif os.path.exists(os.path.join(folder, STATE)):
        os.remove(os.path.join(folder, STATE))
    return damaged, whole[-1] if whole else None


def remove(checkpoint):
    """Removes a checkpoint, and what a killed or failed save of it has left."""
    files.remove_all(glob.escape(checkpoint) + ".*", glob.escape(checkpoint) + "_temp*")


def sweep(folder):
    """Removes what killed processes have left half written in a run folder; its lock is held."""
    files.sweep(folder)
    files.remove_all(*(os.path.join(glob.escape(folder), name) for name in (NAME + "-*_temp*", STATE + ".tmp*")))
