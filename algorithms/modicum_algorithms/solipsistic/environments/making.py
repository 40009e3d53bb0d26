"""Ids and errors of the environments that users name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium as gym

import modicum as md
from modicum_algorithms.solipsistic.names import MNIST_GAME, PIXEL_CART_POLE


def environment_id(name: str) -> str:
    """Id that every process can make: ids of this family get the module that registers them."""
    return f"{__package__}:{name}" if name in (MNIST_GAME, PIXEL_CART_POLE) else name


@contextmanager
def refusing_environment(name: object) -> Iterator[None]:
    """Raise an `InputError` for gymnasium's errors about an environment that cannot be made.

    Args:
        name: The environment, for the error.
    """
    try:
        yield
    except (gym.error.Error, ImportError, TypeError) as error:
        raise md.InputError(f"environment: {name!r} cannot be made: {error}") from error
