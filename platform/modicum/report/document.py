"""Everything that a report shows, as one document of plain JSON data.

A page that is written once, a page that is served while a study runs, and Markdown all show this
document; none of them plots or computes anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from modicum.errors import InputError
from modicum.report.sections import describe, section, show_count, signed_interval, whole
from modicum.results.formatting import show, show_duration, show_summary
from modicum.results.layout import ReportLayout
from modicum.results.records import StudyRecords
from modicum.results.reference import JudgedCell, judge_study, study_reference
from modicum.results.tables import compare_methods, wins_by_row

_LOG_LINES = 40


def report_document(layout: ReportLayout, most_failures: int | None = None) -> dict[str, Any]:
    """Make the report of a study as it stands, with at most `most_failures` failed trials.

    Returns:
        Plain data: title, counts, notes, tables, pictures (SVG text), budgets to target, wins,
        comparisons, verdicts, failures and provenance.
    """
    records = layout.records
    counts = records.status_counts()
    notes = _notes(records)
    compared = _unless_refused(comparisons, layout, notes)
    judged = _unless_refused(verdicts, layout, notes)
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
        "sections": [section(layout, group) for group in layout.groups()],
        "wins": wins(layout),
        "comparisons": compared,
        "verdicts": judged,
        "failures": failures(records, most_failures),
        "provenance": provenance(records),
    }


def _unless_refused(
    make: Callable[[ReportLayout], dict[str, Any] | None], layout: ReportLayout, notes: list[str]
) -> dict[str, Any] | None:
    """Make a part of the report; a part that cannot be made becomes a note."""
    try:
        return make(layout)
    except InputError as error:
        notes.append(f"Left out: {error}.")
        return None


def _notes(records: StudyRecords) -> list[str]:
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
    for who, count in (("by the scheduler", len(stopped) - asked), ("on request", asked)):
        if count:
            notes.append(f"{count} trials were stopped early {who}; they are in no cell.")
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


def comparisons(layout: ReportLayout) -> dict[str, Any] | None:
    """Compare every other row with the baseline, paired over seeds."""
    baseline = layout.spec.baseline
    if baseline is None or not layout.metrics:
        return None
    metric = layout.main_metric
    base, others = layout.baseline_rows(baseline)
    rows = []
    for other in others:
        for comparison in compare_methods(layout.records, other, base, metric):
            found = comparison.difference
            row = {
                "first": describe(comparison.first),
                "where": describe(comparison.where),
                "difference": f"{found.mean:+.4f}",
                "interval": signed_interval(found.low, found.high),
                "p": "–" if found.p is None else f"{found.p:.2g}",
                "n": found.n,
                "excludes_zero": found.excludes_zero,
            }
            rows.append(row)
    return {"metric": metric, "baseline": describe(base), "rows": rows} if rows else None


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
        "interval": signed_interval(*(cell.interval or (None, None))),
        "verdict": cell.verdict,
        "direction": {True: "agrees", False: "disagrees", None: "–"}[cell.direction],
        "reason": cell.reason,
    }


def failures(records: StudyRecords, most: int | None) -> list[dict[str, Any]]:
    """List failed trials, at most `most`, with the end of their tracebacks."""
    found = []
    for trial in records.failed[:most]:
        place = ("trials", trial.id, "error.txt")
        trace = records.folder.read_text(*place) if records.folder.exists(*place) else ""
        found.append(
            {
                "where": describe({n: trial.columns.get(n) for n in records.varied}) or trial.id,
                "seed": trial.seed,
                "error": trial.error or "",
                "file": records.folder.display(*place),
                "trace": "\n".join(trace.splitlines()[-_LOG_LINES:]),
            }
        )
    return found


def provenance(records: StudyRecords) -> list[dict[str, str]]:
    """List the facts of the latest run; empty if the run folder has no `provenance.json`."""
    last = records.provenance()
    if not last:
        return []
    runs = [*last.get("earlier", []), last]
    peaks = [run["peak_memory_gib"] for run in runs if "peak_memory_gib" in run]
    seeds = sorted({trial.seed for trial in records.trials})
    in_a_row = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    hardware = last["hardware"]
    packages = [f"{name} {version}" for name, version in last["packages"].items()]
    facts = {
        "command": last["command"],
        "started": last["started"],
        "wall time": _wall_time(runs),
        "peak memory": f"{max(peaks):.2f} GiB (the driver and all processes started by it)"
        if peaks
        else "unknown",
        "seeds": f"{seeds[0]} to {seeds[-1]}" if in_a_row else ", ".join(map(str, seeds)),
        "commit": last["commit"] or "unknown",
        "hardware": f"{hardware['processor']}, {hardware['cores']} cores, "
        f"{hardware['memory_gib']} GiB",
        "packages": ", ".join([f"Python {last['python']}", *packages]),
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
