"""Names of PNG files, run-length encoded: 00000, 00001, ..., 09999 are one run of numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from pydantic import BaseModel, ConfigDict

# A name, or a run of names: text before the number, first number, minimum of digits, length of the
# run, text after the number.
Run = str | tuple[str, int, int, int, str]

# Digits of the last number in a name; further leading digits belong to the text before it.
_DIGITS = 18
_NUMBERED = re.compile(rf"(.*?)([0-9]{{1,{_DIGITS}}})([^0-9]*)", re.DOTALL)
# Characters that separate folders, or end a name, on some system.
_FORBIDDEN = "/\\\0"


class PackedNames(BaseModel):
    """Names as a file stores them.

    Attributes:
        runs: Names and runs of names.
        sorted: True if the names are in the order of file names (0, 1, 10, 11, 2), False if they
            are in the order of the runs (0, 1, 2, 10, 11).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: list[Run]
    sorted: bool


def can_be_kept(name: str) -> bool:
    """True if `unpack_names` accepts a name and JSON can hold it."""
    return name.encode(errors="replace").decode() == name and not _leaves_a_folder(name)


def pack_names(names: Sequence[str]) -> PackedNames:
    """Pack names without `.png`, all accepted by `can_be_kept`."""
    runs = _runs(names)
    if list(names) == _in_order_of_files(names):
        counted = _runs(sorted(names, key=_number_last))
        if len(counted) < len(runs):
            return PackedNames(runs=counted, sorted=True)
    return PackedNames(runs=runs, sorted=False)


def unpack_names(packed: PackedNames, count: int) -> Iterator[str]:
    """Iterate over packed names.

    Raises:
        ValueError: There are not `count` names, or a name could lead out of a folder.
    """
    for run in packed.runs:
        parts = [run] if isinstance(run, str) else [run[0], run[4]]
        if any(map(_leaves_a_folder, parts)):
            raise ValueError(f"{run} is no name of a file")
        if not isinstance(run, str) and not (run[1] >= 0 <= run[2] <= _DIGITS and run[3] >= 1):
            raise ValueError(f"{run} is no run of names")
    if sum(map(_length, packed.runs)) != count:
        raise ValueError(f"the names are not {count}")
    names = _names(packed.runs)
    return iter(_in_order_of_files(names)) if packed.sorted else names


def _leaves_a_folder(name: str) -> bool:
    return any(character in name for character in _FORBIDDEN)


def _in_order_of_files(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: f"{name}.png")


def _number_last(name: str) -> tuple[str, str, int, int]:
    found = _NUMBERED.fullmatch(name)
    if found is None:
        return name, "", 0, 0
    before, digits, after = found.groups()
    return before, after, int(digits), len(digits)


def _runs(names: Sequence[str]) -> list[Run]:
    runs: list[Run] = []
    place = 0
    while place < len(names):
        run = _run_at(names, place)
        runs.append(run)
        place += _length(run)
    return runs


def _run_at(names: Sequence[str], place: int) -> Run:
    found = _NUMBERED.fullmatch(names[place])
    if found is None:
        return names[place]
    before, digits, after = found.groups()
    first, width = int(digits), len(digits)
    end = place + 1
    while end < len(names) and names[end] == f"{before}{first + end - place:0{width}d}{after}":
        end += 1
    return names[place] if end == place + 1 else (before, first, width, end - place, after)


def _names(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        if isinstance(run, str):
            yield run
        else:
            before, first, width, length, after = run
            yield from (f"{before}{first + place:0{width}d}{after}" for place in range(length))


def _length(run: Run) -> int:
    return 1 if isinstance(run, str) else run[3]
