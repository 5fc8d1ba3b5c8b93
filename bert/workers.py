"""The same function over many tasks, in processes of one machine."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import threading
import time

from training import interruption
from training.command import UserError

_function = None  # of a worker process


class Tally:
    """Sums that workers add to while a task is under way, for the parent to show."""

    def __init__(self, *names):
        self._names = names
        self._sums = multiprocessing.Array("q", len(names))

    def add(self, **amounts):
        with self._sums.get_lock():
            for name, amount in amounts.items():
                self._sums[self._names.index(name)] += amount

    def __getitem__(self, name):
        # Without the lock, which a killed worker may have taken with it.
        return self._sums.get_obj()[self._names.index(name)]


def run(function, tasks, num_workers, on_wait=lambda: None):
    """Yields the result of each task as it is ready, in any order; only a few are under way at once.

    Args:
      function: called with a task, in the workers.
      tasks: iterable.
      num_workers: int.
      on_wait: called at least twice a second and after each task.

    Raises:
      UserError: a worker was killed.
      What `function` raises.
    """
    pool = concurrent.futures.ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("fork"), _become, (function, os.getpid()))
    with pool, _cancelling(pool):
        waiting = set()
        try:
            for task in tasks:
                waiting.add(pool.submit(_work, task))
                while len(waiting) > 2 * num_workers:
                    yield from _ready(waiting, on_wait)
            while waiting:
                yield from _ready(waiting, on_wait)
        except concurrent.futures.process.BrokenProcessPool:
            raise UserError("--num_workers=%d: a worker was killed, most likely for want of memory; "
                            "use fewer workers" % num_workers)


def _ready(waiting, on_wait):
    """Yields the results that are ready and takes them out of `waiting`."""
    done, _ = concurrent.futures.wait(waiting, 0.5, concurrent.futures.FIRST_COMPLETED)
    waiting -= done
    on_wait()
    for future in done:
        yield future.result()


@contextlib.contextmanager
def _cancelling(pool):
    """Ends the workers when the block raises, instead of waiting for what they have begun."""
    try:
        yield
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise


def _become(function, parent):
    global _function
    _function = function
    interruption.leave_to_parent()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent):
    # A worker holds both ends of the queue it waits at: a parent that is killed leaves it waiting for ever.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(task):
    return _function(task)
