"""Selection of a folder's files to send to a cluster."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from modicum.errors import InputError
from modicum.submit.secret_detection import file_holds_secret, is_secret_file, secret_values

# Patterns of names of files and folders that are never sent.
_NEVER = (
    *(".git", ".hg", ".svn", ".gitattributes", ".gitmodules", ".DS_Store", ".idea", ".vscode"),
    # Ray would apply it once more, even to files that git tracks.
    ".gitignore",
    *("__pycache__", "*.pyc", ".*_cache", ".cache", ".hypothesis", ".benchmarks", ".tox", ".nox"),
    *(".venv", "venv", "node_modules", "*.egg-info", ".ipynb_checkpoints", "*.ipynb"),
    *("wandb", "mlruns", "ray_results", "lightning_logs"),
)
# Names of top-level folders that are never sent, unless they are Python packages.
_NEVER_AT_THE_TOP = {"data", "datasets", "runs", "build", "dist", "site"}
_DATA_VARIABLES = ("MODICUM_DATA", "MODICUM_CACHE", "MODICUM_LEDGERS", "HF_HOME")

_MOST_FILES = 20_000
_NAMED_IN_ERRORS = 5


@dataclass(frozen=True)
class Selection:
    """Files of a folder that are sent: the source of each by the relative path of its copy.

    Files that look like secrets are left out; `secrets` has their relative paths.
    """

    folder: Path
    files: dict[Path, Path]
    secrets: list[Path]

    @property
    def size(self) -> int:
        """Total size, bytes."""
        return sum(source.stat().st_size for source in self.files.values())

    def copy_to(self, target: Path) -> None:
        """Copy the files into a new folder."""
        target.mkdir(parents=True)
        for relative, source in self.files.items():
            place = target / relative
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
            place.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def select(
    folder: Path,
    *,
    needed: Iterable[Path] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    without: Iterable[Path] = (),
) -> Selection:
    """Select the files of a folder that are sent.

    In a git repository these are the files that git tracks or does not ignore, elsewhere all files.
    Version control, virtual environments, caches, notebooks, run folders, top-level data folders
    and files that look like secrets are never sent.

    Args:
        folder: Folder to pack.
        needed: Files and folders in it that are sent in any case, unless they are secrets.
        include: Patterns of paths that are sent although they would be left out, unless they are
            secrets.
        exclude: Patterns of paths to leave out.
        without: Folders in it that are sent separately.

    Raises:
        InputError: A link leads out of the folder, a needed file looks like a secret, or there
            are too many files.
    """
    folder = folder.resolve()
    elsewhere = [path.resolve() for path in without]
    is_left_out = _IsLeftOut(folder)
    wanted: set[Path] = set()
    for path in _listed(folder, is_left_out):
        relative = path.relative_to(folder)
        if not is_left_out(relative) and not any(path.is_relative_to(each) for each in elsewhere):
            wanted.add(relative)
    for pattern in include:
        wanted.update(
            path.relative_to(folder) for match in folder.glob(pattern) for path in _walk(match)
        )
    wanted = {relative for relative in wanted if not _matches(relative, exclude)}
    required = {p.relative_to(folder) for place in needed for p in _walk(folder / place)}
    count = len(wanted | required)
    if count > _MOST_FILES:
        heads = Counter(path.parts[0] for path in wanted | required).most_common(_NAMED_IN_ERRORS)
        raise InputError(
            f"--working-dir: {count:,} files are more than {_MOST_FILES:,} "
            f"({', '.join(f'{name} {n:,}' for name, n in heads)}); "
            "name a smaller folder, or leave some out with --exclude"
        )
    return _checked(folder, wanted, required)


def select_module(path: Path) -> Selection:
    """Select a single-file module, whose copy is a package, since Ray sends folders only.

    Raises:
        InputError: The file looks like a secret.
    """
    name = Path(path.name)
    return Selection(
        path.parent, {Path("__init__.py"): _checked(path.parent, {name}, {name}).files[name]}, []
    )


def check_size(selections: Iterable[Selection], limit_mb: float) -> int:
    """Total size of the selected files, bytes.

    Raises:
        InputError: The size exceeds the limit; names the largest files.
    """
    sizes = [
        (source.stat().st_size, selection.folder / relative)
        for selection in selections
        for relative, source in selection.files.items()
    ]
    total = sum(size for size, _ in sizes)
    if total > limit_mb * 1e6:
        largest = sorted(sizes, reverse=True)[:_NAMED_IN_ERRORS]
        named = ", ".join(f"{path} {size / 1e6:.1f} MB" for size, path in largest)
        raise InputError(
            f"--size-limit: {total / 1e6:.1f} MB would be sent and {limit_mb:g} MB are allowed; "
            f"largest: {named}; leave them out with --exclude or .gitignore, "
            "keep data on the cluster (--data), or raise the limit"
        )
    return total


def edited_source(name: str) -> Path | None:
    """A package's folder or a module's file; None if this Python's own folders hold it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin).resolve()
    own = {*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()}
    if any(origin.is_relative_to(Path(path).resolve()) for path in own):
        return None
    return origin.parent if spec.submodule_search_locations else origin


def _checked(folder: Path, wanted: set[Path], required: set[Path]) -> Selection:
    known = secret_values()
    files: dict[Path, Path] = {}
    secrets = []
    for relative in sorted(wanted | required):
        if is_secret_file(relative):
            secrets.append(relative)
            continue
        for place, source in _followed(folder, relative):
            if is_secret_file(source.relative_to(folder)) or file_holds_secret(source, known):
                secrets.append(place)
            else:
                files[place] = source
    for relative in secrets:
        if relative in required:
            raise InputError(
                f"{relative}: the study needs this file, and it looks like a secret, which is "
                "never sent; keep keys in a file of the cluster's machines"
            )
    return Selection(folder, files, secrets)


def _followed(folder: Path, relative: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a file, or the files that a link leads to, each with the path of its copy."""
    real = (folder / relative).resolve()
    if not real.is_relative_to(folder):
        raise InputError(
            f"{relative}: the link leads out of {folder}; leave it out with --exclude, or put "
            "its target into the folder"
        )
    if real.is_file():
        yield relative, real
    elif real.is_dir():
        # A link to a folder: that folder's files are sent under the link's name, too.
        is_left_out = _IsLeftOut(folder)
        for path in _walk(real, skip=lambda p: is_left_out(p.relative_to(folder))):
            if path.is_file() and path.resolve().is_relative_to(folder):
                yield relative / path.relative_to(real), path.resolve()


class _IsLeftOut:
    """Predicate for relative paths that no study needs, with a cache."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        named = (os.environ.get(name) for name in _DATA_VARIABLES)
        self._data = {Path(place).expanduser().resolve() for place in named if place}
        self._known: dict[Path, bool] = {Path("."): False}

    def __call__(self, relative: Path) -> bool:
        if relative not in self._known:
            self._known[relative] = self(relative.parent) or self._itself(relative)
        return self._known[relative]

    def _itself(self, relative: Path) -> bool:
        if any(fnmatch(relative.name, pattern) for pattern in _NEVER):
            return True
        path = self._folder / relative
        if path.is_symlink() or not path.is_dir():
            return False
        at_the_top = len(relative.parts) == 1 and relative.name in _NEVER_AT_THE_TOP
        return (
            (at_the_top and not (path / "__init__.py").exists())
            or (path / "pyvenv.cfg").exists()
            or ((path / "plan.json").exists() and (path / "trials").is_dir())
            or path.resolve() in self._data
        )


def _listed(folder: Path, is_left_out: _IsLeftOut) -> Iterator[Path]:
    """Yield the files that git tracks or does not ignore; all files where there is no git."""
    command = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command], capture_output=True, timeout=120
        )
    except OSError:
        done = None
    if done is None or done.returncode != 0:
        yield from _walk(folder, skip=lambda path: is_left_out(path.relative_to(folder)))
        return
    for name in sorted(set(done.stdout.split(b"\0")) - {b""}):
        path = folder / os.fsdecode(name)
        if path.is_dir() and not path.is_symlink():
            # A submodule, or another repository inside.
            yield from _listed(path, _IsLeftOut(path))
        elif path.is_symlink() or path.is_file():
            yield path


def _walk(place: Path, skip: Callable[[Path], bool] = lambda path: False) -> Iterator[Path]:
    """Yield the regular files and links under a path, or the path itself."""
    if place.is_symlink() or place.is_file():
        yield place
        return
    for parent, folders, names in os.walk(place):
        here = Path(parent)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in links and not skip(here / name))
        for name in sorted([*names, *links]):
            path = here / name
            if (path.is_symlink() or path.is_file()) and not skip(path):
                yield path


def _matches(relative: Path, patterns: Sequence[str]) -> bool:
    """True if a pattern matches the path or a parent folder, by name or by relative path."""
    candidates = [path for path in (relative, *relative.parents) if path.name]
    return any(
        fnmatch(text, pattern.rstrip("/"))
        for path in candidates
        for text in (path.name, path.as_posix())
        for pattern in patterns
    )
