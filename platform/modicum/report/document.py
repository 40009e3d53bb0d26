"""Everything that a report shows, as plain JSON data.

The page is written once as a file or served while a study runs, and the same report may be
written as Markdown; all show this document, so none plots or computes anything of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from modicum.errors import InputError
from modicum.results.reference import JudgedCell
from modicum.results.statistics import Summary
from modicum.results.tables import Table, show, show_duration, show_number, show_summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from modicum.results.results import Results

_LOG_LINES = 40
_EMPTY = {"text": "–", "rank": None, "interval": ""}
_WIDE = 8.0  # inches
# Pictures of more things than this are not readable; their tables are.
_MOST_ROWS, _MOST_COLUMNS = 16, 24


def report_document(results: Results, failures: int | None = None) -> dict[str, Any]:
    """The report of a run folder as it stands.

    Args:
        results: What to report.
        failures: Most failed trials to show; None for all.

    Returns:
        Plain data: title, counts, notes, tables, pictures (SVG text), budgets to target, wins,
        comparisons, verdicts, failures and provenance.
    """
    spec = results.spec
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
        "wins": _wins(results),
        "comparisons": comparisons,
        "verdicts": verdicts,
        "failures": _failures(results, failures),
        "provenance": _provenance(results),
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
    stopped = [trial.stopped_by for trial in results.trials if trial.status == "stopped"]
    for who, count in (
        ("by the scheduler", sum(by != "request" for by in stopped)),
        ("on request", stopped.count("request")),
    ):
        if count:
            notes.append(f"{count} trials were stopped early {who}; they are in no cell.")
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
    tables = [results.table(rows, columns, metric, where) for metric in results.shown_metrics]
    section["tables"] = [_table(table) for table in tables if table.cells]
    if not columns and len(section["tables"]) > 1:
        section["tables"] = [_side_by_side(section["tables"])]
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
        section["pictures"] += _progress(results, where)
        if any(cell.summary.n > 1 for cell in tables[0].cells.values()):
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


def _progress(results: Results, where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Pictures of metrics against another one, for each value of the column settings."""
    rows, columns, _ = results.layout
    pictures = []
    for picture in results.report_spec.pictures:
        for key in results.column_keys():
            group = {**where, **dict(zip(columns, key, strict=True))}
            figure = results.plot_progress(picture.against, picture.metrics, rows, group)
            if not figure.axes[0].lines:
                continue
            title = f"{', '.join(picture.metrics)} against {picture.against}"
            pictures.append(
                {
                    "title": title + _at(group, where),
                    "note": "Mean over seeds; shaded: 95% interval.",
                    **_picture(figure),
                }
            )
    return pictures


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

    return {"svg": to_svg(figure), "wide": bool(figure.get_figwidth() > _WIDE)}


def _at(group: Mapping[str, Any], where: Mapping[str, Any]) -> str:
    """What a picture shows beyond its section."""
    own = {name: value for name, value in group.items() if name not in where}
    return f", {_settings(own)}" if own else ""


def _sign(results: Results, metric: str) -> str:
    return "≥" if results.metric_info(metric)["goal"] == "max" else "≤"


def _table(table: Table) -> dict[str, Any]:
    lines = []
    shown = _show_count if _counts(table) else show_summary
    for row in table.rows:
        cells: list[dict[str, Any]] = []
        for column in table.columns:
            cell = table.cells.get((row, column))
            if cell is None:
                cells.append(_EMPTY)
                continue
            s = cell.summary
            interval = (
                ""
                if s.low is None
                else f"95% interval {show_number(s.low)} to {show_number(s.high)}"
            )
            cells.append({"text": shown(s), "rank": cell.rank, "interval": interval})
        lines.append({"key": [show(v) for v in row], "cells": cells})
    return {
        "title": table.metric,
        "header": table.header,
        "keys": len(table.row_names),
        "legend": table.legend,
        "marked": table.goal is not None,
        "rows": lines,
    }


def _counts(table: Table) -> bool:
    """Whether a table holds whole numbers that are neither good nor bad, such as sizes."""
    return table.goal is None and all(_whole(cell.summary) for cell in table.cells.values())


def _whole(summary: Summary) -> bool:
    return summary.mean.is_integer() and not summary.sd


def _show_count(summary: Summary) -> str:
    return f"{summary.mean:.0f} ({summary.n})"


def _side_by_side(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """Tables of one column each as one table, a column for each metric."""
    lines: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for table in tables:
        for row in table["rows"]:
            lines.setdefault(tuple(row["key"]), [])
    for table in tables:
        cells = {tuple(row["key"]): row["cells"] for row in table["rows"]}
        for key, line in lines.items():
            line += cells.get(key, [_EMPTY])
    keys = tables[0]["keys"]
    return {
        "title": "Metrics",
        "header": tables[0]["header"][:keys]
        + [name for t in tables for name in t["header"][keys:]],
        "keys": keys,
        "legend": tables[0]["legend"],
        "marked": any(table["marked"] for table in tables),
        "rows": [{"key": list(key), "cells": line} for key, line in lines.items()],
    }


def _wins(results: Results) -> dict[str, Any] | None:
    """How often each row leads, where there is more than one group to count over."""
    rows, _, _ = results.layout
    metrics = results.shown_metrics[:1]
    if len(results.groups()) < 2 or not metrics or not results.metric_info(metrics[0])["goal"]:
        return None
    wins = results.wins(metrics[0])
    if not any(count.cells for count in wins.values()):
        return None
    return {
        "metric": metrics[0],
        "names": rows,
        "header": ["best", "second", "best or second", "of cells"],
        "rows": [
            {
                "key": [show(value) for value in key],
                "counts": [count.best, count.second, count.best_or_second, count.cells],
            }
            for key, count in wins.items()
        ],
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
        "metric": ", ".join(reference.metrics),
        "baseline": _settings(reference.baseline),
        "counts": counts,
        "rows": [_judged(cell, with_metric=len(reference.metrics) > 1) for cell in judged],
        "reasons": [
            {"where": _settings(entry.where) or "all cells", "reason": entry.reason}
            for entry in reference.not_comparable
        ],
    }


def _judged(cell: JudgedCell, with_metric: bool) -> dict[str, Any]:
    direction = {True: "agrees", False: "disagrees", None: "–"}[cell.direction]
    pair = [s for s in (cell.published, cell.ours) if s is not None]
    shown = _show_count if all(s.n == 1 and _whole(s) for s in pair) else show_summary
    return {
        "where": _settings(cell.where) + (f", {cell.metric}" if with_metric else ""),
        "published": shown(cell.published),
        "ours": "–" if cell.ours is None else shown(cell.ours),
        "interval": ""
        if cell.interval is None
        else f"{cell.interval[0]:+.4f} to {cell.interval[1]:+.4f}",
        "verdict": cell.verdict,
        "direction": direction,
        "reason": cell.reason,
    }


def _failures(results: Results, most: int | None) -> list[dict[str, Any]]:
    failures = []
    for trial in results.failed[:most]:
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


def _provenance(results: Results) -> list[dict[str, str]]:
    """Where the numbers come from, as names and texts; nothing where the run says nothing."""
    if not results.folder.exists("provenance.json"):
        return []
    last = results.folder.read_json("provenance.json")
    runs = [*last.get("earlier", []), last]
    hardware = last["hardware"]
    packages = [f"{name} {version}" for name, version in last["packages"].items()]
    facts = {
        "command": last["command"],
        "started": last["started"],
        "wall time": _wall_time(runs),
        "peak memory": _peak_memory(runs),
        "seeds": _seeds(results),
        "commit": last["commit"] or "unknown",
        "hardware": f"{hardware['processor']}, {hardware['cores']} cores, "
        f"{hardware['memory_gib']} GiB",
        "packages": ", ".join([f"Python {last['python']}", *packages]),
    }
    return [{"name": name, "text": text} for name, text in facts.items()]


def _wall_time(runs: list[Mapping[str, Any]]) -> str:
    """The time of all runs in the folder; one that was killed, or still runs, says none."""
    spent = [run["seconds"] for run in runs if "seconds" in run]
    if not spent:
        return "unknown"
    total = show_duration(sum(spent))
    if len(spent) < len(runs):
        return f"{total} in {len(spent)} of {len(runs)} runs; the others did not come to an end"
    return total if len(runs) == 1 else f"{total} in {len(runs)} runs"


def _peak_memory(runs: list[Mapping[str, Any]]) -> str:
    peaks = [run["peak_memory_gib"] for run in runs if "peak_memory_gib" in run]
    if not peaks:
        return "unknown"
    return f"{max(peaks):.2f} GiB (the driver and all processes started by it)"


def _seeds(results: Results) -> str:
    seeds = sorted({trial.seed for trial in results.trials})
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _settings(settings: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in settings.items() if value is not None}
    return ", ".join(f"{name} = {show(value)}" for name, value in shown.items())
