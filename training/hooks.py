"""Progress of a training run: lines for people, scalars for TensorBoard."""

import collections
import math
import time

import tensorflow.compat.v1 as tf

from training import saved
from training.command import UserError

MAX_SECONDS = 30.0  # between two lines, however slow a step is
SPIKE_AFTER = 50    # updates, until which the loss is not known well enough
SPIKE_MEMORY = 0.98
SPIKE_DEVIATIONS = 6.0


class ProgressHook(tf.estimator.SessionRunHook):
    """Averages the loss and its terms over a window of updates, and tells them with speed and time left.

    A window ends after `log_steps` updates, or after `MAX_SECONDS`; TensorBoard gets the same figures.

    Updates whose loss is far above that of those before them are counted as spikes.

    Raises (from a session's run):
      UserError: a term, or the gradient, is not a number any more.
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
        self._spikes, self._loss = Spikes(), 0.0

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
        self._check(found)
        self._sums.update({name: float(value) for name, value in found["terms"].items()})
        self._scalars = found["scalars"]
        self._parts += 1
        updates, part = divmod(self._parts, self._num_parts)
        self._loss += float(found["terms"]["loss"])
        if part == 0:
            self._spikes.add(self._loss)
            self._loss = 0.0
        if part == 0 and (updates >= self._log_steps or time.time() - self._started > MAX_SECONDS
                          or self._step + updates == self._num_train_steps):
            self._end_window()

    def end(self, session):
        del session
        # A run that stops early ends within a window; what was cut off within an update is no figure of one.
        if self._parts and self._parts % self._num_parts == 0:
            self._end_window()

    def _check(self, found):
        numbers = dict(found["terms"])
        if "loss_scale" not in found["scalars"]:  # with which such an update is left out
            numbers["gradient_norm"] = found["scalars"].get("gradient_norm", 0.0)
        wrong = ["%s is %s" % item for item in numbers.items() if not math.isfinite(item[1])]
        if wrong:
            steps = saved.steps_of(self._directory) if self._directory else []
            raise UserError("step %d: %s; a lower --learning_rate or a longer warm-up may help%s" % (
                self._step + self._parts // self._num_parts + 1, ", ".join(wrong),
                "; the last good checkpoint is %s" % saved.prefix_of(self._directory, steps[-1])
                if steps else ""))

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
            "  ".join("%s %.4g" % item for item in means.items())
            + ("  spikes %d" % self._spikes.count if self._spikes.count else "")), flush=True)
        if self._writer:
            values = dict(means, spikes=self._spikes.count, examples_per_second=speed * self._batch_size,
                          **self._scalars)
            self._writer.add_summary(tf.Summary(value=[
                tf.Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]), self._step)
            self._writer.flush()


class Spikes:
    """Counts losses that are far above the running mean of those before them.

    Attributes:
      count: how many.
    """

    def __init__(self):
        self.count = self._seen = 0
        self._mean = self._square = 0.0

    def add(self, loss):
        self._seen += 1
        memory = min(SPIKE_MEMORY, 1.0 - 1.0 / self._seen)  # a plain mean at first
        deviation = math.sqrt(max(self._square - self._mean ** 2, 0.0))
        rounding = 1e-6 * abs(self._mean)
        if self._seen > SPIKE_AFTER and loss > self._mean + SPIKE_DEVIATIONS * deviation + rounding:
            self.count += 1
        self._mean = memory * self._mean + (1.0 - memory) * loss
        self._square = memory * self._square + (1.0 - memory) * loss ** 2


def duration(seconds):
    """A length of time for people: "45 s", "12 min", "3 h 05 min"."""
    minutes = int(round(seconds / 60))
    if seconds < 90:
        return "%d s" % round(seconds)
    return "%d min" % minutes if minutes < 60 else "%d h %02d min" % divmod(minutes, 60)
