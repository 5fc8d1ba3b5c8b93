"""Adam's update and the norm of its gradients: by the ops of adam.cc, where they run, else by TensorFlow's own."""

import functools
import os

import tensorflow.compat.v1 as tf

from training import native

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "adam.cc")


def update(variable, m, v, gradient, clip, kept, rate, beta_1, beta_2, epsilon):
    """m' = beta_1 m + (1 - beta_1) g, v' = beta_2 v + (1 - beta_2) g^2, w' = kept w - rate m' / (sqrt(v') + epsilon).

    Args:
      variable, m, v: variables w and its moments, float32 of one shape.
      gradient: float32 of that shape, or where our ops run IndexedSlices of it with each row once; g is
        clip * gradient.
      clip, kept, rate: float32 scalars.
      beta_1, beta_2, epsilon: floats.

    Returns:
      the update's op.
    """
    if native.available():
        handles, settings = (variable.handle, m.handle, v.handle), dict(beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)
        if isinstance(gradient, tf.IndexedSlices):
            return _ops().bert_adam_of_rows(
                *handles, gradient.values, tf.cast(gradient.indices, tf.int32), clip, kept, rate, **settings)
        return _ops().bert_adam(*handles, gradient, clip, kept, rate, **settings)
    # A product that becomes the variable's memory; subtracting would read and write it once more.
    with tf.control_dependencies([variable.assign(variable * kept)]):
        return tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=m.handle, v=v.handle, beta1_power=0.0, beta2_power=0.0, lr=rate, beta1=beta_1,
            beta2=beta_2, epsilon=epsilon, grad=gradient * clip, use_locking=False)


def global_norm(gradients):
    """The root of the sum of all squares, float32 scalar; gradients: list of float32 tensors or IndexedSlices."""
    if native.available():
        return _ops().bert_global_norm([
            gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient for gradient in gradients])
    return tf.linalg.global_norm(gradients)


@functools.lru_cache(maxsize=None)
def _ops():
    return native.load(SOURCE)
