"""CartPole seen as frames, computed here or by gymnasium with the same results.

Shapes: H height, W width (64 both), F frames (3, the newest first).
"""

from __future__ import annotations

import os
from typing import Any, Protocol, cast

import gymnasium as gym
import numpy as np

from modicum_algorithms.solipsistic.environments.cart_pole_drawing import (
    FRAME_SIZE,
    PICTURE_COLUMNS,
    CartPoleDrawing,
)
from modicum_algorithms.solipsistic.environments.cart_pole_physics import next_state

FRAMES = 3


class Simulation(Protocol):
    """A cart with a pole, and its frames."""

    @property
    def state(self) -> np.ndarray:
        """Position, velocity, angle and angular velocity, float64 (4,)."""

    def reset(self, generator: np.random.Generator) -> np.ndarray:
        """Start from a random state; returns the observation, uint8 (H, W, F)."""

    def step(self, action: int) -> np.ndarray:
        """Push the cart once; returns the observation, uint8 (H, W, F)."""

    def picture(self) -> np.ndarray:
        """Coloured picture of the state, uint8 (400, 600, 3)."""

    def close(self) -> None:
        """Release the renderer, if there is one."""


class DirectSimulation:
    """Physics and frames computed here.

    Args:
        rows: First row and end (exclusive) of the picture's 400 rows that a frame shows.
        bound: Bound of the first state, whose four numbers are uniform from -bound to bound.
    """

    def __init__(self, rows: tuple[int, int], bound: float) -> None:
        self._drawing = CartPoleDrawing(rows)
        self._bound = bound
        self._state = np.zeros(4)
        self._frames_HWF = np.zeros((FRAME_SIZE, FRAME_SIZE, FRAMES), np.uint8)

    @property
    def state(self) -> np.ndarray:
        """Position, velocity, angle and angular velocity, float64 (4,)."""
        return self._state

    def reset(self, generator: np.random.Generator) -> np.ndarray:
        """Start from a random state; returns its frame three times, uint8 (H, W, F)."""
        self._state = generator.uniform(-self._bound, self._bound, 4)
        self._frames_HWF = np.stack([self._drawing.frame(self._state)] * FRAMES, axis=-1)
        return self._frames_HWF.copy()

    def step(self, action: int) -> np.ndarray:
        """Push the cart once; returns the new frame before the last two, uint8 (H, W, F)."""
        self._state = next_state(self._state, action)
        older_HWF = self._frames_HWF
        self._frames_HWF = np.empty_like(older_HWF)
        # Shifting all values by one moves each frame to the next place. A copy in one piece takes a
        # tenth of the time of a copy by frames.
        self._frames_HWF.reshape(-1)[1:] = older_HWF.reshape(-1)[:-1]
        self._frames_HWF[:, :, 0] = self._drawing.frame(self._state)
        return self._frames_HWF.copy()

    def picture(self) -> np.ndarray:
        """Coloured picture of the state, uint8 (400, 600, 3)."""
        return self._drawing.picture(self._state)

    def close(self) -> None:
        """Do nothing: there is no renderer."""


class RenderedSimulation:
    """gymnasium's `CartPole-v1`, rendered and passed through gymnasium's wrappers.

    Args:
        rows: First row and end (exclusive) of the picture's 400 rows that a frame shows.
        bound: Bound of the first state, whose four numbers are uniform from -bound to bound.
    """

    def __init__(self, rows: tuple[int, int], bound: float) -> None:
        # The renderer starts all of SDL, which complains on machines without sound.
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
        self._options = {"low": -bound, "high": bound}
        self._cart_pole: Any = gym.make("CartPole-v1", render_mode="rgb_array").unwrapped
        self._seen = _observed(self._cart_pole, rows)

    @property
    def state(self) -> np.ndarray:
        """Position, velocity, angle and angular velocity, float64 (4,)."""
        return cast(np.ndarray, self._cart_pole.state)

    def reset(self, generator: np.random.Generator) -> np.ndarray:
        """Start from a random state; returns its frame three times, uint8 (H, W, F)."""
        self._cart_pole.np_random = generator
        frames_FHW, _ = self._seen.reset(options=self._options)
        return _newest_first(frames_FHW)

    def step(self, action: int) -> np.ndarray:
        """Push the cart once; returns the new frame before the last two, uint8 (H, W, F)."""
        # gymnasium warns of steps after a fall, which are intended here.
        self._cart_pole.steps_beyond_terminated = None
        frames_FHW, *_ = self._seen.step(action)
        return _newest_first(frames_FHW)

    def picture(self) -> np.ndarray:
        """Coloured picture of the state, uint8 (400, 600, 3)."""
        return cast(np.ndarray, self._cart_pole.render())

    def close(self) -> None:
        """End the renderer."""
        self._seen.close()


def _observed(cart_pole: gym.Env[Any, Any], rows: tuple[int, int]) -> gym.Env[np.ndarray, int]:
    """Environment of three small grey frames of the picture's rows."""
    first, last = rows
    picture: gym.Env[Any, Any] = gym.wrappers.AddRenderObservation(cart_pole)
    kept: gym.Env[Any, Any] = gym.wrappers.TransformObservation(
        picture,
        lambda picture: picture[first:last],
        gym.spaces.Box(0, 255, (last - first, PICTURE_COLUMNS, 3), np.uint8),
    )
    grey: gym.Env[Any, Any] = gym.wrappers.GrayscaleObservation(kept)
    small: gym.Env[Any, Any] = gym.wrappers.ResizeObservation(grey, (FRAME_SIZE, FRAME_SIZE))
    return gym.wrappers.FrameStackObservation(small, FRAMES)


def _newest_first(frames_FHW: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frames_FHW[::-1].transpose(1, 2, 0))
