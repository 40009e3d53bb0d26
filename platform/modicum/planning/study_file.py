"""Study files (YAML), read to the arguments of `modicum.Study`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modicum.errors import InputError, unknown_name, validated
from modicum.planning.space import merge
from modicum.planning.spec import StudySpec
from modicum.yaml_io import read_yaml

# Fields that may be None (in YAML, empty), which means their default.
_MAY_BE_NONE = {"name", "search", "scheduler", "runtime_env", "report", "tracking"}


def validate_spec(experiment: str, fields: Mapping[str, Any], source: str) -> StudySpec:
    """Check a study's fields one by one, except for its space; errors name the source.

    Raises:
        InputError: A field has an impossible value; names the field.
    """
    given = {k: v for k, v in fields.items() if v is not None or k not in _MAY_BE_NONE}
    raw = {"name": experiment, "experiment": experiment, "space": {}, **given}
    return validated(StudySpec, raw, source)


def read_study_file(
    path: Path, overrides: Mapping[str, Any] | None = None, seeds: int | None = None
) -> dict[str, Any]:
    """Read the arguments of `modicum.Study` from a file; the path of a reference is resolved.

    Overrides by dotted name replace settings of the file's space, and `seeds` its seeds.

    Raises:
        InputError: The file is missing, broken, or a field has an impossible value.
    """
    raw = read_yaml(path)
    if not isinstance(raw, Mapping):
        raise InputError(f"{path}: expected settings by name, got {type(raw).__name__}")
    fields: dict[str, Any] = {"name": path.stem, **raw}
    for unknown in fields.keys() - StudySpec.model_fields.keys():
        raise InputError(f"{path}: {unknown_name('field', unknown, StudySpec.model_fields)}")
    for required in ("experiment", "space"):
        if required not in fields:
            raise InputError(f"{path}: the field {required!r} is missing")
    experiment, space = fields.pop("experiment"), fields.pop("space")
    if not isinstance(experiment, str):
        raise InputError(f"{path}: experiment: expected a name, got {experiment!r}")
    if seeds is not None:
        fields["seeds"] = seeds
    reference = validate_spec(experiment, fields, str(path)).report.reference
    if reference is not None:
        fields["report"] = {**fields["report"], "reference": str(path.parent / reference)}
    return {"experiment": experiment, "space": _overridden(space, overrides or {}), **fields}


def _overridden(space: Any, overrides: Mapping[str, Any]) -> Any:
    entries = space if isinstance(space, list) else [space]
    if not overrides or not all(isinstance(entry, Mapping) for entry in entries):
        return space
    merged = [merge(entry, overrides) for entry in entries]
    return merged if isinstance(space, list) else merged[0]
