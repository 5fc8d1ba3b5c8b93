import subprocess

import pytest

from benchmarks import process_contenders

COMMAND = """
import json, os, sys
given = dict(flag.lstrip("-").split("=") for flag in sys.argv[1:])
os.makedirs(given["output_dir"])
with open(os.path.join(given["output_dir"], "eval.json"), "w") as stream:
    json.dump({"accuracy": int(given["random_seed"]) + 0.5, "loss": 3.0}, stream)
"""


def test_each_repetition_has_a_seed_of_its_own_and_gives_its_figures():
    work, _ = process_contenders.process(["-c", COMMAND], "--output_dir", True, ("eval.json", ["accuracy"]))
    assert [work(), work(), work()] == [{"accuracy": 0.5}, {"accuracy": 1.5}, {"accuracy": 2.5}]


def test_a_process_gives_no_figures_unless_asked():
    work, about = process_contenders.process(["-c", "pass"])
    assert work() == {} and about == {}


def test_a_process_that_fails_is_an_error():
    work, _ = process_contenders.process(["-c", "raise SystemExit(3)"])
    with pytest.raises(subprocess.CalledProcessError):
        work()
