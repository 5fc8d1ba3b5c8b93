import subprocess
import sys

import pytest

from benchmarks import processes

ALLOCATE = "import os, time; mine = bytearray(os.urandom(1)) * (%d << 20); %s; print(len(mine)); time.sleep(0.5)"


def test_peak_memory_counts_pages_that_processes_share_once():
    alone = processes.measure([sys.executable, "-c", ALLOCATE % (100, "pass")])
    shared = processes.measure([sys.executable, "-c", ALLOCATE % (100, "os.fork()")])
    assert alone.out == "%d\n" % (100 << 20)
    assert 100 << 20 < alone.peak_bytes < 150 << 20
    assert 100 << 20 < shared.peak_bytes < 170 << 20


def test_seconds_are_those_of_the_whole_process():
    assert 0.5 < processes.measure([sys.executable, "-c", ALLOCATE % (1, "pass")]).seconds < 30


def test_a_command_that_fails_is_an_error():
    with pytest.raises(subprocess.CalledProcessError):
        processes.measure([sys.executable, "-c", "raise SystemExit(3)"])
