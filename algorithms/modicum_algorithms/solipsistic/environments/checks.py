"""Checks of an environment's arguments, actions and call order, which raise an `InputError`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, SupportsInt

import gymnasium as gym
import numpy as np

import modicum as md


def require_one_of(field: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuse a value that is not among `allowed`."""
    # The types are compared since 4.0 and True equal whole numbers that may be allowed.
    if not any(type(value) is type(one) and value == one for one in allowed):
        names = ", ".join(map(str, allowed))
        raise md.InputError(f"{field}: {value!r} is unknown (allowed: {names})")


def require_whole(field: str, value: object, lowest: int, highest: int | None = None) -> None:
    """Refuse a value that is not a whole number from `lowest` to `highest` (None for no limit)."""
    if (
        not isinstance(value, (int, np.integer))
        or isinstance(value, bool)
        or value < lowest
        or (highest is not None and value > highest)
    ):
        limits = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
        raise md.InputError(f"{field}: must be a whole number (allowed: {limits}), got {value!r}")


def require_options(options: Mapping[str, Any] | None, allowed: tuple[str, ...]) -> None:
    """Refuse options of a reset that would have no effect."""
    for name in options or {}:
        if name not in allowed:
            names = ", ".join(allowed) or "none"
            raise md.InputError(f"options: {name!r} is unknown (allowed: {names})")


def checked_action(action: SupportsInt, actions: gym.Space[np.int64]) -> int:
    """The action, 0 or 1, as a plain integer."""
    if not actions.contains(action):
        raise md.InputError(f"action: {action!r} is unknown (allowed: 0, 1)")
    return int(action)


def started(steps: int | None) -> int:
    """The number of steps since the last reset; raises gymnasium's `ResetNeeded` without one."""
    if steps is None:
        raise gym.error.ResetNeeded("call reset() first")
    return steps
