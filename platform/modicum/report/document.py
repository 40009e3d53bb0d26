"""Everything that a report shows, as plain JSON data.

The page is written once as a file or served while a study runs; both show this document, so
neither plots or computes anything of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from modicum.errors import InputError
from modicum.results.reference import JudgedCell
from modicum.results.tables import Table, show, show_number, show_summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from modicum.results import Results

_LOG_LINES = 40
_WIDE = 8.0  # inches
# Pictures of more things than this are not readable; their tables are.
_MOST_ROWS, _MOST_COLUMNS = 16, 24


def report_document(results: Results) -> dict[str, Any]:
    """The report of a run folder as it stands.

    Returns:
        Plain data: title, counts, notes, tables, pictures (SVG text), budgets to target,
        comparisons, verdicts, failures and provenance.
    """
    spec = results.spec
    provenance = (
        results.folder.read_json("provenance.json")
        if results.folder.exists("provenance.json")
        else {}
    )
    counts = {
        status: sum(trial.status == status for trial in results.trials)
        for status in ("finished", "running", "pending", "failed", "stopped")
    }
    notes = _notes(results)
    comparisons = _part(_comparisons, results, notes)
    verdicts = _part(_verdicts, results, notes)
    return {
        "title": spec.get("name", results.experiment["name"]),
        "description": spec.get("description", ""),
        "experiment": f"{results.experiment['name']} {results.experiment['version']}",
        "budget_unit": results.budget_unit.replace("_", " "),
        "counts": {status: count for status, count in counts.items() if count},
        "total": len(results.trials),
        "notes": notes,
        "sections": [_section(results, where) for where in results.groups()],
        "comparisons": comparisons,
        "verdicts": verdicts,
        "failures": _failures(results),
        "provenance": provenance,
    }


def _part(
    make: Callable[[Results], dict[str, Any] | None], results: Results, notes: list[str]
) -> dict[str, Any] | None:
    """A part of the report; one that cannot be made becomes a note, the rest stays."""
    try:
        return make(results)
    except InputError as error:
        notes.append(f"Left out: {error}.")
        return None


def _notes(results: Results) -> list[str]:
    notes = []
    commits = sorted({t.commit for t in results.trials if t.commit and t.status == "finished"})
    if len(commits) > 1:
        notes.append(
            f"Trials were computed by different versions of the code: {', '.join(commits)}."
        )
    if any("+" in commit for commit in commits):
        notes.append("Some trials ran with uncommitted changes (the part after + is their hash).")
    stopped = sum(trial.status == "stopped" for trial in results.trials)
    if stopped:
        notes.append(f"{stopped} trials were stopped early by the scheduler; they are in no cell.")
    if results.other_trials:
        notes.append(
            f"{results.other_trials} trials in this folder belong to other settings, versions or "
            "data; they are not shown."
        )
    return notes


def _section(results: Results, where: Mapping[str, Any]) -> dict[str, Any]:
    """Tables and pictures of one group."""
    rows, columns, _ = results.layout
    title = ", ".join(f"{name} = {show(value)}" for name, value in where.items())
    section: dict[str, Any] = {"title": title, "tables": [], "pictures": [], "budgets": []}
    for metric in results.shown_metrics:
        table = results.table(rows, columns, metric, where)
        if table.cells:
            section["tables"].append(_table(table))
    section["evaluation"] = _evaluation(results, rows, where)
    drawable = all(
        len(t["rows"]) <= _MOST_ROWS and len(t["header"]) - t["keys"] <= _MOST_COLUMNS
        for t in section["tables"]
    )
    for metric in results.shown_metrics[:1] if drawable else []:
        for group in results.budget_groups(columns, where):
            curves = results.curves(metric, rows, group)
            if not any(len(points) > 1 for points in curves.values()):
                continue
            section["pictures"].append(
                {
                    "title": f"{metric} against {results.budget_unit.replace('_', ' ')}"
                    + _at(group, where),
                    "note": "Mean over seeds; shaded: 95% interval.",
                    **_picture(results.plot_curves(metric, rows, group)),
                }
            )
        if section["tables"]:
            section["pictures"].append(
                {
                    "title": f"{metric} over seeds",
                    "note": "Box: quartiles; whiskers: 1.5 times their distance; dots: seeds.",
                    **_picture(results.plot_boxes(metric, rows, columns, where)),
                }
            )
    for target in results.report_spec.targets:
        for group in results.budget_groups(columns, where):
            needed = results.budget_to_target(target.metric, target.value, rows, group)
            if not needed:
                continue
            section["budgets"].append(
                {
                    "title": f"{results.budget_unit.replace('_', ' ')} needed for "
                    f"{target.metric} {_sign(results, target.metric)} {target.value:g}"
                    + _at(group, where),
                    "rows": [
                        {"key": [show(v) for v in key], "text": str(value)}
                        for key, value in needed.items()
                    ],
                    "names": rows,
                }
            )
    return section


def _evaluation(
    results: Results, rows: list[str], where: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What evaluation spent, which is no part of the budget: mean per trial of each row."""
    declared = results.experiment["metrics"]
    names = [n for n in map(str, results.frame) if declared.get(n, {}).get("evaluation_cost")]
    spent: dict[tuple[Any, ...], list[list[float]]] = {}
    for index, name in enumerate(names):
        for settings, value in results.values(name, where):
            key = tuple(settings.get(row) for row in rows)
            spent.setdefault(key, [[] for _ in names])[index].append(value)
    if not spent:
        return None
    return {
        "header": [*rows, *names],
        "rows": [
            [*map(show, key), *(f"{fmean(v):g}" if v else "–" for v in values)]
            for key, values in spent.items()
        ],
    }


def _picture(figure: Figure) -> dict[str, Any]:
    """A figure as SVG; one that is wide gets a row of the page to itself."""
    from modicum.results.plots import to_svg

    return {"svg": to_svg(figure), "wide": figure.get_figwidth() > _WIDE}


def _at(group: Mapping[str, Any], where: Mapping[str, Any]) -> str:
    """What a picture shows beyond its section."""
    own = {name: value for name, value in group.items() if name not in where}
    return f", {_settings(own)}" if own else ""


def _sign(results: Results, metric: str) -> str:
    return "≥" if results.metric_info(metric)["goal"] == "max" else "≤"


def _table(table: Table) -> dict[str, Any]:
    lines = []
    for row in table.rows:
        cells: list[dict[str, Any]] = []
        for column in table.columns:
            cell = table.cells.get((row, column))
            if cell is None:
                cells.append({"text": "–", "rank": None, "interval": ""})
                continue
            s = cell.summary
            interval = (
                ""
                if s.low is None
                else f"95% interval {show_number(s.low)} to {show_number(s.high)}"
            )
            cells.append({"text": show_summary(s), "rank": cell.rank, "interval": interval})
        lines.append({"key": [show(v) for v in row], "cells": cells})
    return {
        "title": table.metric,
        "header": table.header,
        "keys": len(table.row_names),
        "legend": table.legend + "; hover a cell for its 95% interval",
        "rows": lines,
    }


def _comparisons(results: Results) -> dict[str, Any] | None:
    """Every other row against the baseline, paired over seeds."""
    baseline = results.report_spec.baseline
    if baseline is None or not results.shown_metrics:
        return None
    metric = results.shown_metrics[0]
    base, others = results.baseline_rows(baseline)
    lines = []
    for other in others:
        for comparison in results.compare(other, base, metric):
            d = comparison.difference
            lines.append(
                {
                    "first": _settings(other),
                    "where": _settings(comparison.where),
                    "difference": f"{d.mean:+.4f}",
                    "interval": ""
                    if d.low is None or d.high is None
                    else f"{d.low:+.4f} to {d.high:+.4f}",
                    "p": "–" if d.p is None else f"{d.p:.2g}",
                    "n": d.n,
                    "excludes_zero": d.low is not None
                    and d.high is not None
                    and d.low * d.high > 0,
                }
            )
    if not lines:
        return None
    return {"metric": metric, "baseline": _settings(base), "rows": lines}


def _verdicts(results: Results) -> dict[str, Any] | None:
    if results.report_spec.reference is None:
        return None
    reference = results.reference()
    judged = results.verdicts(reference)
    counts: dict[str, int] = {}
    for cell in judged:
        counts[cell.verdict] = counts.get(cell.verdict, 0) + 1
    return {
        "source": reference.source,
        "metric": reference.metric,
        "baseline": _settings(reference.baseline),
        "counts": counts,
        "rows": [_judged(cell) for cell in judged],
    }


def _judged(cell: JudgedCell) -> dict[str, Any]:
    direction = {True: "agrees", False: "disagrees", None: "–"}[cell.direction]
    return {
        "where": _settings(cell.where),
        "published": show_summary(cell.published),
        "ours": "–" if cell.ours is None else show_summary(cell.ours),
        "interval": ""
        if cell.interval is None
        else f"{cell.interval[0]:+.4f} to {cell.interval[1]:+.4f}",
        "verdict": cell.verdict,
        "direction": direction,
        "reason": cell.reason,
    }


def _failures(results: Results) -> list[dict[str, Any]]:
    failures = []
    for trial in results.failed:
        place = ("trials", trial.id, "error.txt")
        trace = results.folder.read_text(*place) if results.folder.exists(*place) else ""
        failures.append(
            {
                "where": _settings({n: trial.columns.get(n) for n in results.varied}) or trial.id,
                "seed": trial.seed,
                "error": trial.error or "",
                "file": results.folder.display(*place),
                "trace": "\n".join(trace.splitlines()[-_LOG_LINES:]),
            }
        )
    return failures


def _settings(settings: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in settings.items() if value is not None}
    return ", ".join(f"{name} = {show(value)}" for name, value in shown.items())
