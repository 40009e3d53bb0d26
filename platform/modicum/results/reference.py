"""Published numbers beside a study, and verdicts on which of them the study reproduces."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from modicum.errors import InputError, validated
from modicum.experiment.config import settings_of
from modicum.experiment.experiment import Experiment
from modicum.experiment.setting_filters import agrees, find_cell, require_settings
from modicum.results.layout import ReportLayout
from modicum.results.records import StudyRecords, values_by_seed
from modicum.results.statistics import (
    FEWEST,
    LEVEL,
    Estimate,
    Summary,
    summarise,
    welch_estimate,
)
from modicum.yaml_io import parse_yaml, read_yaml

Verdict = Literal["matches", "direction only", "differs", "undecided", "not comparable", "not run"]
_PER_CENT = 100
Cells = Sequence[tuple[Mapping[str, Any], Summary]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReferenceCell(_Part):
    """One published number.

    Attributes:
        where: Settings of the cell.
        metric: Metric of the cell; by default the metric of the whole table.
        mean: Published mean, on the scale of the table.
        sd: Published standard deviation, on the same scale.
        n: Number of published runs.
        margin: Largest difference at which the cell is reproduced, on the same scale; by default
            the margin of the whole table.
    """

    where: dict[str, Any]
    metric: str | None = None
    mean: float
    sd: float = Field(ge=0)
    n: int = Field(ge=1)
    margin: float | None = Field(default=None, ge=0)


class NotComparable(_Part):
    """Cells whose data or features differ from the published ones.

    Attributes:
        where: Settings that the cells have in common, published or ours.
        reason: Difference in the data or features.
    """

    where: dict[str, Any]
    reason: str


class Reference(_Part):
    """A table of published numbers.

    Attributes:
        source: Publication and table.
        metric: Metric of the cells that name none.
        scale: Divisor of the published numbers (100 for percentages).
        baseline: Settings of the row against which directions are judged; empty for no
            directions.
        margin: Largest difference at which a cell is reproduced, on the scale of the numbers. By
            default one published standard deviation of the cell; of percentages (`scale: 100`)
            one point, if that is larger.
        not_comparable: Cells that cannot match, with the reason.
        cells: Published numbers.
    """

    source: str
    metric: str | None = None
    scale: float = Field(default=1.0, gt=0)
    baseline: dict[str, Any] = Field(default_factory=dict)
    margin: float | None = Field(default=None, ge=0)
    not_comparable: list[NotComparable] = Field(default_factory=list)
    cells: list[ReferenceCell]

    @model_validator(mode="after")
    def _every_cell_has_a_metric(self) -> Reference:
        if self.metric is None and any(cell.metric is None for cell in self.cells):
            raise ValueError("metric: name one here or in every cell")
        return self

    def metric_of(self, cell: ReferenceCell) -> str:
        """Metric of a cell."""
        name = cell.metric or self.metric
        assert name is not None
        return name

    def summary_of(self, cell: ReferenceCell) -> Summary:
        """Published number of a cell, on the study's scale."""
        return Summary(cell.n, cell.mean / self.scale, cell.sd / self.scale, None, None)

    def margin_of(self, cell: ReferenceCell) -> float:
        """Largest difference at which a cell is reproduced, on the study's scale."""
        stated = self.margin if cell.margin is None else cell.margin
        if stated is None:
            stated = max(cell.sd, 1.0) if self.scale == _PER_CENT else cell.sd
        return stated / self.scale

    @property
    def metrics(self) -> list[str]:
        """Metrics of all cells, in order."""
        return list(dict.fromkeys(map(self.metric_of, self.cells)))

    @classmethod
    def parse(cls, raw: Any, where: str) -> Reference:
        """Read a table from the plain contents of the file `where`.

        Raises:
            InputError: A field is missing, unknown or wrong.
        """
        return validated(cls, raw, where)

    @classmethod
    def load(cls, path: Path, experiment: Experiment[Any] | None = None) -> Reference:
        """Read a table from a file, and check it against an experiment if one is given.

        Raises:
            InputError: Missing or broken file, or a setting or metric that the experiment lacks.
        """
        reference = cls.parse(read_yaml(path), str(path))
        if experiment is not None:
            for metric in reference.metrics:
                experiment.metric(metric)
            known = settings_of(experiment.Config)
            parts = [c.where for c in reference.cells]
            parts += [c.where for c in reference.not_comparable]
            for where in (*parts, reference.baseline):
                require_settings(where, known, str(path))
        return reference


@dataclass(frozen=True)
class JudgedCell:
    """A published number, the study's number, and the verdict.

    Attributes:
        where: Settings of the cell.
        metric: Metric of the cell.
        published: Published number, on the study's scale.
        ours: Summary of the study's values; None if the cell was not run.
        margin: Largest difference at which the cell is reproduced, on the study's scale.
        interval: 95% Welch interval of ours minus published, over seeds; None if one of them has
            fewer than three, and if neither varies.
        verdict: `matches` if the difference is shown to lie within the margin, by two one-sided
            tests at 5%; else `direction only` or `differs` if the interval leaves out 0; else
            `undecided`. Numbers that do not vary are taken as they are. `not comparable` if the
            reference says that data or features differ; `not run` if the study lacks the cell.
            `direction only` means that the difference to the baseline has the published sign
            with a probability of 95% or more.
        direction: True if the sign of the difference to the baseline agrees; None for the
            baseline, or if it was not run. Cells that are not comparable have one too.
        probability: Probability that the true signs are as `direction` says, under a flat prior;
            None where the study's numbers allow none.
        reason: Reason why the cell is not comparable.
    """

    where: Mapping[str, Any]
    metric: str
    published: Summary
    ours: Summary | None
    margin: float
    interval: tuple[float, float] | None
    verdict: Verdict
    direction: bool | None = None
    probability: float | None = None
    reason: str = ""


def judge(reference: Reference, ours: Mapping[str, Cells]) -> list[JudgedCell]:
    """Compare every published number with the study's cell (by metric) of the same settings.

    Raises:
        InputError: A published cell names settings that several cells of the study have.
    """
    return [
        _judge_cell(reference, cell, ours.get(reference.metric_of(cell), []))
        for cell in reference.cells
    ]


def _judge_cell(reference: Reference, cell: ReferenceCell, ours: Cells) -> JudgedCell:
    metric, published = reference.metric_of(cell), reference.summary_of(cell)
    settings, mine = _find(ours, cell.where)
    # The difference may lie in settings that the publication does not name.
    known = {**settings, **cell.where}
    reason = next(
        (entry.reason for entry in reference.not_comparable if agrees(known, entry.where)), ""
    )
    margin = reference.margin_of(cell)
    if mine is None:
        return JudgedCell(
            cell.where, metric, published, None, margin, None, "not run", reason=reason
        )
    difference = welch_estimate(mine, published)
    direction, probability = _direction(reference, cell, mine, ours)
    verdict: Verdict = "not comparable"
    if not reason:
        verdict = _verdict(mine, published, margin, difference)
    if verdict == "differs" and direction and (probability or 0.0) >= LEVEL:
        verdict = "direction only"
    return JudgedCell(
        cell.where,
        metric,
        published,
        mine,
        margin,
        None if difference is None else difference.interval(),
        verdict,
        direction,
        probability,
        reason,
    )


def _verdict(
    mine: Summary, published: Summary, margin: float, difference: Estimate | None
) -> Verdict:
    if difference is not None:
        if difference.within(margin):
            return "matches"
        low, high = difference.interval()
        return "undecided" if low <= 0 <= high else "differs"
    if not (_fixed(mine) and _fixed(published)):
        return "undecided"
    return "matches" if abs(mine.mean - published.mean) <= margin else "differs"


def _fixed(summary: Summary) -> bool:
    """Test if a number does not vary: a count, or the same for three seeds or more."""
    if summary.n == 1:
        return not summary.sd and summary.mean.is_integer()
    return summary.n >= FEWEST and not summary.sd


def _direction(
    reference: Reference, cell: ReferenceCell, mine: Summary, ours: Cells
) -> tuple[bool | None, float | None]:
    """Compare the signs of the differences to the baseline, with a probability."""
    if not reference.baseline:
        return None, None
    # The baseline of a cell has its metric and, apart from the baseline's settings, its settings.
    base = next(
        (
            each
            for each in reference.cells
            if reference.metric_of(each) == reference.metric_of(cell)
            and agrees(each.where, reference.baseline)
            and agrees(cell.where, _without(each.where, reference.baseline))
        ),
        None,
    )
    own = None if base is None else _find(ours, base.where)[1]
    if base is None or base is cell or own is None:
        return None, None
    agree = (mine.mean - own.mean) * (cell.mean - base.mean) > 0
    here = welch_estimate(mine, own)
    if here is None:
        return agree, None
    there = welch_estimate(reference.summary_of(cell), reference.summary_of(base))
    # A publication without a spread is taken at its word.
    published = float(cell.mean > base.mean) if there is None else there.positive
    both = here.positive * published + (1 - here.positive) * (1 - published)
    return agree, both if agree else 1 - both


def _without(settings: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _find(ours: Cells, where: Mapping[str, Any]) -> tuple[Mapping[str, Any], Summary | None]:
    index = find_cell([settings for settings, _ in ours], where)
    return ({}, None) if index is None else ours[index]


def study_reference(layout: ReportLayout, path: str | Path | None = None) -> Reference:
    """Read a table of published numbers: a file, or the study's copy in its run folder."""
    if path is not None:
        return Reference.load(Path(path))
    folder, name = layout.records.folder, layout.spec.reference
    if name is None or not folder.exists(name):
        raise InputError("reference: the study has no table of published numbers; give one")
    return Reference.parse(parse_yaml(folder.read_bytes(name), name), name)


def judge_study(records: StudyRecords, reference: Reference) -> list[JudgedCell]:
    """Compare every published number with a study."""
    names = list(dict.fromkeys(name for trial in records.trials for name in trial.columns))
    ours = {
        metric: [
            (dict(zip(names, key, strict=True)), summarise(list(seeds.values())))
            for key, seeds in values_by_seed(records, metric, names).items()
        ]
        for metric in reference.metrics
    }
    return judge(reference, ours)
