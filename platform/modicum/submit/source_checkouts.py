"""Packages that are used from a source checkout, and so may not be installed on the cluster."""

from __future__ import annotations

import site
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution, entry_points
from importlib.util import find_spec
from pathlib import Path

from modicum.experiment.registry import EXPERIMENTS
from modicum.run_folder.provenance import PACKED_COMMIT, commit_of
from modicum.submit.file_selection import Selection, select

_PLATFORM = "modicum"


@dataclass(frozen=True)
class Checkout:
    """Packages of one distribution, from the folders where they are edited.

    Attributes:
        metadata_folder: Name of the folder that `importlib.metadata` reads.
        metadata: Texts of the metadata files by name.
        packages: Selected files of each package; the name of its folder is the package's name.
    """

    metadata_folder: str
    metadata: dict[str, str]
    packages: list[Selection]

    def copy_to(self, target: Path) -> list[Path]:
        """Copy packages and metadata into a folder.

        Returns:
            The folders for Ray's `py_modules`, whose parents join the path of every process.
        """
        described = target / self.metadata_folder
        described.mkdir(parents=True)
        for name, text in self.metadata.items():
            (described / name).write_text(text, encoding="utf-8")
        copied = [described]
        for package in self.packages:
            place = target / package.folder.name
            package.copy_to(place)
            commit = commit_of(package.folder)
            if commit is not None:
                (place / PACKED_COMMIT).write_text(commit)
            copied.append(place)
        return copied


def checkouts_for(experiment: str) -> list[Checkout]:
    """Checkouts of Modicum and of the distribution that registers an experiment.

    Packages in this Python's own folders are left out: the cluster should have them installed, too.

    Args:
        experiment: Registered name of the experiment.
    """
    found = {_PLATFORM: distribution(_PLATFORM)}
    for point in entry_points(group=EXPERIMENTS, name=experiment):
        if point.dist is not None:
            found[point.dist.name] = point.dist
    return [checkout for dist in found.values() if (checkout := _checkout(dist)) is not None]


def _checkout(dist: Distribution) -> Checkout | None:
    packages = [folder for name in _packages(dist) if (folder := _edited(name)) is not None]
    if not packages:
        return None
    names = ("METADATA", "entry_points.txt", "top_level.txt")
    metadata = {name: text for name in names if (text := dist.read_text(name)) is not None}
    # An egg-info folder has the same file under another name.
    metadata.setdefault("METADATA", dist.read_text("PKG-INFO") or "")
    return Checkout(
        f"{dist.name.replace('-', '_')}-{dist.version}.dist-info",
        metadata,
        [select(folder) for folder in packages],
    )


def _packages(dist: Distribution) -> Iterator[str]:
    names = {point.module.partition(".")[0] for point in dist.entry_points}
    yield from sorted(names | {_PLATFORM} if dist.name == _PLATFORM else names)


def _edited(package: str) -> Path | None:
    """A package's folder; None if it lies in one of this Python's own folders."""
    spec = find_spec(package)
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.origin).parent.resolve()
    installed = {
        *site.getsitepackages(),
        site.getusersitepackages(),
        *sysconfig.get_paths().values(),
    }
    own = any(folder.is_relative_to(Path(place).resolve()) for place in installed)
    return None if own else folder
