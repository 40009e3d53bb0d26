"""Everything that a report shows, as one document of plain JSON data.

A page that is written once, a page that is served while a study runs, and Markdown all show this
document; none of them plots or computes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modicum.errors import InputError
from modicum.report.comparisons import comparisons, verdicts, wins
from modicum.report.provenance import failures, provenance
from modicum.report.sections import section
from modicum.results.layout import ReportLayout
from modicum.results.records import StudyRecords


def report_document(layout: ReportLayout, most_failures: int | None = None) -> dict[str, Any]:
    """Make the report of a study as it stands.

    Args:
        layout: The study, with the arrangement of its report.
        most_failures: Largest number of failed trials to show; None for all.

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
    for who, count in (
        ("by the scheduler", sum(by != "request" for by in stopped)),
        ("on request", stopped.count("request")),
    ):
        if count:
            notes.append(f"{count} trials were stopped early {who}; they are in no cell.")
    if records.other_trials:
        notes.append(
            f"{records.other_trials} trials in this folder belong to other settings, versions or "
            "data; they are not shown."
        )
    return notes
