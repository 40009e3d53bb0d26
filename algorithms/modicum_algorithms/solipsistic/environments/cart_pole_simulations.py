"""CartPole seen as frames, computed here or by gymnasium with the same results.

A state is float64 (4,): the cart's position (metres) and velocity (metres per second), and the
pole's angle (radians; 0 is upright, positive leans to the right) and angular velocity (radians per
second).

Shapes: H height, W width (64 both), F frames (3, the newest first).
"""

from __future__ import annotations

import math
import os
from typing import Any, cast

import gymnasium as gym
import numpy as np

from modicum_algorithms.solipsistic.environments.cart_pole_drawing import (
    FRAME_SIZE,
    PICTURE_COLUMNS,
    CartPoleDrawing,
)

FRAMES = 3

# gymnasium's constants.
_TRACK_LIMIT = 2.4  # metres from the middle
_ANGLE_LIMIT = 12 * 2 * math.pi / 360
_GRAVITY = 9.8
_POLE_MASS = 0.1
_TOTAL_MASS = _POLE_MASS + 1.0
_HALF_POLE = 0.5
_POLE_MASS_LENGTH = _POLE_MASS * _HALF_POLE
_FORCE = 10.0
_SECONDS = 0.02


class DirectSimulation:
    """Physics and frames computed here.

    Args:
        rows: First row and end (exclusive) of the picture's 400 rows that a frame shows.
        bound: Bound of the first state, whose four numbers are uniform from -bound to bound.
    """

    def __init__(self, rows: tuple[int, int], bound: float) -> None:
        self._drawing = CartPoleDrawing(rows)
        self._bound = bound
        self.state = np.zeros(4)
        self._frames_HWF = np.zeros((FRAME_SIZE, FRAME_SIZE, FRAMES), np.uint8)

    def reset(self, generator: np.random.Generator) -> np.ndarray:
        """Start from a random state; returns its frame three times, uint8 (H, W, F)."""
        self.state = generator.uniform(-self._bound, self._bound, 4)
        self._frames_HWF = np.stack([self._drawing.frame(self.state)] * FRAMES, axis=-1)
        return self._frames_HWF.copy()

    def step(self, action: int) -> np.ndarray:
        """Push the cart once; returns the new frame before the last two, uint8 (H, W, F)."""
        self.state = next_state(self.state, action)
        older_HWF = self._frames_HWF
        self._frames_HWF = np.empty_like(older_HWF)
        # Shifting all values by one moves each frame to the next place. A copy in one piece takes a
        # tenth of the time of a copy by frames.
        self._frames_HWF.reshape(-1)[1:] = older_HWF.reshape(-1)[:-1]
        self._frames_HWF[:, :, 0] = self._drawing.frame(self.state)
        return self._frames_HWF.copy()

    def picture(self) -> np.ndarray:
        """Coloured picture of the state, uint8 (400, 600, 3)."""
        return self._drawing.picture(self.state)

    def close(self) -> None:
        """Do nothing: there is no renderer."""


class RenderedSimulation:
    """gymnasium's `CartPole-v1`, rendered and passed through gymnasium's wrappers.

    Arguments and methods are those of `DirectSimulation`.
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


def next_state(state: np.ndarray, action: int) -> np.ndarray:
    """State after one Euler step of 0.02 seconds, equal to gymnasium's to the bit.

    Action 1 pushes the cart to the right, 0 to the left.
    """
    position, velocity, angle, angular_velocity = state.tolist()
    force = _FORCE if action == 1 else -_FORCE
    # NumPy's cosine and sine may differ from those of `math` in the last bit.
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    pushed = (force + _POLE_MASS_LENGTH * (angular_velocity * angular_velocity) * sine) / (
        _TOTAL_MASS
    )
    angular_acceleration = (_GRAVITY * sine - cosine * pushed) / (
        _HALF_POLE * (4.0 / 3.0 - _POLE_MASS * (cosine * cosine) / _TOTAL_MASS)
    )
    acceleration = pushed - _POLE_MASS_LENGTH * angular_acceleration * cosine / _TOTAL_MASS
    return np.array(
        (
            position + _SECONDS * velocity,
            velocity + _SECONDS * acceleration,
            angle + _SECONDS * angular_velocity,
            angular_velocity + _SECONDS * angular_acceleration,
        )
    )


def is_down(state: np.ndarray) -> bool:
    """True if the pole leans by more than 12 degrees or the cart's middle is off the track."""
    position, _, angle, _ = state.tolist()
    return abs(position) > _TRACK_LIMIT or abs(angle) > _ANGLE_LIMIT
