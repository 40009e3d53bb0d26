"""Trials of one process that notice nothing of each other."""

import subprocess
import sys

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

import modicum as md
from leaky import KINDS, Leaky, LeakyAlone
from modicum.execution.run_trial import run_trial
from modicum.planning.trial_plan import plan_trial
from modicum.run_folder.trial_record import load_trial
from tiny_vae import TINY

RUNNERS = ["local", "ray"]
GLOBALS = ["global", "global_list"]
RESTORED = [kind for kind in KINDS if kind not in GLOBALS]


def run(out, runner, kinds, experiment=Leaky, seeds=2, **options):
    study = md.Study(experiment, {"kind": md.grid(*kinds), "steps": 2}, seeds=seeds, **options)
    return study.run(out, runner=runner, quiet=True)


def logs(out):
    return [path.read_text() for path in sorted(out.glob("trials/*/log.txt"))]


@pytest.mark.parametrize("runner", RUNNERS)
def test_what_a_trial_changes_is_put_back_for_the_next(tmp_path, ray_cluster, runner):
    results = run(tmp_path, runner, RESTORED)
    assert not results.failed
    frame = results.frame
    assert set(frame["config/kind"]) == set(RESTORED)
    for kind, rows in frame.groupby("config/kind"):
        assert rows["changed"].all(), kind
        assert rows["found"].nunique() == 1, (kind, set(rows["found"]))
    # Two processes, at most, had all 26 trials: nothing had to be replaced.
    assert frame["process"].nunique() <= 2
    assert not any("isolation" in text for text in logs(tmp_path))


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_changed_module_global_is_told_and_costs_the_process(tmp_path, ray_cluster, runner):
    results = run(tmp_path, runner, GLOBALS)
    assert not results.failed
    assert set(results.frame["found"]) == {"0", "[]"}
    assert results.frame["changed"].all()
    assert results.frame["process"].nunique() == (1 if runner == "local" else 4)
    found = "".join(logs(tmp_path))
    for name in ("leaky.COUNT", "leaky.SEEN"):
        assert found.count(f"isolation: the trial left changed: {name}. ") == 2


class FirstRecordOnly(FIFOScheduler):
    """Stops every trial at its first record."""

    _metric, _mode = "changed", "max"

    def on_trial_result(self, tune_controller, trial, result):
        return TrialScheduler.STOP


@pytest.mark.slow
def test_the_process_of_a_stopped_trial_is_replaced_too(tmp_path, ray_cluster):
    space = {"kind": "global", "steps": md.grid(2, 3, 4, 5)}
    study = md.Study(Leaky, space, seeds=1, scheduler=FirstRecordOnly())
    results = study.run(tmp_path, quiet=True)
    assert [trial.status for trial in results.trials] == ["stopped"] * 4
    rows = [load_trial(results.folder, trial.id).rows for trial in results.trials]
    assert [[row["found"] for row in of_trial] for of_trial in rows] == [["0"]] * 4
    assert len({of_trial[0]["process"] for of_trial in rows}) == 4


@pytest.mark.slow
def test_isolation_by_process_shares_none(tmp_path, ray_cluster):
    results = run(tmp_path, "ray", ["environment"], LeakyAlone, seeds=4)
    assert results.frame.groupby("trial_id")["process"].first().nunique() == 4


def test_the_local_runner_refuses_isolation_by_process(tmp_path):
    with pytest.raises(md.InputError, match=r"runner: experiment 'leaky' wants a process for each"):
        run(tmp_path / "run", "local", ["environment"], LeakyAlone)
    assert not (tmp_path / "run").exists()


def test_an_unknown_isolation_is_refused():
    class Odd(Leaky):
        isolation = "thread"

    with pytest.raises(md.InputError, match="isolation of experiment 'leaky': must be one of"):
        md.Study(Odd, {"kind": "folder"})


WEAK = {"hidden_units": 16, "hidden_layers": 1, "max_iterations": 30}
SHIPPED = {
    "weak": {**WEAK, "method": md.grid("snorkel", "weasel", "denoise", "iwld")},
    "weak_active": {**WEAK, "method": "iwl", "acquisition": "entropy", "rounds": 1},
    "vae": {**TINY, "inference": "reverse_half_sleep", "refine_epochs": 1, "optimal_epochs": 1},
    "vae_consistency": {**TINY, "inference": "wake", "inference_epochs": 1, "test_samples": 20},
    "vae_compression": {**TINY, "inference": "wake", "refine_epochs": 1, "coded_images": 20},
    "solipsistic": {
        "environment": "modicum/PixelCartPole-v0",
        "method": md.grid("solipsistic", "dqn"),
        "episodes": 5,
        "model_updates": 2,
        "trajectories": 4,
        "policy_iterations": 2,
        "perturbations": 4,
        "starts": 2,
        "imagined_steps": 5,
        "updates_per_step": 0.05,
    },
    "preference": {
        "oracle_calls": 8,
        "acquired_per_round": 8,
        "prompts_per_round": 16,
        "epochs": 1,
        "batch_size": 4,
        "evaluation_prompts": 4,
        "completion_tokens_max": 16,
        "training": {"learning_rate": 3e-4, "micro_batch_size": 4},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_experiments_leave_nothing_changed(tmp_path, ray_cluster, name):
    """Two trials of each: the second imports nothing for the first time, as the first may."""
    study = md.Study(name, SHIPPED[name], seeds=2)
    assert study.experiment.isolation == "reused"
    results = study.run(tmp_path, runner="ray" if study.experiment.needs_ray else "local")
    assert results.trials
    assert {trial.status for trial in results.trials} == {"finished"}
    assert not any("isolation:" in text for text in logs(tmp_path))


FRESH = """
import sys
from leaky import Leaky, LeakyConfig
import modicum as md
from modicum.execution.run_trial import run_trial
from modicum.planning.trial_plan import plan_trial

def found(kind):
    plan = plan_trial(Leaky(), LeakyConfig(kind=kind), 0, {})
    record, end = run_trial(Leaky(), plan, md.Resources())
    assert record.metrics["changed"] and not end.left, (kind, end)
    return record.metrics["found"]

assert found("environment") == found("environment")
assert "torch" not in sys.modules
first = found("dtype")
import torch
assert torch.get_default_dtype() == torch.float32
assert found("dtype") == first
from modicum.execution.process_state import _torch_flags
assert all(flag.read() == flag.default for flag in _torch_flags())
"""


def test_torch_is_put_back_where_a_trial_imported_it_and_never_imported_here():
    """The defaults are those of torch, in a process in which nothing else has used it."""
    subprocess.run([sys.executable, "-c", FRESH], check=True)


def test_what_cannot_be_put_back_is_told(tmp_path, monkeypatch):
    """The trial removes the folder from which it was started."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)

    class Removing(Leaky):
        def run(self, config, trial):
            import os

            os.chdir(trial.scratch)
            gone.rmdir()
            yield md.Record(budget=0, metrics={"changed": True})

    plan = plan_trial(Removing(), Removing.Config(kind="folder"), 0, {})
    *_, end = run_trial(Removing(), plan, md.Resources())
    assert len(end.left) == 1
    assert end.left[0].startswith("working folder (FileNotFoundError")
    assert b"isolation: the trial left changed: working folder" in end.log
