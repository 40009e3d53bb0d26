"""Everything that a report shows, as one document of plain JSON data.

A page that is written once, a page that is served while a study runs, and Markdown all show this
document; none of them plots or computes anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from modicum.errors import InputError
from modicum.report.explorer import explorer
from modicum.report.sections import (
    covers,
    describe,
    section,
    show_count,
    signed_interval,
    whole,
)
from modicum.results.formatting import show, show_duration, show_number, show_p, show_summary
from modicum.results.layout import ReportLayout
from modicum.results.records import StudyRecords
from modicum.results.reference import JudgedCell, judge_study, study_reference
from modicum.results.statistics import LEVEL, holm
from modicum.results.tables import compare_methods, wins_by_row

_LOG_LINES = 40
_HARDWARE = ("processor", "cores", "memory_gib")

T = TypeVar("T")


def report_document(layout: ReportLayout, most_failures: int | None = None) -> dict[str, Any]:
    """Make the report of a study as it stands, with at most `most_failures` failed trials.

    Returns:
        Plain data: title, counts, notes, tables, pictures (SVG text), budgets to target, wins,
        comparisons, verdicts, failures, provenance and the data of all trials.
    """
    records = layout.records
    counts = records.status_counts()
    notes = _notes(layout)
    sections = [section(layout, group) for group in layout.groups()]
    compared = _unless_refused(comparisons, layout, notes)
    judged = _unless_refused(verdicts, layout, notes)
    facts = provenance(records)
    notes += [f"{sentence}." for sentence in records.damaged.values()]
    return {
        "title": records.spec.get("name", records.experiment["name"]),
        "description": records.spec.get("description", ""),
        "experiment": f"{records.experiment['name']} {records.experiment['version']}",
        "budget_unit": records.budget_words,
        "counts": {
            status: counts[status]
            for status in ("finished", "running", "pending", "failed", "stopped")
            if counts[status]
        },
        "total": len(records.trials),
        "notes": notes,
        "sections": sections,
        "wins": wins(layout),
        "comparisons": compared,
        "verdicts": judged,
        "failures": failures(records, most_failures),
        "provenance": facts,
        "explorer": explorer(layout),
    }


def _unless_refused(
    make: Callable[[ReportLayout], T], layout: ReportLayout, notes: list[str]
) -> T | None:
    """Make a part of the report; a part that cannot be made becomes a note."""
    try:
        return make(layout)
    except InputError as error:
        notes.append(f"Left out: {error}.")
        return None


def _notes(layout: ReportLayout) -> list[str]:
    records = layout.records
    notes = []
    commits = sorted({t.commit for t in records.trials if t.commit and t.status == "finished"})
    if len(commits) > 1:
        notes.append(
            f"Trials were computed by different versions of the code: {', '.join(commits)}."
        )
    if any("+" in commit for commit in commits):
        notes.append("Some trials ran with uncommitted changes (the part after + is their hash).")
    stopped = [trial.stopped_by for trial in records.trials if trial.status == "stopped"]
    asked = stopped.count("request")
    shown = "their last values are marked" if layout.ranked else "they are in no cell"
    for who, count, where in (
        ("by the scheduler", len(stopped) - asked, shown),
        ("on request", asked, "they are in no cell"),
    ):
        if count:
            notes.append(f"{count} trials were stopped early {who}; {where}.")
    if records.other_trials:
        notes.append(
            f"{records.other_trials} trials in this folder belong to other settings, versions or "
            "data; they are not shown."
        )
    return notes


def wins(layout: ReportLayout) -> dict[str, Any] | None:
    """Count how often each row leads, if there is more than one group to count over."""
    metric = next(iter(layout.metrics), None)
    if len(layout.groups()) < 2 or not metric or not layout.records.metric_info(metric)["goal"]:
        return None
    counts = wins_by_row(layout, metric)
    if not any(count.cells for count in counts.values()):
        return None
    return {
        "metric": metric,
        "names": layout.rows,
        "header": ["best", "second", "best or second", "of cells"],
        "rows": [
            {
                "key": [show(value) for value in key],
                "counts": [count.best, count.second, count.best_or_second, count.cells],
            }
            for key, count in counts.items()
        ],
    }


def comparisons(layout: ReportLayout) -> list[dict[str, Any]]:
    """Compare every other row with each baseline, paired over seeds; a table for each."""
    if not layout.spec.baseline or not layout.metrics:
        return []
    tables = (_against(layout, base, others) for base, others in layout.baseline_rows())
    return [table for table in tables if table["rows"]]


def _against(
    layout: ReportLayout, base: Mapping[str, Any], others: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    metric = layout.main_metric
    found = [
        each for other in others for each in compare_methods(layout.records, other, base, metric)
    ]
    corrected = holm([comparison.difference.p for comparison in found])
    return {
        "metric": metric,
        "baseline": describe(base),
        "covers": covers([comparison.difference.rows for comparison in found]),
        "rows": [
            {
                "first": describe(comparison.first),
                "where": describe(comparison.where),
                "difference": f"{comparison.difference.mean:+.4f}",
                "interval": signed_interval(comparison.difference.low, comparison.difference.high),
                "p": show_p(comparison.difference.p),
                "corrected": show_p(p),
                "n": comparison.difference.n,
                "claimed": p is not None and p < 1 - LEVEL,
            }
            for comparison, p in zip(found, corrected, strict=True)
        ],
    }


def verdicts(layout: ReportLayout) -> dict[str, Any] | None:
    """Judge every published number of the study's reference."""
    if layout.spec.reference is None:
        return None
    reference = study_reference(layout)
    judged = judge_study(layout.records, reference)
    return {
        "source": reference.source,
        "metric": ", ".join(reference.metrics),
        "baseline": describe(reference.baseline),
        "counts": dict(Counter(cell.verdict for cell in judged)),
        "rows": [_judged(cell, with_metric=len(reference.metrics) > 1) for cell in judged],
        "reasons": [
            {"where": describe(entry.where) or "all cells", "reason": entry.reason}
            for entry in reference.not_comparable
        ],
    }


def _judged(cell: JudgedCell, with_metric: bool) -> dict[str, Any]:
    pair = [s for s in (cell.published, cell.ours) if s is not None]
    shown = show_count if all(s.n == 1 and whole(s) for s in pair) else show_summary
    return {
        "where": describe(cell.where) + (f", {cell.metric}" if with_metric else ""),
        "published": shown(cell.published),
        "ours": "–" if cell.ours is None else shown(cell.ours),
        "margin": show_number(cell.margin),
        "interval": signed_interval(*(cell.interval or (None, None))),
        "verdict": cell.verdict,
        "direction": {True: "agrees", False: "disagrees", None: "–"}[cell.direction],
        "probability": "" if cell.probability is None else f" ({cell.probability:.2f})",
        "reason": cell.reason,
    }


def failures(records: StudyRecords, most: int | None) -> list[dict[str, Any]]:
    """List failed trials, at most `most`, with the end of their tracebacks."""
    found = []
    for trial in records.failed[:most]:
        place = ("trials", trial.id, "error.txt")
        trace = records.folder.read_bytes(*place) if records.folder.exists(*place) else b""
        found.append(
            {
                "where": describe({n: trial.columns.get(n) for n in records.varied}) or trial.id,
                "seed": trial.seed,
                "error": trial.error or "",
                "file": records.folder.display(*place),
                "trace": "\n".join(trace.decode(errors="replace").splitlines()[-_LOG_LINES:]),
            }
        )
    return found


def provenance(records: StudyRecords) -> list[dict[str, str]]:
    """List the facts of the latest run; empty without a readable `provenance.json`."""
    last = records.provenance()
    if not last:
        return []
    runs = [*last.get("earlier", []), last]
    peaks = [run["peak_memory_gib"] for run in runs if "peak_memory_gib" in run]
    seeds = sorted({trial.seed for trial in records.trials})
    in_a_row = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    hardware = {name: last.get("hardware", {}).get(name, "unknown") for name in _HARDWARE}
    packages = [f"{name} {version}" for name, version in last.get("packages", {}).items()]
    facts = {
        "command": last.get("command") or "unknown",
        "started": last.get("started") or "unknown",
        "wall time": _wall_time(runs),
        "peak memory": f"{max(peaks):.2f} GiB (the driver and all processes started by it)"
        if peaks
        else "unknown",
        "seeds": f"{seeds[0]} to {seeds[-1]}" if in_a_row else ", ".join(map(str, seeds)),
        "commit": last.get("commit") or "unknown",
        "hardware": f"{hardware['processor']}, {hardware['cores']} cores, "
        f"{hardware['memory_gib']} GiB",
        "packages": ", ".join([f"Python {last.get('python', 'unknown')}", *packages]),
    }
    return [{"name": name, "text": text} for name, text in facts.items()]


def _wall_time(runs: list[Mapping[str, Any]]) -> str:
    """Time of all runs in the folder; a killed or unfinished run states none."""
    spent = [run["seconds"] for run in runs if "seconds" in run]
    if not spent:
        return "unknown"
    total = show_duration(sum(spent))
    if len(spent) < len(runs):
        return f"{total} in {len(spent)} of {len(runs)} runs; the others did not finish"
    return total if len(runs) == 1 else f"{total} in {len(runs)} runs"
