"""Names of files, stored briefly: 00000, 00001, ..., 09999 are one run of numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# A name, or: what stands before the number, the first number, its digits at least, how many
# names in a row count it up, and what stands after it.
Run = str | tuple[str, int, int, int, str]

# The last number in a name; longer ones keep their first digits in what stands before.
_DIGITS = 18
_NUMBERED = re.compile(rf"(.*?)([0-9]{{1,{_DIGITS}}})([^0-9]*)", re.DOTALL)


def pack_names(names: Sequence[str]) -> list[Run]:
    """Runs that `unpack_names` turns into the same names again."""
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


def unpack_names(runs: Sequence[Run], count: int) -> Iterator[str]:
    """The names, one after the other.

    Raises:
        ValueError: They are not `count` names, or one could lead out of a folder.
    """
    for run in runs:
        parts = [run] if isinstance(run, str) else [run[0], run[4]]
        if any(character in part for part in parts for character in "/\\\0"):
            raise ValueError(f"{run} is no name of a file")
        if not isinstance(run, str) and not (run[1] >= 0 <= run[2] <= _DIGITS and run[3] >= 1):
            raise ValueError(f"{run} is no run of names")
    if sum(map(_length, runs)) != count:
        raise ValueError(f"the names are not {count}")
    return _names(runs)


def _names(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        if isinstance(run, str):
            yield run
        else:
            before, first, width, length, after = run
            yield from (f"{before}{first + place:0{width}d}{after}" for place in range(length))


def _length(run: Run) -> int:
    return 1 if isinstance(run, str) else run[3]
