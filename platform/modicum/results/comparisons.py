"""Comparison of whole runs: their settings, versions and results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from modicum.errors import InputError
from modicum.experiment.config import flatten
from modicum.experiment.setting_filters import varying
from modicum.results.formatting import (
    markdown_table,
    rendered,
    show,
    show_duration,
    show_number,
    show_p,
    show_settings,
    show_summary,
)
from modicum.results.layout import ReportLayout
from modicum.results.records import (
    Key,
    StudyRecords,
    TrialInfo,
    final_values,
)
from modicum.results.statistics import (
    FEWEST,
    LEVEL,
    Difference,
    Summary,
    holm,
    paired_difference,
    summarise,
    welch_difference,
)
from modicum.run_folder.plan_file import read_plan

# Columns of a table of differences, after the means of both runs.
_COLUMNS = ("shared seeds", "difference", "95% interval", "by", "p", "p (Holm)", "")
# A longer list of values is shortened to their number.
_MOST_VALUES = 6


@dataclass(frozen=True)
class CellDifference:
    """A cell that two runs share.

    Attributes:
        metric: Metric of the cell.
        where: Settings of the cell.
        first: Values of the first run.
        other: Values of the other run.
        difference: Other minus first.
        shared: Number of seeds that both have.
        paired: True if the difference is over the shared seeds alone and paired, as with three of
            them or more; False if it is of the two means, with Welch's interval.
        corrected: p-value of the difference by Holm's correction over the cells of the metric;
            None without a p-value.
        better: True if the other run is better, False if it is worse; None if the corrected
            p-value is 0.05 or more, there is none, or the metric has no goal.
    """

    metric: str
    where: Mapping[str, Any]
    first: Summary
    other: Summary
    difference: Difference
    shared: int
    paired: bool
    corrected: float | None = None
    better: bool | None = None

    @property
    def same_mean(self) -> bool:
        """True if the means of both runs, over all their seeds, are equal but for rounding."""
        return math.isclose(self.first.mean, self.other.mean, rel_tol=1e-12)


@dataclass(frozen=True)
class RunDifference:
    """Another run against the first one.

    Attributes:
        other: Number of the other run, from 2.
        cells: Cells that both have.
        only_first: Settings of cells that only the first run has.
        only_other: Settings of cells that only the other run has.
        refused: Reason why no results are compared; None where they are.
    """

    other: int
    cells: Sequence[CellDifference]
    only_first: Sequence[Mapping[str, Any]]
    only_other: Sequence[Mapping[str, Any]]
    refused: str | None = None


def compare_cells(
    number: int, first: ReportLayout, other: StudyRecords, metric: str | None
) -> RunDifference:
    """Compare the results of run `number` with the first run's.

    Without a metric, all metrics that the first run shows and the other run has are compared.
    """
    runs = (first.records, other)
    names = [run.experiment["name"] for run in runs]
    if names[0] != names[1]:
        refused = (
            f"results are not compared: {names[0]} and {names[1]} are different experiments, "
            "which share no cells"
        )
        return RunDifference(number, [], [], [], refused)
    metrics = [metric] if metric is not None else [n for n in first.metrics if n in other.frame]
    keys = varying(trial.columns for run in runs for trial in run.trials)
    keys = [name for name in keys if any(name in run.varied for run in runs)]
    cells: list[CellDifference] = []
    lone: tuple[dict[Key, None], dict[Key, None]] = ({}, {})
    for name in metrics:
        one, two = (_by_cell(run, name, keys) for run in runs)
        found = [
            _compare_cell(name, dict(zip(keys, key, strict=True)), one[key], two[key])
            for key in one
            if key in two
        ]
        cells += _corrected(found, first.records.metric_info(name)["goal"])
        lone[0].update(dict.fromkeys(key for key in one if key not in two))
        lone[1].update(dict.fromkeys(key for key in two if key not in one))
    only = [[dict(zip(keys, key, strict=True)) for key in side] for side in lone]
    return RunDifference(number, cells, only[0], only[1])


def _by_cell(run: StudyRecords, metric: str, keys: Sequence[str]) -> dict[Key, dict[int, float]]:
    cells: dict[Key, dict[int, float]] = {}
    for settings, value in final_values(run, metric):
        cells.setdefault(tuple(settings.get(name) for name in keys), {})[settings["seed"]] = value
    return cells


def _compare_cell(
    metric: str, where: Mapping[str, Any], first: Mapping[int, float], other: Mapping[int, float]
) -> CellDifference:
    one, two = summarise(list(first.values())), summarise(list(other.values()))
    shared = sorted(first.keys() & other.keys())
    paired = len(shared) >= FEWEST
    if paired:
        difference = paired_difference([other[s] for s in shared], [first[s] for s in shared])
    else:
        difference = welch_difference(two, one)
    return CellDifference(metric, where, one, two, difference, len(shared), paired)


def _corrected(cells: Sequence[CellDifference], goal: str | None) -> list[CellDifference]:
    """Correct the p-values of a metric's cells for their number, and judge by them."""
    found = []
    for cell, p in zip(cells, holm([cell.difference.p for cell in cells]), strict=True):
        better = None
        if goal is not None and p is not None and p < 1 - LEVEL:
            better = (cell.difference.mean > 0) == (goal == "max")
        found.append(replace(cell, corrected=p, better=better))
    return found


def overview(run: StudyRecords) -> dict[str, str]:
    """Name, trials by status, time and budget of a run."""
    provenance = run.provenance()
    starts = [provenance, *provenance.get("earlier", [])]
    seconds = [start["seconds"] for start in starts if "seconds" in start]
    trial_seconds = [t.seconds for t in run.trials if t.status == "finished" and t.seconds]
    counts = run.status_counts()
    spent = 0.0
    if not run.frame.empty:
        done = run.frame[run.frame["status"] == "finished"]
        spent = float(done.groupby("trial_id")["budget"].last().sum())
    return {
        "study": str(run.spec.get("name", "–")),
        "experiment": f"{run.experiment['name']} {run.experiment['version']}",
        "started": str(min((s["started"] for s in starts if "started" in s), default="–")),
        "trials": ", ".join(f"{count} {status}" for status, count in counts.items() if count),
        "wall time": show_duration(sum(seconds)) if seconds else "–",
        "mean time of a trial": show_duration(sum(trial_seconds) / len(trial_seconds))
        if trial_seconds
        else "–",
        f"budget of all trials ({run.budget_words})": show(spent),
    }


def settings(run: StudyRecords) -> dict[str, str]:
    """Values of every setting over a run's trials, and the other fields of its study file."""
    values: dict[str, list[Any]] = {}
    for trial in run.trials:
        for name, value in trial.columns.items():
            values.setdefault(name, []).append(value)
    fields = {
        name: value
        for name, value in run.spec.items()
        if name not in {"name", "description", "space", "experiment", "seeds", "tracking"}
    }
    return {
        **{name: _listed(found) for name, found in values.items()},
        "seeds": _listed(trial.seed for trial in run.trials),
        **{f"study: {name}": show(value) for name, value in flatten(fields).items()},
    }


def versions(run: StudyRecords) -> dict[str, str]:
    """Versions of the code, packages, hardware and data of a run."""
    provenance = run.provenance()
    digests: dict[str, list[str]] = {}
    for entry in read_plan(run.folder)["trials"]:
        for role, digest in entry["digests"].items():
            digests.setdefault(f"data: {role}", []).append(digest[:12])
    hardware = provenance.get("hardware", {})
    commits = _listed(trial.commit for trial in run.trials if trial.commit is not None)
    return {
        "experiment": str(run.experiment["name"]),
        "experiment version": str(run.experiment["version"]),
        "commit of trials": commits,
        "python": str(provenance.get("python", "–")),
        **provenance.get("packages", {}),
        **{f"hardware: {name}": show(value) for name, value in hardware.items()},
        **{role: _listed(found) for role, found in digests.items()},
    }


def _listed(values: Iterable[Any]) -> str:
    texts = list(dict.fromkeys(show(value) for value in values))
    if len(texts) > _MOST_VALUES:
        return f"{len(texts)} values, {texts[0]} … {texts[-1]}"
    return ", ".join(texts) or "–"


def unlike(tables: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Keep the facts that differ among runs, with the text of each run."""
    names = dict.fromkeys(name for table in tables for name in table)
    rows = {name: [table.get(name, "–") for table in tables] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


@dataclass(frozen=True)
class Block:
    """A titled table of text, with a remark below it; without rows, the remark alone."""

    title: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    remark: str = ""

    def to_text(self, styled: bool = False) -> str:
        """Render the block for a terminal, if `styled` with escapes for bold."""
        if not self.rows:
            return f"{self.title}: {self.remark}\n"
        table = Table(box=box.SIMPLE_HEAD)
        for name in self.header:
            table.add_column(Text(name), no_wrap=True)
        for row in self.rows:
            table.add_row(*map(Text, row))
        remark = f"{self.remark}\n" if self.remark else ""
        return f"{self.title}\n{rendered(table, styled=styled)}{remark}"

    def to_markdown(self) -> str:
        """Write the block in Markdown."""
        lines = [f"**{self.title}**", ""]
        if self.rows:
            rows = [list(map(_escaped, row)) for row in self.rows]
            lines += [markdown_table(list(map(_escaped, self.header)), rows), ""]
        if self.remark:
            lines += [_escaped(self.remark), ""]
        return "\n".join(lines)


def result_blocks(difference: RunDifference) -> list[Block]:
    """Show the differences of two runs, a block for each metric."""
    title = f"Results: {difference.other} minus 1"
    if difference.refused is not None:
        return [Block(title, remark=difference.refused)]
    blocks = []
    by_metric: dict[str, list[CellDifference]] = {}
    for cell in difference.cells:
        by_metric.setdefault(cell.metric, []).append(cell)
    for metric, cells in by_metric.items():
        names = list(cells[0].where)
        header = [*names, "1", str(difference.other), *_COLUMNS]
        equal = sum(cell.same_mean for cell in cells)
        remarks = [f"{equal} of {len(cells)} cells have the same mean"] if equal else []
        if any(cell.difference.low is not None for cell in cells):
            remarks.append("intervals cover other seeds, not other test rows")
        rows = [[*(show(cell.where[name]) for name in names), *_texts(cell)] for cell in cells]
        blocks.append(Block(f"{title}, {metric}", header, rows, "; ".join(remarks)))
    if not blocks:
        blocks.append(Block(title, remark="the runs share no cell"))
    for number, only in ((1, difference.only_first), (difference.other, difference.only_other)):
        if only:
            rows = [[show(value) for value in where.values()] for where in only]
            blocks.append(Block(f"Cells only in {number}", list(only[0]), rows))
    return blocks


def _texts(cell: CellDifference) -> list[str]:
    found = cell.difference
    interval = by = "–"
    if found.low is not None:
        interval = f"{show_number(found.low)} to {show_number(found.high)}"
        by = "pairs" if cell.paired else "Welch"
    difference = ("+" if found.mean > 0 else "") + show_number(found.mean)
    verdict = {True: "better", False: "worse", None: ""}[cell.better]
    return [
        show_summary(cell.first),
        show_summary(cell.other),
        str(cell.shared),
        difference,
        interval,
        by,
        show_p(found.p),
        show_p(cell.corrected),
        verdict,
    ]


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("<", r"\<").replace("\n", " ")


@dataclass(frozen=True)
class RunsComparison:
    """Two or more runs beside each other; the others are compared with the first one.

    Attributes:
        places: Locations of the runs, which are numbered from 1.
        runs: Name, trials by status, time and budget of each run.
        settings: Values in each run of the settings and fields of the study that differ.
        versions: Versions in each run of the code, packages, hardware and data that differ.
        failures: Failed trials of each run.
        differences: Each other run against the first one.
    """

    places: Sequence[str]
    runs: Sequence[Mapping[str, str]]
    settings: Mapping[str, Sequence[str]]
    versions: Mapping[str, Sequence[str]]
    failures: Sequence[Sequence[TrialInfo]]
    differences: Sequence[RunDifference]

    def blocks(self) -> list[Block]:
        """Titled tables of the comparison, in order."""
        numbers = [str(number) for number in range(1, len(self.places) + 1)]
        names = list(dict.fromkeys(name for run in self.runs for name in run))
        found = [
            Block(
                "Runs",
                ["", *numbers],
                [[name, *(run.get(name, "–") for run in self.runs)] for name in names],
                "; ".join(f"{n}: {place}" for n, place in zip(numbers, self.places, strict=True)),
            )
        ]
        for title, table in (
            ("Settings that differ", self.settings),
            ("Versions that differ", self.versions),
        ):
            rows = [[name, *values] for name, values in table.items()]
            found.append(
                Block(title, ["", *numbers], rows) if rows else Block(title, remark="none")
            )
        failed = self._failed(numbers)
        if failed:
            found.append(Block("Failed trials", ["run", "settings", "seed", "error"], failed))
        for difference in self.differences:
            found += result_blocks(difference)
        return found

    def _failed(self, numbers: Sequence[str]) -> list[list[str]]:
        varied = varying(trial.columns for trials in self.failures for trial in trials)
        return [
            [
                number,
                show_settings({n: trial.columns[n] for n in varied if n in trial.columns}),
                str(trial.seed),
                trial.error or "",
            ]
            for number, trials in zip(numbers, self.failures, strict=True)
            for trial in trials
        ]

    def to_text(self, styled: bool = False) -> str:
        """Render the comparison for a terminal, if `styled` with escapes for bold."""
        return "\n".join(block.to_text(styled) for block in self.blocks())

    def to_markdown(self) -> str:
        """Write the comparison in Markdown."""
        return "\n".join(block.to_markdown() for block in self.blocks())

    def __str__(self) -> str:
        return self.to_text()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def compare_records(
    first: ReportLayout, others: Sequence[StudyRecords], metric: str | None = None
) -> RunsComparison:
    """Compare runs with the first of them; see `modicum.compare_runs`."""
    if not others:
        raise InputError("compare: give two runs or more")
    runs = [first.records, *others]
    return RunsComparison(
        places=[run.folder.uri for run in runs],
        runs=[overview(run) for run in runs],
        settings=unlike([settings(run) for run in runs]),
        versions=unlike([versions(run) for run in runs]),
        failures=[run.failed for run in runs],
        differences=[
            compare_cells(number, first, other, metric)
            for number, other in enumerate(others, start=2)
        ],
    )
