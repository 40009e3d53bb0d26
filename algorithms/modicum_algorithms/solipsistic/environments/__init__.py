"""The environments of chapter 5, known to gymnasium under their ids once this is imported.

In a process that has not imported it, gymnasium does so for an id of the form
`modicum_algorithms.solipsistic.environments:modicum/PixelCartPole-v0`.
"""

from __future__ import annotations

import gymnasium as gym

from modicum_algorithms.solipsistic.names import MNIST_GAME, PIXEL_CART_POLE

__all__ = ["MNIST_GAME", "PIXEL_CART_POLE", "register"]

_ENTRY_POINTS = {
    MNIST_GAME: f"{__name__}.mnist_game:MnistGame",
    PIXEL_CART_POLE: f"{__name__}.pixel_cart_pole:PixelCartPole",
}


def register() -> None:
    """Make the environments known to `gymnasium.make`; those that it knows are left alone."""
    for name, entry_point in _ENTRY_POINTS.items():
        if name not in gym.registry:
            gym.register(name, entry_point=entry_point)


register()
