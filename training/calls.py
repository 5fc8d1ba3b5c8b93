"""The same call of a graph, many times."""

from tensorflow.core.protobuf import config_pb2


def prepared(session, fetched, fed):
    """A session's run of one tensor, prepared once.

    Session.run, and what Session.make_callable gives for a call with feeds, look everything up again in Python, which
    takes as long as a small student does for a short text. What serves Keras does not, and stands in both TensorFlows.

    Args:
      session: tf.Session.
      fetched: name of a tensor.
      fed: names of tensors.

    Returns:
      function of NumPy arrays, one for each of `fed`, of its type -> NumPy array; for any number of threads.
    """
    run = session._make_callable_from_options(config_pb2.CallableOptions(feed=fed, fetch=[fetched]))
    return lambda *values: run(*values)[0]
