"""CartPole from pixels (section 5.4.2)."""

from __future__ import annotations

from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np

import modicum as md
from modicum_algorithms.solipsistic.environments import checks
from modicum_algorithms.solipsistic.environments.cart_pole_drawing import FRAME_SIZE, PICTURE_ROWS
from modicum_algorithms.solipsistic.environments.cart_pole_simulations import (
    FRAMES,
    DirectSimulation,
    RenderedSimulation,
    is_down,
)

Start = Literal["fixed", "random"]
Drawing = Literal["direct", "rendered"]

_BOUNDS = {"fixed": 0.0, "random": 0.05}
_SIMULATIONS: dict[str, type[DirectSimulation] | type[RenderedSimulation]] = {
    "direct": DirectSimulation,
    "rendered": RenderedSimulation,
}
# Part of gymnasium's interface.
_METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}


class PixelCartPole(gym.Env[np.ndarray, np.int64]):
    """gymnasium's CartPole, seen as grey frames (section 5.4.2).

    The observation is uint8 (64, 64, 3), with the frames f(t), f(t-1), f(t-2) on the last axis. An
    episode starts with f(1), f(1), f(1) and f(2), f(1), f(1). Action 0 pushes the cart to the left,
    and action 1 to the right.

    The reward is 1 if the pole is upright (within 12 degrees) and the cart on the track (2.4 metres
    to either side) after the action. It is 0 from the fall on, even if the pole swings upright
    again. gymnasium's CartPole gives 1 for the action that makes the pole fall, too, so its returns
    are higher by 1 where the pole falls.

    An episode is truncated after `horizon` actions if the pole has not fallen by then. After a fall
    the episode terminates `frames_after_fall` actions later, even beyond the horizon.

    `info` holds the `state` (position, velocity, angle, angular velocity; float64) and `fallen`,
    which is true from the fall on. After a reset it also holds the `reward` of the first state.

    Args:
        start: `fixed`, upright in the middle without movement, or `random`, gymnasium's start with
            each of the four numbers uniform from -0.05 to 0.05.
        horizon: Actions until an episode is truncated.
        frames_after_fall: Actions after the fall, whose frames show a model of the reward what a
            fallen pole looks like. With 0 the fall ends the episode, as in gymnasium.
        crop: First row and end (exclusive) of the picture's 400 rows that a frame shows, at least
            64 apart; None for all rows. The default leaves out rows that are always empty while the
            pole stands.
        drawing: `rendered` uses gymnasium's renderer and wrappers. `direct` gives the same frames
            in a fraction of the time, except that averages half-way between two grey levels may
            round differently.
        render_mode: `rgb_array` or None.

    Raises:
        InputError: An argument is not allowed.
    """

    metadata = _METADATA

    def __init__(
        self,
        *,
        start: Start = "fixed",
        horizon: int = 200,
        frames_after_fall: int = 0,
        crop: tuple[int, int] | None = (100, 350),
        drawing: Drawing = "direct",
        render_mode: Literal["rgb_array"] | None = None,
    ) -> None:
        checks.require_one_of("start", start, get_args(Start))
        checks.require_whole("horizon", horizon, 1)
        checks.require_whole("frames_after_fall", frames_after_fall, 0)
        checks.require_one_of("drawing", drawing, get_args(Drawing))
        checks.require_one_of("render_mode", render_mode, (None, "rgb_array"))
        rows = _checked_rows(crop)
        self.observation_space = gym.spaces.Box(0, 255, (FRAME_SIZE, FRAME_SIZE, FRAMES), np.uint8)
        self.action_space = gym.spaces.Discrete(2)
        self.render_mode = render_mode
        self._horizon = horizon
        self._frames_after_fall = frames_after_fall
        self._simulation = _SIMULATIONS[drawing](rows, _BOUNDS[start])
        self._steps: int | None = None
        self._steps_after_fall: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed of random starts.
            options: None or empty.

        Returns:
            The observation, and `info` with the `reward` of the first state.

        Raises:
            InputError: An option is given.
        """
        super().reset(seed=seed)
        checks.require_options(options, ())
        observation = self._simulation.reset(self.np_random)
        self._steps = 0
        self._steps_after_fall = None
        return observation, {**self._info(), "reward": self._reward()}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Push the cart.

        Raises:
            InputError: The action is neither 0 nor 1.
            ResetNeeded: No episode has been started.
        """
        steps = checks.started(self._steps) + 1
        observation = self._simulation.step(checks.checked_action(action, self.action_space))
        after_fall = self._steps_after_fall
        if after_fall is not None:
            after_fall += 1
        elif is_down(self._simulation.state):
            after_fall = 0
        self._steps, self._steps_after_fall = steps, after_fall
        terminated = after_fall is not None and after_fall >= self._frames_after_fall
        truncated = after_fall is None and steps >= self._horizon
        return observation, self._reward(), terminated, truncated, self._info()

    def render(self) -> Any:
        """Picture as gymnasium renders it, uint8 (400, 600, 3); None without a render mode."""
        checks.started(self._steps)
        return None if self.render_mode is None else self._simulation.picture()

    def close(self) -> None:
        """Release the renderer, if there is one."""
        self._simulation.close()

    def _reward(self) -> float:
        return float(self._steps_after_fall is None)

    def _info(self) -> dict[str, Any]:
        return {
            "state": self._simulation.state.copy(),
            "fallen": self._steps_after_fall is not None,
        }


def _checked_rows(crop: tuple[int, int] | None) -> tuple[int, int]:
    """First row and end of the kept rows as a tuple, since YAML gives lists for pairs."""
    if crop is None:
        return 0, PICTURE_ROWS
    if (
        not isinstance(crop, (tuple, list))
        or len(crop) != 2
        or not all(isinstance(row, int) for row in crop)
        or not 0 <= crop[0] <= crop[1] - FRAME_SIZE <= PICTURE_ROWS - FRAME_SIZE
    ):
        raise md.InputError(
            f"crop: must be the first and the last of {PICTURE_ROWS} rows, {FRAME_SIZE} or more "
            f"apart (allowed: null, or two of 0 to {PICTURE_ROWS}), got {crop!r}"
        )
    return crop[0], crop[1]
