"""Observation and action spaces, and the form in which networks see them.

Shapes: N observations, A numbers of an action's encoding, H height, W width, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor
from torch.nn import functional

import modicum as md


@dataclass(frozen=True)
class ObservationShape:
    """An observation in the form that networks see: an image, channels first, or a vector.

    Attributes:
        channels: Channels of an image; None for a vector.
        size: Height and width of an image, or the length of a vector.
        scale: Factor that brings the bytes of an image into [0, 1]; 1 for other numbers.
    """

    channels: int | None
    size: tuple[int, ...]
    scale: float

    @property
    def is_image(self) -> bool:
        """True for an image, False for a vector."""
        return self.channels is not None

    def prepare(self, observations: Tensor) -> Tensor:
        """Observations as floating-point numbers; images channels first (NCHW).

        Args:
            observations: Shape (N, H, W), (N, H, W, C) or (N, length), any type.
        """
        if not self.is_image:
            return observations.float()
        if observations.ndim == 3:
            observations = observations[..., None]
        # The memory layout stays channels last, in which convolutions are faster on CPUs.
        return observations.permute(0, 3, 1, 2).float() * self.scale


def observation_shape(space: gym.Space[Any] | None) -> ObservationShape:
    """Read an observation space.

    Raises:
        InputError: The space holds neither images (height, width[, channels]) nor vectors.
    """
    if not isinstance(space, gym.spaces.Box) or not 1 <= len(space.shape) <= 3:
        raise md.InputError(
            "observation_space: must be a Box of vectors, of grey images (height, width) or of "
            f"images (height, width, channels), got {space}"
        )
    if len(space.shape) == 1:
        return ObservationShape(None, space.shape, 1.0)
    channels = space.shape[2] if len(space.shape) == 3 else 1
    scale = 1 / 255 if space.dtype == np.uint8 else 1.0
    return ObservationShape(channels, space.shape[:2], scale)


@dataclass(frozen=True)
class ActionShape:
    """An action in the form that networks see: one of a few, or numbers in [-1, 1].

    RLlib scales continuous actions from [-1, 1] to the environment's bounds.

    Attributes:
        choices: Number of discrete actions; None for continuous actions.
        size: Length of an action's encoding, A.
    """

    choices: int | None
    size: int

    def encode(self, actions: Tensor) -> Tensor:
        """One-hot codes of discrete actions, or the continuous actions; shape (..., A)."""
        if self.choices is None:
            return actions.float()
        return functional.one_hot(actions.long(), self.choices).float()


def action_shape(space: gym.Space[Any] | None) -> ActionShape:
    """Read an action space.

    Raises:
        InputError: The space is neither Discrete nor a bounded Box of vectors.
    """
    if isinstance(space, gym.spaces.Discrete) and space.start == 0:
        return ActionShape(int(space.n), int(space.n))
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        return ActionShape(None, math.prod(space.shape))
    raise md.InputError(
        f"action_space: must be Discrete, counted from 0, or a bounded Box of vectors, got {space}"
    )
