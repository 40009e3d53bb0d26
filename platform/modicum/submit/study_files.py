"""A study that is to travel: checked here, and the files that it names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modicum.errors import InputError
from modicum.experiment.config import flatten
from modicum.planning.space import is_domain
from modicum.study import Study


@dataclass(frozen=True)
class CheckedStudy:
    """A study whose names and values are right.

    Attributes:
        name: Its name.
        experiment: That of its experiment.
        trials: How many, as far as it can be told.
        files: The study file, its reference table and what its settings name, as far as they are
            in the folder; relative to it.
        notes: What the user may want to know, each a sentence.
    """

    name: str
    experiment: str
    trials: int
    files: list[Path]
    notes: list[str]


def check_study(
    config: Path,
    folder: Path,
    *,
    overrides: dict[str, Any] | None = None,
    seeds: int | None = None,
    check_data: bool = True,
) -> CheckedStudy:
    """Check a study as `modicum validate` does, and find the files that it needs.

    Data that are not on this machine, or not right, are a note: the cluster's count.

    Args:
        config: The study file.
        folder: What is packed.
        overrides: Settings that replace those of the file's space.
        seeds: Replaces the file's seeds.
        check_data: Whether to look at data that this machine has.

    Raises:
        InputError: The study is wrong, or it or its reference table is not in the folder.
    """
    study = Study.from_yaml(config, overrides=overrides, seeds=seeds)
    files = [_inside(config, folder, "CONFIG")]
    if study.spec.report.reference is not None:
        table = config.parent / study.spec.report.reference
        files.append(_inside(table, folder, "report.reference"))
    notes = []
    for name, path in _named_paths(study, folder):
        if Path(path).is_absolute() or path.startswith("~"):
            notes.append(f"{name}: {path!r} is looked for on the cluster's machines")
        else:
            files.append(_inside(folder / path, folder, f"space.{name}"))
    trials = study.size
    if check_data:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                trials = len(study.trials) if study.spec.search is None else trials
        except InputError as error:
            notes.append(f"not checked here, since this machine lacks what it takes: {error}")
    return CheckedStudy(study.spec.name, study.experiment.name, trials, files, notes)


def _named_paths(study: Study, folder: Path) -> Iterator[tuple[str, str]]:
    """Settings, and the file or folder on this machine that each names."""
    found = {
        (name, str(value))
        for config in study.configurations
        for name, value in flatten(config.model_dump()).items()
        if isinstance(value, str | Path) and not is_domain(value) and str(value)
    }
    for name, text in sorted(found):
        path = folder / Path(text).expanduser()
        try:
            # A bare name is a data set's or a model's more often than a folder's.
            there = path.is_file() or (path.is_dir() and "/" in text)
        except (OSError, ValueError):
            continue
        if there:
            yield name, text


def _inside(path: Path, folder: Path, field: str) -> Path:
    # Not resolved as a whole: a link travels as what it leads to, under its own name.
    place = path.parent.resolve() / path.name
    if not place.is_relative_to(folder.resolve()):
        raise InputError(f"{field}: {str(path)!r} must be in --working-dir ({folder.resolve()})")
    return place.relative_to(folder.resolve())
