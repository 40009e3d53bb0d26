"""What a long computation has done so far, kept where every machine of the cluster reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modicum.folder import RunFolder

_STEPS = "steps"
_FOLDERS = "folders"


class Journal:
    """Results of finished steps by name, so that a computation that starts again repeats none.

    A step is there as a whole or not at all. Only the first worker writes.

    Args:
        location: A path, or a URI of a filesystem that pyarrow knows.
    """

    def __init__(self, location: str | Path) -> None:
        self.files = RunFolder(location)

    def read(self, name: str) -> Any:
        """A step's result, or None where the step is not done.

        Args:
            name: Name of the step, such as `round-002/judgements`.
        """
        place = (_STEPS, f"{name}.json")
        return self.files.read_json(*place)["result"] if self.files.exists(*place) else None

    def write(self, name: str, result: Any) -> None:
        """Keep a step's result, which must be what JSON can hold and not None."""
        assert result is not None
        self.files.write_json({"result": result}, _STEPS, f"{name}.json")

    def keep_folder(self, name: str, source: Path) -> None:
        """Copy a local folder into the journal, in the place of what had this name before.

        It is complete, or `folder` does not find it.
        """
        from pyarrow import fs

        self.drop_folder(name)
        target = self.files.path(_FOLDERS, name)
        self.files.filesystem.create_dir(target, recursive=True)
        fs.copy_files(str(source), target, destination_filesystem=self.files.filesystem)
        self.write(f"{_FOLDERS}/{name}", True)

    def drop_folder(self, name: str) -> None:
        """Forget a folder, if it is there."""
        self.files.remove(_STEPS, _FOLDERS, f"{name}.json")
        if self.files.exists(_FOLDERS, name):
            self.files.filesystem.delete_dir(self.files.path(_FOLDERS, name))

    @contextmanager
    def folder(self, name: str, scratch: Path) -> Iterator[Path | None]:
        """A kept folder as a local one, or None where there is none.

        Args:
            name: As in `keep_folder`.
            scratch: Where a folder that is kept elsewhere is copied to for the while.
        """
        if self.read(f"{_FOLDERS}/{name}") is None:
            yield None
        elif self.files.local is not None:
            yield Path(self.files.path(_FOLDERS, name))
        else:
            import shutil
            import tempfile

            from pyarrow import fs

            local = Path(tempfile.mkdtemp(dir=scratch))
            try:
                fs.copy_files(
                    self.files.path(_FOLDERS, name),
                    str(local),
                    source_filesystem=self.files.filesystem,
                )
                yield local
            finally:
                shutil.rmtree(local, ignore_errors=True)
