"""What travels with a job, as folders that Ray can upload."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modicum.submit.code import code_of
from modicum.submit.packing import check_size, select
from modicum.submit.study_files import CheckedStudy


@dataclass(frozen=True)
class Limits:
    """What may travel.

    Attributes:
        include: Patterns of files that travel although they would be left out.
        exclude: Patterns of files to leave out.
        megabytes: Most that may travel.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    megabytes: float = 50.0


@dataclass(frozen=True)
class Package:
    """What travels.

    Attributes:
        working_dir: Becomes the job's working directory.
        modules: Packages that the cluster may not have, and what describes them.
        files: How many files.
        size: Their bytes.
        secrets: Files that were left out because they look like secrets.
    """

    working_dir: Path
    modules: list[Path]
    files: int
    size: int
    secrets: list[Path]


@contextmanager
def packed(study: CheckedStudy, folder: Path, limits: Limits) -> Iterator[Package]:
    """Copy what travels into a temporary folder.

    Args:
        study: What is submitted.
        folder: What is packed.
        limits: What may travel.

    Raises:
        InputError: Something must not travel, or it is too much; names it.
    """
    codes = code_of(study.experiment)
    selections = [package for code in codes for package in code.packages]
    files = select(
        folder,
        needed=study.files,
        include=limits.include,
        exclude=limits.exclude,
        without=[package.folder for package in selections],
    )
    selections.append(files)
    size = check_size(selections, limits.megabytes)
    with tempfile.TemporaryDirectory(prefix="modicum-submit-") as temporary:
        working_dir = Path(temporary) / "working_dir"
        files.copy_to(working_dir)
        modules = [path for code in codes for path in code.copy_to(Path(temporary) / "code")]
        yield Package(
            working_dir,
            modules,
            sum(len(selection.files) for selection in selections),
            size,
            [path for selection in selections for path in selection.secrets],
        )
