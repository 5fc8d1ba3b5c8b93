"""Where an Estimator runs: devices, replicas, workers, and how often it saves."""

import json
import os

import tensorflow.compat.v1 as tf

from training import graph_mode  # noqa: F401
from training.command import UserError


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
    if len(cluster().get("worker", [])) + len(cluster().get("chief", [])) > 1:
        return tf.distribute.experimental.MultiWorkerMirroredStrategy(), devices
    if count > 1:
        return tf.distribute.MirroredStrategy(devices), devices
    return None, devices


def cluster():
    """The cluster of `TF_CONFIG`: dict of job -> addresses; empty on a single machine."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        return json.loads(text).get("cluster", {}) if text else {}
    except (ValueError, AttributeError):
        raise UserError("TF_CONFIG: not a JSON object with \"cluster\" and \"task\": %s" % text)


def is_chief():
    """Whether this process is the one that writes files for all workers."""
    task = json.loads(os.environ.get("TF_CONFIG") or "{}").get("task", {})
    chief_job = "chief" if cluster().get("chief") else "worker"
    return not cluster() or (task.get("type") == chief_job and task.get("index", 0) == 0)


def run_config(output_dir, seed, save_checkpoints_steps, keep_checkpoint_max=2, strategy=None, num_devices=1,
               log_steps=100):
    """RunConfig of a training Estimator.

    Args:
      output_dir: the run folder.
      seed: the graph's seed, from which dropout and initial values come.
      save_checkpoints_steps: updates between checkpoints; each is evaluated.
      strategy: a distribution strategy or None.
      num_devices: local devices; logical CPU devices are made for them.
      log_steps: updates between TensorBoard scalars.
    """
    session_config = tf.ConfigProto(allow_soft_placement=True, device_count={"CPU": num_devices})
    session_config.gpu_options.allow_growth = True
    return tf.estimator.RunConfig(
        model_dir=output_dir, tf_random_seed=seed, save_checkpoints_steps=save_checkpoints_steps,
        save_summary_steps=log_steps, log_step_count_steps=None, keep_checkpoint_max=keep_checkpoint_max,
        session_config=session_config, train_distribute=strategy)
