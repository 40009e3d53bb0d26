"""Results of the finished steps of a long computation, on storage that all machines reach."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from modicum.errors import InputError, reason_of
from modicum.storage import StorageFolder

_STEPS = "steps"
_FOLDERS = "folders"

# Each kept folder has two slots: one is in force, new contents are written to the other.
_SLOTS = ("a", "b")


class Journal:
    """Results of finished steps by name, so that a restarted computation repeats none of them.

    Writes are atomic. Only the first worker writes steps.

    Args:
        location: A path, or a URI of a filesystem that pyarrow knows.
    """

    def __init__(self, location: str | Path) -> None:
        self.files = StorageFolder(location)

    def read(self, name: str) -> Any:
        """The result of a step such as `round-002/judgements`; None if it is not finished.

        A step whose file is damaged counts as not finished, with a warning.
        """
        place = (_STEPS, f"{name}.json")
        if not self.files.exists(*place):
            return None
        try:
            return self.files.read_json(*place)["result"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            shown = self.files.display(*place)
            warnings.warn(f"{shown}: broken step ({reason_of(error)}); it runs again", stacklevel=2)
            return None

    def write(self, name: str, result: Any) -> None:
        """Keep a step's result: a value that JSON can hold, except None."""
        assert result is not None
        self.files.write_json({"result": result}, _STEPS, f"{name}.json")

    def keep_folder(self, name: str, source: Path) -> None:
        """Copy a local folder into the journal, in place of an earlier folder with this name.

        Until the copy is complete, `folder` finds the earlier folder.
        """
        slot = self.free_slot(name)
        self._copy_in(source, name, slot)
        self.publish(name, slot, [])

    @contextmanager
    def folder(self, name: str, scratch: Path, slot: str | None = None) -> Iterator[Path | None]:
        """A kept folder as a local path; None if nothing is kept under this name.

        Args:
            name: Name of the folder.
            scratch: Folder for a temporary copy, if the journal is not on a local filesystem.
            slot: Result of `slot`, if another worker has called it.
        """
        slot = slot or self.slot(name)
        if slot is None:
            yield None
        elif self.files.local is not None:
            yield Path(self._place(name, slot))
        else:
            from pyarrow import fs

            with TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as local:
                fs.copy_files(
                    self._place(name, slot), local, source_filesystem=self.files.filesystem
                )
                yield Path(local)

    def place(self, name: str) -> str:
        """Path or URI of a kept folder, for libraries that read it themselves."""
        slot = self.slot(name)
        assert slot is not None
        return (
            self._place(name, slot)
            if self.files.local is not None
            else self.files.display(_FOLDERS, name, slot)
        )

    def slot(self, name: str) -> str | None:
        """The slot of a folder that is in force; None if nothing is kept under this name."""
        found: str | None = self.read(f"{_FOLDERS}/{name}")
        return found

    def free_slot(self, name: str) -> str:
        """The slot of a folder that is not in force, without the remains of earlier attempts."""
        free = _SLOTS[self.slot(name) == _SLOTS[0]]
        self._clear(name, free)
        return free

    @contextmanager
    def part(self, name: str, slot: str, scratch: Path) -> Iterator[Path]:
        """An empty folder under `scratch`, whose files go into a free slot at the block's end."""
        with TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as local:
            yield Path(local)
            self._copy_in(Path(local), name, slot)

    def publish(self, name: str, slot: str, written: Sequence[str]) -> None:
        """Put a slot with the written files in force, and empty the other one.

        Raises:
            InputError: A file is missing, because machines have different disks under this path.
        """
        missing = sorted(f for f in written if not self.files.exists(_FOLDERS, name, slot, f))
        if missing:
            raise InputError(
                "--out: workers on several machines need a run folder that all of them reach, got "
                f"{self.files.uri!r}, where {missing[0]!r} of another machine cannot be seen"
            )
        self.write(f"{_FOLDERS}/{name}", slot)
        self._clear(name, _SLOTS[slot == _SLOTS[0]])

    def _place(self, name: str, slot: str) -> str:
        return self.files.path(_FOLDERS, name, slot)

    def _copy_in(self, source: Path, name: str, slot: str) -> None:
        from pyarrow import fs

        target = self._place(name, slot)
        self.files.filesystem.create_dir(target, recursive=True)
        fs.copy_files(str(source), target, destination_filesystem=self.files.filesystem)

    def _clear(self, name: str, slot: str) -> None:
        if self.files.exists(_FOLDERS, name, slot):
            self.files.filesystem.delete_dir(self._place(name, slot))
