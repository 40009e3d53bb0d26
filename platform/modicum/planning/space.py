"""Search spaces: grids, random domains, and their expansion to configurations.

A space maps settings (nested, or by dotted name) to a value, a grid, or a domain of `ray.tune`.
Grids are expanded exhaustively. Domains are drawn, each setting from a separate random stream, so
a wider grid or more draws change no earlier draw.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modicum.errors import InputError, reason_of
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


@dataclass(frozen=True)
class Grid:
    """Values that are all tried."""

    values: tuple[Any, ...]


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
    becomes the `ray.tune` domain, and any other value is fixed.

    Raises:
        InputError: An empty grid, a repeated grid value, or arguments that Ray refuses.
    """
    flat: dict[str, Any] = {}
    for key, value in raw.items():
        name = f"{where}.{key}"
        if not isinstance(key, str):
            raise InputError(f"{where}: names of settings must be text, got {key!r}")
        value = _parse_value(value, name)
        if isinstance(value, Mapping) and value:
            flat.update({f"{key}.{k}": v for k, v in parse_space(value, name).items()})
        else:
            flat[key] = value
    return flat


def _parse_value(value: Any, name: str) -> Any:
    if isinstance(value, Grid):
        return _checked_grid(value, name)
    if isinstance(value, Mapping) and len(value) == 1:
        kind, arguments = next(iter(value.items()))
        if kind in {"grid", "grid_search"}:
            if isinstance(arguments, str) or not isinstance(arguments, Sequence):
                raise InputError(f"{name}: a grid needs a list of values, got {arguments!r}")
            return _checked_grid(Grid(tuple(arguments)), name)
        if kind in SAMPLERS:
            return _domain(kind, arguments, name)
    return value


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
    """The entries of a parsed space that are domains."""
    return {name: value for name, value in space.items() if is_domain(value)}


def expand(space: Mapping[str, Any], draws: int, seed: int) -> Iterator[dict[str, Any]]:
    """Configurations of a parsed space: the product of its grids, for each draw of its domains.

    The last grid varies fastest. Draw `i` of a setting is the same at every grid point and for
    every number of draws. Configurations are nested mappings of plain values.
    """
    grids = {name: value.values for name, value in space.items() if isinstance(value, Grid)}
    domains = domains_of(space)
    fixed = {k: v for k, v in space.items() if k not in grids and k not in domains}
    for draw in range(draws if domains else 1):
        for point in itertools.product(*grids.values()):
            values = {**fixed, **dict(zip(grids, point, strict=True))}
            values.update(_draw(domains, values, seed, draw))
            yield unflatten({name: values[name] for name in space})


def combinations(space: Mapping[str, Any], draws: int) -> int:
    """Number of configurations that `expand` yields."""
    grids = [len(value.values) for value in space.values() if isinstance(value, Grid)]
    return math.prod(grids) * (draws if domains_of(space) else 1)


def _draw(
    domains: Mapping[str, Any], values: Mapping[str, Any], seed: int, draw: int
) -> dict[str, Any]:
    import numpy as np

    drawn: dict[str, Any] = {}
    # Functions (tune.sample_from) may read the other settings, so they come last.
    for name, domain in sorted(domains.items(), key=lambda item: item[1].is_function()):
        if domain.is_function():
            try:
                drawn[name] = domain.sample(config=unflatten({**values, **drawn}))
            except Exception as error:  # a user's function may raise any
                raise InputError(
                    f"space.{name}: the function of sample_from fails "
                    f"({type(error).__name__}: {reason_of(error)})"
                ) from error
        else:
            # A random stream for each setting and draw, which other settings cannot shift.
            stream = np.random.default_rng([seed, zlib.crc32(name.encode()), draw])
            drawn[name] = domain.sample(random_state=stream)
    return {name: _plain(value) for name, value in drawn.items()}


def _plain(value: Any) -> Any:
    """Turn a NumPy scalar into a Python number."""
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def describe_space(space: Mapping[str, Any]) -> dict[str, Any]:
    """A parsed space as plain data for `study.yaml`."""
    described: dict[str, Any] = {}
    for name, value in space.items():
        if isinstance(value, Grid):
            described[name] = {"grid": list(value.values)}
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


def drawn_settings(space: Mapping[str, Any], group: str = "") -> Iterator[str]:
    """Dotted names of the settings with a random domain, in a space as `describe_space` writes it.

    The names start with `group`. A domain for which YAML has no word is left out.
    """
    for name, value in space.items():
        if isinstance(value, Mapping):
            if len(value) == 1 and next(iter(value)) in SAMPLERS:
                yield f"{group}{name}"
            else:
                yield from drawn_settings(value, f"{group}{name}.")


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
