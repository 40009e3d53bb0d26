"""Code that the cluster may not have: packages that are used from a checkout and not installed."""

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
from modicum.submit.packing import Selection, select

_OWN = "modicum"


@dataclass(frozen=True)
class Code:
    """Packages of one distribution, from where they are edited.

    Attributes:
        metadata: Name of the folder with what `importlib.metadata` reads.
        files: Its files by name.
        packages: What travels of each package; its folder's name is the package's.
    """

    metadata: str
    files: dict[str, str]
    packages: list[Selection]

    def copy_to(self, target: Path) -> list[Path]:
        """Copy it into a folder.

        Returns:
            The folders for Ray's `py_modules`, whose parents join the path of every process.
        """
        described = target / self.metadata
        described.mkdir(parents=True)
        for name, text in self.files.items():
            (described / name).write_text(text, encoding="utf-8")
        places = [described]
        for package in self.packages:
            place = target / package.folder.name
            package.copy_to(place)
            commit = commit_of(package.folder)
            if commit is not None:
                (place / PACKED_COMMIT).write_text(commit)
            places.append(place)
        return places


def code_of(experiment: str) -> list[Code]:
    """Modicum and the package that registers an experiment, as far as they are checkouts.

    What is installed in this Python's own folders is taken to be installed on the cluster, too.

    Args:
        experiment: A registered name.
    """
    found = {_OWN: distribution(_OWN)}
    for point in entry_points(group=EXPERIMENTS, name=experiment):
        if point.dist is not None:
            found[point.dist.name] = point.dist
    return [code for dist in found.values() if (code := _checkout(dist)) is not None]


def _checkout(dist: Distribution) -> Code | None:
    packages = [folder for name in _packages(dist) if (folder := _edited(name)) is not None]
    if not packages:
        return None
    names = ("METADATA", "entry_points.txt", "top_level.txt")
    files = {name: text for name in names if (text := dist.read_text(name)) is not None}
    # As an egg-info folder the same file has another name.
    files.setdefault("METADATA", dist.read_text("PKG-INFO") or "")
    return Code(
        f"{dist.name.replace('-', '_')}-{dist.version}.dist-info",
        files,
        [select(folder) for folder in packages],
    )


def _packages(dist: Distribution) -> Iterator[str]:
    names = {point.module.partition(".")[0] for point in dist.entry_points}
    yield from sorted(names | {_OWN} if dist.name == _OWN else names)


def _edited(package: str) -> Path | None:
    """A package's folder where it is not one of this Python's own; None for the rest."""
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
