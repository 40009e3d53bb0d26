"""Searches: their default table, the best configuration and its checkpoint."""

import json

import pytest

import modicum as md
from modicum.execution.messages import EndMessage, RecordMessage
from modicum.execution.recorder import Recorder
from modicum.report.document import report_document
from modicum.report.rendering import render_markdown, render_report
from modicum.results.layout import report_layout
from modicum.storage import StorageFolder
from modicum.yaml_io import dump_yaml
from toys import Descent

ASHA = {"name": "asha", "metric": "test/loss"}


RATES = {"rate": {"uniform": [0.1, 0.9]}}


def searched(tmp_path, *draws, ends=(), space=RATES, **fields):
    """Results of a search, by default of random rates, as if its trials had reported these losses.

    A configuration has a loss for each seed: a list of losses for a trial that a scheduler ended
    early, None for a trial that failed. `ends` are the trials' positions in the order of their
    ends.
    """
    count = len(draws) if space is RATES else 1
    study = md.Study(Descent, space, draws=count, seeds=len(draws[0]), **fields)
    folder = StorageFolder(tmp_path / "run")
    recorder = Recorder(folder, study.experiment)
    recorder.add(study.trials)
    folder.write_text(dump_yaml(study.resolved()), "study.yaml")
    reports = [report for draw in draws for report in draw]
    for place in ends or range(len(reports)):
        plan, report = study.trials[place], reports[place]
        recorder.start(plan.id)
        losses = report if isinstance(report, list) else [9.0, 9.0, report]
        for index, loss in enumerate(losses):
            if loss is not None:
                metrics = {"test/loss": loss, "start": -loss}
                message = RecordMessage(index, 10.0 * (index + 1), metrics, 0.1, b"")
                recorder.record(plan.id, message)
        if isinstance(report, list):
            recorder.stop(plan.id)
        else:
            recorder.end(plan.id, EndMessage("failed" if report is None else "finished"))
    return md.Results.consolidate(folder)


def rates(results):
    """Rates of the study, in its order."""
    return list(dict.fromkeys(trial.columns["rate"] for trial in results.trials))


def document(results):
    return report_document(report_layout(results.records))


def test_the_table_of_a_random_search_has_a_row_for_each_draw_the_best_first(tmp_path):
    """Means 4, 2, 3 with sd 1 of three seeds: the interval of 2 is 2 ± 4.3027/√3 = 2 ± 2.4841."""
    results = searched(tmp_path, [3.0, 4.0, 5.0], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    first, second, third = rates(results)
    (table,) = results.tables()
    assert results.layout == (["rate"], [], [])
    assert [row for (row,) in table.rows] == [second, third, first]
    assert [table.cells[row, ()].rank for row in table.rows] == [1, 2, None]
    shown = ["2.0000 ± 1.0000 (3)", "3.0000 ± 1.0000 (3)", "4.0000 ± 1.0000 (3)"]
    for text in (table.to_text(), table.to_markdown(), table.to_latex().replace(r"$\pm$", "±")):
        places = [text.index(cell) for cell in shown]
        assert places == sorted(places)
    (section,) = document(results)["sections"]
    cells = [row["cells"][0] for row in section["tables"][0]["rows"]]
    assert [cell["text"] for cell in cells] == shown
    assert cells[0]["interval"] == "95% interval -0.4841 to 4.4841, over 3 seeds"


def test_trials_that_asha_ended_stand_below_with_their_last_value_and_budget(tmp_path):
    """Two of twelve finish. Value 0.1 of an ended trial is the least, and has no rank."""
    early = [[[1.0, 0.1 * index]] for index in (3, 2, 1, 4, 5, 6, 7, 8, 9)]
    results = searched(tmp_path, [2.0], *early, [[5.0]], [0.5], scheduler=ASHA)
    found = rates(results)
    (table,) = results.tables()
    order = [found.index(row) for (row,) in table.rows]
    assert order == [11, 0, 3, 2, 1, 4, 5, 6, 7, 8, 9, 10]
    marks = [(c.rank, c.ended_at) for c in (table.cells[row, ()] for row in table.rows)]
    assert marks == [(1, None), (2, None), *[(None, 20.0)] * 9, (None, 10.0)]
    page, text = render_report(document(results)), render_markdown(document(results))
    for shown in (table.to_text(), table.to_markdown(), table.to_latex(), page, text):
        assert shown.count("(ended early at 20)") == 9
        assert "5.0000 (ended early at 10)" in shown
    assert "a scheduler ended at this budget" in " ".join(table.to_text().split())
    assert "10 trials were stopped early by the scheduler; their last values are marked." in text
    best = results.best()
    assert (best.summary.mean, best.varied, best.ended_at) == (0.5, {"rate": found[11]}, None)


def test_seeds_that_were_ended_together_stand_at_the_last_record_of_all(tmp_path):
    results = searched(tmp_path, [2.0, 3.0], [[4.0, 0.5], [6.0]], scheduler=ASHA)
    cell = results.tables()[0].cells[(rates(results)[1],), ()]
    assert (cell.summary.mean, cell.summary.n, cell.ended_at) == (5.0, 2, 10.0)


def searched_once(tmp_path, *losses, **fields):
    return searched(tmp_path, *([loss] for loss in losses), **fields)


def test_a_scheduler_over_a_grid_is_a_search_too(tmp_path):
    space = {"method": md.grid("fast", "slow"), "rate": md.grid(0.1, 0.2)}
    results = searched(tmp_path, [2.0], [[1.0]], [3.0], [1.0], space=space, scheduler=ASHA)
    assert results.layout == (["method", "rate"], [], [])
    (table,) = results.tables()
    assert table.rows == [("slow", 0.2), ("fast", 0.1), ("slow", 0.1), ("fast", 0.2)]


@pytest.mark.parametrize("report", [{"rows": "rate"}, {"columns": []}])
def test_a_report_that_names_rows_or_columns_keeps_the_order_of_the_study(tmp_path, report):
    results = searched_once(tmp_path, 3.0, 1.0, 2.0, report=report)
    (table,) = results.tables()
    assert [table.cells[row, ()].summary.mean for row in table.rows] == [3.0, 1.0, 2.0]


def test_a_baseline_keeps_the_comparison_of_methods(tmp_path):
    space = {"method": md.grid("fast", "slow"), "rate": {"uniform": [0.1, 0.9]}}
    report = {"baseline": {"method": "slow"}}
    study = md.Study(Descent, space, draws=2, seeds=1, report=report)
    results = study.run(tmp_path / "run", runner="local", quiet=True)
    assert results.layout == (["method"], ["rate"], [])
    assert len(document(results)["comparisons"][0]["rows"]) == 2


def test_groups_of_a_search_are_ranked_one_by_one(tmp_path):
    space = {"method": md.grid("fast", "slow"), "rate": {"uniform": [0.1, 0.9]}}
    study = md.Study(Descent, space, draws=3, seeds=2, report={"by": "method"})
    results = study.run(tmp_path / "run", runner="local", quiet=True)
    assert results.layout == (["rate"], [], ["method"])
    for table in results.tables():
        # A larger rate descends faster.
        assert [rate for (rate,) in table.rows] == sorted(rates(results), reverse=True)


def test_the_objective_is_the_schedulers_and_is_shown(tmp_path):
    """`start` is minus the loss, and has no goal of its own."""
    scheduler = {"name": "asha", "metric": "start", "goal": "max"}
    results = searched_once(tmp_path, 3.0, 1.0, 2.0, scheduler=scheduler)
    found = rates(results)
    assert results.shown_metrics == ["start", "test/loss"]
    for table in results.tables():
        assert [found.index(rate) for (rate,) in table.rows] == [1, 2, 0]
    assert [c.rank for c in results.tables()[0].cells.values()] == [None, 1, 2]
    assert results.best().metric == "start"
    assert results.best(goal="min").varied == {"rate": found[0]}


def test_the_best_configuration(tmp_path):
    results = searched(tmp_path, [3.0, 4.0, 5.0], [1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    best, found = results.best(), rates(results)
    # Equal means: the first of the study.
    assert best.varied == {"rate": found[1]}
    assert best.settings["method"] == "fast"
    assert (best.metric, best.goal, best.summary.mean, best.seeds) == (
        "test/loss",
        "min",
        2,
        [0, 1, 2],
    )
    assert best.trials == [t.id for t in results.trials if t.columns["rate"] == found[1]]
    assert best.checkpoint is None
    assert str(best) == (
        f"rate = {found[1]:g}: test/loss 2.0000 (95% interval -0.4841 to 4.4841) over 3 seeds"
    )
    assert results.best(goal="max").varied == {"rate": found[0]}
    assert results.best("start", "max").summary.mean == -2.0
    assert results.best(where={"rate": found[2]}).summary.sd == 0.0
    for arguments, reason in (
        (("start",), "goal: say whether 'start'"),
        (("test/loss", "least"), "max or min"),
        (("test/lost",), "did you mean 'test/loss'"),
        (("test/loss", "min", {"rate": 7}), "no trial has a value"),
        (("test/loss", "min", {"rat": 7}), "setting 'rat'"),
    ):
        with pytest.raises(md.InputError, match=reason):
            results.best(*arguments)


def test_a_configuration_with_a_failed_seed_is_behind_all_whole_ones(tmp_path):
    results = searched(tmp_path, [0.5, None], [3.0, 3.0], [2.0, 2.0], [None, None])
    found = rates(results)
    assert results.best().summary.mean == 2.0
    (table,) = results.tables()
    assert [found.index(rate) for (rate,) in table.rows] == [2, 1, 0]
    assert [table.cells[row, ()].rank for row in table.rows] == [1, 2, None]
    assert results.best(where={"rate": found[0]}).seeds == [0]


def test_trials_ended_early_are_the_best_only_without_finished_ones(tmp_path):
    results = searched_once(tmp_path, [3.0, 2.0], [1.5], [4.0, 1.8], scheduler=ASHA)
    best = results.best()
    assert (best.summary.mean, best.ended_at, best.seeds) == (1.5, 10.0, [0])
    assert str(best).endswith("test/loss 1.5000 over 1 seed, ended early at 10")


def test_the_picture_of_a_search_has_the_best_so_far_in_the_order_of_the_ends(tmp_path):
    """They end with 3, 1.5 (early), 2, 4 and 1: the best finished so far is 3, 2, 2 and 1."""
    losses = [1.0, 2.0, 3.0, 4.0, [1.5]]
    results = searched_once(tmp_path, *losses, ends=(2, 4, 1, 3, 0), scheduler=ASHA)
    lines = {line.get_label(): line.get_data() for line in results.plot_search().axes[0].lines}
    drawn = {label: (list(x), list(y)) for label, (x, y) in lines.items()}
    assert drawn == {
        "finished": ([1, 3, 4, 5], [3.0, 2.0, 4.0, 1.0]),
        "ended early": ([2], [1.5]),
        "best so far": ([1, 3, 4, 5, 5], [3.0, 2.0, 2.0, 1.0, 1.0]),
    }
    titles = [picture["title"] for picture in document(results)["sections"][0]["pictures"]]
    assert "test/loss in the order of time" in titles


def test_the_checkpoint_of_a_search_is_the_best_trials(tmp_path):
    """`Descent` ends with a smaller loss, its selection metric, at a larger rate."""
    space = {"rate": {"uniform": [0.1, 0.9]}, "checkpoints": True}
    study = md.Study(Descent, space, draws=4, seeds=2)
    results = study.run(tmp_path / "run", runner="local", quiet=True)
    losses = {
        trial.id: value for trial, value in zip(results.trials, _losses(results), strict=True)
    }
    assert min(losses.values()) < losses[results.trials[0].id]
    found = md.find_checkpoint(str(tmp_path / "run"), "state.json", "model", "state")
    assert abs(json.loads((found / "state.json").read_text())["x"]) == min(losses.values())
    best = results.best()
    assert best.varied == {"rate": max(rates(results))}
    assert best.checkpoint == str(found)
    chosen = rates(results)[0]
    other = md.find_checkpoint(str(tmp_path / "run"), "state.json", "model", "state", rate=chosen)
    own = [losses[trial.id] for trial in results.trials if trial.columns["rate"] == chosen]
    assert abs(json.loads((other / "state.json").read_text())["x"]) == min(own)


def _losses(results):
    return [value for _, value in results.values("test/loss")]
