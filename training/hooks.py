"""Progress of a training run: lines for people, scalars for TensorBoard."""

import collections
import math
import time

import tensorflow.compat.v1 as tf

from training.command import UserError

MAX_SECONDS = 30.0  # between two lines, however slow a step is


class ProgressHook(tf.estimator.SessionRunHook):
    """Averages the loss and its terms over a window of updates, and tells them with speed and time left.

    A window ends after `log_steps` updates, or after `MAX_SECONDS`; TensorBoard gets the same figures.

    Raises (from a session's run):
      UserError: a term is not a number any more.
    """

    def __init__(self, terms, scalars, num_train_steps, batch_size, num_parts=1, log_steps=50, directory=None,
                 stage=""):
        """Args:
          terms: OrderedDict of name -> float32 scalar, a part's share of an update's mean: the shares of an
            update's parts are added up.
          scalars: dict of name -> scalar; those of the window's last part are told.
          num_train_steps: updates, where the run ends.
          batch_size: texts of an update.
          num_parts: accumulated parts of an update; a run of the session is one part.
          log_steps: updates.
          directory: where TensorBoard's file goes; None: lines only.
          stage: what of the run this is; "": all of it.
        """
        self._fetches = {"terms": terms, "scalars": scalars}
        self._num_train_steps, self._batch_size = num_train_steps, batch_size
        self._num_parts, self._log_steps, self._directory = num_parts, log_steps, directory
        self._of_stage = " (%s)" % stage if stage else ""

    def begin(self):
        self._global_step = tf.train.get_global_step()
        self._writer = tf.summary.FileWriterCache.get(self._directory) if self._directory else None

    def after_create_session(self, session, coord):
        del coord
        self._step = int(session.run(self._global_step))
        self._begin_window()
        if self._step:
            print("going on from step {:,}".format(self._step), flush=True)

    def _begin_window(self):
        self._sums, self._parts, self._started = collections.Counter(), 0, time.time()

    def before_run(self, run_context):
        del run_context
        return tf.estimator.SessionRunArgs(self._fetches)

    def after_run(self, run_context, run_values):
        del run_context
        found = run_values.results
        self._check(found["terms"])
        self._sums.update({name: float(value) for name, value in found["terms"].items()})
        self._scalars = found["scalars"]
        self._parts += 1
        updates, part = divmod(self._parts, self._num_parts)
        if part == 0 and (updates >= self._log_steps or time.time() - self._started > MAX_SECONDS
                          or self._step + updates == self._num_train_steps):
            self._end_window()

    def end(self, session):
        del session
        # A run that stops early ends within a window; what was cut off within an update is no figure of one.
        if self._parts and self._parts % self._num_parts == 0:
            self._end_window()

    def _check(self, terms):
        wrong = ["%s is %s" % item for item in terms.items() if not math.isfinite(item[1])]
        if wrong:
            raise UserError("step %d: %s; a lower --learning_rate or a longer warm-up may help"
                            % (self._step + self._parts // self._num_parts + 1, ", ".join(wrong)))

    def _end_window(self):
        updates = self._parts // self._num_parts
        self._step += updates
        self._tell(updates)
        self._begin_window()

    def _tell(self, updates):
        means = collections.OrderedDict((name, self._sums[name] / updates) for name in self._fetches["terms"])
        speed = updates / max(time.time() - self._started, 1e-9)
        print("step {:,}/{:,}{}  {:,.0f} examples/s  {} left  {}".format(
            self._step, self._num_train_steps, self._of_stage, speed * self._batch_size,
            duration((self._num_train_steps - self._step) / speed),
            "  ".join("%s %.4g" % item for item in means.items())), flush=True)
        if self._writer:
            values = dict(means, examples_per_second=speed * self._batch_size, **self._scalars)
            self._writer.add_summary(tf.Summary(value=[
                tf.Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]), self._step)
            self._writer.flush()


def duration(seconds):
    """A length of time for people: "45 s", "12 min", "3 h 05 min"."""
    minutes = int(round(seconds / 60))
    if seconds < 90:
        return "%d s" % round(seconds)
    return "%d min" % minutes if minutes < 60 else "%d h %02d min" % divmod(minutes, 60)
