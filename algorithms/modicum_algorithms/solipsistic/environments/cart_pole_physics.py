"""The dynamics of gymnasium's `CartPole-v1`, equal to the bit.

A state is float64 (4,): the cart's position (metres) and velocity (metres per second), and the
pole's angle (radians; 0 is upright, positive leans to the right) and angular velocity (radians per
second).
"""

from __future__ import annotations

import math

import numpy as np

TRACK_LIMIT = 2.4  # metres from the middle
ANGLE_LIMIT = 12 * 2 * math.pi / 360

_GRAVITY = 9.8
_POLE_MASS = 0.1
_TOTAL_MASS = _POLE_MASS + 1.0
_HALF_POLE = 0.5
_POLE_MASS_LENGTH = _POLE_MASS * _HALF_POLE
_FORCE = 10.0
_SECONDS = 0.02


def next_state(state: np.ndarray, action: int) -> np.ndarray:
    """State after one Euler step of 0.02 seconds.

    Args:
        state: State before the step, float64 (4,).
        action: 1 pushes the cart to the right, 0 to the left.
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
    return abs(position) > TRACK_LIMIT or abs(angle) > ANGLE_LIMIT
