"""Published numbers beside ours, with a verdict for every cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from modicum.errors import from_validation
from modicum.experiment.config import settings_of
from modicum.experiment.experiment import Experiment
from modicum.experiment.setting_filters import agrees, find_cell, require_settings
from modicum.results.statistics import Summary, welch_interval
from modicum.yaml_io import read_yaml

Verdict = Literal["matches", "direction only", "differs", "not comparable", "not run"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReferenceCell(_Part):
    """One published number.

    Attributes:
        where: Settings of the cell.
        metric: The metric; the reference's if left out.
        mean: Published mean, on the reference's scale.
        sd: Published standard deviation.
        n: Number of runs behind it.
    """

    where: dict[str, Any]
    metric: str | None = None
    mean: float
    sd: float = Field(ge=0)
    n: int = Field(ge=1)


class NotComparable(_Part):
    """Cells whose data or features differ from the published ones.

    Attributes:
        where: Settings that the cells have in common, published or ours.
        reason: What differs.
    """

    where: dict[str, Any]
    reason: str


class Reference(_Part):
    """A table of published numbers, kept as YAML beside the study.

    Attributes:
        source: Where the numbers stand.
        metric: The metric that they are compared on, where a cell names no other.
        scale: What a published number is divided by (100 for percentages).
        baseline: Settings of the row against which directions are judged; without one no
            direction is.
        not_comparable: Cells that cannot match, with the reason.
        cells: The numbers.
    """

    source: str
    metric: str | None = None
    scale: float = Field(default=1.0, gt=0)
    baseline: dict[str, Any] = Field(default_factory=dict)
    not_comparable: list[NotComparable] = Field(default_factory=list)
    cells: list[ReferenceCell]

    @model_validator(mode="after")
    def _every_cell_has_a_metric(self) -> Reference:
        if self.metric is None and any(cell.metric is None for cell in self.cells):
            raise ValueError("metric: name one here or in every cell")
        return self

    def metric_of(self, cell: ReferenceCell) -> str:
        """The metric of a cell."""
        name = cell.metric or self.metric
        assert name is not None
        return name

    @property
    def metrics(self) -> list[str]:
        """Every metric that a cell has, in order."""
        return list(dict.fromkeys(map(self.metric_of, self.cells)))

    @classmethod
    def parse(cls, raw: Any, where: str) -> Reference:
        """A reference table from plain data.

        Raises:
            InputError: Something is wrong with it.
        """
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise from_validation(error, cls, where, raw) from None

    @classmethod
    def load(cls, path: Path, experiment: Experiment[Any] | None = None) -> Reference:
        """Read a reference table, checked against an experiment's settings and metrics.

        Raises:
            InputError: Missing or broken file, unknown setting or metric.
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
    """A published number, ours, and the verdict.

    Attributes:
        where: Settings of the cell.
        metric: The metric.
        published: The published number on our scale.
        ours: Our summary; None if the cell was not run.
        interval: 95% Welch interval of ours minus published; None where it is undefined.
        verdict: `matches` when that interval contains 0, or when two single numbers without a
            spread are equal; else `direction only` when the sign against the baseline agrees;
            else `differs`. `not comparable` where the reference says that data or features
            differ.
        direction: Whether the sign against the baseline agrees; None for the baseline itself
            or where it was not run. Judged for cells that are not comparable, too.
        reason: Why a cell is not comparable.
    """

    where: Mapping[str, Any]
    metric: str
    published: Summary
    ours: Summary | None
    interval: tuple[float, float] | None
    verdict: Verdict
    direction: bool | None
    reason: str = ""


Cells = Sequence[tuple[Mapping[str, Any], Summary]]


def judge(reference: Reference, ours: Mapping[str, Cells]) -> list[JudgedCell]:
    """Compare every published number with ours.

    Args:
        reference: The published table.
        ours: Our cells by metric: settings and summary. A published cell is compared with the
            one cell of ours that agrees in all the settings that it names.

    Raises:
        InputError: More than one of our cells agrees.
    """
    judged = []
    for cell in reference.cells:
        metric = reference.metric_of(cell)
        cells = ours.get(metric, [])
        published = _on_our_scale(cell, reference.scale)
        settings, mine = _find(cells, cell.where)
        # A difference may lie in settings that the publication does not name.
        known = {**settings, **cell.where}
        reason = next(
            (entry.reason for entry in reference.not_comparable if agrees(known, entry.where)), ""
        )
        interval = direction = None
        verdict: Verdict = "not run"
        if mine is not None:
            interval = _interval(mine, published)
            direction = _direction(reference, cell, mine, cells)
            if reason:
                verdict = "not comparable"
            elif _matches(mine, published, interval):
                verdict = "matches"
            else:
                verdict = "direction only" if direction else "differs"
        judged.append(
            JudgedCell(cell.where, metric, published, mine, interval, verdict, direction, reason)
        )
    return judged


def _on_our_scale(cell: ReferenceCell, scale: float) -> Summary:
    return Summary(cell.n, cell.mean / scale, cell.sd / scale, None, None)


def _interval(mine: Summary, published: Summary) -> tuple[float, float] | None:
    assert published.sd is not None
    if mine.sd is None or published.n == 1:
        return None
    return welch_interval(mine.mean, mine.sd, mine.n, published.mean, published.sd, published.n)


def _matches(mine: Summary, published: Summary, interval: tuple[float, float] | None) -> bool:
    if interval is not None:
        return interval[0] <= 0 <= interval[1]
    return mine.n == published.n == 1 and not published.sd and mine.mean == published.mean


def _direction(
    reference: Reference, cell: ReferenceCell, mine: Summary, ours: Cells
) -> bool | None:
    if not reference.baseline:
        return None
    metric = reference.metric_of(cell)
    same = [c for c in reference.cells if reference.metric_of(c) == metric]
    base = next((c for c in same if _is_baseline(c, cell, reference.baseline)), None)
    own = None if base is None else _find(ours, base.where)[1]
    if base is None or base is cell or own is None:
        return None
    return (mine.mean - own.mean) * (cell.mean - base.mean) > 0


def _is_baseline(
    candidate: ReferenceCell, cell: ReferenceCell, baseline: Mapping[str, Any]
) -> bool:
    """Whether a published cell is the baseline of another.

    It has the baseline's settings, and otherwise names only what the other cell has too.
    """
    return agrees(candidate.where, baseline) and all(
        name in baseline or cell.where.get(name) == value for name, value in candidate.where.items()
    )


def _find(ours: Cells, where: Mapping[str, Any]) -> tuple[Mapping[str, Any], Summary | None]:
    index = find_cell([settings for settings, _ in ours], where)
    return ({}, None) if index is None else ours[index]
