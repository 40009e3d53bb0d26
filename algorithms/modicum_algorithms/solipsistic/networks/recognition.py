"""Recognition networks (appendix C.2), which the baselines use, too.

Shapes: N observations, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import modicum as md
from modicum_algorithms.solipsistic.names import RecognitionName
from modicum_algorithms.solipsistic.networks.spaces import ObservationShape

# Channels, kernel size and stride of each layer.
_CARTPOLE_LAYERS = ((8, 3, 1), (16, 3, 2), (16, 3, 2), (16, 5, 2))  # appendix C.2.2
_DIGIT_LAYERS = ((10, 5, 2), (20, 5, 2))  # appendix C.2.1
_DIGIT_HIDDEN_UNITS = 100
_VECTOR_HIDDEN_UNITS = 64


def recognition_network(
    observation: ObservationShape, outputs: int, name: RecognitionName
) -> nn.Sequential:
    """Network from prepared observations to `outputs` numbers.

    Args:
        observation: Shape of an observation.
        outputs: Size of the last, linear layer.
        name: `convolutional`, four convolutions with batch normalisation (appendix C.2.2);
            `digits`, two convolutions with max pooling and two hidden layers (C.2.1);
            `mlp`, two hidden layers for vectors; `auto`, `convolutional` for images and `mlp` for
            vectors.

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
        """Build the network.

        Raises:
            InputError: See `recognition_network`.
        """
        super().__init__()
        self.observation = observation
        self.layers = recognition_network(observation, outputs, name)

    def forward(self, observations: Tensor) -> Tensor:
        """Outputs for N raw observations, shape (N, outputs)."""
        outputs: Tensor = self.layers(self.observation.prepare(observations))
        return outputs
