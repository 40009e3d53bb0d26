"""Curves and records of many trials, beside a look-up of each point by itself."""

import random

import pandas as pd
import pytest

from modicum.results.curves import curve
from modicum.results.records import StudyRecords, TrialInfo
from modicum.results.statistics import summarise
from modicum.storage import StorageFolder


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_curve_is_what_a_look_up_at_each_budget_finds(seeds):
    draw = random.Random(seeds)
    points = {
        seed: [(float(draw.randrange(40)), draw.random()) for _ in range(draw.randrange(1, 60))]
        for seed in range(seeds)
    }
    series = [sorted(of_seed) for of_seed in points.values()]
    first = max(of_seed[0][0] for of_seed in series)
    last = min(of_seed[-1][0] for of_seed in series)
    budgets = sorted({b for of_seed in series for b, _ in of_seed if first <= b <= last})
    naive = [
        (b, summarise([[value for at, value in of_seed if at <= b][-1] for of_seed in series]))
        for b in budgets
    ]
    assert [(point.budget, point.summary) for point in curve(points)] == naive


def test_records_of_some_trials_are_those_of_the_frame_in_its_order(tmp_path):
    draw = random.Random(0)
    names = [draw.choice("abcde") for _ in range(100)]
    frame = pd.DataFrame({"trial_id": names, "budget": range(100)})
    trials = [TrialInfo(name, {}, 0, "finished") for name in "abcdef"]
    records = StudyRecords(StorageFolder(tmp_path), frame, trials, {}, 0, {})
    for chosen in (["d", "a"], ["f"], ["f", "b"], list("abcdef"), []):
        found = records.of_trials([trial for trial in trials if trial.id in chosen])
        expected = frame[frame["trial_id"].isin(chosen)]
        pd.testing.assert_frame_equal(found, expected, check_index_type=False)
