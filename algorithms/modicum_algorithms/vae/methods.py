"""Ways to train an inference network, by name and settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

import modicum as md
from modicum_algorithms.vae import objectives
from modicum_algorithms.vae.names import MethodName, SampleSource
from modicum_algorithms.vae.objectives import Network


@dataclass(frozen=True)
class InferenceMethod:
    """An objective with its settings.

    Attributes:
        name: Which objective.
        alpha: Weight of the model's images (reverse half-sleep) or of the noisy ones (denoising).
        samples_from: Where the latents of the model's images come from: the prior, or
            q(z) = E q(z|x) over the data at hand (section 4.5.1).
        noise: Standard deviation of denoising's noise, in the images' units.

    Raises:
        InputError: A setting is outside its range.
    """

    name: MethodName = "reverse_half_sleep"
    alpha: float = 0.5
    samples_from: SampleSource = "prior"
    noise: float = 0.1

    def __post_init__(self) -> None:
        md.require_choice("method", self.name, MethodName)
        md.require_choice("samples_from", self.samples_from, SampleSource)
        if not 0 <= self.alpha <= 1:
            raise md.InputError(f"alpha: must lie between 0 and 1, got {self.alpha}")
        if not self.noise >= 0:
            raise md.InputError(f"noise: must be 0 or more, got {self.noise}")

    def loss(self, encoder: Network, decoder: Network, x: Tensor, prior: Distribution) -> Tensor:
        """The objective on a batch of data, nats an image; random numbers are torch's own.

        Args:
            encoder: q(z|x).
            decoder: p(x|z).
            x: (B, ...) data.
            prior: p(z) of one image.
        """
        match self.name:
            case "wake":
                return objectives.wake(encoder, decoder, x, prior)
            case "denoising":
                noise = torch.randn_like(x) * self.noise if self.alpha > 0 else x
                return objectives.denoising(encoder, decoder, x, noise, self.alpha, prior)
            case "sleep":
                return objectives.sleep(encoder, decoder, self._latents(encoder, x, prior))
            case "reverse_sleep":
                z = self._latents(encoder, x, prior)
                return objectives.reverse_sleep(encoder, decoder, z, prior)
            case "reverse_half_sleep":
                z = self._latents(encoder, x, prior) if self.alpha > 0 else x
                return objectives.reverse_half_sleep(encoder, decoder, x, z, self.alpha, prior)

    def _latents(self, encoder: Network, x: Tensor, prior: Distribution) -> Tensor:
        """As many latents as there are images in the batch."""
        with torch.no_grad():
            # Of the batch's own images: each is a draw from q(z) all the same.
            if self.samples_from == "aggregate_posterior":
                return encoder(x).sample()
            return prior.sample(x.shape[:1])
