"""Where an Estimator runs: devices, replicas, workers, and how often it saves."""

import os
import socket
import sys
import threading
import time

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from training import cluster
from training import graph_mode  # noqa: F401
from training import interruption
from training import saved
from training.command import UserError

WAITING_SECONDS = 30.0  # between two lines about workers that do not come
ANSWER_SECONDS, END_SECONDS = 10.0, 30.0  # of a worker that was asked to end, see interruption.end_if_stuck
BF16_UNITS = {"amx_bf16", "avx512_bf16"}


def distribution_strategy(num_gpus=0, num_cpu_replicas=1):
    """The strategy for this machine and the cluster of `TF_CONFIG`.

    Args:
      num_gpus: GPUs of this machine to use; 0: the CPU.
      num_cpu_replicas: logical CPU devices, when `num_gpus` is 0.

    Returns:
      (strategy or None for one device on one machine, names of the local devices).

    Raises:
      UserError: GPUs that are not there, or a broken TF_CONFIG.
    """
    if num_gpus and num_cpu_replicas > 1:
        raise UserError("--num_cpu_replicas=%d: GPUs are asked for too (--num_gpus=%d); give one of the two"
                        % (num_cpu_replicas, num_gpus))
    found = [device.name for device in tf.config.experimental.list_physical_devices("GPU")]
    if num_gpus > len(found):
        raise UserError("--num_gpus=%d: %d GPUs are visible to TensorFlow (%s); --num_gpus=0 runs on the CPU"
                        % (num_gpus, len(found), ", ".join(found) or "none"))
    kind, count = ("gpu", num_gpus) if num_gpus else ("cpu", num_cpu_replicas)
    devices = ["/%s:%d" % (kind, index) for index in range(count)]
    if sum(len(addresses) for addresses in cluster.jobs().values()) > 1:
        # The strategy takes what it finds: one CPU, or every GPU.
        if num_cpu_replicas > 1:
            raise UserError("--num_cpu_replicas=%d: a worker of a TF_CONFIG cluster has one CPU replica; "
                            "start more workers" % num_cpu_replicas)
        if num_gpus != len(found):
            raise UserError("--num_gpus=%d: a worker of a TF_CONFIG cluster uses all GPUs that it sees, here "
                            "%d; CUDA_VISIBLE_DEVICES makes them fewer" % (num_gpus, len(found)))
        interruption.end_if_stuck(ANSWER_SECONDS, END_SECONDS)
        threading.Thread(target=_tell_who_is_missing, args=(cluster.others(),), daemon=True).start()
        return tf.distribute.experimental.MultiWorkerMirroredStrategy(), devices
    if count > 1:
        return tf.distribute.MirroredStrategy(devices), devices
    return None, devices


def check_bf16(num_gpus):
    """Raises UserError unless --use_bf16 would do something here; TensorFlow itself would say nothing."""
    if num_gpus:
        raise UserError("--use_bf16: for CPUs, and --num_gpus=%d asks for GPUs; give one of the two" % num_gpus)
    if not hasattr(RewriterConfig(), "auto_mixed_precision_onednn_bfloat16"):
        raise UserError("--use_bf16: TensorFlow %s cannot, 2.15 can (README, set-up)" % tf.__version__)
    if not has_bf16_units():
        raise UserError("--use_bf16: this CPU has no units for bfloat16 (%s); leave the flag out"
                        % ", ".join(sorted(BF16_UNITS)))


def has_bf16_units():
    """Whether this CPU multiplies bfloat16."""
    return bool(BF16_UNITS & _cpu_features())


def check_gpu_flags(num_gpus, **given):
    """Raises UserError when a flag that only GPUs look at is given without one; given: name -> value."""
    for name, value in given.items():
        if value and not num_gpus:
            raise UserError("--%s: for GPUs, and --num_gpus=0 asks for none; leave the flag out" % name)


def _cpu_features():
    """Names of the CPU's instruction sets, as Linux tells them; empty elsewhere."""
    try:
        with open("/proc/cpuinfo") as lines:
            return {name for line in lines if line.startswith("flags") for name in line.split(":")[1].split()}
    except OSError:
        return set()


def _tell_who_is_missing(addresses):
    """Says which of the addresses do not answer, now and then, until all do: TensorFlow waits in silence."""
    missing, said = addresses, 0.0
    while missing:
        missing = [address for address in missing if not _answers(address)]
        if missing and time.time() > said + WAITING_SECONDS:
            said = time.time()
            sys.stderr.write("waiting for %s of the cluster (TF_CONFIG): no answer yet; each must be started with the "
                             "same command\n" % ", ".join(missing))
        time.sleep(1.0)


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2.0).close()
    except (OSError, ValueError):
        return False
    return True


def run_config(output_dir, seed, save_checkpoints_steps, keep_checkpoint_max=2, strategy=None,
               devices=("/cpu:0",), use_bf16=False, use_fp16=False, use_xla=False):
    """RunConfig of a training Estimator.

    Args:
      output_dir: the run folder.
      seed: the graph's seed, from which dropout and initial values come.
      save_checkpoints_steps: updates between checkpoints; each is evaluated.
      strategy: a distribution strategy or None.
      devices: names of the local devices, from `distribution_strategy`; logical CPUs are made for them.
      use_bf16: whether a CPU multiplies matrices in bfloat16; variables and sums stay float32. See `check_bf16`.
      use_fp16: whether GPUs compute in float16 where it is safe (TensorFlow's mixed precision graph rewrite); the loss
        must be scaled, see `bert.optimization.Schedule`.
      use_xla: whether XLA compiles what it can of the graph.
    """
    session_config = tf.ConfigProto(allow_soft_placement=True, device_count={"CPU": len(devices)})
    if not any("gpu" in device for device in devices):
        session_config.device_count["GPU"] = 0  # else TensorFlow would take one that it sees
    session_config.gpu_options.allow_growth = True
    rewriting = session_config.graph_options.rewrite_options
    if use_bf16:
        rewriting.auto_mixed_precision_onednn_bfloat16 = RewriterConfig.ON
    if use_fp16:
        rewriting.auto_mixed_precision = RewriterConfig.ON
    if use_xla:
        session_config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    return tf.estimator.RunConfig(
        model_dir=output_dir, tf_random_seed=seed, save_checkpoints_steps=save_checkpoints_steps,
        # Scalars are written by `hooks.ProgressHook`, averaged over all updates.
        save_summary_steps=None, log_step_count_steps=None, keep_checkpoint_max=keep_checkpoint_max,
        session_config=session_config, train_distribute=strategy)


def local_config(model_dir):
    """RunConfig of an Estimator that exports on this machine alone, also within a worker of a cluster."""
    config = os.environ.pop("TF_CONFIG", None)  # read by RunConfig, which would connect to the other workers
    try:
        return tf.estimator.RunConfig(
            model_dir=model_dir, session_config=tf.ConfigProto(allow_soft_placement=True))
    finally:
        if config is not None:
            os.environ["TF_CONFIG"] = config


def train(estimator, input_fn, max_steps, hooks=(), saving_listeners=(), first_step=0):
    """Trains up to `max_steps` updates, on one machine or as one worker of a cluster.

    Args:
      estimator: its config comes from `run_config`.
      input_fn: for the Estimator.
      max_steps: updates, those of the checkpoint that it goes on from counted in.
      hooks: SessionRunHooks.
      saving_listeners: CheckpointSaverListeners; in a cluster the chief alone has them.
      first_step: from where the updates between two checkpoints are counted.
    """
    config, hooks = estimator.config, list(hooks)
    if cluster.is_chief():
        hooks.append(saved.CheckpointHook(config.model_dir, lambda step: step == max_steps or (
            step - first_step) % config.save_checkpoints_steps == 0, saving_listeners))
    if not cluster.jobs() or config.train_distribute is None:
        estimator.train(input_fn, max_steps=max_steps, hooks=hooks)
        return
    # TensorFlow 1.15's own would, at Python's end, write a traceback about a stop that it does not implement.
    tf.distribute.Server.__del__ = lambda server: None
    # Estimator.train refuses a cluster; train_and_evaluate evaluates nothing there.
    tf.estimator.train_and_evaluate(
        estimator, tf.estimator.TrainSpec(input_fn, max_steps, hooks), tf.estimator.EvalSpec(input_fn))
