"""The MNIST game of section 5.2, whose states are digits seen as images."""

from __future__ import annotations

from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np

from modicum_algorithms.solipsistic.environments import checks
from modicum_algorithms.solipsistic.environments.digit_images import (
    DIGITS,
    SIZE,
    Images,
    digit_images,
)

Start = Literal["random"] | int

_PLUS = 1
_GOAL = DIGITS - 1
# Part of gymnasium's interface.
_METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}


class MnistGame(gym.Env[np.ndarray, np.int64]):
    """A digit that is shown as an image and changes by one (section 5.2, figure 5.3).

    Action 0 subtracts 1 and action 1 adds 1; digit 0 stays at minus 1, and digit 9 at plus 1. The
    reward is 1 if the digit after the action is 9, and 0 otherwise. The observation is an image of
    the digit, uint8 (28, 28, 1), and is always the same for a digit unless there are several
    images per digit. An episode never terminates and is truncated at the horizon.

    `info` holds the `digit`; after a reset it also holds the `reward` of the first state.

    Args:
        horizon: Actions in an episode; 14 give the trajectories of 15 observations in section
            5.4.1.
        start: First digit, or `random` for a uniform choice. A reset with
            `options={"digit": 7}` takes precedence.
        images: `mnist` (in the folder `MODICUM_DATA`), `digits` (scikit-learn's, enlarged), or
            `auto`, which takes `mnist` if it is there and `digits` otherwise.
        images_per_digit: Images of each digit, from which every observation is drawn.
        render_mode: `rgb_array` or None.

    Raises:
        InputError: An argument is not allowed, or the images are missing.
    """

    metadata = _METADATA

    def __init__(
        self,
        *,
        horizon: int = 14,
        start: Start = 4,
        images: Images = "auto",
        images_per_digit: int = 1,
        render_mode: Literal["rgb_array"] | None = None,
    ) -> None:
        checks.require_whole("horizon", horizon, 1)
        checks.require_one_of("start", start, (*range(DIGITS), "random"))
        checks.require_one_of("images", images, get_args(Images))
        checks.require_whole("images_per_digit", images_per_digit, 1)
        checks.require_one_of("render_mode", render_mode, (None, "rgb_array"))
        self.observation_space = gym.spaces.Box(0, 255, (SIZE, SIZE, 1), np.uint8)
        self.action_space = gym.spaces.Discrete(2)
        self.render_mode = render_mode
        self._horizon = horizon
        self._start = start
        self._images = digit_images(images, images_per_digit)
        self._digit = 0
        self._steps: int | None = None
        self._shown_HW = self._images[0, 0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed of random starts and images.
            options: `digit`, from 0 to 9, is the first digit of this episode.

        Returns:
            The observation, and `info` with the `reward` of the first state.

        Raises:
            InputError: An option is not allowed.
        """
        super().reset(seed=seed)
        checks.require_options(options, ("digit",))
        if options and "digit" in options:
            checks.require_whole("digit", options["digit"], 0, DIGITS - 1)
            self._digit = int(options["digit"])
        elif isinstance(self._start, int):
            self._digit = self._start
        else:
            self._digit = int(self.np_random.integers(DIGITS))
        self._steps = 0
        return self._observation(), {"digit": self._digit, "reward": self._reward()}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Change the digit by one.

        Raises:
            InputError: The action is neither 0 nor 1.
            ResetNeeded: No episode has been started.
        """
        steps = checks.started(self._steps) + 1
        move = 1 if checks.checked_action(action, self.action_space) == _PLUS else -1
        self._digit = min(max(self._digit + move, 0), DIGITS - 1)
        self._steps = steps
        truncated = steps >= self._horizon
        return self._observation(), self._reward(), False, truncated, {"digit": self._digit}

    def render(self) -> Any:
        """The last image in grey, uint8 (28, 28, 3); None without a render mode."""
        checks.started(self._steps)
        if self.render_mode is None:
            return None
        return np.repeat(self._shown_HW[:, :, None], 3, axis=2)

    def _observation(self) -> np.ndarray:
        images_NHW = self._images[self._digit]
        several = len(images_NHW) > 1
        self._shown_HW = images_NHW[self.np_random.integers(len(images_NHW)) if several else 0]
        return self._shown_HW[:, :, None].copy()

    def _reward(self) -> float:
        return float(self._digit == _GOAL)
