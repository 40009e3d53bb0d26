"""Files below a folder on any filesystem that pyarrow reaches (a local path, `s3://`, `gs://`)."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modicum.errors import InputError, StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# Files and folders that cannot be read, kept for the user.
DAMAGED = "damaged"


class StorageFolder:
    """Files below one folder, such as a run folder or a journal, by relative path.

    Methods take a file's or folder's relative path in parts. Writes are atomic: by a rename on a
    local disk, by their nature on object stores. Where the folder cannot be written, methods that
    write or delete raise `StorageError`. Opening a folder does not create it.

    Args:
        location: Path, or URI of a filesystem that pyarrow supports; its query holds options of the
            filesystem (`s3://bucket/run?region=...`).

    Attributes:
        filesystem: The filesystem of pyarrow.
        root: Path of the folder on that filesystem.
        uri: Path or URI of the folder, as the user gave it.
        failure: The last error of a write, for code whose caller hides exceptions.

    Raises:
        InputError: The URI names a filesystem that cannot be opened.
    """

    failure: StorageError | None = None

    def __init__(self, location: str | Path) -> None:
        from pyarrow import fs

        text = os.fspath(location)
        if not text.strip():
            raise InputError("--out: expected a path or URI of the run folder, got an empty one")
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
        self._synced: set[str] = set()

    @property
    def local(self) -> Path | None:
        """Path of the folder on this machine's filesystem; None if it lies elsewhere."""
        from pyarrow import fs

        return Path(self.root) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def path(self, *parts: str) -> str:
        """Path on the filesystem."""
        return "/".join((self.root, *parts))

    def display(self, *parts: str) -> str:
        """Path or URI to show to the user."""
        return "/".join((self._base, *parts)) + self._query

    def member(self, shown: str) -> str | None:
        """Relative path from the result of `display`; None for a path outside of the folder."""
        inside = shown.startswith(f"{self._base}/") and shown.endswith(self._query)
        return shown.removesuffix(self._query)[len(self._base) + 1 :] if inside else None

    def check_writable(self) -> None:
        """Write and remove a probe file.

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
        """Return True if the file or folder exists."""
        from pyarrow import fs

        return bool(self.filesystem.get_file_info(self.path(*parts)).type != fs.FileType.NotFound)

    def folders(self, *parts: str) -> list[str]:
        """Sorted names of the folders directly in a folder; none if it does not exist."""
        from pyarrow import fs

        selector = fs.FileSelector(self.path(*parts), allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def read_bytes(self, *parts: str) -> bytes:
        """Content of a file."""
        with self.filesystem.open_input_stream(self.path(*parts)) as stream:
            return bytes(stream.read())

    def read_tail(self, most: int, *parts: str) -> bytes:
        """Last bytes of a file, at most the given number; none if it does not exist.

        Raises:
            InputError: A link leads out of the folder.
        """
        if self.local is not None:
            target = Path(self.path(*parts)).resolve()
            if not target.is_relative_to(self.local.resolve()):
                raise InputError(f"{self.display(*parts)}: the link leads out of the run folder")
        if not self.exists(*parts):
            return b""
        with self.filesystem.open_input_file(self.path(*parts)) as file:
            file.seek(max(0, file.size() - most))
            return bytes(file.read(most))

    def read_text(self, *parts: str) -> str:
        """Content of a file, as UTF-8."""
        return self.read_bytes(*parts).decode()

    def read_json(self, *parts: str) -> Any:
        """Content of a file, as JSON."""
        return json.loads(self.read_bytes(*parts))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise any `OSError` as a `StorageError`, and remember it."""
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
        """Delete a file if it exists."""
        with self._writing():
            if self.exists(*parts):
                self.filesystem.delete_file(self.path(*parts))

    def remove_folder(self, *parts: str) -> None:
        """Delete a folder with its content, if it exists."""
        target = self.path(*parts)
        with self._writing():
            if self.exists(*parts):
                self.filesystem.delete_dir(target)
        self._forget(target)

    def _forget(self, folder: str) -> None:
        """Forget that a folder and those in it have been made."""
        for known in (self._made, self._synced):
            known -= {place for place in known if f"{place}/".startswith(f"{folder}/")}

    def move(self, source: str, target: str) -> None:
        """Move a file, or a folder with its content, to a relative path where nothing lies."""
        from pyarrow import fs

        origin = self.path(source)
        with self._writing():
            goal = self._with_parent(target)
            folder = self.filesystem.get_file_info(origin).type == fs.FileType.Directory
            if folder and self.local is None:
                # Object stores move files only.
                store = self.filesystem
                fs.copy_files(origin, goal, source_filesystem=store, destination_filesystem=store)
                store.delete_dir(origin)
            else:
                self.filesystem.move(origin, goal)
        self._forget(origin)

    def set_aside(self, *parts: str) -> str:
        """Move a damaged file or folder to `damaged/<name>-<n>`, with the first free number n.

        Returns:
            Relative path of the new place.
        """
        places = (f"{DAMAGED}/{parts[-1]}-{number}" for number in itertools.count())
        place = next(place for place in places if not self.exists(place))
        self.move("/".join(parts), place)
        return place

    def copy_in(self, source: Path, *parts: str) -> None:
        """Copy a folder of this machine into a folder."""
        from pyarrow import fs

        with self._writing():
            self.filesystem.create_dir(self.path(*parts), recursive=True)
            fs.copy_files(str(source), self.path(*parts), destination_filesystem=self.filesystem)

    def write_bytes(self, content: bytes, *parts: str, durable: bool = False) -> None:
        """Write or replace a file, atomically.

        A durable write survives a power failure: the file, its folder and those above it are on the
        disk when the method returns. Object stores write durably in any case.
        """
        with self._writing():
            target = self._with_parent(*parts)
            if self.local is None:
                with self.filesystem.open_output_stream(target) as stream:
                    stream.write(content)
            else:
                _replace(target, content, durable)
                if durable:
                    self._sync_above(target)

    def sync(self, *parts: str) -> None:
        """Force a folder with its content, and the folders above it, to this machine's disk."""
        if self.local is None:
            return
        target = self.path(*parts)
        with self._writing():
            for place, _, names in os.walk(target, topdown=False):
                for path in (*(os.path.join(place, name) for name in names), place):
                    _sync(path)
            self._sync_above(target)

    def _sync_above(self, target: str) -> None:
        """Force the folders above a path to the disk, up to this folder.

        The folder that holds the path changes with it; those above only once, by that folder.
        """
        changed = Path(target).parent
        for folder in (changed, *changed.parents):
            _sync(folder)
            if str(folder) == self.root or str(folder) in self._synced:
                break
            self._synced.add(str(folder))

    def append_bytes(self, content: bytes, *parts: str, durable: bool = False) -> None:
        """Append to a file, which is created if it does not exist; see `write_bytes`.

        Only on this machine's filesystem. Appending is not atomic: a killed process may leave a
        part of the content.
        """
        assert self.local is not None
        with self._writing():
            target = self._with_parent(*parts)
            with open(target, "ab") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if durable:
                self._sync_above(target)

    def _with_parent(self, *parts: str) -> str:
        """Path of a file, after creating its folder."""
        target = self.path(*parts)
        parent = target.rsplit("/", 1)[0]
        if parent not in self._made:
            self.filesystem.create_dir(parent, recursive=True)
            self._made.add(parent)
        return target

    def write_text(self, content: str, *parts: str, durable: bool = False) -> None:
        """Write or replace a file as UTF-8; see `write_bytes`."""
        self.write_bytes(content.encode(), *parts, durable=durable)

    def write_json(self, content: Any, *parts: str, durable: bool = False) -> None:
        """Write or replace a file as JSON, a mapping's entry a line; see `write_bytes`."""
        if isinstance(content, dict):
            # The encoder that indents is written in Python, and takes many times as long.
            lines = (json.dumps({name: value})[1:-1] for name, value in content.items())
            text = "{\n " + ",\n ".join(lines) + "\n}"
        else:
            text = json.dumps(content)
        self.write_text(text, *parts, durable=durable)


def _replace(target: str, content: bytes, durable: bool) -> None:
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _sync(path: str | Path) -> None:
    """Force a file or folder to the disk, unless it is gone, closed to us, or on no disk."""
    with suppress(FileNotFoundError, PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise
        finally:
            os.close(descriptor)
