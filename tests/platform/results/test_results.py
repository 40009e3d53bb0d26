import dataclasses

import pytest

import modicum as md
from modicum.execution.messages import EndMessage, RecordMessage
from modicum.execution.recorder import Recorder
from modicum.report.document import report_document
from modicum.report.rendering import render_report
from modicum.results.curves import CurvePoint
from modicum.results.figures import Lines, curves_figure
from modicum.results.layout import report_layout
from modicum.results.reference import Reference, judge
from modicum.results.statistics import summarise
from modicum.results.store import collect, read_parquet
from modicum.results.tables import rank_cells
from modicum.storage import StorageFolder
from modicum.study import Study
from modicum.study_results import Results
from modicum.yaml_io import dump_yaml
from toys import Descent

# test/loss by (method, rate, seed); rate stands for the columns of a table.
VALUES = {
    ("fast", 0.1): [1.0, 2.0, 3.0],
    ("fast", 0.2): [4.0, 4.0, 4.0],
    ("slow", 0.1): [2.0, 3.0, 4.0],
    ("slow", 0.2): [1.0, 1.0, 4.0],
}


def results_of(tmp_path, values=VALUES, report=None, failed=()):
    """Results as if a study had reported these values, budgets 10 and 20 with a worse start."""
    study = Study(
        Descent,
        {"method": md.grid("fast", "slow"), "rate": md.grid(0.1, 0.2)},
        seeds=3,
        report=report,
    )
    folder = StorageFolder(tmp_path / "run")
    recorder = Recorder(folder, study.experiment, commit="abc")
    recorder.add(study.trials)
    folder.write_text(dump_yaml(study.resolved()), "study.yaml")
    for plan in study.trials:
        recorder.start(plan.id)
        key = (plan.columns["method"], plan.columns["rate"])
        value = values[key][plan.seed]
        for index, loss in enumerate([value + 1, value]):
            recorder.record(
                plan.id,
                RecordMessage(
                    index, 10 * (index + 1), {"test/loss": loss, "start": float(index)}, 0.1, b""
                ),
            )
        status = "failed" if (*key, plan.seed) in failed else "finished"
        recorder.end(plan.id, EndMessage(status, error="boom" if failed else "", traceback="trace"))
    return Results.consolidate(folder)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of `VALUES`, for tests that change nothing."""
    return results_of(tmp_path_factory.mktemp("results"))


def test_table_means_sds_and_marks(results):
    table = results.table("method", "rate", "test/loss")
    assert table.rows == [("fast",), ("slow",)]
    assert table.columns == [(0.1,), (0.2,)]
    cell = table.cells[("fast",), (0.1,)]
    assert (cell.summary.mean, cell.summary.sd, cell.summary.n) == (2.0, 1.0, 3)
    ranks = {(r[0], c[0]): cell.rank for (r, c), cell in table.cells.items()}
    # Less is better: fast wins at 0.1 (2 < 3), slow at 0.2 (2 < 4).
    assert ranks == {("fast", 0.1): 1, ("slow", 0.1): 2, ("fast", 0.2): 2, ("slow", 0.2): 1}


def test_table_as_text_markdown_and_latex(results):
    table = results.table("method", "rate", "test/loss")
    assert "2.0000 ± 1.0000 (3) *" in table.to_text()
    assert table.to_markdown().splitlines()[2] == (
        "| fast | **2.0000 ± 1.0000 (3)** | *4.0000 ± 0.0000 (3)* |"
    )
    latex = table.to_latex()
    assert r"fast & \textbf{2.0000 $\pm$ 1.0000 (3)} & \underline{" in latex
    assert latex.count(r"\\") == 3


def test_cells_never_mix_settings_that_are_not_named(results):
    with pytest.raises(md.InputError, match="rate"):
        results.table("method", metric="test/loss")
    pooled = results.table("method", metric="test/loss", where={"rate": 0.2})
    assert pooled.cells[("fast",), ()].summary.mean == 4.0


def test_unknown_names_fail_at_once(results):
    with pytest.raises(md.InputError, match="did you mean 'test/loss'"):
        results.table("method", "rate", "test/lost")
    with pytest.raises(md.InputError, match="setting 'methd'"):
        results.table("methd", "rate")
    with pytest.raises(md.InputError, match="no goal"):
        results.budget_to_target("start", 0.5)


def test_failed_trials_are_in_no_cell(tmp_path):
    results = results_of(tmp_path, failed={("fast", 0.1, 2)})
    cell = results.table("method", "rate", "test/loss").cells[("fast",), (0.1,)]
    assert (cell.summary.n, cell.summary.mean) == (2, 1.5)
    assert [t.seed for t in results.failed] == [2]


def test_a_setting_that_follows_from_the_rows_needs_no_table_of_its_own(tmp_path):
    space = [{"method": "fast", "rate": 0.1, "steps": 2}, {"method": "slow", "rate": 0.2}]
    report = {"rows": "method", "columns": []}
    study = Study(Descent, space, seeds=2, report=report)
    results = study.run(tmp_path / "run", runner="local", quiet=True)
    assert results.varied == ["method", "rate", "steps"]
    assert results.layout == (["method"], [], [])
    mixed = Study(Descent, {"rate": md.grid(0.1, 0.2)}, seeds=2, report={"rows": "method"})
    assert mixed.run(tmp_path / "mixed", runner="local", quiet=True).layout[1] == ["rate"]


def test_compare_pairs_seeds(results):
    """At 0.1 every difference is −1; at 0.2 they are 3, 3, 0 with mean 2."""
    at_01, at_02 = results.compare({"method": "fast"}, {"method": "slow"}, "test/loss")
    assert (at_01.where, at_01.difference.mean, at_01.difference.n) == ({"rate": 0.1}, -1.0, 3)
    assert at_02.difference.mean == 2.0
    assert at_02.difference.low < 0 < at_02.difference.high


def test_compare_uses_only_shared_seeds(tmp_path):
    results = results_of(tmp_path, failed={("slow", 0.2, 1)})
    _, at_02 = results.compare({"method": "fast"}, {"method": "slow"}, "test/loss")
    assert (at_02.difference.n, at_02.difference.mean) == (2, 1.5)


def test_budget_to_target_within_trials(results):
    """Fast at 0.1: losses 2, 3, 4 at budget 10 and 1, 2, 3 at 20; 2 is reached at 10, 20, never."""
    needed = results.budget_to_target("test/loss", 2.0, "method", {"rate": 0.1})
    assert str(needed["fast",]) == "20 [10 to > 20, 75%] (2 of 3 seeds)"


def test_curves_refuse_trials_that_would_share_a_budget(results):
    points = results.curves("test/loss", "method", {"rate": 0.1})["fast",]
    assert [(p.budget, p.summary.mean) for p in points] == [(10, 3.0), (20, 2.0)]
    with pytest.raises(md.InputError, match="rate"):
        results.curves("test/loss", "method")


def test_parquet_and_trial_files_give_the_same_results(tmp_path):
    folder = results_of(tmp_path, failed={("slow", 0.1, 0)}).folder
    stored, fresh = read_parquet(folder), collect(folder)
    assert stored.frame.equals(fresh.frame)
    assert list(stored.trials) == list(fresh.trials)
    assert {"trial_id", "config/method", "config/rate", "seed", "budget", "test/loss"} <= set(
        stored.frame.columns
    )
    assert len(stored.frame) == 24


def test_a_parquet_file_of_an_earlier_plan_is_not_believed(tmp_path):
    folder = results_of(tmp_path).folder
    plan = folder.read_json("plan.json")
    plan["trials"].pop()
    folder.write_json(plan, "plan.json")
    assert read_parquet(folder) is None
    assert len(md.load_results(folder.uri).trials) == 11


def test_summary_lists_cells_and_failures(tmp_path):
    results = results_of(tmp_path, failed={("fast", 0.1, 2)})
    results.write_summary()
    summary = results.folder.read_json("summary.json")
    assert summary["trials"]["failed"] == 1
    assert summary["failures"][0]["error"] == "boom"
    wanted = {"method": "fast", "rate": 0.2}
    cell = next(c for c in summary["cells"] if c["settings"] == wanted)
    assert (cell["metric"], cell["n"], cell["mean"]) == ("test/loss", 3, 4.0)


def test_equal_means_share_a_rank():
    cells = {
        ((row,), ()): summarise([value])
        for row, value in {"a": 1.0, "b": 2.0, "c": 2.0, "d": 3.0}.items()
    }
    ranks = {row[0]: cell.rank for (row, _), cell in rank_cells(cells, "max").items()}
    assert ranks == {"d": 1, "b": 2, "c": 2, "a": None}
    assert all(cell.rank is None for cell in rank_cells(cells, None).values())


REFERENCE = {
    "source": "a paper",
    "metric": "test/loss",
    "scale": 10,
    "margin": 30,
    "baseline": {"method": "slow"},
    "not_comparable": [{"where": {"rate": 0.2}, "reason": "other data"}],
    "cells": [
        {"where": {"method": "slow", "rate": 0.1}, "mean": 31, "sd": 9, "n": 5},
        {"where": {"method": "fast", "rate": 0.1}, "mean": 1, "sd": 1, "n": 5, "margin": 10},
        {"where": {"method": "fast", "rate": 0.2}, "mean": 10, "sd": 1, "n": 5},
        {"where": {"method": "noisy", "rate": 0.1}, "mean": 10, "sd": 1, "n": 5},
    ],
}


def test_verdicts_by_hand(results, tmp_path):
    """Slow at 0.1: ours 3 ± 1 (n = 3), published 3.1 ± 0.9: −0.1 with a standard error of 0.70; its
    90% interval lies within 3. Fast: 2 ± 1 and 0.1 ± 0.1: 1.9 with 0.58; the 90% interval reaches
    beyond 1, the 95% interval below 0: undecided.

    With 2.0, 2.1, 2.2 the standard error is 0.07: it differs. Slow at 3.0, 3.1, 3.2 is above that
    for certain, as it is in the publication; at 2, 3, 4 the seeds leave it at 0.87.
    """
    judged = results.verdicts(Reference.model_validate(REFERENCE))
    verdicts = ["matches", "undecided", "not comparable", "not run"]
    assert [cell.verdict for cell in judged] == verdicts
    assert [cell.margin for cell in judged] == [3.0, 1.0, 3.0, 3.0]
    assert judged[0].direction is None
    assert judged[1].direction is True
    assert judged[2].reason == "other data"
    tight = {("fast", 0.1): [2.0, 2.1, 2.2]}
    found = {
        "loose": {**VALUES, **tight},
        "sure": {**VALUES, **tight, ("slow", 0.1): [3.0, 3.1, 3.2]},
        "worse": {**VALUES, ("fast", 0.1): [5.0, 5.1, 5.2]},
    }
    reference = Reference.model_validate(REFERENCE)
    loose, sure, worse = (
        results_of(tmp_path / name, values).verdicts(reference)[1] for name, values in found.items()
    )
    assert (loose.verdict, loose.direction) == ("differs", True)
    assert loose.probability == pytest.approx(0.87, abs=0.01)
    assert (sure.verdict, sure.direction) == ("direction only", True)
    assert sure.probability > 0.99
    assert (worse.verdict, worse.direction) == ("differs", False)


def judged(published, ours, **fields):
    """The verdict on one published cell."""
    reference = Reference.parse(
        {"source": "a", "metric": "m", "cells": [{"where": {}, **published}], **fields}, "a"
    )
    return judge(reference, {"m": [({}, summarise(ours))]})[0]


def test_the_default_margin_is_a_published_deviation_or_a_point_of_percentages():
    for sd, scale, margin in ((0.4, 100, 0.01), (2.5, 100, 0.025), (0.4, 1, 0.4), (0, 1, 0.0)):
        cell = judged({"mean": 50, "sd": sd, "n": 5}, [0.5], scale=scale)
        assert cell.margin == pytest.approx(margin)
    assert judged({"mean": 1, "sd": 1, "n": 5}, [1.0], margin=0.25).margin == 0.25


def test_numbers_that_do_not_vary_are_taken_as_they_are():
    """86.6 ± 0 from five seeds, ours 0.866 three times: equal. Half a point is within one."""
    constant = {"mean": 86.6, "sd": 0, "n": 5}
    assert judged(constant, [0.866] * 3, scale=100).verdict == "matches"
    assert judged(constant, [0.871] * 3, scale=100).verdict == "matches"
    assert judged(constant, [0.886] * 3, scale=100).verdict == "differs"


def test_too_few_seeds_decide_nothing():
    """Two seeds, one measured number without a spread, and a published one without."""
    spread = {"mean": 1.0, "sd": 0.1, "n": 5}
    single = {"mean": 1.0, "sd": 0, "n": 1}
    for published, ours in ((spread, [1.0, 9.0]), (spread, [9.0]), (single, [8.9, 9.0, 9.1])):
        assert (judged(published, ours).verdict, judged(published, ours).interval) == (
            "undecided",
            None,
        )
    assert judged({**single, "mean": 1.5}, [1.6]).verdict == "undecided"


def test_a_difference_in_settings_that_the_publication_does_not_name():
    """Both cells have the published settings; the one of a single step is not comparable."""
    cells = [{"where": {"method": "slow"}, "mean": 1, "sd": 9, "n": 5}]
    short = [{"where": {"steps": 1}, "reason": "one step"}]
    reference = Reference.parse(
        {"source": "a", "metric": "test/loss", "cells": cells, "not_comparable": short}, "a"
    )
    for steps, verdict in ((1, "not comparable"), (2, "matches")):
        ours = [({"method": "slow", "steps": steps}, summarise([0.9, 1.0, 1.1]))]
        assert judge(reference, {"test/loss": ours})[0].verdict == verdict
    assert judge(reference, {})[0].verdict == "not run"


def test_a_reference_that_fits_two_cells_is_refused():
    reference = Reference.model_validate(REFERENCE)
    summary = summarise([1.0, 2.0])
    ours = [({"method": "slow", "rate": 0.1, "steps": s}, summary) for s in (1, 2)]
    with pytest.raises(md.InputError, match="tell them apart"):
        judge(reference, {"test/loss": ours})


def test_a_reference_of_several_metrics():
    """Counts have no spread: equal ones match, others differ, and without a baseline nothing has a
    direction. A loss of 0.53 ± 0.15 beside 0.5 ± 0.1, three seeds each, decides nothing.
    """
    cells = [
        {"where": {"method": "slow"}, "metric": "start", "mean": 12, "sd": 0, "n": 1},
        {"where": {"method": "fast"}, "metric": "start", "mean": 13, "sd": 0, "n": 1},
        {"where": {"method": "slow"}, "mean": 0.5, "sd": 0.1, "n": 3},
    ]
    reference = Reference.parse({"source": "a", "metric": "test/loss", "cells": cells}, "a")
    assert reference.metrics == ["start", "test/loss"]
    ours = {
        "start": [({"method": m}, summarise([12.0])) for m in ("slow", "fast")],
        "test/loss": [({"method": "slow"}, summarise([0.4, 0.5, 0.7]))],
    }
    judged = judge(reference, ours)
    assert [cell.verdict for cell in judged] == ["matches", "differs", "undecided"]
    assert [cell.metric for cell in judged] == ["start", "start", "test/loss"]
    assert all(cell.direction is None for cell in judged)
    with pytest.raises(md.InputError, match="name one here or in every cell"):
        Reference.parse({"source": "a", "cells": cells}, "a")


def test_report_shows_what_was_found(tmp_path):
    results = results_of(
        tmp_path,
        failed={("fast", 0.1, 2)},
        report={
            "rows": "method",
            "columns": [],
            "by": "rate",
            "targets": [{"metric": "test/loss", "value": 2.0}],
            "baseline": {"method": "slow"},
        },
    )
    document = report_document(report_layout(results.records))
    assert document["counts"] == {"finished": 11, "failed": 1}
    assert [section["title"] for section in document["sections"]] == ["rate = 0.1", "rate = 0.2"]
    section = document["sections"][0]
    assert section["tables"][0]["rows"][0]["cells"][0]["text"] == "1.5000 ± 0.7071 (2)"
    assert section["budgets"][0]["rows"][0] == {
        "key": ["fast"],
        "text": "20 (2 of 2 seeds)",
    }
    assert [picture["svg"][:4] for picture in section["pictures"]] == ["<svg", "<svg"]
    assert document["comparisons"][0]["rows"][0]["difference"] == "-1.0000"
    page = render_report(document)
    assert "boom" in page
    assert "content=\"default-src 'none'; script-src 'sha256-" in page


def test_the_report_escapes_what_users_write(results):
    spec = {**results.spec, "description": "<script>alert(1)</script>"}
    records = dataclasses.replace(results.records, spec=spec)
    assert "<script>alert" not in render_report(report_document(report_layout(records)))


def test_mixed_versions_of_the_code_are_said(tmp_path):
    folder = results_of(tmp_path).folder
    name = folder.folders("trials")[0]
    trial = folder.read_json("trials", name, "trial.json")
    folder.write_json({**trial, "commit": "def"}, "trials", name, "trial.json")
    notes = report_document(report_layout(collect(folder)))["notes"]
    assert any("different versions of the code: abc, def" in note for note in notes)


def test_a_curve_that_starts_without_budget_has_no_axis_below_it():
    """Budgets 0, 50 and 5,000: the axis must show all three and nothing like -100."""
    points = [CurvePoint(budget, summarise([0.5, 0.6])) for budget in (0.0, 50.0, 5000.0)]
    figure = curves_figure(Lines({"iwl": points}, "labels", "test/accuracy"))
    left, right = figure.axes[0].get_xlim()
    assert -50 < left < 0
    assert right > 5000


def test_a_metric_against_another_one_of_the_same_records(results):
    """Fast at 0.1 ends at 1, 2 and 3, and at one more a record earlier: means 3, then 2."""
    found = results.progress("start", "test/loss", "method", {"rate": 0.1})
    assert [(p.budget, p.summary.mean, p.summary.n) for p in found["fast",]] == [
        (0.0, 3.0, 3),
        (1.0, 2.0, 3),
    ]
    assert [p.summary.mean for p in found["slow",]] == [4.0, 3.0]


def test_pictures_against_a_metric_have_a_line_for_each_row_and_metric(results):
    figure = results.plot_progress("start", ["test/loss", "start"], "method", {"rate": 0.1})
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "fast, test/loss",
        "slow, test/loss",
        "fast, start",
        "slow, start",
    ]
    assert axes.get_xlabel() == "start"
    assert axes.get_xscale() == "linear"


def test_progress_does_not_mix_settings(results):
    with pytest.raises(md.InputError, match="rate"):
        results.progress("start", "test/loss", "method")


def test_a_study_refuses_pictures_of_metrics_that_there_are_not():
    pictures = [{"against": "epoch", "metrics": "test/loss"}]
    with pytest.raises(md.InputError, match=r"report.pictures: unknown metric 'epoch'"):
        Study(Descent, {}, report={"pictures": pictures})


def test_the_report_draws_pictures_for_each_column(tmp_path):
    pictures = [{"against": "start", "metrics": ["test/loss"]}]
    layout = {"rows": "method", "columns": "rate", "pictures": pictures}
    document = report_document(report_layout(results_of(tmp_path, report=layout).records))
    titles = [picture["title"] for picture in document["sections"][0]["pictures"]]
    assert "test/loss against start, rate = 0.1" in titles
    assert "test/loss against start, rate = 0.2" in titles
