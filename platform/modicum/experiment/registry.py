"""Experiments and commands of installed packages, registered through entry points."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from modicum.errors import InputError, unknown_name
from modicum.experiment.experiment import Experiment

EXPERIMENTS = "modicum.experiments"
COMMANDS = "modicum.commands"


@cache
def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def experiment_names() -> list[str]:
    """Names of all registered experiments; none is imported."""
    return sorted(_points(EXPERIMENTS))


def get_experiment(name: str) -> Experiment[Any]:
    """Import a registered experiment.

    Raises:
        InputError: No package registers the name, or the package lacks an optional dependency.
    """
    points = _points(EXPERIMENTS)
    if name not in points:
        raise unknown_name("experiment", name, points)
    try:
        loaded = points[name].load()
    except ModuleNotFoundError as error:
        raise InputError(
            f"experiment {name!r} needs the package {error.name!r}, which is not installed"
        ) from error
    return as_experiment(loaded)


def as_experiment(candidate: str | Experiment[Any] | type[Experiment[Any]]) -> Experiment[Any]:
    """An experiment from its name, its class, or an instance.

    Raises:
        InputError: It is none of these, or cannot be imported.
    """
    if isinstance(candidate, str):
        return get_experiment(candidate)
    if isinstance(candidate, Experiment):
        return candidate
    if isinstance(candidate, type) and issubclass(candidate, Experiment):
        return candidate()
    raise InputError(
        f"experiment: expected a name, an Experiment class or an instance, got {candidate!r}"
    )


def added_commands() -> dict[str, EntryPoint]:
    """Commands that packages add to `modicum`, by name.

    A Typer application is a group of commands, a function with Typer's annotations is one command.
    """
    return _points(COMMANDS)
