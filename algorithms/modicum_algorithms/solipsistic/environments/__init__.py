"""The environments of chapter 5; importing this package makes their ids known to gymnasium.

In a process that has not imported it, gymnasium does so for an id of the form
`modicum_algorithms.solipsistic.environments:modicum/PixelCartPole-v0`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium as gym

import modicum as md
from modicum_algorithms.solipsistic.config import MNIST_GAME, PIXEL_CART_POLE

_ENTRY_POINTS = {
    MNIST_GAME: f"{__name__}.mnist_game:MnistGame",
    PIXEL_CART_POLE: f"{__name__}.pixel_cart_pole:PixelCartPole",
}


def register_environments() -> None:
    """Make the environments known to `gymnasium.make`, unless it knows them already."""
    for name, entry_point in _ENTRY_POINTS.items():
        if name not in gym.registry:
            gym.register(name, entry_point=entry_point)


def environment_id(name: str) -> str:
    """Id that every process can make: ids of this family get the module that registers them."""
    return f"{__name__}:{name}" if name in _ENTRY_POINTS else name


@contextmanager
def refusing_environment(name: object) -> Iterator[None]:
    """Raise an `InputError` for gymnasium's errors about the environment of this name."""
    try:
        yield
    except (gym.error.Error, ImportError, TypeError) as error:
        raise md.InputError(f"environment: {name!r} cannot be made: {error}") from error


register_environments()
