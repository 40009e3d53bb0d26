"""All trials of a study with their records, for the parts of the page that a reader can change.

These are the curves, the table of all trials and the view of one trial, which a script in the
page draws. A page of many records gets fewer points of each curve: in equal stretches of a
trial, the records with the smallest and the largest value of each metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from modicum.errors import InputError
from modicum.results.figures import COLOURS
from modicum.results.formatting import show
from modicum.results.layout import ReportLayout
from modicum.results.records import StudyRecords, TrialInfo
from modicum.run_folder.trial_logs import log_end

# A browser reads a page of so many numbers within a second.
_MOST_NUMBERS = 200_000
# Digits of a number in a curve.
_DIGITS = 7
_MOST_LOGS, _LOG_BYTES = 100, 3000
_PLACES = ("budget", "seconds")
_FACTS = ("id", "status", "seed", "stopped_by", "attempt", "host", "started", "ended", "error")
_SAVED = ("checkpoint", "best_checkpoint")


def explorer(layout: ReportLayout, most_numbers: int = _MOST_NUMBERS) -> dict[str, Any]:
    """Make the data of all trials, with about `most_numbers` numbers of their records.

    Returns:
        Plain data: metrics, settings, colours, a sentence about thinned curves, and for each trial
        its facts, settings, last values and records by column.
    """
    records = layout.records
    metrics = _metrics(records)
    numeric = [name for name in metrics if pd.api.types.is_numeric_dtype(records.frame[name])]
    shown = [name for name in layout.metrics if name in numeric]
    rows = records.places if metrics else {}
    values = records.frame.reindex(columns=[*_PLACES, *numeric]).to_numpy(dtype=float)
    values = np.where(np.isfinite(values), values, np.nan)
    most = _most_rows([len(each) for each in rows.values()], most_numbers // values.shape[1])
    last = records.frame.groupby("trial_id")[metrics].last() if metrics else records.frame
    finals = {key: dict(zip(metrics, each, strict=True)) for key, *each in last.itertuples()}
    trials, thinned = [], 0
    for trial in records.trials:
        found = rows.get(trial.id, np.arange(0))
        kept = found[_kept(values[found], most)]
        thinned += len(kept) < len(found)
        trials.append(
            _trial(records, trial)
            | {"records": len(found), "last": _present(finals.get(trial.id, {}))}
            | {"rows": _columns(records, kept, values, numeric)}
        )
    return {
        "budget": records.budget_words,
        "budget_settings": list(records.experiment["budget_settings"]),
        "metrics": [_metric(records, name) for name in dict.fromkeys([*shown, *metrics])],
        "curves": list(dict.fromkeys([*shown, *numeric])),
        "settings": records.varied,
        "group": layout.rows[0] if layout.rows and not layout.ranked else "",
        "colours": list(COLOURS),
        "note": _thinned(thinned, most) if thinned else None,
        "trials": trials,
    }


def log_ends(records: StudyRecords) -> dict[str, str]:
    """Ends of the logs of trials, by trial: of at most a hundred, those that failed first."""
    started = [trial for trial in records.trials if trial.status != "pending"]
    started.sort(key=lambda trial: trial.status != "failed")
    ends = {}
    for trial in started[:_MOST_LOGS]:
        try:
            ends[trial.id] = log_end(records.folder, trial.id, _LOG_BYTES)
        except InputError as error:
            ends[trial.id] = str(error)
    return ends


def _metrics(records: StudyRecords) -> list[str]:
    """Metrics in the records, in their order."""
    other = {"trial_id", "seed", "status", "record", *_PLACES}
    names = map(str, records.frame.columns)
    return [name for name in names if name not in other and not name.startswith("config/")]


def _metric(records: StudyRecords, name: str) -> dict[str, Any]:
    info = records.metric_info(name)
    return {"name": name, "goal": info["goal"], "unit": info.get("unit")}


def _trial(records: StudyRecords, trial: TrialInfo) -> dict[str, Any]:
    folder = records.folder
    facts = {name: getattr(trial, name) for name in (*_FACTS, "commit")}
    saved = {
        name: folder.display(*path.split("/")) for name in _SAVED if (path := getattr(trial, name))
    }
    settings = {name: _plain(value) for name, value in trial.columns.items()}
    return _present(facts) | saved | {"settings": settings}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else show(value)


def _present(values: dict[str, Any]) -> dict[str, Any]:
    """Values without those that are missing."""
    return {name: _plain(v) for name, v in values.items() if v is not None and v == v}


def _columns(
    records: StudyRecords, kept: np.ndarray, values: np.ndarray, numeric: Sequence[str]
) -> dict[str, list[Any]]:
    """Columns of a trial's records: their numbers from 1, and those with values."""
    steps = records.frame["record"].to_numpy()[kept] + 1 if len(kept) else kept
    found: dict[str, list[Any]] = {"step": steps.tolist()}
    for place, name in enumerate([*_PLACES, *numeric]):
        column = values[kept, place]
        if not np.isnan(column).all():
            found[name] = [_short(value) for value in column.tolist()]
    return found


def _short(value: float) -> int | float | None:
    if value != value:
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.{_DIGITS}g}")


def _most_rows(counts: Sequence[int], most: int) -> int:
    """Largest number of records of one trial, so that all trials together have about `most`."""
    limit = max(counts, default=0)
    while limit > 8 and sum(min(count, limit) for count in counts) > most:
        limit = int(0.8 * limit)
    return limit


def _kept(values: np.ndarray, most: int) -> np.ndarray:
    """Rows to keep, about `most`: the first, the last, and extremes in each of many stretches.

    Args:
        values: Records of a trial: budget, seconds and metrics.
        most: Number of rows that need no thinning.
    """
    count, width = values.shape
    if count <= most:
        return np.arange(count)
    metrics = max(1, width - len(_PLACES))
    kept = {0, count - 1}
    for part in _stretches(count, max(2, most // (2 * metrics))):
        for column in values[part, len(_PLACES) :].T:
            if not np.isnan(column).all():
                kept |= {int(part[np.nanargmin(column)]), int(part[np.nanargmax(column)])}
    return np.array(sorted(kept))


def _stretches(count: int, most: int) -> list[np.ndarray]:
    """Divide rows into about `most` stretches: half of the bounds are even, half geometric.

    So the beginning, which a logarithmic axis shows large, keeps its course.
    """
    even = np.linspace(0, count, most // 2 + 1)
    geometric = np.geomspace(1, count, most // 2 + 1)
    bounds = np.unique(np.concatenate([even, geometric]).astype(int))
    return np.split(np.arange(count), bounds[1:-1])


def _thinned(trials: int, most: int) -> str:
    return (
        f"Curves of {trials} trials are thinned to about {most} records each: the smallest and "
        "the largest value of each metric in each of many stretches. Tables, intervals and last "
        "values are of all records; results.parquet has all of them."
    )
