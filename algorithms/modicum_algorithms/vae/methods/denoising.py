"""The denoising regulariser (equation 4.28): posteriors of noisy images for clean images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from modicum_algorithms.vae.methods.elbo import Network, negative_elbo_at, wake


def denoising(
    encoder: Network,
    decoder: Network,
    x: Tensor,
    noise: Tensor,
    alpha: float,
    prior: Distribution | None = None,
) -> Tensor:
    """α KL(q(z|x + ε) || p(z|x)) + (1 - α) KL(q(z|x) || p(z|x)), up to log p(x) (equation 4.28).

    A mean over images in nats, a scalar.

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        x: (B, ...) data.
        noise: ε, in the shape and units of the data.
        alpha: Weight of the noisy term; 0 is `wake`.
        prior: p(z); N(0, I) if None.
    """
    if alpha == 0:
        return wake(encoder, decoder, x, prior)
    noisy = x + noise
    if alpha == 1:
        return _elbo_of_seen(encoder, decoder, noisy, x, prior).mean()
    seen, target = torch.cat([noisy, x]), torch.cat([x, x])
    from_noisy, from_clean = _elbo_of_seen(encoder, decoder, seen, target, prior).chunk(2)
    return alpha * from_noisy.mean() + (1 - alpha) * from_clean.mean()


def _elbo_of_seen(
    encoder: Network, decoder: Network, seen: Tensor, x: Tensor, prior: Distribution | None
) -> Tensor:
    """Negative ELBO of images x under the posteriors of the images that the encoder sees, (B,)."""
    posterior = encoder(seen)
    return negative_elbo_at(posterior.rsample(), posterior, decoder, x, prior)
