"""Limits of a study: its time budget, and the number of its trials at once."""

import json
from itertools import pairwise

import pytest

import modicum as md
from toys import Descent


def states(folder):
    return [json.loads(path.read_text()) for path in folder.glob("trials/*/trial.json")]


def test_a_study_stops_when_its_time_is_spent_and_goes_on_in_the_next_run(tmp_path):
    space = {"rate": md.grid(0.1, 0.2, 0.3), "steps": 100, "seconds": 0.02}
    limited = md.Study(Descent, space, seeds=1, time_budget=0.5)
    with pytest.warns(UserWarning, match=r"time_budget: 0\.5 s are spent"):
        results = limited.run(tmp_path, runner="local", quiet=True)
    # On a busy machine the first trial may not have started.
    found = [(trial["status"], trial["stopped_by"]) for trial in states(tmp_path)]
    assert found in ([], [("stopped", "request")])
    assert len(results.trials) == 3
    # Time is part of no identity: the same trials run to their ends.
    rest = md.Study(Descent, {**space, "seconds": 0.0}, seeds=1, time_budget=60)
    assert [t.status for t in rest.run(tmp_path, runner="local", quiet=True).trials] == [
        "finished"
    ] * 3
    assert len(states(tmp_path)) == 3


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_time_budget_is_a_number_of_seconds(value):
    with pytest.raises(md.InputError, match="time_budget"):
        md.Study(Descent, {}, time_budget=value)


@pytest.mark.slow
def test_no_more_trials_run_at_once_than_the_study_allows(tmp_path, ray_cluster):
    space = {"rate": md.grid(0.1, 0.2, 0.3, 0.4), "seconds": 0.1}
    md.Study(Descent, space, seeds=1, max_concurrent=1).run(tmp_path, quiet=True)
    spans = sorted((state["started"], state["ended"]) for state in states(tmp_path))
    assert len(spans) == 4
    assert all(ended <= started for (_, ended), (started, _) in pairwise(spans))
