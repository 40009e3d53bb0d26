"""Configurations of a parsed space: grids times draws, chosen groups, choices of a searcher."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modicum.errors import InputError, reason_of
from modicum.experiment.config import unflatten
from modicum.planning.space import Grid, Groups, domains_of, is_domain, placed


def is_random(space: Mapping[str, Any]) -> bool:
    """Tell whether anything in a parsed space is drawn, a choice of groups included."""
    return bool(domains_of(space)) or any(
        value.kind == "choice" or any(map(is_random, value.options))
        for value in space.values()
        if isinstance(value, Groups)
    )


def expand(space: Mapping[str, Any], draws: int, seed: int) -> Iterator[dict[str, Any]]:
    """Configurations of a parsed space: the product of its grids, for each draw of its domains.

    The last grid varies fastest; grids of groups vary slowest. Draw `i` of a setting is the same at
    every grid point and for every number of draws. Configurations are nested mappings of plain
    values.
    """
    for draw in range(draws if is_random(space) else 1):
        for plain, drawn in _without_groups(space, seed, draw):
            grids = {name: value.values for name, value in plain.items() if isinstance(value, Grid)}
            domains = domains_of(plain)
            if draw > 0 and not domains and not drawn:
                continue  # A group without domains is the same in each draw.
            fixed = {k: v for k, v in plain.items() if k not in grids and k not in domains}
            for point in itertools.product(*grids.values()):
                values = {**fixed, **dict(zip(grids, point, strict=True))}
                values.update(_draw(domains, values, seed, draw))
                yield unflatten({name: values[name] for name in plain})


def _without_groups(
    space: Mapping[str, Any], seed: int, draw: int
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Spaces with one group in the place of each `Groups`, and whether any of them was drawn."""
    for key, value in space.items():
        if isinstance(value, Groups):
            options: Sequence[Mapping[str, Any]] = value.options
            if value.kind == "choice":
                options = [options[int(_stream(seed, key, draw).integers(len(options)))]]
            for option in options:
                chosen = _chosen(space, key, option)
                for plain, drawn in _without_groups(chosen, seed, draw):
                    yield plain, drawn or value.kind == "choice"
            return
    yield dict(space), False


def _chosen(space: Mapping[str, Any], key: str, option: Mapping[str, Any]) -> dict[str, Any]:
    """A space with one of the groups of a key in their place."""
    chosen: dict[str, Any] = {}
    for name, value in space.items():
        chosen.update(placed(key, option) if name == key else {name: value})
    return chosen


def combinations(space: Mapping[str, Any], draws: int) -> int:
    """Number of configurations that `expand` yields; with a choice of groups, the largest."""
    return _points(space) * (draws if is_random(space) else 1)


def _points(space: Mapping[str, Any]) -> int:
    count = 1
    for value in space.values():
        if isinstance(value, Grid):
            count *= len(value.values)
        elif isinstance(value, Groups):
            count *= (sum if value.kind == "grid" else max)(map(_points, value.options))
    return count


def search_domains(space: Mapping[str, Any]) -> dict[str, Any]:
    """Domains that a searcher chooses from: all of a parsed space, and the numbers of its groups.

    A searcher chooses a value for the settings of every group; `settings_of_choice` takes those of
    the chosen group.
    """
    from ray import tune

    found = domains_of(space)
    for key, value in space.items():
        if isinstance(value, Groups):
            found[f"{key}.group"] = tune.choice(range(len(value.options)))
            for index, option in enumerate(value.options):
                inner = search_domains(option)
                found.update({f"{key}.{index}.{name}": domain for name, domain in inner.items()})
    return found


def settings_of_choice(space: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by flat dotted names after a searcher's choice from `search_domains`."""
    found: dict[str, Any] = {}
    for key, value in space.items():
        if isinstance(value, Groups):
            index = int(choice[f"{key}.group"])
            start = f"{key}.{index}."
            inner = {k.removeprefix(start): v for k, v in choice.items() if k.startswith(start)}
            found.update(placed(key, settings_of_choice(value.options[index], inner)))
        else:
            found[key] = choice[key] if is_domain(value) else value
    return found


def _stream(seed: int, name: str, draw: int) -> Any:
    """A random stream for each setting and draw, which other settings cannot shift."""
    import numpy as np

    return np.random.default_rng([seed, zlib.crc32(name.encode()), draw])


def _draw(
    domains: Mapping[str, Any], values: Mapping[str, Any], seed: int, draw: int
) -> dict[str, Any]:
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
            drawn[name] = domain.sample(random_state=_stream(seed, name, draw))
    return {name: _plain(value) for name, value in drawn.items()}


def _plain(value: Any) -> Any:
    """Turn a NumPy scalar into a Python number."""
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value
