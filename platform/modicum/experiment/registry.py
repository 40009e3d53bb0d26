"""Experiments and commands of installed packages, registered through entry points."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from modicum.errors import InputError, require_choice, unknown_name
from modicum.experiment.experiment import Experiment, Isolation

EXPERIMENTS = "modicum.experiments"
COMMANDS = "modicum.commands"


@cache
def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def experiment_names() -> list[str]:
    """Names of all registered experiments; none is imported."""
    return sorted(_points(EXPERIMENTS))


def get_experiment(name: str) -> Experiment[Any]:
    """Import an experiment.

    Args:
        name: A registered name, or `module:Class` of a class without a registration; the module is
            searched for in the working folder first.

    Raises:
        InputError: No package registers the name, there is no such module or class, or a package
            that the module imports is not installed.
    """
    if ":" in name:
        return _import_class(name)
    points = _points(EXPERIMENTS)
    if name not in points:
        raise unknown_name("experiment", name, points)
    try:
        loaded = points[name].load()
    except ModuleNotFoundError as error:
        raise _missing_package(name, error) from error
    return as_experiment(loaded)


def _import_class(name: str) -> Experiment[Any]:
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        raise InputError(f"experiment: expected a registered name or module:Class, got {name!r}")
    module, _, attribute = name.partition(":")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        loaded = getattr(import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if f"{module}.".startswith(f"{error.name}."):
            raise InputError(
                f"experiment: no module {error.name!r} in the working folder or installed"
            ) from error
        raise _missing_package(name, error) from error
    if loaded is None:
        raise InputError(f"experiment: the module {module!r} has no class {attribute!r}")
    return as_experiment(loaded)


def _missing_package(experiment: str, error: ModuleNotFoundError) -> InputError:
    return InputError(
        f"experiment {experiment!r} needs the package {error.name!r}, which is not installed"
    )


def as_experiment(candidate: str | Experiment[Any] | type[Experiment[Any]]) -> Experiment[Any]:
    """An experiment from its name, its class, or an instance.

    Raises:
        InputError: It is none of these, cannot be imported, or has an unknown isolation.
    """
    if isinstance(candidate, str):
        return get_experiment(candidate)
    if isinstance(candidate, type) and issubclass(candidate, Experiment):
        candidate = candidate()
    if not isinstance(candidate, Experiment):
        raise InputError(
            f"experiment: expected a name, an Experiment class or an instance, got {candidate!r}"
        )
    require_choice(f"isolation of experiment {candidate.name!r}", candidate.isolation, Isolation)
    return candidate


def added_commands() -> dict[str, EntryPoint]:
    """Commands that packages add to `modicum`, by name.

    A Typer application is a group of commands, a function with Typer's annotations is one command.
    """
    return _points(COMMANDS)
