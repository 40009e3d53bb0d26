"""Settings of an experiment: pydantic models whose fields carry what `modicum describe` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Base of an experiment's settings: a frozen pydantic model that refuses unknown keys and NaN.

    `setting` makes its fields; a field may be another `Config`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def setting(
    default: Any = ...,
    *,
    description: str,
    unit: str | None = None,
    identity: bool = True,
    sets_budget: bool = False,
    used_by: Mapping[str, Sequence[Any]] | None = None,
    **constraints: Any,
) -> Any:
    """A field of a `Config`, with its description for `modicum describe`.

    Args:
        default: Default value; leave it out for a required setting.
        description: One sentence for the user.
        unit: Unit of the value, for example `"iterations"`.
        identity: False for a setting that does not change the numbers, such as a path or a logging
            option: it is left out of the trial's identity. Data is identified by its digest
            instead (`Experiment.data_digests`).
        sets_budget: True for a setting that decides how much a trial spends (a fraction of
            labels): trials that differ in such settings alone join into one curve against budget.
        used_by: Values of other settings with which this setting has an effect, for example
            `{"method": ("iwl", "iwld")}`. With other values it is left out of the trial's
            identity and of the results, so that a grid over it repeats no trial.
        **constraints: Passed to `pydantic.Field` (`ge`, `le`, `gt`, `min_length`, ...).
    """
    extra: dict[str, Any] = {
        "unit": unit,
        "identity": identity,
        "sets_budget": sets_budget,
        "used_by": None if used_by is None else {k: list(v) for k, v in used_by.items()},
    }
    return Field(default, description=description, json_schema_extra=extra, **constraints)


@dataclass(frozen=True)
class SettingInfo:
    """The declaration of a setting; its attributes are the arguments of `setting`."""

    name: str
    description: str
    kind: str
    default: Any
    required: bool
    unit: str | None
    identity: bool
    sets_budget: bool = False
    used_by: Mapping[str, Sequence[Any]] | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    is_mapping: bool = False

    def active(self, values: Mapping[str, Any]) -> bool:
        """Tell whether the setting has an effect with these values (by flat dotted names).

        A condition on a setting that the experiment does not have is ignored: experiments share
        settings.
        """
        conditions = (self.used_by or {}).items()
        return all(values[other] in allowed for other, allowed in conditions if other in values)


def settings_of(model: type[BaseModel], prefix: str = "") -> dict[str, SettingInfo]:
    """All settings of a config model by dotted name, those of nested models included."""
    found: dict[str, SettingInfo] = {}
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found.update(settings_of(annotation, f"{prefix}{name}."))
            continue
        raw = info.json_schema_extra
        extra: dict[str, Any] = dict(raw) if isinstance(raw, dict) else {}
        limits = {
            key: getattr(rule, key)
            for rule in info.metadata
            for key in ("ge", "gt", "le", "lt", "min_length", "max_length")
            if getattr(rule, key, None) is not None
        }
        found[prefix + name] = SettingInfo(
            name=prefix + name,
            description=info.description or "",
            kind=_kind(annotation),
            default=None if info.is_required() else info.get_default(call_default_factory=True),
            required=info.is_required(),
            unit=extra.get("unit"),
            identity=extra.get("identity", True),
            sets_budget=extra.get("sets_budget", False),
            used_by=extra.get("used_by"),
            limits=limits,
            is_mapping=(get_origin(annotation) or annotation) is dict,
        )
    return found


def _kind(annotation: Any) -> str:
    if get_origin(annotation) in {Union, UnionType}:
        return " | ".join(_kind(choice) for choice in get_args(annotation))
    if annotation is NoneType:
        return "None"
    if getattr(annotation, "__origin__", None) is Literal:
        return " | ".join(str(choice) for choice in annotation.__args__)
    if isinstance(annotation, type) and not getattr(annotation, "__args__", ()):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("Literal", "")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one level of dotted names; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested mappings; the inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        level = nested
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = value
    return nested
