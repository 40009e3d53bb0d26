"""Selection of settings: those that agree, those that vary, those that exist."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from modicum.errors import InputError, unknown_name
from modicum.experiment.config import SettingInfo


def agrees(settings: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Tell whether settings have all the wanted values."""
    return all(settings.get(name) == value for name, value in where.items())


def varying(configurations: Iterable[Mapping[str, Any]]) -> list[str]:
    """Settings with more than one value, in the order in which they first appear.

    A setting that some configurations lack, because it has no effect there, does not vary for that.
    """
    seen: dict[str, set[str]] = {}
    for settings in configurations:
        for name, value in settings.items():
            seen.setdefault(name, set()).add(repr(value))
    return [name for name, values in seen.items() if len(values) > 1]


def find_cell(cells: Sequence[Mapping[str, Any]], where: Mapping[str, Any]) -> int | None:
    """Position of the study's cell that agrees with a reference's cell; None if none does.

    Raises:
        InputError: More than one cell agrees.
    """
    found = [index for index, settings in enumerate(cells) if agrees(settings, where)]
    if len(found) > 1:
        raise InputError(
            f"report.reference: {len(found)} cells of the study agree with {dict(where)}; "
            "the reference must name the settings that tell them apart"
        )
    return found[0] if found else None


def find_baseline(rows: Sequence[Mapping[str, Any]], baseline: Mapping[str, Any]) -> int:
    """Position of a table's row that agrees with a baseline.

    Raises:
        InputError: No row agrees, or more than one.
    """
    found = [index for index, row in enumerate(rows) if agrees(row, baseline)]
    if len(found) != 1:
        raise InputError(
            f"report.baseline: {dict(baseline)} names {len(found)} rows of the table; "
            "it must name one"
        )
    return found[0]


def require_settings(
    names: Iterable[str],
    known: Mapping[str, SettingInfo],
    field: str,
    *,
    also: Collection[str] = (),
) -> None:
    """Refuse dotted names that are not settings; a mapping allows any key after a dot.

    Raises:
        InputError: Names the field, the first unknown name and what is allowed.
    """
    mappings = tuple(f"{name}." for name, info in known.items() if info.is_mapping)
    for name in names:
        if name not in known and name not in also and not name.startswith(mappings):
            raise InputError(f"{field}: {unknown_name('setting', name, {*known, *also})}")
