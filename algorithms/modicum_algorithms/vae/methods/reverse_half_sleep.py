"""Reverse half-sleep (equation 4.25): the negative ELBO on data and on the model's images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from modicum_algorithms.vae.methods.elbo import Network, negative_elbo, sampled_images, wake
from modicum_algorithms.vae.methods.reverse_sleep import reverse_sleep


def reverse_half_sleep(
    encoder: Network,
    decoder: Network,
    x: Tensor,
    z: Tensor,
    alpha: float,
    prior: Distribution | None = None,
) -> Tensor:
    """α × reverse sleep + (1 - α) × wake, a scalar in nats (equation 4.25; 4.26 swaps the two).

    Both batches pass through the networks together.

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        x: (B, ...) data.
        z: (B', ...) latents to sample the model's images from.
        alpha: Weight of the model's images; 0 is `wake`, 1 is `reverse_sleep`.
        prior: p(z); N(0, I) if None.
    """
    if alpha == 0:
        return wake(encoder, decoder, x, prior)
    if alpha == 1:
        return reverse_sleep(encoder, decoder, z, prior)
    both = torch.cat([x, sampled_images(decoder, z)])
    data, model = negative_elbo(encoder, decoder, both, prior).split([len(x), len(z)])
    return alpha * model.mean() + (1 - alpha) * data.mean()
