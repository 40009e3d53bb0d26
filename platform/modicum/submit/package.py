"""The package of a job, as folders that Ray can upload."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution, entry_points
from pathlib import Path

from modicum.experiment.registry import EXPERIMENTS
from modicum.run_folder.provenance import PACKED_COMMIT, commit_of
from modicum.submit.checked_study import CheckedStudy
from modicum.submit.file_selection import (
    Selection,
    check_size,
    edited_source,
    select,
    select_module,
)

_PLATFORM = "modicum"


@dataclass(frozen=True)
class Limits:
    """Limits on the files that are packed: patterns (see `select`) and the total size, MB."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    megabytes: float = 50.0


@dataclass(frozen=True)
class Package:
    """Folders to upload, and a summary of their contents.

    Attributes:
        working_dir: Folder that becomes the job's working directory.
        modules: Folders of packages that the cluster may not have, and of their metadata.
        files: Number of files.
        size: Total size, bytes.
        secrets: Files that were left out because they look like secrets.
    """

    working_dir: Path
    modules: list[Path]
    files: int
    size: int
    secrets: list[Path]


@contextmanager
def packed(study: CheckedStudy, folder: Path, limits: Limits) -> Iterator[Package]:
    """Copy the files of a job into a temporary folder, which is removed after the block.

    Raises:
        InputError: A file must not be sent, or the package is too large; names the files.
    """
    checkouts = checkouts_for(study.experiment)
    sources = {place: s for checkout in checkouts for place, s in checkout.sources.items()}
    files = select(
        folder,
        needed=study.files,
        include=limits.include,
        exclude=limits.exclude,
        without=sources,
    )
    selections = [*sources.values(), files]
    size = check_size(selections, limits.megabytes)
    with tempfile.TemporaryDirectory(prefix="modicum-submit-") as temporary:
        working_dir, code = Path(temporary) / "working_dir", Path(temporary) / "code"
        files.copy_to(working_dir)
        yield Package(
            working_dir,
            modules=[path for checkout in checkouts for path in checkout.copy_to(code)],
            files=sum(len(selection.files) for selection in selections),
            size=size,
            secrets=[path for selection in selections for path in selection.secrets],
        )


@dataclass(frozen=True)
class Checkout:
    """Packages and single-file modules of one distribution, from where they are edited.

    The files that `importlib.metadata` reads are given as texts by name. A key of `sources` is the
    folder of a package or the file of a module.
    """

    metadata_folder: str
    metadata: dict[str, str]
    sources: dict[Path, Selection]

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
        for source, selection in self.sources.items():
            place = target / source.stem
            selection.copy_to(place)
            commit = commit_of(selection.folder)
            if commit is not None:
                (place / PACKED_COMMIT).write_text(commit)
            copied.append(place)
        return copied


def checkouts_for(experiment: str) -> list[Checkout]:
    """Checkouts of Modicum and of the distribution that registers an experiment.

    Packages in this Python's own folders are left out: the cluster should have them installed, too.
    """
    found = {_PLATFORM: distribution(_PLATFORM)}
    for point in entry_points(group=EXPERIMENTS, name=experiment):
        if point.dist is not None:
            found[point.dist.name] = point.dist
    return [checkout for dist in found.values() if (checkout := _checkout(dist)) is not None]


def _checkout(dist: Distribution) -> Checkout | None:
    names = {point.module.partition(".")[0] for point in dist.entry_points}
    if dist.name == _PLATFORM:
        names.add(_PLATFORM)
    sources = [source for name in sorted(names) if (source := edited_source(name)) is not None]
    if not sources:
        return None
    files = ("METADATA", "entry_points.txt", "top_level.txt")
    metadata = {name: text for name in files if (text := dist.read_text(name)) is not None}
    # An egg-info folder has the same file under another name.
    metadata.setdefault("METADATA", dist.read_text("PKG-INFO") or "")
    return Checkout(
        f"{dist.name.replace('-', '_')}-{dist.version}.dist-info",
        metadata,
        {place: select_module(place) if place.is_file() else select(place) for place in sources},
    )
