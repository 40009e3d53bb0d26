"""Outcomes of test rows, from a trial's record to the intervals of a report."""

import numpy as np
import pytest

import modicum as md
from modicum.report.document import report_document
from modicum.report.rendering import render_markdown
from modicum.results.layout import report_layout
from modicum.results.statistics import paired_difference, summarise
from modicum.study import Study
from toys import ROWS, Answers, right_answers

SEEDS = 4


def results_of(folder, runner="local", **space):
    report = {"rows": "method", "baseline": "bad", "metrics": "accuracy"}
    settings = {"method": md.grid("good", "bad"), **space}
    study = Study(Answers, settings, seeds=SEEDS, name="answers", report=report)
    return study.run(folder, runner=runner, quiet=True)


def check_intervals(results):
    """Intervals are those of the arrays that the trials had."""
    good, bad = (
        np.stack([right_answers(method, seed) for seed in range(SEEDS)]).astype(float)
        for method in ("good", "bad")
    )
    cell = results.table("method").cells[("good",), ()].summary
    assert cell == summarise(good.mean(1).tolist(), good)
    assert cell.rows == ROWS
    (compared,) = results.compare({"method": "good"}, {"method": "bad"})
    wanted = paired_difference(good.mean(1).tolist(), bad.mean(1).tolist(), good - bad)
    assert compared.difference == wanted
    seeds_alone = paired_difference(good.mean(1).tolist(), bad.mean(1).tolist())
    assert wanted.p != seeds_alone.p


def test_intervals_cover_test_rows_where_trials_recorded_outcomes(tmp_path):
    results = results_of(tmp_path / "run")
    check_intervals(results)
    check_intervals(md.load_results(tmp_path / "run"))
    document = report_document(report_layout(results.records))
    assert "Intervals cover other seeds and other test rows." in render_markdown(document)
    shown = document["sections"][0]["tables"][0]["rows"][0]["cells"][0]["interval"]
    assert shown.endswith(f"over {SEEDS} seeds and {ROWS} test rows")
    written = results.folder.read_json("summary.json")["cells"][0]
    assert written["rows"] == ROWS


@pytest.mark.slow
def test_outcomes_travel_through_tune(tmp_path, ray_cluster):
    check_intervals(results_of(tmp_path / "run", runner="ray"))


@pytest.mark.parametrize("told", ["none", "first"])
def test_without_outcomes_of_the_final_value_intervals_cover_seeds_alone(tmp_path, told):
    """Under `first` the value is that of a second record, which has no outcomes."""
    results = results_of(tmp_path / "run", told=told)
    assert results.table("method").cells[("good",), ()].summary.rows is None
    document = report_document(report_layout(results.records))
    assert document["comparisons"][0]["covers"].endswith("other seeds, not other test rows")


@pytest.mark.parametrize(
    ("told", "words"),
    [("wrong", "their mean must be the value"), ("undeclared", "the metric outcomes=True")],
)
def test_outcomes_that_are_not_the_metrics_fail_the_trial(tmp_path, told, words):
    results = results_of(tmp_path / "run", told=told)
    assert len(results.failed) == 2 * SEEDS
    assert words in results.failed[0].error
