"""Trials whose process dies, and the limit on that."""

import pytest

import modicum as md
from toys import Killed, LeavesDeath

pytestmark = pytest.mark.slow


def run(out, space, experiment, **options):
    return md.Study(experiment, space, **options).run(out, quiet=True)


def test_only_deaths_without_progress_count(tmp_path, ray_cluster):
    """`fast` dies once before each of three records and at the end, `slow` always before one."""
    space = {"marker": str(tmp_path / "died"), "die_at": -1, "checkpoints": True, "steps": 3}
    fast, slow = {**space, "method": "fast"}, {**space, "method": "slow", "die_at": 1}
    results = run(tmp_path / "run", [fast, slow], Killed, seeds=1, retries=1)
    trials = {trial.columns["method"]: trial for trial in results.trials}
    attempts = {
        method: results.folder.read_json("trials", trial.id, "trial.json")["attempt"]
        for method, trial in trials.items()
    }
    assert trials["fast"].status == "finished"
    # Killed once more after its last record.
    assert attempts == {"fast": 4, "slow": 1}
    frame = results.frame[results.frame["config/method"] == "fast"]
    assert frame["budget"].tolist() == [10, 20, 30]
    assert frame["resumed_at"].tolist() == [0, 1, 2]
    assert trials["slow"].status == "failed"
    assert trials["slow"].error.startswith(
        "the trial's process died 2 times without a new record (retries: 1): "
    )


def test_a_death_that_another_trial_left_does_not_count(tmp_path, ray_cluster):
    space = {"marker": str(tmp_path / "mark")}
    results = run(tmp_path / "run", space, LeavesDeath, seeds=2, retries=0)
    assert [trial.status for trial in results.trials] == ["finished"] * 2
    attempts = [
        results.folder.read_json("trials", trial.id, "trial.json")["attempt"]
        for trial in results.trials
    ]
    assert sorted(attempts) == [0, 1]
