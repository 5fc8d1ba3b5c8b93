import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from bert.optimization import Schedule
from tests import commands
from tests import graphs
from tests import quick
from training import cluster as cluster_
from training import runtime
from training.command import UserError

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TWO_WORKERS = {"worker": ["localhost:1", "localhost:2"]}
STEPS = 2
SCHEDULE = Schedule(learning_rate=2e-3, num_train_steps=25, clip_norm=0.1)


@pytest.fixture
def tf_config(monkeypatch):
    """Sets TF_CONFIG to a value, or to a text as it is."""
    def put(value):
        monkeypatch.setenv("TF_CONFIG", value if isinstance(value, str) else json.dumps(value))

    monkeypatch.delenv("TF_CONFIG", raising=False)
    return put


def one_line(error):
    return "\n" not in str(error.value)


def test_gpus_that_are_not_there_are_an_error(tf_config):
    there = len(tf.config.experimental.list_physical_devices("GPU"))
    message = "--num_gpus=%d: %d GPUs are visible to TensorFlow" % (there + 1, there)
    with pytest.raises(UserError, match=message):
        runtime.distribution_strategy(num_gpus=there + 1)


def test_gpus_and_cpu_replicas_together_are_an_error(tf_config):
    with pytest.raises(UserError, match="--num_cpu_replicas=2: GPUs are asked for too"):
        runtime.distribution_strategy(num_gpus=1, num_cpu_replicas=2)


def test_one_device_needs_no_strategy(tf_config):
    assert runtime.distribution_strategy() == (None, ["/cpu:0"])


def test_several_devices_are_mirrored(tf_config):
    strategy, devices = runtime.distribution_strategy(num_cpu_replicas=2)
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == 2
    assert devices == ["/cpu:0", "/cpu:1"]


@pytest.mark.parametrize("value", [
    "{", "[]", "3", '{"cluster": ["a:1", "b:1"]}',
    {"cluster": TWO_WORKERS},
    {"cluster": TWO_WORKERS, "task": {}},
    {"cluster": TWO_WORKERS, "task": {"type": "worker", "index": 2}},
    {"cluster": TWO_WORKERS, "task": {"type": "worker", "index": -1}},
    {"cluster": TWO_WORKERS, "task": {"type": "worker", "index": "first"}},
    {"cluster": TWO_WORKERS, "task": {"type": "chief", "index": 0}},
    {"cluster": {"worker": "localhost:1"}, "task": {"type": "worker", "index": 0}},
    {"cluster": dict(TWO_WORKERS, ps=["localhost:3"]), "task": {"type": "worker", "index": 0}}])
@pytest.mark.parametrize("ask", [cluster_.is_chief, cluster_.worker_number, runtime.distribution_strategy])
def test_a_broken_tf_config_is_an_error(ask, value, tf_config):
    tf_config(value)
    with pytest.raises(UserError, match="^TF_CONFIG: ") as error:
        ask()
    assert one_line(error)


@pytest.mark.parametrize("value", ["", "{}", {"cluster": {}}, {"task": {"type": "worker", "index": 1}}])
def test_without_a_cluster_every_process_is_the_chief(value, tf_config):
    tf_config(value)
    assert cluster_.jobs() == {} and cluster_.is_chief()
    assert runtime.distribution_strategy() == (None, ["/cpu:0"])


@pytest.mark.parametrize("job, index, with_chief, expected", [
    ("worker", 0, False, True), ("worker", 1, False, False), ("worker", "0", False, True),
    ("worker", 0, True, False), ("chief", 0, True, True)])
def test_one_process_of_a_cluster_is_the_chief(job, index, with_chief, expected, tf_config):
    cluster = dict(TWO_WORKERS, chief=["localhost:3"]) if with_chief else TWO_WORKERS
    tf_config({"cluster": cluster, "task": {"type": job, "index": index}})
    assert cluster_.is_chief() == expected


@pytest.mark.parametrize("job, index, with_chief, expected", [
    ("worker", 0, False, 0), ("worker", 1, False, 1), ("chief", 0, True, 0), ("worker", 0, True, 1)])
def test_the_processes_of_a_cluster_are_numbered_from_the_chief(job, index, with_chief, expected, tf_config):
    assert cluster_.worker_number() == 0
    cluster = dict(TWO_WORKERS, chief=["localhost:3"]) if with_chief else TWO_WORKERS
    tf_config({"cluster": cluster, "task": {"type": job, "index": index}})
    assert cluster_.worker_number() == expected


def test_evaluation_within_a_cluster_stays_on_its_machine(tmp_path, tf_config):
    tf_config({"cluster": TWO_WORKERS, "task": {"type": "worker", "index": 1}})
    before = os.environ["TF_CONFIG"]
    config = runtime.local_config(str(tmp_path))
    assert not config.cluster_spec and config.master == "" and config.model_dir == str(tmp_path)
    assert os.environ["TF_CONFIG"] == before


def test_a_cluster_of_one_needs_no_strategy(tf_config):
    tf_config({"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 0}})
    assert runtime.distribution_strategy() == (None, ["/cpu:0"])


def test_a_worker_has_one_cpu_replica(tf_config):
    tf_config({"cluster": TWO_WORKERS, "task": {"type": "worker", "index": 0}})
    with pytest.raises(UserError, match="--num_cpu_replicas=2: a worker of a TF_CONFIG cluster has one"):
        runtime.distribution_strategy(num_cpu_replicas=2)


def test_the_run_config_says_where_how_often_and_with_which_seed(tmp_path, tf_config):
    config = runtime.run_config(
        str(tmp_path), seed=9, save_checkpoints_steps=30, devices=["/cpu:0", "/cpu:1"])
    assert config.model_dir == str(tmp_path)
    assert config.tf_random_seed == 9
    assert config.save_checkpoints_steps == 30 and config.save_checkpoints_secs is None
    assert config.session_config.device_count["CPU"] == 2


def test_a_run_on_the_cpu_takes_no_gpu(tmp_path, tf_config):
    counts = runtime.run_config(str(tmp_path), 1, 30).session_config.device_count
    assert dict(counts) == {"CPU": 1, "GPU": 0}
    config = runtime.run_config(str(tmp_path), 1, 30, devices=["/gpu:0", "/gpu:1"])
    assert "GPU" not in config.session_config.device_count




@pytest.mark.skipif(graphs.IS_REFERENCE, reason="TensorFlow 2 can")
@pytest.mark.skipif(not runtime.has_bf16_units(), reason="the CPU cannot")
@pytest.mark.parametrize("use_bf16", [False, True])
def test_matrices_are_multiplied_in_bfloat16_on_demand(use_bf16, tmp_path, tf_config, monkeypatch):
    monkeypatch.setattr(tf.Session, "__init__", quick.init)
    runtime.check_bf16(num_gpus=0)
    config = runtime.run_config(str(tmp_path), 1, 30, use_bf16=use_bf16).session_config
    value = np.float32(1.0 + 2.0 ** -12)  # bfloat16 keeps 8 bits of it
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        fed = tf.placeholder(tf.float32, [64, 64])
        # TensorFlow rewrites no graph of fewer than four ops, nor what is fetched.
        product = tf.abs(tf.matmul(tf.abs(fed), tf.abs(fed)))
        found = session.run(tf.reduce_max(product), {fed: np.full([64, 64], value)})
    assert found == pytest.approx(64.0 if use_bf16 else 64.0 * value ** 2, rel=1e-6)


def test_bfloat16_that_would_be_silently_left_out_is_an_error(monkeypatch):
    with pytest.raises(UserError, match="--use_bf16: for CPUs, and --num_gpus=1"):
        runtime.check_bf16(num_gpus=1)
    monkeypatch.setattr(runtime, "_cpu_features", lambda: {"sse4_2", "avx2"})
    with pytest.raises(UserError, match="2.15 can" if graphs.IS_REFERENCE else "no units for bfloat16"):
        runtime.check_bf16(num_gpus=0)


@pytest.mark.parametrize("given", [False, True])
def test_mixed_precision_and_xla_are_asked_for_on_demand(given, tmp_path, tf_config):
    options = runtime.run_config(
        str(tmp_path), 1, 30, devices=["/gpu:0"], use_fp16=given, use_xla=given).session_config.graph_options
    assert (options.rewrite_options.auto_mixed_precision == RewriterConfig.ON) == given
    assert (options.optimizer_options.global_jit_level == tf.OptimizerOptions.ON_1) == given


def test_flags_that_would_do_nothing_without_a_gpu_are_an_error():
    runtime.check_gpu_flags(1, use_fp16=True, use_xla=True)
    runtime.check_gpu_flags(0, use_fp16=False, use_xla=False)
    with pytest.raises(UserError, match="--use_xla: for GPUs, and --num_gpus=0 asks for none"):
        runtime.check_gpu_flags(0, use_fp16=False, use_xla=True)


class Losses(tf.train.SessionRunHook):
    """Collects the loss that the Estimator reports."""

    def __init__(self):
        self.values = []

    def begin(self):
        self._loss = tf.losses.get_losses()[-1]

    def before_run(self, _):
        return tf.train.SessionRunArgs(self._loss)

    def after_run(self, _, run_values):
        self.values.append(float(run_values.results))


class Saved(tf.train.CheckpointSaverListener):
    """Collects the steps at which a checkpoint was saved."""

    def __init__(self):
        self.steps = []

    def after_save(self, session, global_step_value):
        self.steps.append(int(global_step_value))


def figures_of(folder, records_file):
    """The losses that the Estimator reports, and the steps whose checkpoints this process saved."""
    losses, saved = Losses(), Saved()
    graphs.train(folder, records_file, STEPS, SCHEDULE, hooks=[losses], saving_listeners=[saved])
    return losses.values, saved.steps


def start_worker(environment, folder, records_file):
    """A process that trains as worker `index` and prints its `figures_of` in its last line."""
    script = ("import json, sys; from tests.training.test_runtime import figures_of; "
              "print(json.dumps(figures_of(*sys.argv[1:])))")
    return subprocess.Popen(
        [sys.executable, "-c", script, folder, records_file], cwd=CHECKOUT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True,
        env=dict(os.environ, **environment, CUDA_VISIBLE_DEVICES="", no_proxy="*"))


@graphs.ON_TENSORFLOW_2
def test_two_workers_have_the_loss_and_weights_of_one_process(tmp_path, tf_config):
    records_file = graphs.ragged_records(str(tmp_path / "texts.tfrecord"))
    expected, expected_saves = figures_of(str(tmp_path / "one"), records_file)
    workers = [start_worker(environment, str(tmp_path / "two"), records_file) for environment in commands.cluster()]
    try:
        ended = [worker.communicate(timeout=commands.TIME_LIMIT) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], ended[0][1][-3000:] + ended[1][1][-3000:]
    (first, saves), (second, other_saves) = [json.loads(out.splitlines()[-1]) for out, _ in ended]
    assert first == second
    assert saves == expected_saves and other_saves == []
    assert first == pytest.approx(expected, rel=1e-6)
    one, two = [graphs.weights_in(tf.train.latest_checkpoint(str(tmp_path / name)))
                for name in ("one", "two")]
    assert graphs.largest_difference(one, two) < 1e-5
