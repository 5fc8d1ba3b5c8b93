import pytest
import tensorflow.compat.v1 as tf

from benchmarks import command_contenders
from bert import optimization
from bert.optimization import Schedule
from tasks.model_fn import task_model_fn
from tests import batches
from tests import graphs
from training import graph_mode  # noqa: F401

CONFIG = batches.bilstm()
ROWS = batches.VOCABULARY * CONFIG.embedding_size


class Exchanged(tf.estimator.SessionRunHook):
    """Keeps what was counted, a list an update."""

    def __init__(self):
        self.found = []

    def before_run(self, run_context):
        return tf.estimator.SessionRunArgs(run_context.session.graph.get_collection(command_contenders.EXCHANGED))

    def after_run(self, run_context, run_values):
        self.found.append(run_values.results)


@graphs.ON_REFERENCE
@pytest.mark.parametrize("in_rows", [False, pytest.param(True, marks=graphs.COMPILED)])
@pytest.mark.parametrize("replicas", [1, 2])
def test_what_replicas_exchange_is_counted(tmp_path, monkeypatch, replicas, in_rows):
    monkeypatch.setattr(optimization, "_update_all", command_contenders.counting(optimization._update_all))
    if not in_rows:
        monkeypatch.setattr(optimization, "_stays_in_rows", lambda *_: False)
    exchanged = Exchanged()
    model_fn = task_model_fn(CONFIG, batches.TASKS["classification"], Schedule(1e-3, 8))
    records_file = batches.write(tmp_path / "texts.tfrecord", batches.texts())

    def watched(features, mode, **more):
        spec = model_fn(features=features, mode=mode, **more)
        return spec._replace(training_hooks=[*spec.training_hooks, exchanged])

    weights = batches.train(tmp_path / "run", watched, records_file, 2, replicas=replicas)
    dense = 4 * sum(values.size for name, values in weights.items()
                    if name != "global_step" and not optimization.is_of_optimizer(name))
    if replicas == 1:
        assert exchanged.found == [[], []]
    elif not in_rows:
        assert exchanged.found == [[dense], [dense]]
    else:
        for (found,) in exchanged.found:  # a row and its number (int32) for each of a part's four texts' tokens
            tokens, rest = divmod(found - (dense - 4 * ROWS), 4 * CONFIG.embedding_size + 4)
            assert rest == 0 and 4 <= tokens <= 4 * batches.LONGEST
