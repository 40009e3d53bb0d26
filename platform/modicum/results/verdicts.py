"""Verdicts on published numbers: which of them a study reproduces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modicum.errors import InputError
from modicum.experiment.setting_filters import agrees, find_cell
from modicum.results.cells import values_by_seed
from modicum.results.layout import ReportLayout
from modicum.results.records import StudyRecords
from modicum.results.reference import Reference, ReferenceCell
from modicum.results.statistics import Summary, summarise, welch_interval
from modicum.yaml_io import parse_yaml

Verdict = Literal["matches", "direction only", "differs", "not comparable", "not run"]
Cells = Sequence[tuple[Mapping[str, Any], Summary]]


@dataclass(frozen=True)
class JudgedCell:
    """A published number, the study's number, and the verdict.

    Attributes:
        where: Settings of the cell.
        metric: Metric of the cell.
        published: Published number, on the study's scale.
        ours: Summary of the study's values; None if the cell was not run.
        interval: 95% Welch interval of ours minus published; None where it is undefined.
        verdict: `matches` if the interval contains 0, or if two single numbers without a spread
            are equal; else `direction only` if the sign of the difference to the baseline
            agrees; else `differs`. `not comparable` if the reference says that data or
            features differ; `not run` if the study lacks the cell.
        direction: True if the sign of the difference to the baseline agrees; None for the
            baseline, or if it was not run. Cells that are not comparable have one too.
        reason: Reason why the cell is not comparable.
    """

    where: Mapping[str, Any]
    metric: str
    published: Summary
    ours: Summary | None
    interval: tuple[float, float] | None
    verdict: Verdict
    direction: bool | None
    reason: str = ""


def judge(reference: Reference, ours: Mapping[str, Cells]) -> list[JudgedCell]:
    """Compare every published number with the study's cell that has the same settings.

    Args:
        reference: Published table.
        ours: Settings and summary of the study's cells, by metric.

    Raises:
        InputError: A published cell names settings that several cells of the study have.
    """
    return [
        _judge_cell(reference, cell, ours.get(reference.metric_of(cell), []))
        for cell in reference.cells
    ]


def _judge_cell(reference: Reference, cell: ReferenceCell, ours: Cells) -> JudgedCell:
    scale = reference.scale
    published = Summary(cell.n, cell.mean / scale, cell.sd / scale, None, None)
    settings, mine = _find(ours, cell.where)
    # The difference may lie in settings that the publication does not name.
    known = {**settings, **cell.where}
    reason = next(
        (entry.reason for entry in reference.not_comparable if agrees(known, entry.where)), ""
    )
    interval = direction = None
    verdict: Verdict = "not run"
    if mine is not None:
        interval = _interval(mine, published)
        direction = _direction(reference, cell, mine, ours)
        if reason:
            verdict = "not comparable"
        elif _matches(mine, published, interval):
            verdict = "matches"
        else:
            verdict = "direction only" if direction else "differs"
    return JudgedCell(
        where=cell.where,
        metric=reference.metric_of(cell),
        published=published,
        ours=mine,
        interval=interval,
        verdict=verdict,
        direction=direction,
        reason=reason,
    )


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
    """Test if a published cell is the baseline of another cell.

    The baseline has the settings `baseline`, and its other settings are those of the cell.
    """
    return agrees(candidate.where, baseline) and all(
        name in baseline or cell.where.get(name) == value for name, value in candidate.where.items()
    )


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
    return Reference.parse(parse_yaml(folder.read_text(name), name), name)


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
