"""Searches over several objectives, and what settings matter in a search."""

import itertools
from typing import ClassVar

import numpy as np
import pytest

import modicum as md
from modicum.execution.messages import EndMessage, RecordMessage
from modicum.execution.recorder import Recorder
from modicum.execution.tune.searchers import SeededSearch
from modicum.report.document import report_document
from modicum.report.rendering import render_markdown
from modicum.results import importance
from modicum.results.layout import report_layout
from modicum.storage import StorageFolder
from modicum.yaml_io import dump_yaml


class Settings(md.Config):
    a: float = md.setting(0.0, description="First number.")
    b: float = md.setting(0.0, description="Second number.")
    kind: str = md.setting("x", description="A text.")
    extra: float = md.setting(0.0, description="Of one kind.", used_by={"kind": ("y",)})


class Two(md.Experiment[Settings]):
    """Has two objectives."""

    name, version, budget_unit, Config = "two", "1", "samples", Settings
    metrics: ClassVar = {
        "loss": md.Metric("Loss.", goal="min"),
        "gain": md.Metric("Gain.", goal="max"),
    }

    def run(self, config, trial):
        yield md.Record(budget=1, metrics={"loss": config.a, "gain": config.b})


OPTUNA = {"name": "optuna", "metric": ["loss", "gain"], "samples": 4, "options": {"seed": 0}}


def recorded(folder, space, metrics, seeds=1, failed=(), **fields):
    """Results of a study, as if its trials had reported `metrics(config, seed)`."""
    study = md.Study(Two, space, seeds=seeds, **fields)
    storage = StorageFolder(folder)
    recorder = Recorder(storage, study.experiment)
    recorder.add(study.trials)
    storage.write_text(dump_yaml({**study.resolved(), **SEARCHED}), "study.yaml")
    for index, plan in enumerate(study.trials):
        recorder.start(plan.id)
        recorder.record(plan.id, RecordMessage(0, 1.0, metrics(plan.config, plan.seed), 0.1, b""))
        recorder.end(plan.id, EndMessage("failed" if index in failed else "finished"))
    return md.Results.consolidate(storage)


SEARCHED = {"search": OPTUNA}


def two(config, seed):
    return {"loss": config.a + seed, "gain": config.b}


POINTS = [(1.0, 1.0), (2.0, 3.0), (2.0, 2.0), (3.0, 3.0), (4.0, 5.0), (5.0, 4.0), (0.5, 0.1)]


def pairs(points):
    return [{"a": a, "b": b} for a, b in points]


def test_the_pareto_front_has_what_nothing_dominates(tmp_path):
    """Small loss and large gain: (2, 2) and (3, 3) lose to (2, 3), and (5, 4) to (4, 5)."""
    results = recorded(tmp_path, pairs(POINTS), two, seeds=2)
    points = results.pareto()
    front = [(p.settings["a"], p.settings["b"]) for p in points if p.optimal]
    assert len(points) == len(POINTS)
    assert set(front) == {(1.0, 1.0), (2.0, 3.0), (4.0, 5.0), (0.5, 0.1)}
    # Means over the seeds 0 and 1.
    assert points[0].values["loss"].mean == 1.5
    document = report_document(report_layout(results.records))
    (section,) = document["sections"]
    table = section["tables"][0]
    assert table["title"] == "Pareto front"
    assert [row["key"][0] for row in table["rows"]] == ["0.5", "1", "2", "4"]
    assert table["rows"][1]["cells"][1]["text"].startswith("1.0000 ± 0")
    assert "gain against loss" in [picture["title"] for picture in section["pictures"]]
    assert "Pareto front" in render_markdown(document)
    lines = {line.get_label(): line for line in results.plot_pareto("loss", "gain").axes[0].lines}
    assert list(lines["Pareto-optimal"].get_xdata()) == [1.0, 1.5, 2.5, 4.5]
    assert len(lines["dominated"].get_xdata()) == 3


def test_the_front_agrees_with_brute_force_and_leaves_out_what_is_not_whole(tmp_path):
    generator = np.random.default_rng(0)
    points = [tuple(map(float, pair)) for pair in generator.integers(0, 9, (30, 2))]
    points = list(dict.fromkeys(points))
    results = recorded(tmp_path, pairs(points), two, failed=(0,))
    kept = points[1:]
    expected = {
        (a, b) for a, b in kept if not any(c <= a and d >= b and (c < a or d > b) for c, d in kept)
    }
    assert {(p.settings["a"], p.settings["b"]) for p in results.pareto() if p.optimal} == expected


def test_several_objectives_are_checked_and_need_optuna():
    space = {"a": {"uniform": [0, 1]}}
    for change, message in (
        ({"name": "hyperopt"}, "search.metric: hyperopt takes one metric; .* optuna"),
        ({"metric": ["loss", "loss"]}, "every objective must stand once"),
        ({"goal": "max"}, "give one for each of the 2 objectives"),
        ({"metric": ["loss", "lost"]}, "search.metric: .*'lost'"),
    ):
        with pytest.raises(md.InputError, match=message):
            md.Study(Two, space, search={**OPTUNA, **change})


def test_optuna_is_told_the_means_of_all_objectives(tmp_path):
    space = {"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}}
    study = md.Study(Two, space, seeds=2, search=OPTUNA)
    recorder = Recorder(StorageFolder(tmp_path), study.experiment)
    plan = study._plan.make_search()
    searcher = SeededSearch(recorder, plan)
    for index in range(8):
        name = searcher.suggest(str(index))["id"]
        recorder.start(name)
        config, seed = recorder.plans[name].config, recorder.plans[name].seed
        recorder.record(name, RecordMessage(0, 1.0, two(config, seed), 0.1, b""))
        recorder.end(name, EndMessage("finished"))
        searcher.settle()
    told = plan.searcher._ot_study.trials
    assert [d.name for d in plan.searcher._ot_study.directions] == ["MINIMIZE", "MAXIMIZE"]
    for trial in told:
        assert trial.values == pytest.approx([trial.params["a"] + 0.5, trial.params["b"]])
    assert len(told) == 4


GRID = {"a": md.grid(np.linspace(0, 1, 8).tolist()), "b": md.grid(np.linspace(0, 1, 8).tolist())}


@pytest.mark.parametrize("method", ["fANOVA", "permutation"])
def test_importance_is_the_share_in_the_variance(tmp_path, method, monkeypatch):
    """Of 3a + b over a full grid, a has 9 of 10 parts of the variance."""
    if method == "permutation":
        monkeypatch.setattr(importance, "find_spec", lambda name: None)
    results = recorded(tmp_path, GRID, lambda c, seed: {"loss": 3 * c.a + c.b, "gain": 0.0})
    found = results.importance()
    assert (found.method, found.configurations, list(found.shares)) == (method, 64, ["a", "b"])
    assert found.shares["a"] == pytest.approx(0.9, abs=0.05)
    assert sum(found.shares.values()) == pytest.approx(1)


def test_a_setting_that_has_no_effect_in_places_is_weighed_by_permutation(tmp_path):
    space = {"kind": md.grid("x", "y"), "extra": md.grid([1.0, 2.0, 3.0]), "a": md.grid(range(8))}

    def metrics(config, seed):
        return {"loss": config.extra if config.kind == "y" else -8.0, "gain": 0.0}

    results = recorded(tmp_path, space, metrics)
    found = results.importance()
    assert found.method == "permutation"
    assert list(found.shares)[-1] == "a"
    document = report_document(report_layout(results.records))
    titles = [picture["title"] for picture in document["sections"][0]["pictures"]]
    assert {"Importance of settings for loss", "loss by setting", "Settings and loss"} <= set(
        titles
    )
    figure = results.plot_slices()
    assert [axes.get_xlabel() for axes in figure.axes] == ["kind", "extra", "a"]
    (extra,) = figure.axes[1].lines
    # Only configurations in which it has an effect.
    assert len(extra.get_xdata()) == 24
    names = [text.get_text() for text in results.plot_parallel().axes[0].get_xticklabels()]
    assert names == ["kind", "extra", "a", "loss"]


def test_few_configurations_or_one_setting_have_no_importance(tmp_path):
    points = list(itertools.product([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]))
    assert recorded(tmp_path / "few", pairs(points), two).importance() is None
    one = [{"a": float(a)} for a in range(12)]
    assert recorded(tmp_path / "one", one, two).importance() is None
