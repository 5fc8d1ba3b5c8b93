"""What is measured of this project, for `turns.race`: functions of plain arguments -> (work, about)."""

from training import command  # noqa: F401, I001  quiets TensorFlow's log
import numpy as np
import tensorflow.compat.v1 as tf

from benchmarks import turns
from student import lstm
from training import graph_mode  # noqa: F401


def _about():
    return {"tensorflow": tf.__version__}


def _repeated(fetches, feed=None):
    """A session's run of these, every time anew; variables are initialized first."""
    session = tf.Session()
    session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
    return session.make_callable(fetches) if not feed else lambda: session.run(fetches, feed)


def _kept(values):
    """A variable: a constant would let TensorFlow compute ahead."""
    return tf.get_variable("given_%d" % len(tf.global_variables()), initializer=values, trainable=False)


def matrix_product(rows, depth, columns):
    """One product of float32 matrices."""
    random = np.random.RandomState(0)
    one, other = [_kept(random.normal(size=size).astype(np.float32)) for size in ((rows, depth), (depth, columns))]
    return _repeated(tf.matmul(one, other).op), _about()


def lstm_stack(kernel, units, batch, length, features=200, layers=3, train=True):
    """A stack of BiLSTM layers over vectors, every text full; forward, or forward and every gradient.

    Args:
      kernel: as of `student.lstm.lstm`.
      units: of each direction.
      batch, length, features, layers: sizes.
      train: bool; False: forward alone.
    """
    random = np.random.RandomState(0)
    hidden = given = _kept(random.normal(size=[batch, length, features]).astype(np.float32))
    lengths = _kept(np.full([batch], length, np.int32))
    for layer in range(layers):
        directions = []
        for name in ("forward", "backward"):
            with tf.variable_scope("layer_%d/%s" % (layer, name)):
                directions.append(lstm.lstm(hidden, units, lengths, kernel, reverse=name == "backward"))
        hidden = tf.concat(directions, axis=-1)
    if not train:
        return _repeated(tf.reduce_sum(hidden)), _about()
    factors = _kept(random.normal(size=[batch, length, 2 * units]).astype(np.float32))
    gradients = tf.gradients(tf.reduce_sum(hidden * factors), tf.trainable_variables() + [given])
    # A gradient that nobody reads would not be computed.
    return _repeated(tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])), _about()


if __name__ == "__main__":
    turns.serve({"matrix_product": matrix_product, "lstm_stack": lstm_stack})
