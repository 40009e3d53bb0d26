"""Sleep (equations 4.20 and 4.21): maximum likelihood of the latents of the model's images."""

from __future__ import annotations

from torch import Tensor

from modicum_algorithms.vae.methods.elbo import Network, image_log_prob, sampled_images


def sleep(encoder: Network, decoder: Network, z: Tensor) -> Tensor:
    """-log q(z|x) at x ~ p(x|z), mean in nats, a scalar (equation 4.21, an estimate of 4.20).

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        z: (B, ...) draws from the prior.
    """
    return -image_log_prob(encoder(sampled_images(decoder, z)), z).mean()
