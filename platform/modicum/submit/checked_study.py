"""A study that was checked on this machine, with the files that it needs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modicum.errors import InputError
from modicum.experiment.config import flatten
from modicum.planning.space import is_domain
from modicum.study import Study
from modicum.submit.file_selection import edited_source


@dataclass(frozen=True)
class CheckedStudy:
    """A study without mistakes, as far as this machine can tell.

    Attributes:
        name: Name of the study.
        experiment: Name of the experiment.
        trials: Number of trials; an upper bound if the data are not on this machine.
        files: The study file, its reference table, the module of an experiment without a
            registration, and files that its settings name and that are in the packed folder;
            relative to that folder.
        notes: Remarks for the user, each one sentence.
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
    """Check a study as `modicum validate` does, and find its files in the folder to pack.

    Missing or faulty data on this machine only become a note, because the job uses the cluster's.

    Raises:
        InputError: The study has a mistake, or a file that it needs is not in the folder.
    """
    if str(folder.resolve()) not in sys.path:
        sys.path.insert(0, str(folder.resolve()))  # As in the job, for an experiment's module.
    study = Study.from_yaml(config, overrides=overrides, seeds=seeds)
    files = [_relative(config, folder, "CONFIG")]
    if ":" in study.spec.experiment:
        source = edited_source(type(study.experiment).__module__.partition(".")[0])
        if source is not None:
            files.append(_relative(source, folder, "experiment"))
    if study.spec.report.reference is not None:
        table = Path(study.spec.report.reference)
        files.append(_relative(table, folder, "report.reference"))
    notes = []
    for name, path in _named_paths(study, folder):
        if Path(path).is_absolute() or path.startswith("~"):
            notes.append(f"{name}: {path!r} is looked for on the cluster's machines")
        else:
            files.append(_relative(folder / path, folder, f"space.{name}"))
    trials = study.size
    if check_data:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                trials = len(study.trials) if study.spec.search is None else trials
        except InputError as error:
            notes.append(f"the data cannot be checked on this machine: {error}")
    return CheckedStudy(study.spec.name, study.experiment.name, trials, files, notes)


def _named_paths(study: Study, folder: Path) -> Iterator[tuple[str, str]]:
    """Settings whose value is an existing file or folder on this machine, with the value."""
    found = {
        (name, str(value))
        for config in study.configurations
        for name, value in flatten(config.model_dump()).items()
        if isinstance(value, str | Path) and not is_domain(value) and str(value)
    }
    for name, text in sorted(found):
        path = folder / Path(text).expanduser()
        try:
            # A bare name is more often that of a data set or model than that of a folder.
            exists = path.is_file() or (path.is_dir() and "/" in text)
        except (OSError, ValueError):
            continue
        if exists:
            yield name, text


def _relative(path: Path, folder: Path, field: str) -> Path:
    # Only the parent is resolved: a link is packed under its own name, with its target's content.
    place = path.parent.resolve() / path.name
    if not place.is_relative_to(folder.resolve()):
        raise InputError(f"{field}: {str(path)!r} must be in --working-dir ({folder.resolve()})")
    return place.relative_to(folder.resolve())
