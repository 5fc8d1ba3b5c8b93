from benchmarks import performance_page
from benchmarks.cases import Goal


def race(title, **milliseconds):
    return {"title": title, "contenders": [
        {"title": name.replace("_", " ").replace(" of ", ", tensorflow "), "seconds": {"median": one / 1e3}}
        for name, one in milliseconds.items()]}


RACES = [race("batch 1", peer=10.0, ours_of_2=9.0), race("batch 32", peer=10.0, ours_of_2=20.0, ours_of_1=5.0)]


def test_a_goal_that_is_reached_tells_every_ratio():
    found = performance_page.told(Goal(1.0, "ours", "peer", "batch 1"), RACES)
    assert found == "Goal: `ours` in at most 1 of the time of `peer`, batch 1. Reached: 0.9."


def test_a_goal_that_is_missed_tells_where():
    found = performance_page.told(Goal(1.0, "ours", "peer"), RACES)
    assert found.endswith("Missed in 1 of 3: 2 (batch 32: ours, tensorflow 2).")


def test_a_contender_is_compared_with_that_of_the_same_tensorflow():
    races = [race("batch 1", all_of_2=10.0, all_of_1=40.0, ours_of_2=5.0, ours_of_1=4.0)]
    assert performance_page.told(Goal(0.5, "ours", "all"), races).endswith("Reached: 0.5, 0.1.")


def test_a_goal_of_contenders_that_were_absent_is_not_reached():
    assert performance_page.told(Goal(1.0, "ours", "another"), RACES).endswith("Not measured.")


def test_versions_are_told_once_each():
    about = [{"python": "3.7.16", "tensorflow": "1.15.0"}, {"threads": 2, "torch": "2.13.0", "python": "3.11.7"}]
    races = [{"contenders": [{"about": one} for one in about + about[:1]]}]
    assert performance_page.versions(races) == (
        "Versions: tensorflow 1.15.0, Python 3.7.16; threads 2, torch 2.13.0, Python 3.11.7.")
