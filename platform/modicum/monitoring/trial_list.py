"""List of a study's trials, as the live page shows it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from modicum.experiment.setting_filters import varying
from modicum.results.formatting import show
from modicum.run_folder.trial_record import TrialRecord

_ORDER = {"running": 0, "failed": 1, "stopped": 2, "finished": 3, "pending": 4}
_CURVE_POINTS = 40


def list_trials(
    trials: Sequence[TrialRecord], metric: str | None, query: str, limit: int
) -> dict[str, Any]:
    """List trials: running ones first, then failed ones, then the others by their end.

    Args:
        trials: Trials of the study.
        metric: Metric of the column `value` and of the curve; None for neither.
        query: Words that must occur in a trial's name, status or settings.
        limit: Largest number of trials to list.

    Returns:
        Plain data: the number of trials that match, the settings that vary, and the trials.
    """
    words = query.lower().split()
    found = [trial for trial in trials if _matches(trial, words)]
    found.sort(key=lambda s: (_ORDER.get(s.status, 9), -(s.ended or s.started or 0.0)))
    varied = varying(trial.columns for trial in trials)
    return {
        "found": len(found),
        "settings": varied,
        "trials": [_row(trial, varied, metric) for trial in found[:limit]],
    }


def _matches(trial: TrialRecord, words: Iterable[str]) -> bool:
    columns = trial.columns.items()
    text = " ".join([trial.id, trial.status, *(f"{n}={show(v)}" for n, v in columns)]).lower()
    return all(word in text for word in words)


def _row(trial: TrialRecord, varied: Iterable[str], metric: str | None) -> dict[str, Any]:
    value = trial.value(metric) if metric else None
    last = trial.rows[-1] if trial.rows else {}
    return {
        "id": trial.id,
        "status": trial.status,
        "settings": [show(trial.columns.get(name)) for name in varied],
        "seed": trial.seed,
        "budget": last.get("budget"),
        "value": value if isinstance(value, int | float) else None,
        "curve": _curve(trial, metric),
        "started": trial.started,
        "ended": trial.ended,
        "host": trial.host,
        "error": trial.error,
    }


def _curve(trial: TrialRecord, metric: str | None) -> list[tuple[float, float]]:
    """Thinned points of the metric against the budget; empty for fewer than two points."""
    points = [
        (row["budget"], row[metric])
        for row in trial.rows
        if metric in row and isinstance(row[metric], int | float) and math.isfinite(row[metric])
    ]
    step = -(-len(points) // _CURVE_POINTS)
    return points[::step] if len(points) > 1 else []
