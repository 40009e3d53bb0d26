"""Files below a folder on any filesystem that pyarrow reaches (a local path, `s3://`, `gs://`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modicum.errors import InputError, StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


class StorageFolder:
    """Files below one folder, by path relative to it: a run folder, or a journal in one.

    Writes replace a file as a whole: on a local disk through a rename, on object stores by
    their nature, so a reader or a killed writer never leaves half a file behind.

    Attributes:
        failure: The last write that failed, for those whose own callers hide exceptions.
    """

    failure: StorageError | None = None

    def __init__(self, location: str | Path) -> None:
        """Open a folder; nothing is created yet.

        Args:
            location: A path, or a URI of a filesystem that pyarrow knows; its query has options of
                that filesystem (`s3://bucket/run?region=...`).

        Raises:
            InputError: The URI names a filesystem that cannot be opened.
        """
        from pyarrow import fs

        text = os.fspath(location)
        self.filesystem: FileSystem
        if "://" in text:
            try:
                self.filesystem, self.root = fs.FileSystem.from_uri(text)
            except Exception as error:
                raise InputError(f"--out {text!r}: {error}") from error
            base, mark, query = text.partition("?")
            self._base, self._query = base.rstrip("/"), mark + query
        else:
            path = Path(text).expanduser().absolute()
            self.filesystem, self.root = fs.LocalFileSystem(), str(path)
            self._base, self._query = str(path), ""
        self.uri = self._base + self._query
        self.root = self.root.rstrip("/")
        self._made: set[str] = set()

    @property
    def local(self) -> Path | None:
        """The folder's path when it lies on this machine's own filesystem."""
        from pyarrow import fs

        return Path(self.root) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def path(self, *parts: str) -> str:
        """The filesystem's own path of a member."""
        return "/".join((self.root, *parts))

    def display(self, *parts: str) -> str:
        """What to show the user for a member: a path, or the URI."""
        return "/".join((self._base, *parts)) + self._query

    def member(self, shown: str) -> str | None:
        """The member that `display` shows so, relative to the root; None for another place."""
        inside = shown.startswith(f"{self._base}/") and shown.endswith(self._query)
        return shown.removesuffix(self._query)[len(self._base) + 1 :] if inside else None

    def check_writable(self) -> None:
        """Write and remove a probe.

        Raises:
            InputError: The folder cannot be written.
        """
        try:
            self.write_text("writable", ".probe")
            self.remove(".probe")
        except OSError as error:
            raise InputError(
                f"--out {self.uri!r}: the folder cannot be written ({error})"
            ) from error

    def exists(self, *parts: str) -> bool:
        """Whether a member exists."""
        from pyarrow import fs

        return bool(self.filesystem.get_file_info(self.path(*parts)).type != fs.FileType.NotFound)

    def folders(self, *parts: str) -> list[str]:
        """Names of the folders directly under a member, sorted; none if it does not exist."""
        from pyarrow import fs

        selector = fs.FileSelector(self.path(*parts), allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def read_bytes(self, *parts: str) -> bytes:
        """Contents of a member."""
        with self.filesystem.open_input_stream(self.path(*parts)) as stream:
            return bytes(stream.read())

    def read_text(self, *parts: str) -> str:
        """Contents of a member, as UTF-8."""
        return self.read_bytes(*parts).decode()

    def read_json(self, *parts: str) -> Any:
        """Contents of a member, as JSON."""
        return json.loads(self.read_bytes(*parts))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Any failure to write as a `StorageError`, which is remembered."""
        try:
            yield
        except OSError as error:
            self.failure = StorageError(
                error.errno,
                f"the run folder {self.uri!r} cannot be written ({error}); what it holds is kept: "
                "run the same command again once it can",
            )
            raise self.failure from error

    def remove(self, *parts: str) -> None:
        """Delete a file if it exists.

        Raises:
            StorageError: The folder cannot be written.
        """
        with self._writing():
            if self.exists(*parts):
                self.filesystem.delete_file(self.path(*parts))

    def remove_folder(self, *parts: str) -> None:
        """Delete a folder and all that it holds, if it exists.

        Raises:
            StorageError: The folder cannot be written.
        """
        target = self.path(*parts)
        with self._writing():
            if self.exists(*parts):
                self.filesystem.delete_dir(target)
        self._made = {made for made in self._made if not f"{made}/".startswith(f"{target}/")}

    def copy_in(self, source: Path, *parts: str) -> None:
        """Copy a folder of this machine to a member.

        Raises:
            StorageError: The folder cannot be written.
        """
        from pyarrow import fs

        with self._writing():
            self.filesystem.create_dir(self.path(*parts), recursive=True)
            fs.copy_files(str(source), self.path(*parts), destination_filesystem=self.filesystem)

    def write_bytes(self, content: bytes, *parts: str) -> None:
        """Replace a member as a whole.

        Raises:
            StorageError: The folder cannot be written.
        """
        with self._writing():
            target = self._with_parent(*parts)
            if self.local is None:
                with self.filesystem.open_output_stream(target) as stream:
                    stream.write(content)
            else:
                _replace(target, content)

    def append_bytes(self, content: bytes, *parts: str) -> None:
        """Add to the end of a member, which is made if it does not exist.

        On this machine's own filesystem only. Unlike a write it is not whole: a killed writer
        may leave a part of the content.

        Raises:
            StorageError: The folder cannot be written.
        """
        assert self.local is not None
        with self._writing(), open(self._with_parent(*parts), "ab") as file:
            file.write(content)

    def _with_parent(self, *parts: str) -> str:
        """A member's path, whose folder is there now."""
        target = self.path(*parts)
        parent = target.rsplit("/", 1)[0]
        if parent not in self._made:
            self.filesystem.create_dir(parent, recursive=True)
            self._made.add(parent)
        return target

    def write_text(self, content: str, *parts: str) -> None:
        """Replace a member as a whole, as UTF-8."""
        self.write_bytes(content.encode(), *parts)

    def write_json(self, content: Any, *parts: str) -> None:
        """Replace a member as a whole, as indented JSON."""
        self.write_text(json.dumps(content, indent=1), *parts)


def _replace(target: str, content: bytes) -> None:
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
        os.replace(temporary, target)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
