"""Bits per dimension, importance-weighted bounds, and what a model's images look like.

All are Monte Carlo estimates under a seed of their own, so methods compared see the same noise.
Shapes: N images, B batch, C channels, H height, W width, L latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from modicum_algorithms.vae.networks import VAE
from modicum_algorithms.vae.objectives import (
    Network,
    image_log_prob,
    negative_elbo,
    prior_of,
    sampled_images,
)
from modicum_algorithms.vae.seeding import seeded

EVALUATION_BATCH = 500


def iwae_bound(
    encoder: Network, decoder: Network, x: Tensor, samples: int, prior: Distribution | None = None
) -> Tensor:
    """The bound log 1/K Σ_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), nats, (B,) (equation 4.33).

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        x: (B, ...) images.
        samples: K; with 1 its mean is the ELBO.
        prior: p(z) of one image; N(0, I) if None.
    """
    posterior = encoder(x)
    prior = prior_of(posterior, prior, x.device)
    log_weights = []
    for _ in range(samples):
        z = posterior.rsample()
        log_joint = image_log_prob(decoder(z), x) + image_log_prob(prior, z)
        log_weights.append(log_joint - image_log_prob(posterior, z))
    return torch.stack(log_weights).logsumexp(0) - math.log(samples)


def bits_per_dimension(
    encoder: Network,
    decoder: Network,
    images: Tensor,
    *,
    seed: int,
    iwae_samples: int = 0,
    prior: Distribution | None = None,
) -> Tensor:
    """Negative ELBO, or negative IWAE bound, of every image in bits over its dimensions, (N,).

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        images: (N, ...), of any numeric type.
        seed: Of the sampled latents.
        iwae_samples: K of the IWAE bound; 0 for the ELBO.
        prior: p(z) of one image; N(0, I) if None.
    """

    def bound(x: Tensor) -> Tensor:
        if iwae_samples:
            return -iwae_bound(encoder, decoder, x, iwae_samples, prior)
        return negative_elbo(encoder, decoder, x, prior)

    with seeded(seed):
        nats_N = in_batches(bound, images)
    return nats_N / (math.log(2) * images[0].numel())


def mean_bits_per_dimension(
    encoder: Network, decoder: Network, images: Tensor, *, seed: int, iwae_samples: int = 0
) -> float:
    """The mean of `bits_per_dimension` over images, in double precision."""
    bits_N = bits_per_dimension(encoder, decoder, images, seed=seed, iwae_samples=iwae_samples)
    return float(bits_N.double().mean())


def model_images(model: VAE, count: int, seed: int) -> Tensor:
    """Images x ~ p(x|z), z ~ N(0, I): (N, C, H, W) uint8; fewer are the first of more.

    Args:
        model: Whose decoder is used.
        count: N.
        seed: Of the latents and the images.
    """
    batches = []
    device = next(model.parameters()).device
    with seeded(seed):
        for start in range(0, count, EVALUATION_BATCH):
            # Whole batches, for torch's random numbers depend on how many are drawn at once.
            z_BL = torch.randn(EVALUATION_BATCH, model.spec.latent_size, device=device)
            x_BCHW = sampled_images(model.decoder, z_BL).to(torch.uint8)
            batches.append(x_BCHW[: count - start])
    return torch.cat(batches)


def in_batches(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """A function of images, as floats, applied in batches and without gradients."""
    with torch.no_grad():
        batches = images.split(EVALUATION_BATCH)
        return torch.cat([function(batch.float()) for batch in batches])
