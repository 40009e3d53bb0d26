"""Rows of a report against each other, a baseline and published numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from modicum.report.texts import describe, show_count, signed_interval, whole
from modicum.results.comparisons import Comparison, compare_methods
from modicum.results.formatting import show, show_summary
from modicum.results.layout import ReportLayout
from modicum.results.verdicts import JudgedCell, judge_study, study_reference
from modicum.results.wins import wins_by_row


def wins(layout: ReportLayout) -> dict[str, Any] | None:
    """Count how often each row leads, if there is more than one group to count over."""
    if len(layout.groups()) < 2 or not layout.metrics:
        return None
    metric = layout.main_metric
    if not layout.records.metric_info(metric)["goal"]:
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
    rows = [
        _compared(comparison)
        for other in others
        for comparison in compare_methods(layout.records, other, base, metric)
    ]
    return {"metric": metric, "baseline": describe(base), "rows": rows} if rows else None


def _compared(comparison: Comparison) -> dict[str, Any]:
    found = comparison.difference
    low, high = found.low, found.high
    return {
        "first": describe(comparison.first),
        "where": describe(comparison.where),
        "difference": f"{found.mean:+.4f}",
        "interval": signed_interval(low, high),
        "p": "–" if found.p is None else f"{found.p:.2g}",
        "n": found.n,
        "excludes_zero": low is not None and high is not None and low * high > 0,
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
        "interval": signed_interval(*(cell.interval or (None, None))),
        "verdict": cell.verdict,
        "direction": {True: "agrees", False: "disagrees", None: "–"}[cell.direction],
        "reason": cell.reason,
    }
