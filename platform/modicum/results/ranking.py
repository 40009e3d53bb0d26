"""Cells of a study in the order of an objective, and the best configuration of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modicum.errors import InputError
from modicum.results.formatting import show, show_number, show_settings
from modicum.results.layout import Objective
from modicum.results.records import (
    Key,
    StudyRecords,
    TrialInfo,
    Where,
    last_values,
    outcomes_by_seed,
    stacked,
    values_by_seed,
)
from modicum.results.statistics import Summary, summarise
from modicum.results.store import best_checkpoints


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        summary: n, mean, sd and interval.
        rank: 1 for the best mean of the column, 2 for the second best, else None.
        ended_at: Budget at which a scheduler ended all trials of the cell early, the largest over
            seeds; None for finished trials.
    """

    summary: Summary
    rank: Literal[1, 2] | None = None
    ended_at: float | None = None


@dataclass(frozen=True)
class Best:
    """The best configuration of a study.

    Attributes:
        metric: Metric that it is the best by.
        goal: `max` or `min`.
        settings: All settings that have an effect, by dotted name.
        varied: Settings that vary in the study, as far as they have an effect here.
        summary: n, mean, sd and interval of the metric over seeds.
        seeds: Seeds of the trials.
        trials: Identities of the trials, in the order of the seeds.
        ended_at: Largest budget of the trials if a scheduler ended all of them early; else None.
        checkpoint: Location of the best checkpoint of these trials by the experiment's
            `selection_metric`, or of the first trial's last one without such a metric; None if
            none was saved.
    """

    metric: str
    goal: str
    settings: Mapping[str, Any]
    varied: Mapping[str, Any]
    summary: Summary
    seeds: Sequence[int]
    trials: Sequence[str]
    ended_at: float | None
    checkpoint: str | None

    def __str__(self) -> str:
        settings = show_settings(self.varied) or "all settings fixed"
        found = self.summary
        text = f"{settings}: {self.metric} {show_number(found.mean)}"
        if found.low is not None:
            text += f" (95% interval {show_number(found.low)} to {show_number(found.high)})"
        text += f" over {found.n} seed{'s' if found.n > 1 else ''}"
        return text if self.ended_at is None else f"{text}, ended early at {show(self.ended_at)}"


def summaries_of(
    records: StudyRecords, metric: str, names: Sequence[str], where: Where = None
) -> dict[Key, Summary]:
    """Summary over seeds, and test rows where trials recorded outcomes, of each cell."""
    cells = values_by_seed(records, metric, names, where)
    outcomes = outcomes_by_seed(records, metric, names, where)
    return {
        key: summarise(list(seeds.values()), stacked(outcomes.get(key, {}), list(seeds)))
        for key, seeds in cells.items()
    }


def ended_cells(
    records: StudyRecords, metric: str, names: Sequence[str], where: Where = None
) -> dict[Key, Cell]:
    """Cells of the trials that a scheduler ended early, by their last values.

    Several seeds are taken at the last record that all of them have.
    """
    ended = {trial.id: trial for trial in records.selected(where) if trial.ended_early}
    records.metric_info(metric)
    frame = records.frame
    if not ended or metric not in frame:
        return {}
    wanted = frame[frame["trial_id"].isin(ended) & frame[metric].notna()]
    cells: dict[Key, list[list[tuple[float, float]]]] = {}
    for trial_id, rows in wanted.groupby("trial_id", sort=False)[[metric, "budget"]]:
        key = tuple(records.settings[str(trial_id)].get(name) for name in names)
        cells.setdefault(key, []).append(list(zip(rows[metric], rows["budget"], strict=True)))
    found = {}
    for key, trials in cells.items():
        reached = [reports[min(map(len, trials)) - 1] for reports in trials]
        values, budgets = zip(*reached, strict=True)
        found[key] = Cell(summarise(list(map(float, values))), ended_at=float(max(budgets)))
    return found


def best_first(
    records: StudyRecords, names: Sequence[str], objective: Objective, where: Where = None
) -> dict[Key, Cell | None]:
    """Cells of the settings `names`, the best by the objective first.

    Those whose trials have all finished come first, then those with some finished trials, by the
    mean over these. Then come those that a scheduler ended early, whose values are of a smaller
    budget, and in the end those without a value. Equal means keep the order of the study.
    """
    sign = {"max": -1, "min": 1}.get(objective.goal or "", 0)
    finished = summaries_of(records, objective.metric, names, where)
    cells = ended_cells(records, objective.metric, names, where)
    cells |= {key: Cell(summary) for key, summary in finished.items()}
    planned = trials_by_cell(records, names, where)

    def place(key: Key) -> tuple[int, float]:
        cell = cells.get(key)
        if cell is None:
            return 3, 0.0
        # The mean of the same values in another order may differ in its last digits.
        value = sign * float(f"{cell.summary.mean:.12g}")
        return 2 if cell.ended_at is not None else int(cell.summary.n < len(planned[key])), value

    return {key: cells.get(key) for key in sorted(planned, key=place)}


def by_time(
    records: StudyRecords, names: Sequence[str], objective: Objective, where: Where = None
) -> list[Cell]:
    """Cells with a value, in the order in which the last trial of each ended."""
    cells = best_first(records, names, objective, where)
    trials = trials_by_cell(records, names, where)
    order = sorted(trials, key=lambda key: max(trial.ended or 0.0 for trial in trials[key]))
    return [cell for key in order if (cell := cells[key]) is not None]


def find_best(records: StudyRecords, objective: Objective, where: Where = None) -> Best:
    """Find the best configuration: the first of `best_first`.

    Raises:
        InputError: The objective has no goal, or no trial has a value of it.
    """
    metric, goal = objective.metric, objective.goal
    if goal not in ("max", "min"):
        raise InputError(f"goal: say whether {metric!r} is to be large or small (max or min)")
    names = records.varied
    key, cell = next(iter(best_first(records, names, objective, where).items()), ((), None))
    if cell is None:
        raise InputError(f"metric: no trial has a value of {metric!r}")
    found = [
        trial
        for trial in trials_by_cell(records, names, where)[key]
        if (trial.status == "finished" if cell.ended_at is None else trial.ended_early)
    ]
    trials = sorted((t for t, _ in last_values(records, metric, found)), key=lambda t: t.seed)
    saved = best_checkpoints(records, trials)
    return Best(
        metric=metric,
        goal=goal,
        settings=trials[0].columns,
        varied={name: v for name, v in trials[0].columns.items() if name in names},
        summary=cell.summary,
        seeds=[trial.seed for trial in trials],
        trials=[trial.id for trial in trials],
        ended_at=cell.ended_at,
        checkpoint=records.folder.display(*saved[0].split("/")) if saved else None,
    )


def trials_by_cell(
    records: StudyRecords, names: Sequence[str], where: Where = None
) -> dict[Key, list[TrialInfo]]:
    """Trials of each cell of the settings `names`, whatever their status."""
    cells: dict[Key, list[TrialInfo]] = {}
    for trial in records.selected(where):
        key = tuple(records.settings[trial.id].get(name) for name in names)
        cells.setdefault(key, []).append(trial)
    return cells
