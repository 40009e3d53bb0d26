"""Whole studies on both runners."""

import itertools

import pytest
from ray import tune

import modicum as md
from toys import Descent, NeedsRay

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


def test_both_runners_give_the_same_records(tmp_path, ray_cluster):
    noisy = {"method": md.grid("fast", "noisy"), "noise": 0.1, "rate": md.grid(0.25, 0.5)}
    local = run(tmp_path / "local", "local", noisy)
    ray = run(tmp_path / "ray", "ray", noisy)
    assert len(local.frame) == 4 * 2 * 4
    assert comparable(local).equals(comparable(ray))


@pytest.mark.parametrize("runner", RUNNERS)
def test_running_again_computes_nothing_and_more_seeds_only_themselves(
    tmp_path, ray_cluster, runner
):
    ledger = tmp_path / "ledger"
    space = {**SPACE, "ledger": str(ledger)}
    first = run(tmp_path / "run", runner, space)
    assert len(steps(ledger)) == 4 * 2 * 4
    again = run(tmp_path / "run", runner, space)
    assert len(steps(ledger)) == 4 * 2 * 4
    assert comparable(first).equals(comparable(again))
    run(tmp_path / "run", runner, space, seeds=3)
    assert len(steps(ledger)) == 4 * 3 * 4
    wide = {**space, "rate": md.grid(0.25, 0.5, 0.75)}
    wider = run(tmp_path / "run", runner, wide, seeds=3)
    assert len(steps(ledger)) == 6 * 3 * 4
    whole = run(tmp_path / "whole", "local", {**wide, "ledger": ""}, seeds=3)
    drop = ["config/ledger"]
    assert comparable(wider).drop(columns=drop).equals(comparable(whole).drop(columns=drop))


def test_a_changed_setting_is_another_trial_and_never_mixed_in(tmp_path):
    run(tmp_path / "run")
    changed = run(tmp_path / "run", space={**SPACE, "steps": 2})
    assert set(changed.frame["config/steps"]) == {2}
    assert len(changed.trials) == 8
    assert changed.other_trials == 8
    back = run(tmp_path / "run")
    assert set(back.frame["config/steps"]) == {4}


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_trial_that_raises_leaves_the_others_alone(tmp_path, ray_cluster, runner):
    results = run(tmp_path / "run", runner, {**SPACE, "fail_seed": 1})
    assert [trial.seed for trial in results.failed] == [1] * 4
    assert len(results.frame) == 4 * 4
    failed = results.failed[0]
    trace = (tmp_path / "run" / "trials" / failed.id / "error.txt").read_text()
    assert "ZeroDivisionError: the toy was told to fail" in trace
    assert "in run" in trace
    assert "about to fail" in (tmp_path / "run" / "trials" / failed.id / "log.txt").read_text()
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"trials/{failed.id}/error.txt" in page
    # What failed is tried again, what finished is not.
    mended = run(tmp_path / "run", runner, {**SPACE, "fail_seed": -1})
    assert not mended.failed
    assert len(mended.frame) == 4 * 2 * 4


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


@pytest.mark.parametrize("runner", RUNNERS)
def test_best_and_last_checkpoints_are_kept_and_nothing_pickled(tmp_path, ray_cluster, runner):
    """|x| falls in every step, so the last is the best; kept: one folder, or two while running."""
    run(tmp_path / "run", runner, {"rate": 0.5, "checkpoints": True}, seeds=1)
    places = sorted(p.parent.name for p in (tmp_path / "run").rglob("state.json"))
    assert places[-1] == "checkpoint_000003"
    assert len(places) <= 2
    assert not list((tmp_path / "run").rglob("*.pkl"))


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
