"""Results of a study: what a user asks of a run folder, each question answered by one query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from modicum.report.rendering import write_report
from modicum.results import figures, search_figures
from modicum.results.comparisons import RunsComparison, compare_records
from modicum.results.curves import (
    BudgetNeeded,
    CurvePoint,
    budgets_by_row,
    curves_by_row,
    points_by_seed,
    progress_by_row,
)
from modicum.results.forecast import Forecast, describe_forecasts, forecasts_by_row
from modicum.results.importance import (
    Configurations,
    Importance,
    finished_configurations,
    importance_of,
)
from modicum.results.layout import ReportLayout, report_layout
from modicum.results.pareto import ParetoPoint, pareto_points
from modicum.results.ranking import Best, find_best
from modicum.results.records import Key, StudyRecords, Where, final_values
from modicum.results.reference import JudgedCell, Reference, judge_study, study_reference
from modicum.results.store import consolidate, load_records
from modicum.results.tables import (
    Comparison,
    Table,
    Wins,
    compare_methods,
    make_table,
    tables_of,
    wins_by_row,
    write_summary,
)
from modicum.storage import StorageFolder

Names = str | Sequence[str] | None


class Results:
    """Results of a study, from its run folder.

    Only finished trials enter a cell; the tables of a search also show the trials that a scheduler
    ended early, marked. A trial's value of a metric is the value in the last record that has the
    metric. Cells never mix settings that the caller does not name.

    Most methods take:

    - `metric`: the metric; by default the first one that the study shows.
    - `rows`, `columns`: settings whose values make the rows and columns; by default those of
      the study's report.
    - `where`: settings of the trials to take; by default all trials.

    They raise `InputError` for an unknown name, and for a setting that varies and is not named.

    Args:
        records: Trials and records of the study.

    Attributes:
        records: Trials and records of the study.
        folder: The run folder.
        frame: One row per record: `trial_id`, `config/*`, `seed`, `status`, `record`, `budget`,
            `seconds`, and the metrics by name.
        trials: Trials of the study with their status, in the order of its plan.
        failed: Trials that failed.
        experiment: Name, version, budget unit, budget settings and metrics of the experiment.
        budget_unit: Unit of the budget.
        spec: Plain contents of the study file; empty without one.
    """

    def __init__(self, records: StudyRecords) -> None:
        self.records = records
        self.folder = records.folder
        self.frame = records.frame
        self.trials = records.trials
        self.failed = records.failed
        self.experiment = records.experiment
        self.budget_unit = str(records.experiment["budget_unit"])
        self.spec = records.spec

    @classmethod
    def load(cls, location: str | Path) -> Results:
        """Read a run folder; see `load_results`."""
        return cls(load_records(location))

    @classmethod
    def consolidate(cls, folder: StorageFolder) -> Results:
        """Gather the files of all trials into `results.parquet`."""
        return cls(consolidate(folder))

    @property
    def varied(self) -> list[str]:
        """Settings with more than one value among the trials, in the order of the study."""
        return self.records.varied

    @cached_property
    def _layout(self) -> ReportLayout:
        return report_layout(self.records)

    @property
    def layout(self) -> tuple[list[str], list[str], list[str]]:
        """Settings that make the rows, the columns and the groups of the study's report."""
        return self._layout.rows, self._layout.columns, self._layout.by

    @property
    def shown_metrics(self) -> list[str]:
        """Metrics that the study's report shows; by default all with a goal and values."""
        return self._layout.metrics

    def metric_info(self, name: str) -> Mapping[str, Any]:
        """Declaration of a metric."""
        return self.records.metric_info(name)

    def values(self, metric: str, where: Where = None) -> list[tuple[Mapping[str, Any], float]]:
        """Settings and final value of every finished trial."""
        return final_values(self.records, metric, where)

    def table(
        self, rows: Names, columns: Names = (), metric: str | None = None, where: Where = None
    ) -> Table:
        """Table of means over seeds."""
        names = _names(rows, []), _names(columns, [])
        return make_table(self.records, *names, self._metric(metric), where)

    def best(self, metric: str | None = None, goal: str | None = None, where: Where = None) -> Best:
        """Best configuration of the study: the best mean of the objective over seeds.

        Configurations whose seeds have all finished come before those with some finished seeds.
        Trials that a scheduler ended early count only if none has finished: their values are of
        smaller budgets. Of equal means, the configuration that stands first in the study is taken.

        Args:
            metric: The objective; by default the metric of the study's searcher, or else of its
                scheduler, or else the first one that the study shows.
            goal: `max` or `min`; by default the goal that the study or the metric declares.
            where: Settings of the trials to take.

        Raises:
            InputError: An unknown name, a metric without a goal, or no trial with a value.
        """
        return find_best(self.records, self._layout.objective(metric, goal), where)

    def groups(self) -> list[dict[str, Any]]:
        """Values of the settings `by` of the study's report."""
        return self._layout.groups()

    def tables(self) -> list[Table]:
        """Tables of the study's report, by metric and group."""
        tables = tables_of(self._layout, self.shown_metrics)
        return [table for table in tables if table.cells]

    def wins(self, metric: str | None = None) -> dict[Key, Wins]:
        """Number of cells in which each row of the study's report is best or second best.

        Cells are the columns of all groups (`by`) together. The metric must have a goal.
        """
        return wins_by_row(self._layout, self._metric(metric))

    def compare(
        self,
        first: Mapping[str, Any],
        second: Mapping[str, Any],
        metric: str | None = None,
        where: Where = None,
    ) -> list[Comparison]:
        """Paired comparison of two methods over the same seeds, in every cell that both have.

        Args:
            first: Settings of the first method, for example `{"method": "iwl"}`.
            second: The same settings, for the second method.
            metric: The metric.
            where: Settings of the trials to take.
        """
        return compare_methods(self.records, first, second, self._metric(metric), where)

    def points(self, metric: str, where: Where = None) -> dict[int, list[tuple[float, float]]]:
        """Budget and value of every record of finished trials, by seed.

        Trials of one seed that differ only in settings that set the budget join into one series.
        """
        return points_by_seed(self.records, metric, where)

    def curves(
        self, metric: str | None = None, rows: Names = None, where: Where = None
    ) -> dict[Key, list[CurvePoint]]:
        """Metric against budget, with intervals over seeds, for each row."""
        return curves_by_row(self.records, self._metric(metric), self._rows(rows), where)

    def progress(
        self, against: str, metric: str, rows: Names = None, where: Where = None
    ) -> dict[Key, list[CurvePoint]]:
        """Metric against another metric of the same records, over seeds, for each row.

        Returns:
            Points with the value of `against` as `budget`, over the seeds that have that value.
        """
        return progress_by_row(self.records, against, metric, self._rows(rows), where)

    def budget_to_target(
        self, metric: str, target: float, rows: Names = None, where: Where = None
    ) -> dict[Key, BudgetNeeded]:
        """Budget that each row needs to reach a level of a metric, which must have a goal."""
        return budgets_by_row(self.records, metric, target, self._rows(rows), where)

    def forecast(
        self, metric: str, target: float, rows: Names = None, where: Where = None
    ) -> dict[Key, Forecast]:
        """Forecast of the budget that each row needs to reach a level of a metric with a goal.

        A figure to plan by: it extrapolates a fitted learning curve, which `budget_to_target`
        never does. It says why where the records do not allow one.
        """
        return forecasts_by_row(self.records, metric, target, self._rows(rows), where)

    def describe_forecasts(self, metric: str, target: float) -> str:
        """Forecasts of the rows of the study's report, by group, as text."""
        return describe_forecasts(self._layout, metric, target)

    def reference(self, path: str | Path | None = None) -> Reference:
        """Table of published numbers, from a file or by default from the study."""
        return study_reference(self._layout, path)

    def verdicts(self, reference: Reference | str | Path | None = None) -> list[JudgedCell]:
        """Every published number beside the study's, with a verdict."""
        table = reference if isinstance(reference, Reference) else self.reference(reference)
        return judge_study(self.records, table)

    def plot_curves(
        self, metric: str | None = None, rows: Names = None, where: Where = None
    ) -> Figure:
        """Figure of metric against budget: a line per row, 95% intervals over seeds shaded."""
        lines = figures.budget_lines(self.records, self._metric(metric), self._rows(rows), where)
        return figures.curves_figure(lines)

    def plot_progress(
        self, against: str, metrics: str | Sequence[str], rows: Names = None, where: Where = None
    ) -> Figure:
        """Figure of metrics against another metric: a line per row and metric."""
        names = _names(metrics, [])
        lines = figures.progress_lines(self.records, against, names, self._rows(rows), where)
        return figures.curves_figure(lines)

    def plot_search(self, where: Where = None) -> Figure:
        """Figure of the objective of `best` by the order in which configurations ended.

        A line shows the best finished so far; trials that a scheduler ended early are hollow.
        """
        objective = self._layout.objective()
        return figures.plot_search(self.records, self.varied, objective, where)

    def pareto(self, where: Where = None) -> list[ParetoPoint]:
        """Configurations whose seeds have all finished, by the objectives of the study's searcher.

        Those that no other configuration dominates are `optimal`.

        Raises:
            InputError: An objective has no goal.
        """
        return pareto_points(self.records, self.varied, self._layout.objectives, where)

    def plot_pareto(self, across: str, up: str, where: Where = None) -> Figure:
        """Figure of the configurations of `pareto` by two of the objectives."""
        return search_figures.plot_pareto(self.pareto(where), across, up)

    def importance(self, metric: str | None = None, where: Where = None) -> Importance | None:
        """Importance of the settings for an objective, by default that of `best`.

        See `importance_of` for how it is computed, and when it is None.
        """
        return importance_of(self._finished(metric, where))

    def plot_slices(self, metric: str | None = None, where: Where = None) -> Figure:
        """Figure of an objective against each varied setting, over finished configurations."""
        found = self._finished(metric, where)
        name = self._layout.objective(metric).metric
        return search_figures.plot_slices(found, name, found.names)

    def plot_parallel(self, metric: str | None = None, where: Where = None) -> Figure:
        """Figure of parallel coordinates: a line for each finished configuration."""
        found = self._finished(metric, where)
        name = self._layout.objective(metric).metric
        return search_figures.plot_parallel(found, name, found.names)

    def _finished(self, metric: str | None, where: Where) -> Configurations:
        objective = self._layout.objective(metric)
        return finished_configurations(self.records, self.varied, objective, where)

    def plot_boxes(
        self,
        metric: str | None = None,
        rows: Names = None,
        columns: Names = None,
        where: Where = None,
    ) -> Figure:
        """Figure of box plots over seeds: a group per column, a box per row."""
        across = _names(columns, self._layout.columns)
        return figures.plot_boxes(
            self.records, self._metric(metric), self._rows(rows), across, where
        )

    def report(self, path: str | Path) -> str:
        """Write the report.

        Args:
            path: Markdown if it ends in `.md`, else one self-contained HTML file.

        Returns:
            Location of the file.

        Raises:
            InputError: The file cannot be written.
        """
        return write_report(self._layout, path)

    def write_summary(self) -> None:
        """Write `summary.json`: n, mean, sd and interval of each cell, and the failures."""
        write_summary(self._layout)

    def _metric(self, metric: str | None) -> str:
        return metric or self._layout.main_metric

    def _rows(self, rows: Names) -> list[str]:
        return self._layout.rows if rows is None else _names(rows, [])


def _names(names: Names, default: list[str]) -> list[str]:
    if names is None:
        return default
    return [names] if isinstance(names, str) else list(names)


def load_results(location: str | Path) -> Results:
    """Read the results of a run folder (path or URI), also while its study is running.

    A warning names each trial whose files are damaged; it counts as pending.

    Raises:
        InputError: The folder holds no run.
    """
    return Results.load(location)


def compare_runs(
    first: Results | str | Path, *others: Results | str | Path, metric: str | None = None
) -> RunsComparison:
    """Compare runs: settings, versions, and the results of the cells that they share.

    A cell is identified by the settings that vary within some of the runs; a setting that is
    fixed in each run, to different values, is what the runs are compared on. Cells with three or
    more shared seeds are paired over them (paired t); other cells get Welch's interval, with
    three seeds in each run. Runs of different experiments share no results: their settings and
    versions are still shown.

    Args:
        first: Run folder, URI or results that the others are compared with.
        *others: One or more further runs.
        metric: The metric; by default all that the study of the first run shows.

    Returns:
        The comparison, as data, text or Markdown.

    Raises:
        InputError: Fewer than two runs, no run in a folder, or an unknown metric.
    """
    runs = [run if isinstance(run, Results) else load_results(run) for run in (first, *others)]
    return compare_records(runs[0]._layout, [run.records for run in runs[1:]], metric)
