"""The report as a document, a page and Markdown; time and memory of runs in it."""

from dataclasses import replace

import psutil
import pytest

import modicum as md
from modicum.report.document import report_document
from modicum.report.rendering import render_markdown, render_report
from modicum.results.formatting import show_duration
from modicum.results.layout import report_layout
from modicum.results.statistics import summarise
from modicum.results.tables import Table, count_wins, rank_cells
from modicum.run_folder.provenance import memory_of_tree
from modicum.study import Study
from modicum.study_results import Results
from toys import Ballast, Descent

REPORT = {
    "rows": "method",
    "columns": "rate",
    "by": "steps",
    "targets": [{"metric": "test/loss", "value": 0.5}],
    "baseline": {"method": "slow"},
}
REPORT_2 = {"rows": "method", "baseline": "slow"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    space = {
        "method": md.grid("fast", "slow"),
        "rate": md.grid(0.25, 0.5),
        "steps": md.grid(2, 4),
    }
    study = Study(Descent, space, seeds=3, name="toy", description="Downhill.", report=REPORT)
    return study.run(tmp_path_factory.mktemp("toy") / "run", runner="local", quiet=True)


@pytest.fixture(scope="module")
def document(results):
    return document_of(results)


def document_of(results):
    """The report's document of a study."""
    return report_document(report_layout(results.records))


def table_of(columns, goal="max"):
    """A table from {column: {row: mean}}."""
    summaries = {
        ((row,), (column,)): summarise([mean])
        for column, means in columns.items()
        for row, mean in means.items()
    }
    rows = list(dict.fromkeys(row for row, _ in summaries))
    return Table(
        metric="m",
        goal=goal,
        row_names=("method",),
        column_names=("fraction",),
        rows=rows,
        columns=[(column,) for column in columns],
        cells=rank_cells(summaries, goal),
        where={},
    )


def test_wins_by_hand():
    """Columns of the first table: 3 > 2 > 1; b and c share the best 5, so that a's 4 is third; a
    alone, which is no contest. The second table: c 9, a 8, b 7.

    So a is best once, second once, in three contested cells (its fourth is alone); b best
    once, second once, of three; c best twice (shared, alone), never second, of three.
    """
    first = table_of({0: {"a": 3, "b": 2, "c": 1}, 1: {"a": 4, "b": 5, "c": 5}, 2: {"a": 1}})
    second = table_of({0: {"a": 8, "b": 7, "c": 9}})
    wins = {row[0]: w for row, w in count_wins([first, second]).items()}
    assert {row: (w.best, w.second, w.best_or_second, w.cells) for row, w in wins.items()} == {
        "a": (1, 1, 2, 3),
        "b": (1, 1, 2, 3),
        "c": (2, 0, 2, 3),
    }


def test_less_is_better_turns_the_wins_around():
    wins = count_wins([table_of({0: {"a": 3, "b": 2, "c": 1}}, goal="min")])
    assert [(row[0], w.best) for row, w in wins.items()] == [("a", 0), ("b", 0), ("c", 1)]


def test_the_document_counts_wins_over_all_groups(document):
    """Fast halves what slow hardly changes: it leads in both columns of both groups."""
    assert document["wins"]["rows"] == [
        {"key": ["fast"], "counts": [4, 0, 4, 4]},
        {"key": ["slow"], "counts": [0, 4, 4, 4]},
    ]
    assert "best or second" in render_report(document)


def test_one_group_has_no_count_of_wins(tmp_path):
    study = Study(Descent, {"method": md.grid("fast", "slow")}, seeds=1, name="one")
    one = study.run(tmp_path / "run", runner="local", quiet=True)
    assert document_of(one)["wins"] is None


def rows_below(markdown, heading, table=0):
    """Cells of the rows of a table under a heading."""
    part = markdown.split(f"{heading}\n\n", 1)[1]
    blocks = [block for block in part.split("\n\n") if block.startswith("|")]
    lines = blocks[table].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_markdown_has_exactly_the_numbers_of_the_tables(results, document):
    markdown = render_markdown(document)
    for steps in (2, 4):
        table = results.table("method", "rate", "test/loss", {"steps": steps})
        printed = rows_below(markdown, f"## steps = {steps}")
        for row, line in zip(table.rows, printed, strict=True):
            assert line[0] == row[0]
            for column, text in zip(table.columns, line[1:], strict=True):
                cell = table.cells[row, column]
                s, mark = cell.summary, {1: "**", 2: "*"}[cell.rank]
                assert text == f"{mark}{s.mean:.4f} ± {s.sd:.4f} ({s.n}){mark}"


def test_markdown_has_every_part_of_the_document(document):
    markdown = render_markdown(document)
    assert markdown.startswith("# toy\n\nDownhill.\n")
    compared = rows_below(markdown, "## Against method = slow")
    (table,) = document["comparisons"]
    assert len(compared) == len(table["rows"]) == 4
    assert compared[0][2].strip("*") == table["rows"][0]["difference"]
    for section in document["sections"]:
        assert len(section["budgets"]) == 2
        part = markdown.split(f"## {section['title']}\n")[1]
        for budget in section["budgets"]:
            found = rows_below(part, f"### {budget['title']}")
            assert found[0] == [*budget["rows"][0]["key"], budget["rows"][0]["text"]]
    for fact in document["provenance"]:
        assert fact["text"] in markdown
    assert "<svg" not in markdown


def test_several_baselines_have_a_table_each(results, tmp_path):
    """Both rows are baselines, written as values of the single row setting: each is compared with
    the other, to the opposite difference; p-values of the four cells are corrected together.
    """
    spec = {**results.spec, "report": {**REPORT, "baseline": ["slow", "fast"]}}
    both = document_of(Results(replace(results.records, spec=spec)))["comparisons"]
    assert [table["baseline"] for table in both] == ["method = slow", "method = fast"]
    for one, other in zip(*(table["rows"] for table in both), strict=True):
        assert one["first"] == "method = fast"
        assert other["first"] == "method = slow"
        assert one["difference"].lstrip("+-") == other["difference"].lstrip("+-")
        assert (one["p"], one["corrected"]) == (other["p"], other["corrected"])
    for row in both[0]["rows"]:
        assert row["p"] == "–" or float(row["corrected"]) > float(row["p"])


def test_two_seeds_have_no_interval_no_p_and_no_bold(results, tmp_path):
    study = Study(
        Descent, {"method": md.grid("fast", "slow")}, seeds=2, name="two", report=REPORT_2
    )
    two = study.run(tmp_path / "run", runner="local", quiet=True)
    (row,) = document_of(two)["comparisons"][0]["rows"]
    assert (row["n"], row["interval"], row["p"], row["corrected"]) == (2, "", "–", "–")
    assert float(row["difference"]) != 0
    assert "**" not in " ".join(
        rows_below(render_markdown(document_of(two)), "## Against method = slow")[0]
    )
    page = render_report(document_of(two))
    assert f'<td class="number">{row["difference"]}</td>' in page
    assert 'title="95% interval' not in page


def test_verdicts_and_failures_in_markdown(tmp_path):
    """Published 30 ± 1 (in hundredths) for fast and 1 ± 1 for slow, whose rate is not
    comparable; one seed of fast fails.
    """
    (tmp_path / "paper.yaml").write_text(
        "source: a paper\nmetric: test/loss\nscale: 100\nbaseline: {method: slow}\n"
        "not_comparable:\n  - {where: {method: slow}, reason: other data}\n"
        "cells:\n  - {where: {method: slow}, mean: 1, sd: 1, n: 5}\n"
        "  - {where: {method: fast}, mean: 30, sd: 1, n: 5}\n"
    )
    report = {"rows": "method", "reference": str(tmp_path / "paper.yaml")}
    space = {"method": md.grid("fast", "slow"), "fail_seed": 1}
    study = Study(Descent, space, seeds=3, name="v", report=report)
    results = study.run(tmp_path / "run", runner="local", quiet=True)
    where = results.report(tmp_path / "out.md")
    markdown = (tmp_path / "out.md").read_text()
    assert where == str(tmp_path / "out.md")
    verdicts = rows_below(markdown, "## Against a paper")
    assert [line[0] for line in verdicts] == ["method = slow", "method = fast"]
    assert verdicts[0][1] == "0.0100 ± 0.0100 (5)"
    assert [line[5] for line in verdicts] == ["not comparable", "undecided"]
    assert "- Not comparable (method = slow): other data." in markdown
    assert "method = fast, seed 1: ZeroDivisionError: the toy was told to fail" in markdown
    # Any other suffix is the page.
    assert results.report(tmp_path / "out.html").endswith("out.html")
    assert (tmp_path / "out.html").read_text().startswith("<!doctype html>")


def test_metrics_without_columns_stand_side_by_side(tmp_path):
    """Sizes are whole numbers and shown as such; a loss keeps its decimals."""
    report = {"rows": "method", "columns": [], "metrics": ["test/loss", "resumed_at"]}
    space = {"method": md.grid("fast", "slow")}
    study = Study(Descent, space, seeds=1, name="sizes", report=report)
    document = document_of(study.run(tmp_path / "run", runner="local", quiet=True))
    (table,) = document["sections"][0]["tables"]
    assert table["header"] == ["method", "test/loss", "resumed_at"]
    fast, slow = table["rows"]
    assert [cell["text"] for cell in fast["cells"]][1] == "0 (1)"
    assert [cell["rank"] for cell in fast["cells"]] == [1, None]
    assert [cell["rank"] for cell in slow["cells"]] == [2, None]
    # One seed makes no box.
    assert not any("over seeds" in p["title"] for p in document["sections"][0]["pictures"])


def test_provenance_has_time_and_memory_of_every_run(tmp_path):
    def run(seeds):
        study = Study(Descent, {"seconds": 0.05}, seeds=seeds, name="again")
        return study.run(tmp_path / "run", runner="local", quiet=True)

    run(1)
    results = run(3)
    facts = results.folder.read_json("provenance.json")
    (earlier,) = facts["earlier"]
    # Four records of a twentieth of a second each, first for one trial, then for two more.
    assert earlier["seconds"] >= 0.2
    assert facts["seconds"] >= 0.4
    assert min(earlier["peak_memory_gib"], facts["peak_memory_gib"]) > 0
    shown = {fact["name"]: fact["text"] for fact in document_of(results)["provenance"]}
    total = show_duration(earlier["seconds"] + facts["seconds"])
    assert shown["wall time"] == f"{total} in 2 runs"
    assert shown["seeds"] == "0 to 2"
    assert shown["peak memory"].startswith(
        f"{max(earlier['peak_memory_gib'], facts['peak_memory_gib']):.2f} GiB"
    )
    # A run that was killed says nothing of itself.
    del facts["seconds"], facts["peak_memory_gib"]
    results.folder.write_json(facts, "provenance.json")
    shown = {fact["name"]: fact["text"] for fact in document_of(results)["provenance"]}
    assert "in 1 of 2 runs" in shown["wall time"]


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["local", "ray"])
def test_peak_memory_sees_what_a_trial_held(tmp_path, ray_cluster, runner):
    """An array of 400 MB; the rest of the tree may give back up to 100 MB meanwhile."""
    before = memory_of_tree(psutil.Process())
    study = Study(Ballast, {"megabytes": 400}, seeds=1, name="ballast")
    results = study.run(tmp_path / "run", runner=runner, quiet=True)
    assert not results.failed
    peak = results.folder.read_json("provenance.json")["peak_memory_gib"] * 2**30
    assert peak - before >= 300e6


def test_durations():
    assert [show_duration(s) for s in (0.42, 9.96, 75, 3660)] == [
        "0.4 s",
        "10 s",
        "1 min 15 s",
        "1 h 01 min",
    ]
