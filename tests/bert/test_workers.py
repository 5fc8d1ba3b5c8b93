import os
import signal
import time

import pytest

from bert import workers
from tests import graphs
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2


@pytest.mark.parametrize("num_workers", [1, 3])
def test_every_task_has_its_result(num_workers):
    assert sorted(workers.run(lambda number: number ** 2, range(50), num_workers)) == [n ** 2 for n in range(50)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_only_a_few_tasks_are_under_way_at_once(num_workers):
    begun = []
    tasks = (begun.append(number) or number for number in range(1000))
    results = workers.run(lambda number: number, tasks, num_workers)
    next(results)
    assert len(begun) <= 2 * num_workers + 1
    results.close()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_of_a_task_is_raised(num_workers):
    def fail(number):
        raise UserError("task %d" % number)

    with pytest.raises(UserError, match="^task 7$"):
        list(workers.run(fail, [7], num_workers))


def test_a_killed_worker_is_told():
    with pytest.raises(UserError, match="^--num_workers=2: a worker was killed"):
        list(workers.run(lambda _: os.kill(os.getpid(), signal.SIGKILL), [1, 2, 3], 2))


def test_an_error_does_not_wait_for_the_other_tasks():
    def work(seconds):
        if not seconds:
            raise UserError("at once")
        time.sleep(seconds)

    start = time.time()
    with pytest.raises(UserError):
        list(workers.run(work, [60, 0], 2))
    assert time.time() - start < 30


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_long_task_is_told_of_while_it_is_under_way(num_workers):
    tally, seen = workers.Tally("lines"), []

    def work(_):
        tally.add(lines=1)
        time.sleep(2)
        tally.add(lines=1)

    list(workers.run(work, [None], num_workers, lambda: seen.append(tally["lines"])))
    assert 1 in seen and seen[-1] == 2


@pytest.mark.parametrize("num_workers", [1, 2])
def test_sums_of_all_workers_are_seen(num_workers):
    tally, seen = workers.Tally("bytes", "lines"), []
    list(workers.run(lambda number: tally.add(bytes=number, lines=1), range(20), num_workers,
                     lambda: seen.append(tally["lines"])))
    assert (tally["bytes"], tally["lines"], seen[-1]) == (190, 20, 20)
    assert seen == sorted(seen)
