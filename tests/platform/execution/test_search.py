"""Searchers and schedulers of ray.tune in the place of a grid."""

import json
from collections import Counter

import pytest
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

import modicum as md
from modicum.execution.recorder import Recorder
from modicum.execution.tune.searchers import SeededSearch
from modicum.storage import StorageFolder
from toys import Descent

SPACE = {"method": "fast", "rate": {"uniform": [0.1, 0.9]}}


def search(samples):
    return {
        "name": "optuna",
        "metric": "test/loss",
        "samples": samples,
        "options": {"seed": 3},
    }


def suggestions(folder):
    (state,) = (folder / "search").iterdir()
    return json.loads((state / "suggestions.json").read_text())


def rate_of(suggested):
    return json.loads(suggested["plan"])["config"]["rate"]


def test_a_search_goes_on_under_settings_that_are_no_part_of_an_identity():
    def signature(**settings):
        study = md.Study(Descent, {**SPACE, **settings}, search=search(3))
        return study._plan.make_search().signature

    assert signature(ledger="here", seconds=0.1) == signature(ledger="there") == signature()
    assert signature(steps=2) != signature()
    # A setting that is searched is a part of the search.
    assert signature(seconds={"uniform": [0.0, 0.1]}) != signature()


@pytest.mark.parametrize("cpus", [0, -1])
def test_a_cluster_without_cpus_is_refused(tmp_path, cpus):
    with pytest.raises(md.InputError, match="cpus: expected 1 or more"):
        md.Study(Descent, SPACE, search=search(1)).run(tmp_path / "run", cpus=cpus)
    assert not (tmp_path / "run").exists()


def run(out, samples, **options):
    study = md.Study(
        Descent, SPACE, **{"seeds": 2, "search": search(samples), "max_concurrent": 1, **options}
    )
    return study.run(out, quiet=True)


def test_every_suggestion_runs_with_every_seed(tmp_path, ray_cluster):
    results = run(tmp_path / "run", 4)
    assert len(results.trials) == 8
    assert results.frame.groupby("config/rate")["seed"].nunique().tolist() == [2] * 4
    told = suggestions(tmp_path / "run")
    assert [s["told"] for s in told] == [True] * 4
    assert results.frame["config/rate"].between(0.1, 0.9).all()


@pytest.mark.slow
def test_a_search_goes_on_where_it_was(tmp_path, ray_cluster):
    """Two runs of 6 and 12 suggestions make the same suggestions as one run of 12."""
    ledger = tmp_path / "ledger"
    space = {**SPACE, "ledger": str(ledger)}
    whole = md.Study(Descent, SPACE, seeds=2, search=search(12), max_concurrent=1)
    whole.run(tmp_path / "whole", quiet=True)
    for samples in (6, 6, 12):
        study = md.Study(Descent, space, seeds=2, search=search(samples), max_concurrent=1)
        study.run(tmp_path / "parts", quiet=True)
    one, parts = suggestions(tmp_path / "whole"), suggestions(tmp_path / "parts")
    assert [s["choice"] for s in parts] == [s["choice"] for s in one]
    # No trial was computed twice.
    assert len(ledger.read_text().splitlines()) == 12 * 2 * 4


@pytest.mark.parametrize("name", ["suggestions.json", "searcher"])
@pytest.mark.parametrize("content", [b"", b"[{}]", b"\xff"])
def test_a_damaged_state_of_a_search_is_set_aside_and_the_search_begins_anew(
    tmp_path, name, content
):
    def begun():
        study = md.Study(Descent, SPACE, seeds=2, search=search(3))
        recorder = Recorder(StorageFolder(tmp_path), study.experiment)
        return SeededSearch(recorder, study._plan.make_search())

    first = begun()
    rates = [rate_of(first.suggest(str(index))) for index in range(6)]
    assert begun().remaining == 6
    (state,) = (tmp_path / "search").iterdir()
    (state / name).write_bytes(content)
    with pytest.warns(UserWarning, match="the search begins anew"):
        again = begun()
    assert again.remaining == 6
    assert [rate_of(again.suggest(str(i))) for i in range(6)] == rates
    assert (tmp_path / "damaged" / f"{state.name}-0" / name).read_bytes() == content


def test_the_searcher_learns_from_the_mean_over_seeds(tmp_path, ray_cluster):
    """With 30 suggestions Optuna's TPE finds the edge of the space where the loss is least."""
    results = run(tmp_path / "run", 30)
    rates = results.frame.drop_duplicates("trial_id")["config/rate"].tolist()
    late = rates[-20:]
    assert sum(late) / len(late) > 0.6
    best = results.best()
    assert best.varied["rate"] > 0.75
    least = results.frame.groupby("config/rate")["test/loss"].min()
    assert best.varied["rate"] == least.idxmin()
    assert results.tables()[0].rows[0] == (best.varied["rate"],)


def test_a_failed_suggestion_does_not_stop_the_search(tmp_path, ray_cluster):
    study = md.Study(Descent, {**SPACE, "fail_seed": 1}, seeds=2, search=search(3))
    results = study.run(tmp_path / "run", quiet=True)
    assert len(results.failed) == 3
    assert len(suggestions(tmp_path / "run")) == 3


@pytest.mark.slow
def test_a_changed_space_is_another_search(tmp_path, ray_cluster):
    run(tmp_path / "run", 3)
    narrow = {"method": "fast", "rate": {"uniform": [0.1, 0.2]}}
    results = md.Study(Descent, narrow, seeds=2, search=search(3)).run(tmp_path / "run", quiet=True)
    assert results.frame["config/rate"].between(0.1, 0.2).all()
    assert len(results.trials) == 6


def test_impossible_and_excluded_choices_count_as_failed(tmp_path, ray_cluster):
    """`slow` needs a rate of at most 0.9, and `noisy` is left out: only the others run."""
    space = {"method": {"choice": ["fast", "slow", "noisy"]}, "rate": {"uniform": [0.8, 1.0]}}
    study = md.Study(Descent, space, seeds=1, search=search(12), exclude=[{"method": "noisy"}])
    results = study.run(tmp_path / "run", quiet=True)
    told = suggestions(tmp_path / "run")
    assert len(told) == 12
    assert all(s["told"] for s in told)
    left_out = [s for s in told if not s["trials"]]
    assert left_out
    assert len(results.trials) == 12 - len(left_out)
    assert "noisy" not in set(results.frame["config/method"])


@pytest.mark.slow
def test_the_searcher_is_told_of_stopped_trials_too(tmp_path, ray_cluster):
    """With a choice of groups and two seeds, which end together."""
    groups = [
        {"method": "slow", "rate": {"uniform": [0.05, 0.9]}},
        {"method": "noisy", "rate": {"uniform": [0.05, 0.9]}, "noise": {"uniform": [0, 0.1]}},
    ]
    space = {"choice": groups, "steps": 8}
    study = md.Study(Descent, space, seeds=2, search=search(8), scheduler=asha())
    results = study.run(tmp_path / "run", quiet=True)
    sizes = Counter((trial.status, trial.columns["rate"]) for trial in results.trials)
    assert {status for status, _ in sizes} == {"stopped", "finished"}
    assert set(sizes.values()) == {2}
    methods = {trial.columns["method"]: "noise" in trial.columns for trial in results.trials}
    assert methods == {"slow": False, "noisy": True}
    assert all(s["told"] for s in suggestions(tmp_path / "run"))


def test_searcher_and_scheduler_objects_of_ray(tmp_path, ray_cluster):
    searcher = OptunaSearch(metric="test/loss", mode="min", seed=1)
    study = md.Study(Descent, {"rate": tune.uniform(0.1, 0.9)}, seeds=1, search=searcher, samples=3)
    assert len(study.run(tmp_path / "a", quiet=True).trials) == 3
    with pytest.raises(md.InputError, match="samples: say how many"):
        md.Study(Descent, {"rate": tune.uniform(0.1, 0.9)}, search=searcher)


def test_a_searcher_refuses_a_setting_that_a_function_computes():
    space = {**SPACE, "noise": tune.sample_from(lambda config: config["rate"])}
    with pytest.raises(
        md.InputError, match=r"space\.noise: a searcher cannot choose by a function"
    ):
        md.Study(Descent, space, search=search(2))


def asha():
    return {
        "name": "asha",
        "metric": "test/loss",
        "options": {"grace_period": 1, "max_t": 16, "reduction_factor": 2},
    }


@pytest.mark.slow
@pytest.mark.parametrize(("as_object", "seeds"), [(False, 3), (True, 1)])
def test_stopped_trials_are_in_no_cell_and_not_run_again(tmp_path, ray_cluster, as_object, seeds):
    """All seeds of a configuration end together."""
    ledger = tmp_path / "ledger"
    space = {
        "method": md.grid("fast", "slow"),
        "rate": md.grid(0.1, 0.3, 0.5, 0.7, 0.9),
        "steps": 16,
        "ledger": str(ledger),
    }
    scheduler = asha()
    if as_object:
        scheduler = ASHAScheduler(
            metric="test/loss", mode="min", grace_period=1, max_t=17, reduction_factor=2
        )
    study = md.Study(Descent, space, seeds=seeds, scheduler=scheduler)
    results = study.run(tmp_path / "run", quiet=True)
    stopped = [trial for trial in results.trials if trial.status == "stopped"]
    finished = [trial for trial in results.trials if trial.status == "finished"]
    assert stopped
    assert finished
    assert len(stopped) + len(finished) == 10 * seeds
    assert len(results.values("test/loss")) == len(finished)
    sizes = Counter((t.status, t.columns["method"], t.columns["rate"]) for t in results.trials)
    assert set(sizes.values()) == {seeds}
    (table,) = results.tables()
    early = {key: cell for (key, _), cell in table.cells.items() if cell.ended_at is not None}
    assert {(t.columns["method"], t.columns["rate"]) for t in stopped} == set(early)
    assert all(cell.rank is None and cell.ended_at <= 160 for cell in early.values())
    whole = [key for key in table.rows if key not in early]
    assert list(table.rows[: len(whole)]) == whole
    before = len(ledger.read_text().splitlines())
    assert before < 10 * 16 * seeds
    again = md.Study(Descent, space, seeds=seeds, scheduler=asha()).run(
        tmp_path / "run", quiet=True
    )
    assert len(ledger.read_text().splitlines()) == before
    assert [t.status for t in again.trials] == [t.status for t in results.trials]
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{len(stopped)} trials were stopped early" in page
