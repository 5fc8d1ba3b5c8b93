import collections
import sys
import types

import pytest

from benchmarks import cases
from benchmarks import material
from benchmarks import performance_page
from benchmarks import run
from benchmarks import turns
from training import files

CONTENDERS = """
import sys, time
sys.path.insert(0, %r)
from benchmarks import turns


def sleeping(milliseconds):
    return lambda: time.sleep(milliseconds / 1000), {"slept": milliseconds}


def giving(figures):
    found = iter(figures)
    return lambda: {"accuracy": next(found)}, {}


def product():
    return lambda: time.sleep(0.002), {"library": "oneDNN"}


def failing():
    raise ValueError("broken")


if __name__ == "__main__":
    turns.serve({"sleeping": sleeping, "giving": giving, "product": product, "failing": failing}, warm_up=1)
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
    assert short["seconds"]["count"] == long["seconds"]["count"] == 8 and 5 < short["megabytes"] < 500
    assert 0.001 <= short["seconds"]["low"] < 0.02 <= long["seconds"]["low"] <= long["seconds"]["p95"]


def test_figures_that_a_repetition_gives_are_kept(contender):
    plain, giving = turns.race([contender("plain", "sleeping", milliseconds=0),
                                contender("giving", "giving", figures=[9.0, 1.0, 3.0, 2.0, 5.0])], 2, 2)
    assert plain["figures"] == {} and giving["figures"]["accuracy"] == turns.summary([1.0, 3.0, 2.0, 5.0])


def test_a_contender_that_fails_ends_the_race(contender, capfd):
    with pytest.raises(RuntimeError, match="broken one .*has ended"):
        turns.race([contender("well", "sleeping", milliseconds=1), contender("broken one", "failing")])
    assert "ValueError: broken" in capfd.readouterr().err


def test_what_is_measured_goes_where_the_flags_say_beside_the_rate_of_the_machine(contender, tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "CASES", {"sleep": cases.Case("Sleep", "", None)})
    monkeypatch.setattr(cases, "yardstick", lambda setting: ([contender("the machine", "product")], 3.0))
    values = types.SimpleNamespace(rounds=2, repetitions=2, about_texts="", results_dir=str(tmp_path / "a" / "b"))
    races = [cases.Race("sleepers", work, [contender("one", "sleeping", milliseconds=1)])
             for work in ((1.0, "GFLOP"), (1.0, "texts"))]
    run.measure("sleep", races, material.Setting(collections.defaultdict(str)), values)
    measured, plain = files.read_json(str(tmp_path / "a" / "b" / "sleep.json"))["races"]
    assert 0 < measured["machine_rate"] <= 3.0 / 0.002 and measured["machine_library"] == "oneDNN"
    assert "machine_rate" not in plain
    assert [[one["title"] for one in race["contenders"]] for race in (measured, plain)] == [["one"]] * 2


def test_a_summary_is_median_and_quartiles():
    assert turns.summary([9.0, 1.0, 2.0, 4.0, 3.0]) == {
        "count": 5, "low": 2.0, "median": 3.0, "mean": 3.8, "high": 4.0, "p95": 9.0}
    assert turns.summary([1.0])["p95"] == 1.0


def test_interpreters_without_the_package_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(material, "FOLDER", str(tmp_path / "made"))
    for name in ("texts", "vocab"):
        (tmp_path / name).write_text("[PAD]\n一\n")
    found = material.find_pythons(*[str(tmp_path / "nothing")] * 2, sys.executable)
    assert found["torch"] is None and found[material.INTEL] is None and sys.executable in found.values()
    for case in cases.CASES.values():
        setting = material.Setting(found, "data", *[str(tmp_path / name) for name in ("texts", "vocab")])
        for race in case.races(setting):
            assert race.work[0] > 0
            assert race.contenders and all(one.python == sys.executable for one in race.contenders)


def test_a_table_has_ratios_to_the_first_line_and_rates():
    lines = performance_page.table({"title": "things", "work": [3.0, "GFLOP"], "contenders": [
        {"title": "one", "seconds": turns.summary([0.1, 0.2, 0.3])},
        {"title": "other", "seconds": turns.summary([0.5])}]})
    assert lines[0] == "| things | ms | p95 | ratio | GFLOP/s |"
    assert lines[2] == "| one | 200.00 [100.00, 300.00] | 300.00 | 1.00 | 15 |"
    assert lines[3] == "| other | 500.00 [500.00, 500.00] | 500.00 | 2.50 | 6 |"


def test_a_table_tells_the_share_of_the_machines_rate_and_the_figures_of_those_that_have_some():
    contenders = [
        {"title": "one", "seconds": turns.summary([0.2]), "figures": {}},
        {"title": "other", "seconds": turns.summary([0.5]), "figures": {"accuracy": turns.summary([0.7, 0.8, 0.9])}}]
    lines = performance_page.table({"title": "things", "work": [3.0, "GFLOP"], "machine_rate": 20.0,
                                    "machine_library": "MKL", "contenders": contenders})
    assert lines[:2] == ["| things | ms | p95 | ratio | GFLOP/s | of MKL's 20 | accuracy |",
                         "|---|---|---|---|---|---|---|"]
    assert lines[2].endswith("| 1.00 | 15 | 75 % |  |") and lines[3].endswith("| 2.50 | 6 | 30 % | 0.8 [0.7, 0.9] |")


def test_a_table_of_growth_fits_the_exponents_of_time_and_memory():
    lines = performance_page.table({"title": "tokens", "work": [1, "updates"], "sizes": [10, 20, 40], "contenders": [
        {"title": str(size), "seconds": turns.summary([1e-3 * size ** 2]), "megabytes": 100} for size in (10, 20, 40)]})
    assert "| 40 | 1600.00 [1600.00, 1600.00] | 1600.00 | 16.00 | 100 |" in lines
    assert "Time grows with the power 2.00 of it, memory with 0.00." in lines


def test_a_page_has_every_case_that_was_measured_with_its_plot(tmp_path):
    race = {"title": "things", "work": [3.0, "GFLOP"], "sizes": [], "contenders": [
        {"title": "one", "about": {"torch": "2"}, "seconds": turns.summary([0.1, 0.2, 0.3]), "megabytes": 9}]}
    result = {"machine": {"cpu": "a CPU", "cores": 2, "commit": "abc"}, "races": [race], "rounds": 3, "repetitions": 1,
              "absent": ["torch"], "date": "2000-01-01", "texts": {"data_dir": "reviews"},
              "about_texts": "Reviews of books."}
    page = tmp_path / "docs" / "performance.md"
    performance_page.write(str(page), cases.CASES, {"matrix_product": result}, "measure --here")
    text = page.read_text()
    assert "## Matrix products" in text and "## Padding" not in text and "absent: torch" in text
    assert cases.CASES["matrix_product"].text + " Reviews of books." in text
    assert "Written by `measure --here`." in text
    assert "`measure --here --only=matrix_product --rounds=3 --repetitions=1 --data_dir=reviews`" in text
    assert (page.parent / "performance" / "matrix_product.svg").read_text().count("<svg") == 1
    assert "](performance/matrix_product.svg)" in text
