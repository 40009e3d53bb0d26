"""Runs beside each other: what differs in settings, versions and results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modicum.errors import InputError
from modicum.experiment.config import flatten
from modicum.experiment.setting_filters import varying
from modicum.results.statistics import (
    Difference,
    Summary,
    paired_difference,
    summarise,
    welch_interval,
)
from modicum.results.store import TrialInfo, read_plan
from modicum.results.tables import Key, rendered, show, show_duration, show_number, show_summary

if TYPE_CHECKING:
    from modicum.results.results import Results

# Longer lists of values say how many there are.
_MOST_VALUES = 6


@dataclass(frozen=True)
class CellDifference:
    """A cell that two runs share.

    Attributes:
        metric: The metric.
        where: The cell's settings.
        first: Values of the first run.
        other: Values of the other run.
        difference: Other minus first; its interval is None where it cannot be told.
        paired: Over the seeds that both have (`difference.n` of them); else Welch's interval.
        better: Whether the other run is better or worse, by an interval without 0 and a metric
            with a goal; None where that cannot be said.
    """

    metric: str
    where: Mapping[str, Any]
    first: Summary
    other: Summary
    difference: Difference
    paired: bool
    better: bool | None


@dataclass(frozen=True)
class RunDifference:
    """Another run against the first one.

    Attributes:
        other: Number of the other run, from 2.
        cells: Cells that both have.
        only_first: Settings of cells that only the first run has.
        only_other: Settings of cells that only the other run has.
        refused: Why no results are compared; None where they are.
    """

    other: int
    cells: Sequence[CellDifference]
    only_first: Sequence[Mapping[str, Any]]
    only_other: Sequence[Mapping[str, Any]]
    refused: str | None = None


@dataclass(frozen=True)
class Block:
    """A titled table of text, as it is shown.

    Attributes:
        title: What it shows.
        header: Titles of the columns.
        rows: The table, a text for each column; none where there is only a remark.
        remark: What to know beside it.
    """

    title: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    remark: str = ""


@dataclass(frozen=True)
class RunsComparison:
    """Two or more runs beside each other; the others are compared with the first one.

    Attributes:
        places: Where the runs lie, numbered from 1.
        runs: For each run what it was: name, trials by status, time, budget.
        settings: Settings and fields of the study that differ, to their values in each run.
        versions: Code, packages, hardware and data that differ, to what each run had.
        failures: For each run its failed trials.
        differences: Each other run against the first one.
    """

    places: Sequence[str]
    runs: Sequence[Mapping[str, str]]
    settings: Mapping[str, Sequence[str]]
    versions: Mapping[str, Sequence[str]]
    failures: Sequence[Sequence[TrialInfo]]
    differences: Sequence[RunDifference]

    def blocks(self) -> list[Block]:
        """The comparison as titled tables, in order."""
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
        for title, table in (("Settings", self.settings), ("Versions", self.versions)):
            rows = [[name, *values] for name, values in table.items()]
            title = f"{title} that differ"
            found.append(
                Block(title, ["", *numbers], rows) if rows else Block(title, remark="none")
            )
        varied = varying(trial.columns for trials in self.failures for trial in trials)
        failed = [
            [number, _described(trial.columns, varied), str(trial.seed), trial.error or ""]
            for number, trials in zip(numbers, self.failures, strict=True)
            for trial in trials
        ]
        if failed:
            found.append(Block("Failed trials", ["run", "settings", "seed", "error"], failed))
        for difference in self.differences:
            found += _result_blocks(difference)
        return found

    def to_text(self, styled: bool = False) -> str:
        """The comparison for a terminal.

        Args:
            styled: With terminal escapes for bold.
        """
        return "\n".join(_block_text(block, styled) for block in self.blocks())

    def to_markdown(self) -> str:
        """The comparison in Markdown."""
        return "\n".join(_block_markdown(block) for block in self.blocks())

    def __str__(self) -> str:
        return self.to_text()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def compare_runs(
    first: Results | str | Path,
    *others: Results | str | Path,
    metric: str | None = None,
) -> RunsComparison:
    """What differs between runs: settings, versions, and the results of the cells they share.

    A cell is told by the settings that vary within some of the runs; a setting that is fixed in
    each, to different values, is what the runs are compared on. Where two runs have two seeds
    or more of a cell in common, they are paired over them (paired t); else the interval is
    Welch's. Runs of different experiments share no results: their settings and versions are
    still shown.

    Args:
        first: A run folder, its URI, or its results: what the others are compared with.
        *others: At least one more.
        metric: The metric; all that the first run's study shows if left out.

    Returns:
        The comparison, as data, text or Markdown.

    Raises:
        InputError: Fewer than two runs, no run in a folder, or an unknown metric.
    """
    from modicum.results.results import Results

    if not others:
        raise InputError("compare: give two runs or more")
    results = [run if isinstance(run, Results) else Results.load(run) for run in (first, *others)]
    provenances = [_provenance(run) for run in results]
    return RunsComparison(
        places=[run.folder.uri for run in results],
        runs=[_overview(*pair) for pair in zip(results, provenances, strict=True)],
        settings=_unlike([_settings(run) for run in results]),
        versions=_unlike([_versions(*pair) for pair in zip(results, provenances, strict=True)]),
        failures=[run.failed for run in results],
        differences=[
            _difference(number, results[0], other, metric)
            for number, other in enumerate(results[1:], start=2)
        ],
    )


# What the runs were.


def _provenance(run: Results) -> dict[str, Any]:
    if not run.folder.exists("provenance.json"):
        return {}
    return dict(run.folder.read_json("provenance.json"))


def _overview(run: Results, provenance: Mapping[str, Any]) -> dict[str, str]:
    counts = {
        status: sum(trial.status == status for trial in run.trials)
        for status in ("finished", "failed", "stopped", "running", "pending")
    }
    sessions = [provenance, *provenance.get("earlier", [])]
    seconds = [session["seconds"] for session in sessions if "seconds" in session]
    trial_seconds = [t.seconds for t in run.trials if t.status == "finished" and t.seconds]
    unit = run.budget_unit.replace("_", " ")
    return {
        "study": str(run.spec.get("name", "–")),
        "experiment": f"{run.experiment['name']} {run.experiment['version']}",
        "started": str(min((s["started"] for s in sessions if "started" in s), default="–")),
        "trials": ", ".join(f"{count} {status}" for status, count in counts.items() if count),
        "wall time": show_duration(sum(seconds)) if seconds else "–",
        "mean time of a trial": show_duration(sum(trial_seconds) / len(trial_seconds))
        if trial_seconds
        else "–",
        f"budget of all trials ({unit})": show(_budget_spent(run)),
    }


def _budget_spent(run: Results) -> float:
    if run.frame.empty:
        return 0.0
    done = run.frame[run.frame["status"] == "finished"]
    return float(done.groupby("trial_id")["budget"].last().sum())


def _settings(run: Results) -> dict[str, str]:
    """Values of every setting over a run's trials, and the study's other fields."""
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


def _versions(run: Results, provenance: Mapping[str, Any]) -> dict[str, str]:
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


def _unlike(tables: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    names = dict.fromkeys(name for table in tables for name in table)
    rows = {name: [table.get(name, "–") for table in tables] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


# Their results.


def _difference(number: int, first: Results, other: Results, metric: str | None) -> RunDifference:
    names = [run.experiment["name"] for run in (first, other)]
    if names[0] != names[1]:
        refused = (
            f"results are not compared: {names[0]} and {names[1]} are different experiments, "
            "which share no cells"
        )
        return RunDifference(number, [], [], [], refused)
    shown = [name for name in first.shown_metrics if name in other.frame]
    metrics = [metric] if metric is not None else shown
    keys = varying(trial.columns for run in (first, other) for trial in run.trials)
    keys = [name for name in keys if name in first.varied or name in other.varied]
    cells: list[CellDifference] = []
    lone: tuple[dict[Key, None], dict[Key, None]] = ({}, {})
    for name in metrics:
        one, two = (_by_cell(run, name, keys) for run in (first, other))
        goal = first.metric_info(name)["goal"]
        for key in one:
            if key in two:
                where = dict(zip(keys, key, strict=True))
                cells.append(_compare_cell(name, goal, where, one[key], two[key]))
        lone[0].update(dict.fromkeys(key for key in one if key not in two))
        lone[1].update(dict.fromkeys(key for key in two if key not in one))
    only = [[dict(zip(keys, key, strict=True)) for key in side] for side in lone]
    return RunDifference(number, cells, only[0], only[1])


def _by_cell(run: Results, metric: str, keys: Sequence[str]) -> dict[Key, dict[int, float]]:
    cells: dict[Key, dict[int, float]] = {}
    for settings, value in run.values(metric):
        cells.setdefault(tuple(settings.get(name) for name in keys), {})[settings["seed"]] = value
    return cells


def _compare_cell(
    metric: str,
    goal: str | None,
    where: Mapping[str, Any],
    first: Mapping[int, float],
    other: Mapping[int, float],
) -> CellDifference:
    one, two = summarise(list(first.values())), summarise(list(other.values()))
    shared = sorted(first.keys() & other.keys())
    paired = len(shared) > 1
    if paired:
        difference = paired_difference([other[s] for s in shared], [first[s] for s in shared])
    else:
        low: float | None = None
        high: float | None = None
        if one.sd is not None and two.sd is not None:
            low, high = welch_interval(two.mean, two.sd, two.n, one.mean, one.sd, one.n)
        difference = Difference(min(one.n, two.n), two.mean - one.mean, low, high, None)
    return CellDifference(metric, where, one, two, difference, paired, _better(difference, goal))


def _better(difference: Difference, goal: str | None) -> bool | None:
    if goal is None or difference.low is None or difference.high is None:
        return None
    if difference.low <= 0 <= difference.high:
        return None
    return (difference.mean > 0) == (goal == "max")


# How it is shown.


def _result_blocks(difference: RunDifference) -> list[Block]:
    title = f"Results: {difference.other} minus 1"
    if difference.refused is not None:
        return [Block(title, remark=difference.refused)]
    blocks = []
    by_metric: dict[str, list[CellDifference]] = {}
    for cell in difference.cells:
        by_metric.setdefault(cell.metric, []).append(cell)
    for metric, cells in by_metric.items():
        names = list(cells[0].where)
        header = [*names, "1", str(difference.other), "difference", "95% interval", "by", ""]
        equal = sum(cell.difference.mean == 0 for cell in cells)
        remark = f"{equal} of {len(cells)} cells have the same mean" if equal else ""
        rows = [[*(show(cell.where[name]) for name in names), *_texts(cell)] for cell in cells]
        blocks.append(Block(f"{title}, {metric}", header, rows, remark))
    if not blocks:
        blocks.append(Block(title, remark="the runs share no cell"))
    for number, only in ((1, difference.only_first), (difference.other, difference.only_other)):
        if only:
            title = f"Cells only in {number}"
            rows = [[show(value) for value in where.values()] for where in only]
            blocks.append(Block(title, list(only[0]), rows))
    return blocks


def _described(settings: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} = {show(settings[name])}" for name in names if name in settings)


def _texts(cell: CellDifference) -> list[str]:
    found = cell.difference
    interval = "–"
    if found.low is not None and found.high is not None:
        interval = f"{show_number(found.low)} to {show_number(found.high)}"
    by = "–" if interval == "–" else f"{found.n} pairs" if cell.paired else "Welch"
    verdict = {True: "better", False: "worse", None: ""}[cell.better]
    sign = "+" if found.mean > 0 else ""
    return [
        show_summary(cell.first),
        show_summary(cell.other),
        sign + show_number(found.mean),
        interval,
        by,
        verdict,
    ]


def _block_text(block: Block, styled: bool) -> str:
    if not block.rows:
        return f"{block.title}: {block.remark}\n"
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for name in block.header:
        table.add_column(Text(name), no_wrap=True)
    for row in block.rows:
        table.add_row(*map(Text, row))
    remark = f"{block.remark}\n" if block.remark else ""
    return f"{block.title}\n{rendered(table, styled=styled)}{remark}"


def _block_markdown(block: Block) -> str:
    lines = [f"**{block.title}**", ""]
    if block.rows:
        table = [block.header, ["---"] * len(block.header), *block.rows]
        lines += ["| " + " | ".join(_escaped(text) for text in row) + " |" for row in table]
        lines.append("")
    if block.remark:
        lines += [_escaped(block.remark), ""]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("<", r"\<").replace("\n", " ")
