"""The choice among the objectives of an inference network, by name and settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from modicum_algorithms.vae.config import MethodConfig, MethodName, SampleSource
from modicum_algorithms.vae.methods.denoising import denoising
from modicum_algorithms.vae.methods.elbo import Network, wake
from modicum_algorithms.vae.methods.reverse_half_sleep import reverse_half_sleep
from modicum_algorithms.vae.methods.reverse_sleep import reverse_sleep
from modicum_algorithms.vae.methods.sleep import sleep


@dataclass(frozen=True)
class InferenceMethod:
    """An objective with its settings (`MethodConfig`); `noise` is in the images' units."""

    name: MethodName
    alpha: float
    samples_from: SampleSource
    noise: float

    @classmethod
    def of(cls, config: MethodConfig, noise_unit: float = 1.0) -> InferenceMethod:
        """The objective that settings name; `noise_unit` is the unit of their `noise`."""
        assert config.inference != "vae", "the encoder of a plain VAE is not trained further"
        return cls(config.inference, config.alpha, config.samples_from, config.noise * noise_unit)

    def loss(self, encoder: Network, decoder: Network, x: Tensor, prior: Distribution) -> Tensor:
        """The objective on data (B, ...), nats per image, with torch's global generator."""
        match self.name:
            case "wake":
                return wake(encoder, decoder, x, prior)
            case "denoising":
                noise = torch.randn_like(x) * self.noise if self.alpha > 0 else x
                return denoising(encoder, decoder, x, noise, self.alpha, prior)
            case "sleep":
                return sleep(encoder, decoder, self._latents(encoder, x, prior))
            case "reverse_sleep":
                return reverse_sleep(encoder, decoder, self._latents(encoder, x, prior), prior)
            case "reverse_half_sleep":
                z = self._latents(encoder, x, prior) if self.alpha > 0 else x
                return reverse_half_sleep(encoder, decoder, x, z, self.alpha, prior)

    def _latents(self, encoder: Network, x: Tensor, prior: Distribution) -> Tensor:
        """Latents to sample the model's images from, one for each image of the batch."""
        with torch.no_grad():
            # A posterior sample of an image of the batch is a draw from q(z) (section 4.5.1).
            if self.samples_from == "aggregate_posterior":
                return encoder(x).sample()
            return prior.sample(x.shape[:1])
