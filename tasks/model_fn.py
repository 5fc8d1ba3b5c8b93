"""A task over an encoder as an Estimator's model_fn, and the training half that distillation shares."""

import collections

import tensorflow.compat.v1 as tf

from bert import checkpoints
from bert.optimization import create_train_op
from tasks.encoders import build_encoder, in_encoder

# A part of the loss: `weight` * `sum` / `total`, where `total` counts over the whole update.
Term = collections.namedtuple("Term", "name weight sum total")

# Where a model starts. checkpoint: prefix; layers: which of its layers, see `checkpoints.restore`;
# same_labels: whether its classes are this model's, and its head, so that `task.label_variables` are restored too.
Init = collections.namedtuple("Init", "checkpoint layers same_labels")


def mean_of(term):
    """A part's share of the term's mean over the whole update: scalar."""
    return term.sum / tf.maximum(term.total, 1.0)


def loss_of(terms):
    """The weighted sum of the terms' means: scalar; terms: list of Term."""
    return tf.add_n([term.weight * mean_of(term) for term in terms])


def task_model_fn(config, task, schedule=None, init=None, progress=None, trains=None, freeze_encoder=False):
    """A model_fn that trains, or predicts `task.outputs`.

    Args:
      config: the model's, as from `encoders.read_config`.
      task: MaskedLm or Classification.
      schedule: optimization.Schedule; needed to train.
      init: Init, where training starts; None: fresh, or the Estimator's own checkpoint.
      progress: function of (terms, scalars) -> hook that shows them, see `hooks.ProgressHook`; None: silence.
      trains: function of a variable's name: whether it is trained; None: every one is.
      freeze_encoder: train what is over the encoder alone; the encoder has no dropout then.
    """
    def model_fn(features, mode):
        is_training = mode == tf.estimator.ModeKeys.TRAIN
        encoder = build_encoder(config, is_training and not freeze_encoder, features)
        logits = task.logits(encoder, config, features, is_training)
        if not is_training:
            return prediction_spec(task, logits, features)
        if init:
            start_from(init, task, freeze_encoder)
        return training_spec([Term("loss", 1.0, *task.loss(logits, features))], schedule, progress,
                             over_encoder(trains) if freeze_encoder else trains)

    return model_fn


def over_encoder(trains=None):
    """`trains` of what is not of the encoder: function of a variable's name -> bool."""
    return lambda name: not in_encoder(name) and (trains is None or trains(name))


def start_from(init, task, freeze_encoder=False):
    """Restores the model as `init` says; called when the model is built, and nothing else yet.

    Raises:
      UserError: as `checkpoints.restore`; of an encoder that is frozen nothing may be absent.
    """
    variables = [variable for variable in tf.trainable_variables()
                 if init.same_labels or not checkpoints.name_of(variable).startswith(task.label_variables)]
    if freeze_encoder:
        checkpoints.restore(init.checkpoint, variables, init.layers, optional=lambda name: not in_encoder(name),
                            remedy="--freeze_encoder would keep it random: leave that out, or try another --head")
    else:
        checkpoints.restore(init.checkpoint, variables, init.layers)


def prediction_spec(task, logits, features):
    """What a model answers; exported, it answers with the same names."""
    outputs = task.outputs(logits, features)
    # The Estimator makes a global step and would restore it; released checkpoints have none.
    step = tf.train.get_or_create_global_step()
    restored = [variable for variable in tf.global_variables() if variable is not step]
    scaffold = tf.train.Scaffold(
        saver=tf.train.Saver(restored), ready_for_local_init_op=tf.report_uninitialized_variables(restored),
        local_init_op=tf.group(tf.train.Scaffold.default_local_init_op(), step.initializer))
    return tf.estimator.EstimatorSpec(tf.estimator.ModeKeys.PREDICT, predictions=outputs, scaffold=scaffold)


def training_spec(terms, schedule, progress, trains=None, with_moments=None):
    """Sums the terms, takes gradients, and logs each term by its own name, unweighted.

    Args:
      terms: list of Term.
      schedule: optimization.Schedule.
      progress: as in `task_model_fn`.
      trains: as in `task_model_fn`.
      with_moments: as in `optimization.create_train_op`.

    Returns:
      EstimatorSpec.
    """
    loss = loss_of(terms)
    variables = [variable for variable in tf.trainable_variables()
                 if trains is None or trains(checkpoints.name_of(variable))]
    train_op, scalars = create_train_op(loss, schedule, variables, with_moments)
    # A part's share of each mean: summed over replicas here, and by the hook over accumulated parts.
    logged = collections.OrderedDict([("loss", loss)] + [(term.name, mean_of(term)) for term in terms])
    logged = collections.OrderedDict((name, _over_replicas(share)) for name, share in logged.items())
    # Of a loss that is no number the Estimator would not say which term and step it is; the hook does.
    told = tf.where(tf.math.is_finite(loss), loss, tf.zeros_like(loss))
    return tf.estimator.EstimatorSpec(
        tf.estimator.ModeKeys.TRAIN, loss=told, train_op=train_op,
        # On every worker of a cluster: what is logged is summed over all of them, and each waits for the others.
        training_hooks=[progress(logged, scalars)] if progress else [])


def _over_replicas(value):
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return value
    return context.merge_call(lambda strategy, share: strategy.experimental_local_results(
        strategy.reduce(tf.distribute.ReduceOp.SUM, share, axis=None))[0], args=(value,))
