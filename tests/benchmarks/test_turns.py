import sys

import pytest

from benchmarks import cases
from benchmarks import performance_page
from benchmarks import turns

CONTENDERS = """
import sys, time
sys.path.insert(0, %r)
from benchmarks import turns


def sleeping(milliseconds):
    return lambda: time.sleep(milliseconds / 1000), {"slept": milliseconds}


def failing():
    raise ValueError("broken")


if __name__ == "__main__":
    turns.serve({"sleeping": sleeping, "failing": failing})
""" % turns.CHECKOUT


@pytest.fixture
def contender(tmp_path, monkeypatch):
    (tmp_path / "sleepers.py").write_text(CONTENDERS)
    monkeypatch.setattr(turns, "CHECKOUT", str(tmp_path))
    monkeypatch.setattr(turns, "PAUSE", 0.0)

    def make(title, name, **arguments):
        return turns.Contender(title, sys.executable, "sleepers", name, arguments)

    return make


def test_each_contender_is_measured_as_often_as_asked(contender):
    short, long = turns.race([contender("short", "sleeping", milliseconds=1),
                              contender("long", "sleeping", milliseconds=20)], rounds=4, repetitions=2)
    assert (short["title"], long["title"]) == ("short", "long")
    assert long["about"]["slept"] == 20 and long["about"]["python"] == sys.version.split()[0]
    assert len(short["seconds"]) == len(long["seconds"]) == 8
    assert min(long["seconds"]) >= 0.02 and min(short["seconds"]) >= 0.001
    assert turns.summary(short["seconds"])["low"] < turns.summary(long["seconds"])["low"]


def test_a_contender_that_fails_ends_the_race(contender, capfd):
    with pytest.raises(RuntimeError, match="broken one .*has ended"):
        turns.race([contender("well", "sleeping", milliseconds=1), contender("broken one", "failing")])
    assert "ValueError: broken" in capfd.readouterr().err


def test_a_summary_is_median_and_quartiles():
    assert turns.summary([9.0, 1.0, 2.0, 4.0, 3.0]) == {"low": 2.0, "median": 3.0, "mean": 3.8, "high": 4.0}
    assert turns.summary([1.0]) == {"low": 1.0, "median": 1.0, "mean": 1.0, "high": 1.0}


def test_interpreters_without_the_package_are_left_out(tmp_path):
    found = cases.find_pythons(str(tmp_path / "nothing"), sys.executable)
    assert found["torch"] is None and sys.executable in found.values()
    for case in cases.CASES.values():
        for race in case.races(cases.Setting(found, "data", "texts", "vocab", "teacher", "cache", "records")):
            assert race.work[0] > 0
            assert race.contenders and all(one.python == sys.executable for one in race.contenders)


def test_a_table_has_ratios_to_the_first_line_and_rates():
    lines = performance_page.table({"title": "things", "work": [3.0, "GFLOP"], "contenders": [
        {"title": "one", "seconds": [0.1, 0.2, 0.3]}, {"title": "other", "seconds": [0.5, 0.5, 0.5]}]})
    assert lines[0] == "| things | ms | ratio | GFLOP/s |"
    assert lines[2] == "| one | 200.00 [100.00, 300.00] | 1.00 | 15 |"
    assert lines[3] == "| other | 500.00 [500.00, 500.00] | 2.50 | 6 |"
