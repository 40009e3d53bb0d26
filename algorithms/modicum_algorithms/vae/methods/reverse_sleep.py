"""Reverse sleep (equation 4.23): the negative ELBO on the model's images."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from modicum_algorithms.vae.methods.elbo import Network, sampled_images, wake


def reverse_sleep(
    encoder: Network, decoder: Network, z: Tensor, prior: Distribution | None = None
) -> Tensor:
    """Negative ELBO on images x ~ p(x|z) of the model, mean in nats, a scalar (equation 4.23).

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        z: (B, ...) latents to sample images from, of p(z) or of the aggregate posterior q(z).
        prior: p(z); N(0, I) if None.
    """
    return wake(encoder, decoder, sampled_images(decoder, z), prior)
