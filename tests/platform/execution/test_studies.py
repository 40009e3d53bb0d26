"""Whole studies on both runners."""

import itertools
import json

import pytest
from ray import tune

import modicum as md
from toys import Descent, DyingLate, NeedsRay, Rising

SPACE = {"method": md.grid("fast", "slow"), "rate": md.grid(0.25, 0.5)}
RUNNERS = ["local", "ray"]


def comparable(results):
    """Everything that two runs of the same trials must have in common."""
    timing = [n for n, m in results.experiment["metrics"].items() if m["timing"]]
    return results.frame.drop(columns=["seconds", *timing], errors="ignore")


def run(out, runner="local", space=None, experiment=Descent, **options):
    return md.Study(experiment, space or SPACE, **{"seeds": 2, **options}).run(
        out, runner=runner, quiet=True
    )


def steps(ledger):
    return ledger.read_text().splitlines() if ledger.exists() else []


@pytest.fixture(scope="module")
def both(tmp_path_factory, ray_cluster):
    """The same trials, which save checkpoints, on each runner."""
    space = {"method": md.grid("fast", "noisy"), "noise": 0.1, "rate": md.grid(0.25, 0.5)}
    space["checkpoints"] = True
    return {runner: run(tmp_path_factory.mktemp(runner), runner, space) for runner in RUNNERS}


def test_both_runners_give_the_same_records(both):
    assert len(both["local"].frame) == 4 * 2 * 4
    assert comparable(both["local"]).equals(comparable(both["ray"]))


@pytest.mark.parametrize("runner", RUNNERS)
def test_best_and_last_checkpoints_are_kept_and_nothing_pickled(both, runner):
    """|x| falls in every step of `fast`, so its last checkpoint is the best one."""
    folder = both[runner].folder.local
    for trial in both[runner].trials:
        saved = both[runner].folder.read_json("trials", trial.id, "trial.json")
        kept = {
            str(path.parent.relative_to(folder)) for path in folder.rglob(f"{trial.id}-*/*/*.json")
        }
        assert kept == {saved["checkpoint"], saved["best_checkpoint"]}
        assert saved["checkpoint"].endswith("checkpoint_000003")
        if trial.columns["method"] == "fast":
            assert saved["best_checkpoint"] == saved["checkpoint"]
    assert not list(folder.rglob("*.pkl"))


@pytest.mark.parametrize("runner", RUNNERS)
def test_running_again_computes_nothing_and_wider_studies_only_what_is_new(
    tmp_path, ray_cluster, runner
):
    ledger = tmp_path / "ledger"
    space = {"rate": md.grid(0.25), "ledger": str(ledger)}
    first = run(tmp_path / "run", runner, space, seeds=1)
    assert len(steps(ledger)) == 4
    again = run(tmp_path / "run", runner, space, seeds=1)
    assert len(steps(ledger)) == 4
    assert comparable(first).equals(comparable(again))
    wide = {**space, "rate": md.grid(0.25, 0.5)}
    wider = run(tmp_path / "run", runner, wide, seeds=2)
    assert len(steps(ledger)) == 2 * 2 * 4
    whole = run(tmp_path / "whole", "local", {**wide, "ledger": ""}, seeds=2)
    drop = ["config/ledger"]
    assert comparable(wider).drop(columns=drop).equals(comparable(whole).drop(columns=drop))


def test_a_changed_setting_is_another_trial_and_never_mixed_in(tmp_path):
    run(tmp_path / "run")
    changed = run(tmp_path / "run", space={**SPACE, "steps": 2})
    assert set(changed.frame["config/steps"]) == {2}
    assert len(changed.trials) == 8
    assert changed.records.other_trials == 8
    back = run(tmp_path / "run")
    assert set(back.frame["config/steps"]) == {4}


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_trial_that_raises_leaves_the_others_alone(tmp_path, ray_cluster, runner):
    results = run(tmp_path / "run", runner, {"rate": 0.5, "fail_seed": 1})
    assert [trial.seed for trial in results.failed] == [1]
    assert len(results.frame) == 4
    failed = results.failed[0]
    trace = (tmp_path / "run" / "trials" / failed.id / "error.txt").read_text()
    assert "ZeroDivisionError: the toy was told to fail" in trace
    assert "in run" in trace
    assert "about to fail" in (tmp_path / "run" / "trials" / failed.id / "log.txt").read_text()
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"trials/{failed.id}/error.txt" in page
    # What failed is tried again, what finished is not.
    mended = run(tmp_path / "run", runner, {"rate": 0.5, "fail_seed": -1})
    assert not mended.failed
    assert len(mended.frame) == 2 * 4


@pytest.mark.slow
@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_trial_whose_process_dies_is_started_again(tmp_path, ray_cluster, checkpoints):
    space = {
        "rate": 0.5,
        "steps": 5,
        "die_at": 3,
        "marker": str(tmp_path / "died"),
        "checkpoints": checkpoints,
    }
    results = run(tmp_path / "run", "ray", space, seeds=1)
    assert (tmp_path / "died").exists()
    assert [trial.status for trial in results.trials] == ["finished"]
    assert results.frame["budget"].tolist() == [10, 20, 30, 40, 50]
    resumed = results.frame["resumed_at"].tolist()
    assert resumed == ([0, 0, 0, 3, 3] if checkpoints else [0] * 5)
    whole = run(tmp_path / "whole", "local", {"rate": 0.5, "steps": 5}, seeds=1)
    assert results.frame["test/loss"].tolist() == whole.frame["test/loss"].tolist()


@pytest.mark.slow
def test_no_trial_is_lost_when_processes_die_between_trials(tmp_path, ray_cluster):
    """A trial may get a process that is about to die, or is dead when it gets it."""
    space = {"rate": 0.5, "seconds": 0.1, "marker": str(tmp_path / "run")}
    results = run(tmp_path / "run", "ray", space, DyingLate, seeds=8)
    assert [trial.status for trial in results.trials] == ["finished"] * 8
    records = (tmp_path / "run" / "trials").glob("*/trial.json")
    assert any(json.loads(record.read_text())["attempt"] > 0 for record in records)


@pytest.mark.slow
def test_random_spaces_on_both_runners(tmp_path, ray_cluster):
    space = {"method": md.grid("fast", "slow"), "rate": tune.uniform(0.1, 0.9)}
    local = run(tmp_path / "local", "local", space, draws=3)
    ray = run(tmp_path / "ray", "ray", space, draws=3)
    assert comparable(local).equals(comparable(ray))
    assert local.frame["config/rate"].nunique() == 3
    more = run(tmp_path / "local", "local", space, draws=5)
    assert set(local.frame["config/rate"]) < set(more.frame["config/rate"])


def test_trials_with_workers_of_their_own_are_fitted_to_the_cluster(tmp_path, ray_cluster):
    """A trial at 0.5 CPUs with a nested worker of 1 CPU: one at a time on two CPUs."""
    results = run(tmp_path / "run", "ray", {"rate": 0.5, "seconds": 0.05}, NeedsRay, seeds=3)
    spans = sorted(
        (trial["started"], trial["ended"])
        for info in results.trials
        for trial in [results.folder.read_json("trials", info.id, "trial.json")]
    )
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


class Greedy(Descent):
    def resources(self, config):
        return md.Resources(md.Bundle(cpus=64))


def test_a_trial_that_can_never_fit_is_refused(tmp_path, ray_cluster):
    with pytest.raises(md.InputError, match="one trial needs 64 CPU, but the cluster has"):
        run(tmp_path / "run", "ray", {"rate": 0.5}, Greedy)


def test_a_second_driver_is_kept_out_of_the_folder(tmp_path):
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(md.InputError, match="another run"):
        run(tmp_path / "run")


def test_results_answer_for_a_whole_study(tmp_path):
    results = run(tmp_path / "run", seeds=3)
    table = results.table(rows="method", columns="rate", metric="test/loss")
    ranks = {(row[0], column[0]): c.rank for (row, column), c in table.cells.items()}
    assert ranks["fast", 0.5] == 1
    assert ranks["slow", 0.5] == 2
    needed = results.budget_to_target("test/loss", 0.6, "method", {"rate": 0.5})
    assert needed["fast",].reached == 3
    assert needed["slow",].reached == 0
    assert "Descent" not in results.report(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    again = md.load_results(tmp_path / "run")
    assert comparable(again).equals(comparable(results))


def test_curves_join_trials_only_over_what_sets_the_budget(tmp_path):
    """Two data sets of different size must not make one curve of rising budget."""
    results = md.Study(
        "weak",
        {
            "method": "labels_only",
            "strong_fraction": md.grid(0.1, 0.5),
            "hidden_units": md.grid(4, 8),
            "max_iterations": 20,
        },
        seeds=2,
    ).run(tmp_path / "run", runner="local", quiet=True)
    with pytest.raises(md.InputError, match="hidden_units"):
        results.budget_to_target("test/accuracy", 0.5, "method")
    points = results.curves("test/accuracy", "method", {"hidden_units": 4})["labels_only",]
    assert [p.budget for p in points] == [34, 170]


def test_a_killed_consolidation_is_not_taken_for_results(tmp_path):
    """A run that mends failures invalidates what an earlier run had consolidated."""
    first = run(tmp_path / "run", space={**SPACE, "fail_seed": 1})
    assert len(first.failed) == 4
    kept = (tmp_path / "run" / "results.parquet").read_bytes()
    run(tmp_path / "run", space={**SPACE, "fail_seed": -1})
    assert not md.load_results(tmp_path / "run").failed
    assert (tmp_path / "run" / "results.parquet").read_bytes() != kept


def test_the_run_folder_keeps_its_reference(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "{source: a paper, metric: test/loss, baseline: {method: slow}, cells: "
        "[{where: {method: fast, rate: 0.5}, mean: 0.1, sd: 0.05, n: 5}]}"
    )
    study = md.Study(Descent, SPACE, seeds=2, report={"reference": str(tmp_path / "r.yaml")})
    study.run(tmp_path / "run", runner="local", quiet=True)
    (tmp_path / "r.yaml").unlink()
    again = md.load_results(tmp_path / "run")
    assert [cell.verdict for cell in again.verdicts()] == ["undecided"]
    assert "a paper" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_the_best_checkpoint_of_an_earlier_attempt_is_kept(tmp_path, ray_cluster, runner):
    """|x| is least in the first step, then the process fails; resumed, that one is still best."""
    space = {"rate": 0.5, "steps": 5, "checkpoints": True, "marker": str(tmp_path / "mark")}
    results = run(tmp_path / "run", runner, space, Rising, seeds=1)
    assert len(results.failed) == 1
    (tmp_path / "mark").touch()
    results = run(tmp_path / "run", runner, space, Rising, seeds=1)
    assert not results.failed
    trial = results.folder.read_json("trials", results.trials[0].id, "trial.json")
    best = json.loads((tmp_path / "run" / trial["best_checkpoint"] / "state.json").read_text())
    last = json.loads((tmp_path / "run" / trial["checkpoint"] / "state.json").read_text())
    assert (best["step"], last["step"]) == (0, 4)
    assert len(list((tmp_path / "run" / "checkpoints").rglob("state.json"))) == 2
