"""The machines of a job that runs on several: what `TF_CONFIG` says."""

import json
import os

from training.errors import UserError


def jobs():
    """The jobs of `TF_CONFIG`: dict of name -> addresses; empty on a single machine.

    Raises:
      UserError: TF_CONFIG is broken.
    """
    return _jobs_and_task()[0]


def is_chief():
    """Whether this process is the one that writes files for all workers.

    Raises:
      UserError: TF_CONFIG is broken.
    """
    found, task = _jobs_and_task()
    return not found or task == ("chief" if found.get("chief") else "worker", 0)


def worker_number():
    """The place of this process among the cluster's workers, the chief first; 0 on a single machine.

    Raises:
      UserError: TF_CONFIG is broken.
    """
    found, task = _jobs_and_task()
    if not found:
        return 0
    job, index = task
    return index + (len(found.get("chief", [])) if job == "worker" else 0)


def others():
    """The addresses of the other processes of the cluster."""
    found, (job, index) = _jobs_and_task()
    return [address for name, addresses in sorted(found.items()) for number, address in enumerate(addresses)
            if (name, number) != (job, index)]


def _jobs_and_task():
    """(dict of job -> addresses, (job, index) of this process); ({}, None) without a cluster."""
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
        found = config.get("cluster", {})
        if not found:
            return {}, None
        job, index = config["task"]["type"], int(config["task"].get("index", 0))
        valid = (set(found) <= {"chief", "worker"} and 0 <= index < len(found[job])
                 and all(isinstance(addresses, list) for addresses in found.values()))
    except (ValueError, TypeError, AttributeError, KeyError):
        valid = False
    if not valid:
        raise UserError(
            'TF_CONFIG: {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}} '
            'is needed (jobs: "worker", and "chief" if wanted), found %s' % text)
    return found, (job, index)
