"""What a study found: tidy records, tables, curves, budgets to target, comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError

from modicum.errors import InputError, from_validation, unknown_name
from modicum.experiment.metric import find_metric
from modicum.experiment.setting_filters import agrees, find_baseline, varying
from modicum.planning.spec import ReportSpec
from modicum.results.budget import (
    BudgetNeeded,
    CurvePoint,
    Points,
    budget_to_target,
    complete_seeds,
    curve,
)
from modicum.results.reference import JudgedCell, Reference, judge
from modicum.results.statistics import Difference, Summary, paired_difference, summarise
from modicum.results.store import Collected, TrialInfo, collect, read_parquet, write_parquet
from modicum.results.tables import Cell, Key, Table, Wins, count_wins, rank_cells, show
from modicum.storage import StorageFolder
from modicum.yaml_io import parse_yaml

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "BudgetNeeded",
    "Cell",
    "Comparison",
    "CurvePoint",
    "Difference",
    "JudgedCell",
    "Results",
    "Summary",
    "Table",
    "Wins",
    "load_results",
]

Names = str | Sequence[str] | None


@dataclass(frozen=True)
class Comparison:
    """A row of a paired comparison.

    Attributes:
        where: Settings of the cells compared.
        first: Key of the row compared.
        second: Key of the baseline row.
        difference: First minus second over the seeds that both have.
    """

    where: Mapping[str, Any]
    first: Mapping[str, Any]
    second: Mapping[str, Any]
    difference: Difference


def _names(names: Names) -> tuple[str, ...]:
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


class Results:
    """Results of a study, from its run folder.

    Only finished trials enter a cell. A trial's value of a metric is the one in its last
    record that has it.

    Attributes:
        frame: One row per record: `trial_id`, `config/*`, `seed`, `status`, `record`, `budget`,
            `seconds`, and the metrics by name.
        trials: The study's trials and how they stand.
        folder: Where they came from.
        spec: The study file's plain contents, `{}` if there is none.
    """

    def __init__(self, folder: StorageFolder, collected: Collected) -> None:
        self.folder = folder
        self.frame: pd.DataFrame = collected.frame
        self.trials: Sequence[TrialInfo] = collected.trials
        self.experiment = collected.experiment
        self.other_trials = collected.others
        self.spec: Mapping[str, Any] = {}
        if folder.exists("study.yaml"):
            self.spec = parse_yaml(folder.read_text("study.yaml"), "study.yaml")

    @classmethod
    def load(cls, location: str | Path) -> Results:
        """Read a run folder; one that is still being written is read as it stands.

        Raises:
            InputError: There is no run in the folder.
        """
        folder = StorageFolder(location)
        return cls(folder, read_parquet(folder) or collect(folder))

    @classmethod
    def consolidate(cls, folder: StorageFolder) -> Results:
        """Gather the trials' own files into `results.parquet`."""
        collected = collect(folder)
        write_parquet(folder, collected)
        return cls(folder, collected)

    # What there is.

    @property
    def budget_unit(self) -> str:
        """What `budget` counts."""
        return str(self.experiment["budget_unit"])

    @cached_property
    def report_spec(self) -> ReportSpec:
        """What the study asked its report to show."""
        raw = self.spec.get("report", {})
        try:
            return ReportSpec.model_validate(raw)
        except ValidationError as error:
            raise from_validation(error, ReportSpec, "study.yaml: report", raw) from None

    @cached_property
    def varied(self) -> list[str]:
        """Settings with more than one value among the trials, in the order of the study.

        A setting that has no effect in some trials does not vary for that.
        """
        names = varying(trial.columns for trial in self.trials)
        spaces = self.spec.get("space", {})
        order = [
            name for space in (spaces if isinstance(spaces, list) else [spaces]) for name in space
        ]
        return sorted(names, key=lambda n: order.index(n) if n in order else len(order))

    @cached_property
    def layout(self) -> tuple[list[str], list[str], list[str]]:
        """Rows, columns and by: as the study says, with what else varies put in by.

        A setting whose value follows from those that are named needs no place of its own.
        Left to itself, rows are `method` if it varies (else the first varied setting) and
        columns the last varied setting.
        """
        spec, free = self.report_spec, list(self.varied)
        named = [*(spec.rows or []), *(spec.columns or []), *(spec.by or [])]
        free = [name for name in free if name not in named]
        rows = spec.rows
        if rows is None:
            pick = "method" if "method" in free else next(iter(free), None)
            rows = [pick] if pick else []
            free = [name for name in free if name not in rows]
        columns = spec.columns
        if columns is None:
            columns = free[-1:]
            free = free[:-1]
        by = list(spec.by or [])
        for name in free:
            if not self._follows(name, [*rows, *columns, *by]):
                by.append(name)
        return rows, columns, by

    def _follows(self, name: str, others: Sequence[str]) -> bool:
        """Whether trials that agree in the other settings agree in this one."""
        values: dict[Key, set[str]] = {}
        for trial in self.trials:
            key = tuple(trial.columns.get(other) for other in others)
            values.setdefault(key, set()).add(repr(trial.columns.get(name)))
        return all(len(found) == 1 for found in values.values())

    def metric_info(self, name: str) -> Mapping[str, Any]:
        """The declaration of a metric.

        Raises:
            InputError: No such metric.
        """
        declared: Mapping[str, Mapping[str, Any]] = self.experiment["metrics"]
        return find_metric(declared, name)

    def _goal(self, metric: str, needed_for: str) -> str:
        goal = self.metric_info(metric)["goal"]
        if goal is None:
            raise InputError(f"metric: {metric!r} has no goal, {needed_for} needs one")
        return str(goal)

    def _check_settings(self, names: Iterable[str]) -> None:
        known = {name for trial in self.trials for name in trial.columns} | {"seed"}
        for name in names:
            if name not in known:
                raise unknown_name("setting", name, known)

    @property
    def shown_metrics(self) -> list[str]:
        """Metrics that the study asked for; by default all that have a goal and values."""
        if self.report_spec.metrics is not None:
            return list(self.report_spec.metrics)
        return [
            name
            for name in self.frame.columns
            if name in self.experiment["metrics"] and self.experiment["metrics"][name]["goal"]
        ]

    # Values.

    @cached_property
    def _settings(self) -> dict[str, Mapping[str, Any]]:
        return {trial.id: {**trial.columns, "seed": trial.seed} for trial in self.trials}

    def values(
        self, metric: str, where: Mapping[str, Any] | None = None
    ) -> list[tuple[Mapping[str, Any], float]]:
        """Settings and final value of every finished trial.

        Args:
            metric: The metric.
            where: Only trials with these settings.

        Raises:
            InputError: No such metric or setting.
        """
        self.metric_info(metric)
        self._check_settings(where or {})
        if metric not in self.frame:
            return []
        done = self.frame[(self.frame["status"] == "finished") & self.frame[metric].notna()]
        last = done.groupby("trial_id", sort=False)[metric].last()
        return [
            (self._settings[trial.id], float(last[trial.id]))
            for trial in self._selected(where)
            if trial.id in last.index
        ]

    def _by_seed(
        self, metric: str, names: Sequence[str], where: Mapping[str, Any] | None
    ) -> dict[Key, dict[int, float]]:
        """Values of each cell by seed.

        Raises:
            InputError: A setting that is not named varies within a cell.
        """
        self._check_settings(names)
        cells: dict[Key, dict[int, float]] = {}
        for settings, value in self.values(metric, where):
            cell = cells.setdefault(tuple(settings.get(name) for name in names), {})
            if settings["seed"] in cell:
                loose = [n for n in self.varied if n not in names and n not in (where or {})]
                raise InputError(
                    f"table: cells would mix different values of {', '.join(loose)}; "
                    "name it in rows, columns or where"
                )
            cell[settings["seed"]] = value
        return cells

    def _order(self, names: Sequence[str]) -> dict[Key, int]:
        """Keys in the order in which the study lists them."""
        keys = (
            tuple(trial.columns.get(name, trial.seed if name == "seed" else None) for name in names)
            for trial in self.trials
        )
        return {key: place for place, key in enumerate(dict.fromkeys(keys))}

    def column_keys(self) -> list[Key]:
        """Values of the report's column settings, in the order in which the study lists them."""
        return list(self._order(self.layout[1]))

    def table(
        self,
        rows: Names,
        columns: Names = None,
        metric: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Table:
        """A table of means over seeds.

        Args:
            rows: Settings that make the rows: the things compared.
            columns: Settings that make the columns.
            metric: The metric; the study's first one if left out.
            where: Only trials with these settings.

        Raises:
            InputError: An unknown name, or a setting that is not named varies within a cell.
        """
        metric = metric or self._first_metric()
        row_names, column_names = _names(rows), _names(columns)
        width = len(row_names)
        cells = self._by_seed(metric, [*row_names, *column_names], where)
        summaries = {
            (key[:width], key[width:]): summarise(list(seeds.values()))
            for key, seeds in cells.items()
        }
        goal = self.metric_info(metric)["goal"]
        row_order, column_order = self._order(row_names), self._order(column_names)
        return Table(
            metric=metric,
            goal=goal,
            row_names=row_names,
            column_names=column_names,
            rows=sorted({row for row, _ in summaries}, key=row_order.__getitem__),
            columns=sorted({column for _, column in summaries}, key=column_order.__getitem__),
            cells=rank_cells(summaries, goal),
            where=where or {},
        )

    def _first_metric(self) -> str:
        if not self.shown_metrics:
            raise InputError("metric: name one; the experiment declares none with a goal")
        return self.shown_metrics[0]

    def groups(self) -> list[dict[str, Any]]:
        """The `by` values of the report's layout: each gets a table and pictures of its own."""
        _, _, by = self.layout
        if not by:
            return [{}]
        return [dict(zip(by, key, strict=True)) for key in self._order(by)]

    def tables(self) -> list[Table]:
        """The tables of the report's layout: per metric and group."""
        rows, columns, _ = self.layout
        made = [
            self.table(rows, columns, metric, where)
            for metric in self.shown_metrics
            for where in self.groups()
        ]
        return [table for table in made if table.cells]

    def wins(self, metric: str | None = None) -> dict[Key, Wins]:
        """In how many cells of the report's layout each row is best or second best.

        Cells are the columns of all groups together (`by`).

        Args:
            metric: The metric; the study's first one if left out.

        Raises:
            InputError: Unknown metric, or one without a goal.
        """
        metric = metric or self._first_metric()
        self._goal(metric, "a count of wins")
        rows, columns, _ = self.layout
        wins = count_wins([self.table(rows, columns, metric, where) for where in self.groups()])
        return {key: wins[key] for key in self._order(rows) if key in wins}

    def compare(
        self,
        first: Mapping[str, Any],
        second: Mapping[str, Any],
        metric: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> list[Comparison]:
        """Two methods over the same seeds and settings, paired.

        Args:
            first: Settings of the one, for example `{"method": "iwl"}`.
            second: The same settings of the other.
            metric: The metric; the study's first one if left out.
            where: Only trials with these settings.

        Returns:
            One comparison for each combination of the other varied settings that both have.
        """
        metric = metric or self._first_metric()
        if set(first) != set(second):
            raise InputError("compare: both sides must name the same settings")
        others = [n for n in self.varied if n not in first and n not in (where or {})]
        sides = [
            self._by_seed(metric, others, {**(where or {}), **side}) for side in (first, second)
        ]
        compared = []
        for key in self._order(others):
            one, two = (side.get(key, {}) for side in sides)
            seeds = sorted(one.keys() & two.keys())
            if not seeds:
                continue
            difference = paired_difference([one[s] for s in seeds], [two[s] for s in seeds])
            settings = {**(where or {}), **dict(zip(others, key, strict=True))}
            compared.append(Comparison(settings, first, second, difference))
        return compared

    def baseline_rows(
        self, baseline: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The row that a baseline names, and all other rows.

        Raises:
            InputError: It names no row, or more than one.
        """
        rows = self.layout[0]
        keys = [dict(zip(rows, key, strict=True)) for key in self._order(rows)]
        base = keys.pop(find_baseline(keys, baseline))
        return base, keys

    # Budget.

    def points(
        self, metric: str, where: Mapping[str, Any] | None = None
    ) -> dict[int, list[tuple[float, float]]]:
        """Budget and value of every record of finished trials, by seed.

        Trials of one seed that differ only in settings that set the budget (a fraction of
        labels) join into one series; so do the records of one trial.

        Raises:
            InputError: The trials differ in a setting that is not in `where` and does not
                set the budget.
        """
        _require_alike(self._loose(where))
        rows = self._by_budget(metric, where)
        series: dict[int, list[tuple[float, float]]] = {}
        for seed, budget, value in zip(rows["seed"], rows["budget"], rows[metric], strict=True):
            series.setdefault(int(seed), []).append((float(budget), float(value)))
        return {seed: sorted(points) for seed, points in sorted(series.items())}

    def _by_budget(self, metric: str, where: Mapping[str, Any] | None) -> pd.DataFrame:
        """For every finished trial and budget, the last value: what that budget bought."""
        self.metric_info(metric)
        self._check_settings(where or {})
        wanted = {trial.id for trial in self._selected(where)}
        frame = self.frame.reindex(columns=["trial_id", "seed", "budget", "status", metric])
        rows = frame[
            (frame["status"] == "finished") & frame[metric].notna() & frame["trial_id"].isin(wanted)
        ]
        return rows.groupby(["trial_id", "budget"], sort=False).last().reset_index()

    def budget_groups(
        self, columns: Names, where: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Where curves against budget can be drawn: over all columns at once, or one by one.

        Where the columns set the budget (label fractions), trials join across them into one
        curve. Every other column setting gets a picture for each of its values.
        """
        apart = [n for n in _names(columns) if n not in self.experiment["budget_settings"]]
        if not apart:
            return [dict(where or {})]
        return [
            {**(where or {}), **dict(zip(apart, key, strict=True))} for key in self._order(apart)
        ]

    def _selected(self, where: Mapping[str, Any] | None) -> list[TrialInfo]:
        return [t for t in self.trials if agrees(self._settings[t.id], where or {})]

    def _loose(self, where: Mapping[str, Any] | None) -> list[str]:
        """Settings that differ among the chosen trials though they do not set the budget."""
        names = varying(trial.columns for trial in self._selected(where))
        return [name for name in names if name not in self.experiment["budget_settings"]]

    def _joins_trials(self, where: Mapping[str, Any] | None) -> bool:
        """Whether a series is made of several trials rather than of one trial's records."""
        seeds = [trial.seed for trial in self._selected(where)]
        return len(seeds) > len(set(seeds))

    def _series(
        self, metric: str, rows: Names, where: Mapping[str, Any] | None
    ) -> dict[Key, tuple[Mapping[int, Points], bool]]:
        """Points by seed for each row key, and whether they join several trials."""
        found: dict[Key, tuple[Mapping[int, Points], bool]] = {}
        for key, chosen in self._rows(rows, where):
            points = self.points(metric, chosen)
            if points:
                found[key] = (points, self._joins_trials(chosen))
        return found

    def _rows(
        self, rows: Names, where: Mapping[str, Any] | None
    ) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Every row key, the report's rows if none are named, with all settings of its trials."""
        names = _names(rows) if rows is not None else tuple(self.layout[0])
        self._check_settings(names)
        for key in self._order(names):
            yield key, {**(where or {}), **dict(zip(names, key, strict=True))}

    def curves(
        self, metric: str | None = None, rows: Names = None, where: Mapping[str, Any] | None = None
    ) -> dict[Key, list[CurvePoint]]:
        """Metric against budget with intervals over seeds, for each row key."""
        series = self._series(metric or self._first_metric(), rows, where)
        return {key: curve(points, carry=not joined) for key, (points, joined) in series.items()}

    def progress(
        self,
        against: str,
        metric: str,
        rows: Names = None,
        where: Mapping[str, Any] | None = None,
    ) -> dict[Key, list[CurvePoint]]:
        """A metric against another one of the same records, over seeds, for each row key.

        Args:
            against: What counts progress within a trial, such as the number of an epoch.
            metric: The metric.
            rows: Settings of the keys; the report's rows if left out.
            where: Only trials with these settings.

        Returns:
            Points whose `budget` is the value of `against`; at each of them the seeds that have it.

        Raises:
            InputError: Unknown metric or setting, or trials that differ in one not named.
        """
        self.metric_info(against)
        self.metric_info(metric)
        columns = dict.fromkeys(("trial_id", "seed", "status", against, metric))
        frame = self.frame.reindex(columns=list(columns))
        frame = frame[frame["status"] == "finished"].dropna(subset=[against, metric])
        found: dict[Key, list[CurvePoint]] = {}
        for key, chosen in self._rows(rows, where):
            trials = self._selected(chosen)
            _require_alike(varying(trial.columns for trial in trials))
            chosen_rows = frame[frame["trial_id"].isin({trial.id for trial in trials})]
            values = (chosen_rows[name] for name in ("seed", against, metric))
            series: dict[int, list[tuple[float, float]]] = {}
            for seed, x, value in zip(*values, strict=True):
                series.setdefault(int(seed), []).append((float(x), float(value)))
            if series:
                found[key] = curve(series, carry=False)
        return found

    def budget_to_target(
        self,
        metric: str,
        target: float,
        rows: Names = None,
        where: Mapping[str, Any] | None = None,
    ) -> dict[Key, BudgetNeeded]:
        """The budget that each row needs to reach a level of a metric.

        Raises:
            InputError: Unknown metric, or one without a goal.
        """
        goal = self._goal(metric, "a budget to target")
        series = self._series(metric, rows, where)
        return {
            key: budget_to_target(complete_seeds(points) if joined else points, target, goal)
            for key, (points, joined) in series.items()
        }

    def reference(self, path: str | Path | None = None) -> Reference:
        """A table of published numbers: from a file, or the copy of the study's own.

        Raises:
            InputError: There is none, or it is broken.
        """
        if path is not None:
            return Reference.load(Path(path))
        name = self.report_spec.reference
        if name is None or not self.folder.exists(name):
            raise InputError("reference: the study has none; give one")
        return Reference.parse(parse_yaml(self.folder.read_text(name), name), name)

    def verdicts(self, reference: Reference | str | Path | None = None) -> list[JudgedCell]:
        """Every published number beside ours.

        Args:
            reference: The published table; the study's own if left out.

        Raises:
            InputError: There is no reference, or it does not tell our cells apart.
        """
        table = reference if isinstance(reference, Reference) else self.reference(reference)
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.columns))
        ours = {
            metric: [
                (dict(zip(names, key, strict=True)), summarise(list(seeds.values())))
                for key, seeds in self._by_seed(metric, names, None).items()
            ]
            for metric in table.metrics
        }
        return judge(table, ours)

    # Pictures and pages.

    def plot_curves(
        self,
        metric: str | None = None,
        rows: Names = None,
        where: Mapping[str, Any] | None = None,
    ) -> Figure:
        """Metric against budget, a line per row key, shaded 95% intervals over seeds."""
        from modicum.results.plots import curves_figure

        metric = metric or self._first_metric()
        lines = {_label(k): points for k, points in self.curves(metric, rows, where).items()}
        return curves_figure(lines, metric, f"budget ({self.budget_unit.replace('_', ' ')})")

    def plot_progress(
        self,
        against: str,
        metrics: str | Sequence[str],
        rows: Names = None,
        where: Mapping[str, Any] | None = None,
    ) -> Figure:
        """Metrics against another one, a line per row key and metric, shaded 95% intervals."""
        from modicum.results.plots import curves_figure

        names = [metrics] if isinstance(metrics, str) else list(metrics)
        lines = {}
        for metric in names:
            for key, points in self.progress(against, metric, rows, where).items():
                parts = [_label(key)] if any(part is not None for part in key) else []
                lines[", ".join(parts + ([metric] if len(names) > 1 else []))] = points
        units = {self.metric_info(metric).get("unit") for metric in names}
        unit = units.pop() if len(units) == 1 else None
        title = names[0] if len(names) == 1 else unit or "value"
        return curves_figure(lines, title, against, logarithmic=False)

    def plot_boxes(
        self,
        metric: str | None = None,
        rows: Names = None,
        columns: Names = None,
        where: Mapping[str, Any] | None = None,
    ) -> Figure:
        """Box plots over seeds: a group per column key, a box per row key."""
        from modicum.results.plots import boxes_figure

        metric = metric or self._first_metric()
        row_names = _names(rows) if rows is not None else tuple(self.layout[0])
        column_names = _names(columns) if columns is not None else tuple(self.layout[1])
        cells = self._by_seed(metric, [*row_names, *column_names], where)
        width = len(row_names)
        samples = {
            (_label(key[:width]), _label(key[width:])): list(seeds.values())
            for key, seeds in cells.items()
        }
        return boxes_figure(
            samples,
            rows=[_label(key) for key in self._order(row_names)],
            columns=[_label(key) for key in self._order(column_names)],
            metric=metric,
            column_title=", ".join(column_names),
        )

    def report(self, path: str | Path) -> str:
        """Write the report; returns where it lies.

        Args:
            path: Markdown if it ends in `.md`, else one self-contained HTML file.

        Raises:
            InputError: The file cannot be written.
        """
        from modicum.report import write_report

        return write_report(self, path)

    def write_summary(self) -> None:
        """Write `summary.json`: per cell n, mean, sd and interval, and the failures."""
        names = self.varied
        cells = []
        for metric in self.shown_metrics:
            for key, seeds in self._by_seed(metric, names, None).items():
                summary = summarise(list(seeds.values()))
                settings = dict(zip(names, key, strict=True))
                cells.append({"metric": metric, "settings": settings, **vars(summary)})
        counts = {
            status: sum(trial.status == status for trial in self.trials)
            for status in ("finished", "failed", "stopped", "running", "pending")
        }
        failures = [
            {"trial_id": t.id, "seed": t.seed, "error": t.error, "settings": t.columns}
            for t in self.trials
            if t.status == "failed"
        ]
        self.folder.write_json(
            {"trials": counts, "cells": cells, "failures": failures}, "summary.json"
        )

    @property
    def failed(self) -> list[TrialInfo]:
        """Trials that failed."""
        return [trial for trial in self.trials if trial.status == "failed"]


def _require_alike(loose: Sequence[str]) -> None:
    """Refuse a curve of trials that differ in settings."""
    if loose:
        raise InputError(
            f"curve: it would mix different values of {', '.join(loose)}; name it in where"
        )


def _label(key: Key) -> str:
    return ", ".join(show(value) for value in key if value is not None) or "all"


def load_results(location: str | Path) -> Results:
    """Results of a run folder; one that is still being written is read as it stands.

    Args:
        location: The folder, or its URI.

    Raises:
        InputError: There is no run in the folder.
    """
    return Results.load(location)
