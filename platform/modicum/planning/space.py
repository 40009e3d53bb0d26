"""Search spaces: grids, random domains, and their expansion to configurations.

A space maps settings (nested, or by dotted name) to a value, a grid, or a domain of `ray.tune`.
Grids are expanded exhaustively. Domains are drawn, each setting from a separate random stream, so
a wider grid or more draws change no earlier draw.

A grid or choice of mappings is a choice of groups: each mapping is a space with settings of its
own, of which one at a time holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modicum.errors import InputError
from modicum.experiment.config import flatten, unflatten
from modicum.ray_support.private_api import distribution_of

# Functions of `ray.tune` that YAML may name, each with a list or mapping of arguments.
SAMPLERS = (
    "choice",
    "uniform",
    "quniform",
    "loguniform",
    "qloguniform",
    "randint",
    "qrandint",
    "lograndint",
    "qlograndint",
    "randn",
    "qrandn",
)


_GRIDS = ("grid", "grid_search")


@dataclass(frozen=True)
class Grid:
    """Values that are all tried."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Groups:
    """Groups of settings of which one at a time holds.

    Attributes:
        options: The groups, as parsed spaces without the name that they have in common.
        kind: `grid` to try each of them, `choice` to draw one.
    """

    options: tuple[Mapping[str, Any], ...]
    kind: str


def grid(*values: Any) -> Grid:
    """Try each value: `md.grid(0.01, 0.1)`, or one iterable: `md.grid(range(5))`.

    Args:
        *values: The values, or one iterable of them. A text or a mapping is a single value.
    """
    if len(values) == 1 and not isinstance(values[0], str | bytes | Mapping):
        with contextlib.suppress(TypeError):
            values = tuple(values[0])
    return Grid(values)


def parse_space(raw: Mapping[str, Any], where: str = "space") -> dict[str, Any]:
    """Parse a space, as YAML or Ray spells it, to one level of dotted names.

    `{grid: [1, 2]}` (or Ray's `grid_search`) becomes a `Grid`, `{loguniform: [1e-4, 1e-2]}`
    becomes the `ray.tune` domain, and any other value is fixed. `{model: {choice: [{...}, {...}]}}`
    becomes `Groups` by the name `model.choice`; so does a `grid` of mappings.

    Raises:
        InputError: An empty grid, a repeated grid value, arguments that Ray refuses, or a setting
            that stands beside groups that have it as well.
    """
    flat: dict[str, Any] = {}
    for key, value in raw.items():
        name = f"{where}.{key}"
        if not isinstance(key, str):
            raise InputError(f"{where}: names of settings must be text, got {key!r}")
        if (groups := _groups(key, value, where)) is not None:
            flat[groups.kind] = groups
            continue
        value = _parse_value(value, name)
        if isinstance(value, Mapping) and value:
            flat.update({f"{key}.{k}": v for k, v in parse_space(value, name).items()})
        else:
            flat[key] = value
    _check_apart(flat, where)
    return flat


def _groups(key: str, value: Any, where: str) -> Groups | None:
    """Groups under the key `grid` or `choice`; None for anything else."""
    if isinstance(value, Groups):
        return value
    if not _lists_groups(key, value):
        return None
    kind = "grid" if key in _GRIDS else key
    options = [parse_space(v, f"{where}.{kind}[{index}]") for index, v in enumerate(value)]
    described = [repr(describe_space(option)) for option in options]
    for index, text in enumerate(described):
        if text in described[:index]:
            raise InputError(f"{where}: the {kind} repeats the group {text}")
    return Groups(tuple(options), kind)


def _lists_groups(key: str, value: Any) -> bool:
    """Tell whether a key and its value are a grid or choice of mappings, perhaps parsed before."""
    return isinstance(value, Groups) or (
        key in (*_GRIDS, "choice")
        and isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(each, Mapping) for each in value)
    )


def _check_apart(flat: Mapping[str, Any], where: str) -> None:
    """Refuse a setting that stands beside groups, or in two of them that hold at once."""
    seen: set[str] = set()
    for key, value in flat.items():
        for name in setting_names({key: value}):
            if name in seen:
                raise InputError(
                    f"{where}.{name}: stands more than once: beside groups and in them"
                )
            seen.add(name)


def setting_names(space: Mapping[str, Any]) -> list[str]:
    """Names of all settings of a parsed space, those of its groups included, each once."""
    names: dict[str, None] = {}
    for key, value in space.items():
        if isinstance(value, Groups):
            for option in value.options:
                names.update(dict.fromkeys(setting_names(placed(key, option))))
        else:
            names[key] = None
    return list(names)


def conditional_names(space: Mapping[str, Any]) -> set[str]:
    """Names of the settings of a parsed space that stand in a group."""
    return {
        name
        for key, value in space.items()
        if isinstance(value, Groups)
        for name in setting_names({key: value})
    }


def placed(key: str, group: Mapping[str, Any]) -> dict[str, Any]:
    """A group's settings by their whole names; `key` is `model.choice` for the group `model`."""
    prefix = key.rpartition(".")[0]
    return {f"{prefix}.{name}" if prefix else name: value for name, value in group.items()}


def _parse_value(value: Any, name: str) -> Any:
    """A grid, a domain, a mapping that is a space in itself, or a fixed value."""
    if isinstance(value, Grid):
        spelled = {"grid": value.values}
        return spelled if _lists_groups(*_only(spelled)) else _checked_grid(value, name)
    if is_domain(value) and (categories := getattr(value, "categories", None)):
        spelled = {"choice": categories}
        return spelled if _lists_groups(*_only(spelled)) else value
    if not _is_single(value) or _lists_groups(*_only(value)):
        return value
    kind, arguments = _only(value)
    if kind in _GRIDS:
        if isinstance(arguments, str) or not isinstance(arguments, Sequence):
            raise InputError(f"{name}: a grid needs a list of values, got {arguments!r}")
        return _checked_grid(Grid(tuple(arguments)), name)
    return _domain(kind, arguments, name) if kind in SAMPLERS else value


def _is_single(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) == 1


def _only(value: Mapping[str, Any]) -> tuple[str, Any]:
    return next(iter(value.items()))


def _checked_grid(candidate: Grid, name: str) -> Grid:
    if not candidate.values:
        raise InputError(f"{name}: the grid is empty; give at least one value")
    for index, value in enumerate(candidate.values):
        if any(value == other and type(value) is type(other) for other in candidate.values[:index]):
            raise InputError(f"{name}: the grid repeats the value {value!r}")
        if is_domain(value):
            raise InputError(f"{name}: a grid holds plain values, got the domain {value!r}")
    return candidate


def _domain(kind: str, arguments: Any, name: str) -> Any:
    from ray import tune
    from ray.tune.search import sample

    function = getattr(tune, kind, None) or getattr(sample, kind)
    try:
        if isinstance(arguments, Mapping):
            return function(**arguments)
        if kind == "choice":
            if not list(arguments):
                raise InputError(f"{name}: the choice is empty; give at least one value")
            return function(list(arguments))
        return function(*arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: ray.tune.{kind} refuses {arguments!r}: {error}") from error


def is_domain(value: Any) -> bool:
    """Tell, without importing Ray, whether a value is a `ray.tune` domain."""
    return any(
        cls.__name__ == "Domain" and cls.__module__ == "ray.tune.search.sample"
        for cls in type(value).__mro__
    )


def domains_of(space: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a parsed space that are domains, those in its groups left out."""
    return {name: value for name, value in space.items() if is_domain(value)}


def describe_space(space: Mapping[str, Any]) -> dict[str, Any]:
    """A parsed space as plain data for `study.yaml`."""
    described: dict[str, Any] = {}
    for name, value in space.items():
        if isinstance(value, Grid):
            described[name] = {"grid": list(value.values)}
        elif isinstance(value, Groups):
            described[name] = [describe_space(option) for option in value.options]
        elif is_domain(value):
            described[name] = _describe_domain(value)
        else:
            described[name] = value
    return unflatten(described)


def _describe_domain(domain: Any) -> Any:
    """A domain in YAML's spelling, or in Ray's description if YAML has no word for it."""
    law, sampler, quantum = distribution_of(domain)
    kind = type(domain).__name__
    if kind == "Categorical":
        return {"choice": list(domain.categories)}
    names = {
        ("Float", "Uniform"): "uniform",
        ("Float", "LogUniform"): "loguniform",
        ("Integer", "Uniform"): "randint",
        ("Integer", "LogUniform"): "lograndint",
        ("Float", "Normal"): "randn",
    }
    name = names.get((kind, law))
    if name is None:
        return f"{kind}{domain.domain_str}"
    bounds = [sampler.mean, sampler.sd] if law == "Normal" else [domain.lower, domain.upper]
    return {f"q{name}": [*bounds, quantum]} if quantum is not None else {name: bounds}


def drawn_settings(space: Mapping[str, Any], group: str = "", every: bool = False) -> Iterator[str]:
    """Dotted names of the settings with a random domain, in a space as `describe_space` writes it.

    The names start with `group`. All settings in a choice of groups count. A domain for which YAML
    has no word is left out.

    Args:
        space: The space.
        group: Start of the names.
        every: Whether fixed settings count as well.
    """
    for name, value in space.items():
        if _lists_groups(name, value):
            for option in value:
                yield from drawn_settings(option, group, every or name == "choice")
            continue
        kind, arguments = _only(value) if _is_single(value) else ("", None)
        sampler = kind in SAMPLERS and not _lists_groups(kind, arguments)
        if isinstance(value, Mapping) and value and not sampler and kind != "grid":
            yield from drawn_settings(value, f"{group}{name}.", every)
        elif sampler or every:
            yield f"{group}{name}"


def merge(space: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A raw space in which the settings of some dotted names are replaced.

    Raises:
        InputError: An override would replace a whole group of settings.
    """
    flat = flatten(parse_space(space))
    for name, value in overrides.items():
        if any(existing.startswith(name + ".") for existing in flat):
            raise InputError(f"--set {name}: names a group of settings; set one of its members")
        flat[name] = value
    return unflatten(flat)
