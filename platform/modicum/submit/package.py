"""The package of a job, as folders that Ray can upload."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modicum.submit.checked_study import CheckedStudy
from modicum.submit.file_selection import check_size, select
from modicum.submit.source_checkouts import checkouts_for


@dataclass(frozen=True)
class Limits:
    """Limits on the files that are packed.

    Attributes:
        include: Patterns of files that are packed although they would be left out.
        exclude: Patterns of files to leave out.
        megabytes: Maximum total size, MB.
    """

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

    Args:
        study: Study to submit.
        folder: Folder to pack.
        limits: Limits on the files that are packed.

    Raises:
        InputError: A file must not be sent, or the package is too large; names the files.
    """
    checkouts = checkouts_for(study.experiment)
    selections = [package for checkout in checkouts for package in checkout.packages]
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
        working_dir, code = Path(temporary) / "working_dir", Path(temporary) / "code"
        files.copy_to(working_dir)
        yield Package(
            working_dir,
            modules=[path for checkout in checkouts for path in checkout.copy_to(code)],
            files=sum(len(selection.files) for selection in selections),
            size=size,
            secrets=[path for selection in selections for path in selection.secrets],
        )
