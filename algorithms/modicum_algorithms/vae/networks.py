"""Encoders and decoders: multi-layer perceptrons and a convolutional ResNet (section 4.5.1).

Every network is a `Sequential` of linear layers, convolutions, ReLUs, residual blocks and
rearrangements, so that the codec can also evaluate it in integers. Distributions have parameters in
single precision, whatever the precision of the networks. Shapes: B batch, C channels,
H height, W width, D pixels of an image with its channels, L latent dimensions.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus

import modicum as md
from modicum_algorithms.vae.config import LikelihoodName, Precision
from modicum_algorithms.vae.likelihoods import PARAMETERS, likelihood
from modicum_algorithms.vae.model_spec import ModelSpec

# Images that pass through a network at once outside training.
EVALUATION_BATCH = 500


class ScaleImage(nn.Module):
    """Scales pixel values 0 to 255 to -1 to 1, and leaves binary images as they are."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Scaled images, same shape."""
        return x_BCHW if self.levels == 2 else x_BCHW / 127.5 - 1


class ResidualBlock(nn.Module):
    """h + conv(relu(conv(relu(h)))) with 3 × 3 convolutions (equation 2.19).

    Without batch normalisation (equation 2.18): an image's posterior must not depend on the images
    beside it. The last convolution starts at zero, so that every block starts as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        if self.second.bias is not None:
            nn.init.zeros_(self.second.bias)

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """Same shape as the input."""
        return h_BCHW + self.second(self.first(h_BCHW.relu()).relu())


class GaussianEncoder(nn.Module):
    """q(z|x) = N(μ(x), diag σ(x)²), where σ is the softplus of half of the network's outputs."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCHW: Tensor) -> Independent[Normal]:
        """Posteriors over (B, L)."""
        mean, raw = self.network(x_BCHW).float().chunk(2, dim=1)
        std_BL = softplus(raw.flatten(1))
        # softplus(ρ) underflows to zero for ρ below -104.
        normal = Normal(mean.flatten(1), std_BL.clamp_min(1e-20), validate_args=False)
        return Independent(normal, 1, validate_args=False)


class ImageDecoder(nn.Module):
    """p(x|z) for images."""

    def __init__(self, network: nn.Sequential, name: LikelihoodName) -> None:
        super().__init__()
        self.network = network
        self.likelihood = name

    def forward(self, z_BL: Tensor) -> Distribution:
        """Distributions over (B, C, H, W)."""
        return likelihood(self.likelihood, self.network(z_BL).float())


class VAE(nn.Module):
    """An encoder and a decoder that were trained together; the prior is N(0, I).

    Attributes:
        spec: Specification of the two networks.
        encoder: Maps images (B, C, H, W) to q(z|x).
        decoder: Maps latents (B, L) to p(x|z).
    """

    def __init__(self, spec: ModelSpec, encoder: GaussianEncoder, decoder: ImageDecoder) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.decoder = decoder


def build_vae(spec: ModelSpec, seed: int) -> VAE:
    """A model with fresh weights.

    Args:
        spec: Specification of the model.
        seed: Seed of the weights; the global generators stay as they are.
    """
    with md.seeded(seed):
        build = _mlp if spec.network == "mlp" else _resnet
        encoder, decoder = build(spec)
    return VAE(spec, GaussianEncoder(encoder), ImageDecoder(decoder, spec.likelihood))


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which networks and losses are computed with matrix products of a precision."""
    # A cache would keep weights cast without gradients for a pass that needs their gradients.
    enabled = precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def _mlp(spec: ModelSpec) -> tuple[nn.Sequential, nn.Sequential]:
    """Hidden layers of ReLU units (equations 2.14 and 2.15)."""
    channels, height, width = spec.shape
    hidden = [spec.hidden_units] * spec.hidden_layers
    outputs = PARAMETERS[spec.likelihood] * spec.dimensions
    encoder = nn.Sequential(
        ScaleImage(spec.levels),
        nn.Flatten(),
        *_linear_layers([spec.dimensions, *hidden, 2 * spec.latent_size]),
    )
    decoder = nn.Sequential(
        *_linear_layers([spec.latent_size, *hidden, outputs]),
        nn.Unflatten(1, (PARAMETERS[spec.likelihood] * channels, height, width)),
    )
    return encoder, decoder


def _linear_layers(sizes: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return layers[:-1]


def _resnet(spec: ModelSpec) -> tuple[nn.Sequential, nn.Sequential]:
    """Fully convolutional; the latent is a map at a quarter of the image's height and width."""
    channels, height, width = spec.shape
    wide, rows, columns = spec.channels, height // 4, width // 4
    latent_channels = spec.latent_size // (rows * columns)
    encoder = nn.Sequential(
        ScaleImage(spec.levels),
        nn.Conv2d(channels, wide, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(wide, wide, 4, stride=2, padding=1),
        *(ResidualBlock(wide) for _ in range(spec.residual_blocks)),
        nn.ReLU(),
        nn.Conv2d(wide, 2 * latent_channels, 3, padding=1),
    )
    decoder = nn.Sequential(
        nn.Unflatten(1, (latent_channels, rows, columns)),
        nn.Conv2d(latent_channels, wide, 3, padding=1),
        *(ResidualBlock(wide) for _ in range(spec.residual_blocks)),
        nn.ReLU(),
        nn.Conv2d(wide, 4 * wide, 3, padding=1),
        nn.PixelShuffle(2),
        nn.ReLU(),
        nn.Conv2d(wide, 4 * PARAMETERS[spec.likelihood] * channels, 3, padding=1),
        nn.PixelShuffle(2),
    )
    return encoder, decoder
