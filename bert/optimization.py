"""Adam with decoupled weight decay, warm-up and linear decay, exact under replication and accumulation.

One update sees G texts, cut into parts: one for each replica, and as many after each other as gradients
are accumulated. The loss of a part is its share of the update's loss (sums over the part, divided by
counts over all the update, `bert.records.totals`), so the gradient of the update is the plain sum of the
parts' gradients. It is clipped once, when it is complete.
"""

import dataclasses
import functools
import re

import tensorflow.compat.v1 as tf

from bert import adam
from bert.randomness import root_variable_scope
from bert.randomness import update_part
from training import cluster
from training import native

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-6
NO_DECAY = re.compile(r"LayerNorm|layer_norm|bias")
SLOTS = ("adam_m", "adam_v")
LOSS_SCALE = "loss_scale"
FIRST_LOSS_SCALE, LARGEST_LOSS_SCALE = 2.0 ** 15, 2.0 ** 30
LOSS_SCALE_GROWS_AFTER = 2000  # updates in a row that were made


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How large each update is.

    `learning_rate` is the peak, reached after `num_warmup_steps` updates and falling in a line to 0 at
    `num_train_steps`, both counted from `first_step`. `clip_norm` bounds the global norm of the update's gradient;
    0: no bound. Without `bias_correction`, as BERT was trained, the first updates are up to 6.6 times as large as the
    rate says.
    """
    learning_rate: float
    num_train_steps: int
    num_warmup_steps: int = 0
    weight_decay_rate: float = 0.01
    clip_norm: float = 1.0
    num_parts: int = 1  # accumulated parts an update
    bias_correction: bool = False  # of Adam's moments, which start at 0
    first_step: int = 0  # updates made before, by another schedule
    loss_scaling: bool = False  # for gradients in float16, see `_loss_scale`


def learning_rate_at(step, schedule):
    """The rate of the update that follows `step` updates (Devlin et al. 2019, A.2), float32 scalar."""
    step = tf.cast(step - schedule.first_step, tf.float32)
    # As in Google's code the falling line starts at step 0, not at the end of the warm-up.
    falling = schedule.learning_rate * tf.maximum(0.0, 1.0 - step / schedule.num_train_steps)
    if not schedule.num_warmup_steps:
        return falling
    rising = schedule.learning_rate * step / schedule.num_warmup_steps
    return tf.where(step < schedule.num_warmup_steps, rising, falling)


def is_of_optimizer(name):
    """Whether the variable of that name is the optimizer's own: a moment, or of the loss scale."""
    return name.rsplit("/", 1)[-1] in SLOTS or name.startswith(LOSS_SCALE + "/")


def slot_names(variable_name):
    """Names of the moments kept for a variable, as in Google's checkpoints."""
    return ["%s/%s" % (variable_name, slot) for slot in SLOTS]


def create_train_op(loss, schedule, variables=None, with_moments=None):
    """One part of an update: adds its gradient; the last part changes the variables and the step.

    Args:
      loss: float32 scalar, the part's share of the update's loss.
      schedule: Schedule.
      variables: what may be trained; None: all trainable variables. Those the loss does not depend on
        stay as they are, weight decay included.
      with_moments: what has moments in the checkpoint; None: what is trained. A graph that another will go on
        from, where more is trained, keeps theirs too.

    Returns:
      (train_op, dict of scalars to log: "learning_rate", "gradient_norm").

    Raises:
      ValueError: the loss depends on none of them.
    """
    variables = tf.trainable_variables() if variables is None else variables
    scale, made = _loss_scale() if schedule.loss_scaling else (None, None)
    gradients = tf.gradients(loss * scale if schedule.loss_scaling else loss, variables)
    reached = [(v, g) for v, g in zip(variables, gradients) if g is not None]
    if not reached:
        raise ValueError("the loss depends on no trainable variable")
    variables = [variable for variable, _ in reached]
    gradients = [gradient if _stays_in_rows(gradient, schedule) else tf.convert_to_tensor(gradient)
                 for _, gradient in reached]
    if schedule.loss_scaling:
        gradients = [gradient / scale for gradient in gradients]
    names = {variable.name for variable in variables}
    resting = [variable for variable in with_moments or [] if variable.name not in names]
    train_op, rate, norm = tf.distribute.get_replica_context().merge_call(
        functools.partial(_update_all, schedule=schedule),
        args=(gradients, variables, resting, tf.train.get_global_step(), update_part(), scale, made))
    scalars = {"learning_rate": rate, "gradient_norm": norm}
    return train_op, dict(scalars, loss_scale=tf.identity(scale)) if schedule.loss_scaling else scalars


def _stays_in_rows(gradient, schedule):
    """Whether the gradient of a table is kept as the rows that have one; most have none.

    Not where it is added up in a variable or divided by a loss scale; from machine to machine it was not tried.
    """
    return (isinstance(gradient, tf.IndexedSlices) and schedule.num_parts == 1 and not schedule.loss_scaling
            and native.available() and not cluster.jobs())


def _loss_scale():
    """What the loss is multiplied by before its gradient is taken, and the gradient divided by; variables.

    In float16 small gradients are 0. The scale is a power of 2, so in float32 it changes no bit. An update whose
    gradient is not finite is not made, and the scale is halved; after `LOSS_SCALE_GROWS_AFTER` updates that were, it is
    doubled (Micikevicius et al. 2018, section 3.2). The step counts both: which texts an update has depends on it.

    Returns:
      (scale, float32 scalar; updates made since it changed, int32 scalar).
    """
    def variable(name, initial, dtype):
        return tf.get_variable(
            "%s/%s" % (LOSS_SCALE, name), [], dtype, tf.constant_initializer(initial), trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)

    with root_variable_scope():
        return variable("value", FIRST_LOSS_SCALE, tf.float32), variable("updates", 0, tf.int32)


def _slot(variable, name, collection):
    """A variable of zeros beside another, on every replica."""
    with root_variable_scope():
        return tf.get_variable("%s/%s" % (variable.op.name, name), variable.shape, tf.float32,
                               initializer=tf.zeros_initializer(), trainable=False, collections=[collection])


def _update_all(strategy, gradients, variables, resting, global_step, part, scale, made, schedule):
    """Sums gradients over replicas (and parts), clips the sum, updates every replica alike.

    scale, made: see `_loss_scale`; None without.
    """
    moments = [[_slot(variable, name, tf.GraphKeys.GLOBAL_VARIABLES) for name in SLOTS]
               for variable in list(variables) + list(resting)][:len(variables)]
    # Local, so never in a checkpoint: an update that was cut short begins again.
    sums = [_slot(variable, "gradient_sum", tf.GraphKeys.LOCAL_VARIABLES)
            for variable in variables if schedule.num_parts > 1]
    summed = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, list(zip(gradients, variables)))
    step = _local(strategy, global_step).read_value()
    rate, powers = learning_rate_at(step, schedule), _beta_powers(step, schedule)
    is_last = tf.equal(_local(strategy, part), schedule.num_parts - 1)
    added = [strategy.extended.update(total, lambda total, gradient: tf.group(total.assign_add(gradient)),
                                      args=(gradient,)) for total, gradient in zip(sums, summed)]

    of_device = {}  # the summed gradients and their norm, computed once a device

    def update(variable, number, m, v, all_gradients):
        if variable.device not in of_device:
            of_device[variable.device] = _complete(all_gradients)
        all_complete, norm = of_device[variable.device]
        gradient = all_complete[number]
        clip = _clip_scale(norm, schedule.clip_norm)
        decay = 0.0 if NO_DECAY.search(variable.op.name) else schedule.weight_decay_rate
        # Decay alone needs no gradient: it could come before the forward pass has read the variable.
        condition = is_last
        if schedule.loss_scaling:
            condition = tf.logical_and(is_last, tf.math.is_finite(norm))
        with tf.control_dependencies([norm]):
            return _when(schedule, condition, lambda: _adam(variable, gradient, clip, m, v, rate, decay, powers))

    with tf.control_dependencies(added):
        complete = sums or summed
        updates = [strategy.extended.update(variable, update, args=(number, m, v, complete))
                   for number, (variable, (m, v)) in enumerate(zip(variables, moments))]
    norm = list(of_device.values())[0][1]
    if schedule.loss_scaling:
        updates += _rescale(strategy, scale, made, is_last, tf.math.is_finite(norm))
    with tf.control_dependencies(updates):
        kept = 1.0 - tf.cast(is_last, tf.float32)
        cleared = [strategy.extended.update(total, lambda total: tf.group(
            total.assign(tf.math.multiply_no_nan(total.read_value(), kept))))
                   for total in sums]
        with tf.control_dependencies(cleared):
            counted = strategy.extended.update(
                part, lambda part: tf.group(part.assign((part + 1) % schedule.num_parts)))
            stepped = strategy.extended.update(
                global_step, lambda step: tf.group(step.assign_add(tf.cast(is_last, step.dtype))))
    return tf.group(counted, stepped), rate, norm


def _complete(gradients):
    """Gradients with every row of a table there once, and the norm of all; (list, float32 scalar)."""
    def complete(gradient):
        if not isinstance(gradient, tf.IndexedSlices):
            return gradient
        ids, places = tf.unique(gradient.indices)
        return tf.IndexedSlices(tf.math.unsorted_segment_sum(gradient.values, places, tf.size(ids)), ids)

    gradients = [complete(gradient) for gradient in gradients]
    return gradients, adam.global_norm(gradients)


def _rescale(strategy, scale, made, is_last, is_finite):
    """Changes the variables of `_loss_scale` after an update, on every replica alike; list of ops."""
    value, count = _local(strategy, scale).read_value(), _local(strategy, made).read_value() + 1
    grows = count >= LOSS_SCALE_GROWS_AFTER
    grown = tf.where(grows, tf.minimum(value * 2.0, LARGEST_LOSS_SCALE), value)
    next_value = tf.where(is_finite, grown, tf.maximum(value / 2.0, 1.0))
    next_count = tf.where(tf.logical_and(is_finite, tf.logical_not(grows)), count, 0)

    def assign(variable, found):
        return tf.group(variable.assign(tf.where(is_last, found, variable.read_value())))

    return [strategy.extended.update(scale, assign, args=(next_value,)),
            strategy.extended.update(made, assign, args=(next_count,))]


def _local(strategy, value):
    """This worker's first copy of a value that may have one for each replica."""
    return strategy.experimental_local_results(value)[0]


def _when(schedule, condition, build):
    """Runs `build()`'s op when the update is complete, and may be made."""
    if schedule.num_parts == 1 and not schedule.loss_scaling:
        return build()
    return tf.cond(condition, lambda: tf.group(build()), tf.no_op)


def _clip_scale(norm, clip_norm):
    """What a gradient of that norm is multiplied by."""
    return clip_norm / tf.maximum(norm, clip_norm) if clip_norm else tf.ones_like(norm)


def _beta_powers(step, schedule):
    """What the moments are corrected by (Kingma and Ba 2015, section 3); zeros correct nothing."""
    if not schedule.bias_correction:
        return 0.0, 0.0
    updates = tf.cast(step + 1 - schedule.first_step, tf.float32)
    return BETA_1 ** updates, BETA_2 ** updates


def _adam(variable, gradient, clip, m, v, rate, decay, powers):
    """w = (1 - rate * decay) w - rate * c m / (sqrt(v) + eps), c = sqrt(1 - beta_2^t) / (1 - beta_1^t).

    `powers` are beta_1^t and beta_2^t, or zeros for c = 1.
    """
    correction = tf.sqrt(1.0 - powers[1]) / (1.0 - powers[0])
    return adam.update(variable, m, v, gradient, clip, 1.0 - rate * decay, rate * correction, BETA_1, BETA_2, EPSILON)
