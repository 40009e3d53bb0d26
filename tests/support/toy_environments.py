"""Small environments for the tests of reinforcement learning, in a module that workers import."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class SideOfLight(gym.Env):
    """Tells on which half of the image the light is: reward 1 if right, for 20 steps."""

    length = 20

    def __init__(self, config: Any = None) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = float(action == self.side)
        self.steps += 1
        return self._observation(), reward, False, self.steps == self.length, {}

    def _observation(self) -> np.ndarray:
        self.side = int(self.np_random.integers(2))
        image = self.np_random.integers(0, 100, (32, 32, 3), dtype=np.uint8)
        image[:, 16 * self.side : 16 * self.side + 16] += 150
        return image


class Broken(SideOfLight):
    """Raises at its third step."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self.steps == 2:
            raise ArithmeticError("the pole has come off")
        return super().step(action)


class Endless(SideOfLight):
    """Never ends."""

    length = 10**9


class Shaped(gym.Env):
    """Two steps of what its configuration says: the spaces, and the reward of every step."""

    def __init__(self, config: Any = None) -> None:
        config = config or {}
        vectors = gym.spaces.Box(-1, 1, (3,), np.float32)
        self.observation_space = config.get("observation_space", vectors)
        self.action_space = config.get("action_space", gym.spaces.Discrete(2))
        self.reward = config.get("reward", 1.0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.steps += 1
        return self.observation_space.sample(), self.reward, self.steps == 2, False, {}
