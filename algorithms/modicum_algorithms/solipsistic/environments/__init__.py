"""The environments of chapter 5; importing this package makes their ids known to gymnasium.

In a process that has not imported it, gymnasium does so for an id of the form
`modicum_algorithms.solipsistic.environments:modicum/PixelCartPole-v0`.
"""

from __future__ import annotations

import gymnasium as gym

from modicum_algorithms.solipsistic.names import MNIST_GAME, PIXEL_CART_POLE

__all__ = ["MNIST_GAME", "PIXEL_CART_POLE", "register_environments"]

_ENTRY_POINTS = {
    MNIST_GAME: f"{__name__}.mnist_game:MnistGame",
    PIXEL_CART_POLE: f"{__name__}.pixel_cart_pole:PixelCartPole",
}


def register_environments() -> None:
    """Make the environments known to `gymnasium.make`, unless it knows them already."""
    for name, entry_point in _ENTRY_POINTS.items():
        if name not in gym.registry:
            gym.register(name, entry_point=entry_point)


register_environments()
