"""Networks that see observations, the same for all three methods (appendix C.2).

Shapes: N observations, A numbers of an action's encoding, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

import modicum as md
from modicum_algorithms.solipsistic.config import RecognitionName

# Channels, kernel size and stride of each layer.
_CARTPOLE_LAYERS = ((8, 3, 1), (16, 3, 2), (16, 3, 2), (16, 5, 2))  # appendix C.2.2
_DIGIT_LAYERS = ((10, 5, 2), (20, 5, 2))  # appendix C.2.1
_DIGIT_HIDDEN_UNITS = 100
_VECTOR_HIDDEN_UNITS = 64
# Most observations in one pass for the statistics of batch normalisation, to bound memory.
_LARGEST_PASS = 512


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


def recognition_network(
    observation: ObservationShape, outputs: int, name: RecognitionName
) -> nn.Sequential:
    """Network from prepared observations to `outputs` numbers.

    `convolutional` has four convolutions with batch normalisation (appendix C.2.2), `digits` two
    convolutions with max pooling and two hidden layers (C.2.1), and `mlp` two hidden layers for
    vectors; `auto` is `convolutional` for images and `mlp` for vectors.

    Raises:
        InputError: The network does not suit the observations, or images are too small for it.
    """
    if name == "auto":
        name = "convolutional" if observation.is_image else "mlp"
    if (name == "mlp") == observation.is_image:
        allowed = "convolutional or digits for images" if observation.is_image else "mlp"
        raise md.InputError(f"recognition: must be {allowed}, or auto, got {name!r}")
    if name == "mlp":
        (length,) = observation.size
        units = _VECTOR_HIDDEN_UNITS
        return nn.Sequential(
            nn.Linear(length, units), nn.ReLU(),
            nn.Linear(units, units), nn.ReLU(),
            nn.Linear(units, outputs),
        )  # fmt: skip
    return (
        _convolutional(observation, outputs)
        if name == "convolutional"
        else _digits(observation, outputs)
    )


def _convolutional(observation: ObservationShape, outputs: int) -> nn.Sequential:
    assert observation.channels is not None
    layers: list[nn.Module] = []
    channels, (height, width) = observation.channels, observation.size
    for filters, kernel, stride in _CARTPOLE_LAYERS:
        layers += [
            nn.Conv2d(channels, filters, kernel, stride),
            nn.BatchNorm2d(filters),
            nn.ReLU(inplace=True),
        ]
        channels = filters
        height, width = ((side - kernel) // stride + 1 for side in (height, width))
    _require_pixels(observation, "convolutional", height, width)
    layers += [nn.Flatten(), nn.Linear(channels * height * width, outputs)]
    network = nn.Sequential(*layers)
    for parameter in network.parameters():
        if parameter.ndim == 4:  # channels last, like the images in memory
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _digits(observation: ObservationShape, outputs: int) -> nn.Sequential:
    # The thesis leaves the size of the pooling open; 28x28 pixels allow for a stride of 1.
    assert observation.channels is not None
    layers: list[nn.Module] = []
    channels, (height, width) = observation.channels, observation.size
    for filters, kernel, stride in _DIGIT_LAYERS:
        layers += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU(), nn.MaxPool2d(2, 1)]
        channels = filters
        height, width = ((side - kernel) // stride for side in (height, width))
    _require_pixels(observation, "digits", height, width)
    units = _DIGIT_HIDDEN_UNITS
    return nn.Sequential(
        *layers, nn.Flatten(),
        nn.Linear(channels * height * width, units), nn.ReLU(),
        nn.Linear(units, units), nn.ReLU(),
        nn.Linear(units, outputs),
    )  # fmt: skip


def _require_pixels(observation: ObservationShape, name: str, height: int, width: int) -> None:
    if height < 1 or width < 1:
        size = "x".join(map(str, observation.size))
        raise md.InputError(
            f"recognition: images of {size} pixels are too small for the network {name!r}"
        )


class Recognition(nn.Module):
    """Recognition network that takes raw observations."""

    def __init__(self, observation: ObservationShape, outputs: int, name: RecognitionName) -> None:
        super().__init__()
        self.observation = observation
        self.layers = recognition_network(observation, outputs, name)

    def forward(self, observations: Tensor) -> Tensor:
        """Outputs for N raw observations, shape (N, outputs)."""
        outputs: Tensor = self.layers(self.observation.prepare(observations))
        return outputs


@torch.no_grad()
def measure_batch_statistics(
    module: nn.Module, forward: Callable[[Tensor], Any], observations: Tensor
) -> None:
    """Replace a module's running averages of batch normalisation by means over a sample.

    In training, a network normalises by the statistics of each batch. The running averages that it
    keeps for evaluation lag behind quickly changing weights: with them, a recognition network that
    fits well in training may recognise nothing. The module is in evaluation mode afterwards.

    Args:
        module: Module with the layers of batch normalisation.
        forward: Function that runs the module on observations.
        observations: Shape (N, ...).
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    if layers:
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative mean
        module.train()
        # Of about the same size, since all chunks weigh the same.
        for chunk in observations.tensor_split(math.ceil(len(observations) / _LARGEST_PASS)):
            forward(chunk)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    module.eval()
