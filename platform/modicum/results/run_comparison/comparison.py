"""Two or more runs beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modicum.errors import InputError
from modicum.experiment.setting_filters import varying
from modicum.results.formatting import show_settings
from modicum.results.layout import ReportLayout
from modicum.results.records import StudyRecords, TrialInfo
from modicum.results.run_comparison.blocks import Block, result_blocks
from modicum.results.run_comparison.cells import RunDifference, compare_cells
from modicum.results.run_comparison.facts import overview, settings, unlike, versions


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
