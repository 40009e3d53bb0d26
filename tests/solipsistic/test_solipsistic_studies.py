"""Studies of the family solipsistic, as users run them, on a real Ray cluster."""

import os
import signal
import subprocess
import sys
import time

import pytest

import modicum as md
from conftest import ROOT
from modicum.yaml_io import dump_yaml
from modicum_algorithms.solipsistic.experiment import SolipsisticLearning

CART_POLE = "modicum/PixelCartPole-v0"
STUDIES = sorted((ROOT / "tune_configs" / "solipsistic").glob("*.yaml"))
# Small enough for a few seconds; all parts of the algorithm take part.
TINY = {
    "environment": CART_POLE,
    "episodes": 10,
    "model_updates": 2,
    "trajectories": 4,
    "policy_iterations": 2,
    "perturbations": 4,
    "starts": 2,
    "imagined_steps": 5,
}


def comparable(results):
    """Everything that two runs of the same trials must have in common."""
    timing = [n for n, m in results.experiment["metrics"].items() if m["timing"]]
    return results.frame.drop(columns=["seconds", *timing], errors="ignore")


@pytest.mark.slow
def test_the_three_methods_spend_the_same_budget_on_the_same_environment(tmp_path, ray_cluster):
    space = {**TINY, "method": md.grid("solipsistic", "ppo", "dqn"), "updates_per_step": 0.05}
    study = md.Study(SolipsisticLearning, space, seeds=1)
    frame = study.run(tmp_path / "run", runner="ray", quiet=True).frame
    assert sorted(set(frame["config/method"])) == ["dqn", "ppo", "solipsistic"]
    for method, records in frame.groupby("config/method"):
        assert records["budget"].tolist() == [5, 10], method
        assert records["evaluation/episodes"].tolist() == [1, 2]
        # A step earns at most 1, and the pole needs eight steps to fall.
        assert (records["evaluation/return"] >= 7).all()
        assert (records["evaluation/return"] <= 200).all()
        assert records["time/collection"].is_monotonic_increasing
    last = frame[frame["budget"] == 10].set_index("config/method")
    assert last.loc["solipsistic", "model/consistency"] > 0
    assert last["policy/imagined_return"].notna().to_dict() == {
        "solipsistic": True, "ppo": False, "dqn": False
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_study_goes_on_exactly_from_its_checkpoint(tmp_path):
    """A real kill -9 of the whole command, and the same command again."""
    space = {**TINY, "episodes": 40, "checkpoint_every": 5}
    study = {"name": "kill", "experiment": "solipsistic", "space": space, "seeds": 1}
    (tmp_path / "kill.yaml").write_text(dump_yaml(study))
    command = [sys.executable, "-m", "modicum", "run", "kill.yaml", "--out", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    deadline = time.monotonic() + 240
    while len(records_of(tmp_path / "run")) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = records_of(tmp_path / "run")
    assert len(kept) < 8
    subprocess.run(command, cwd=tmp_path, check=True)
    # What was safe was not computed again: the very same lines, their times included.
    assert records_of(tmp_path / "run")[:2] == kept[:2]
    resumed = md.load_results(tmp_path / "run")
    whole = md.Study("solipsistic", space, seeds=1).run(tmp_path / "whole", quiet=True)
    assert comparable(resumed).equals(comparable(whole))


def records_of(folder):
    return [
        line
        for path in folder.glob("trials/*/records.jsonl")
        for line in path.read_text().splitlines()
    ]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_are_valid(path):
    assert md.Study.from_yaml(path).trials


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment": "NoSuchGame-v0"}, "environment: 'NoSuchGame-v0' cannot be made"),
        ({"environment_options": {"gravity": 1}}, "environment: .* cannot be made"),
        ({"environment_options": {"horizon": 0}}, "horizon: "),
        ({"environment": "Taxi-v3"}, "observation_space: must be a Box"),
        ({"environment": "CartPole-v1", "recognition": "digits"}, "recognition: must be mlp"),
        ({"environment": "CartPole-v1", "random_start": True}, "random_start: only"),
        ({"evaluate_every": 7}, "evaluate_every: must be a multiple of 5"),
        ({"episodes": 12}, "episodes: must be a multiple of evaluate_every"),
        ({"perturbations": 1}, "perturbations"),
        ({"method": "dqn", "environment": "Pendulum-v1"}, "action_space"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(tmp_path, changes, message):
    with pytest.raises(md.InputError, match=message):
        md.Study(SolipsisticLearning, {**TINY, **changes}, seeds=1).run(
            tmp_path / "run", runner="ray", quiet=True
        )
    assert not (tmp_path / "run").exists()
