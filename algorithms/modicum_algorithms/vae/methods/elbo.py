"""The negative ELBO, objective of the usual VAE (`wake`), and what all objectives share.

An encoder maps a batch x to a distribution q(z|x), a decoder maps z to a distribution p(x|z); both
may be any callables that return distributions of `torch.distributions`. `negative_elbo` is in nats
for each of the B images; objectives are means over a batch. An expectation over q(z|x) takes one
reparameterised sample. Gradients flow to all parameters that require them; images sampled from the
model carry none.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

Network = Callable[[Tensor], Distribution]


def wake(
    encoder: Network, decoder: Network, x: Tensor, prior: Distribution | None = None
) -> Tensor:
    """Negative ELBO on data, mean over images in nats, a scalar (equations 4.6 and 4.8).

    On test data, with the decoder held fixed, it is optimal inference (equation 4.16).

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        x: (B, ...) images.
        prior: p(z) of one image, or of a batch; N(0, I) if None.
    """
    return negative_elbo(encoder, decoder, x, prior).mean()


def negative_elbo(
    encoder: Network, decoder: Network, x: Tensor, prior: Distribution | None = None
) -> Tensor:
    """-E_q(z|x) [log p(x|z)] + KL(q(z|x) || p(z)), nats, (B,) (equations 4.1 and 4.29).

    The KL divergence is exact where torch has its closed form, and else estimated with the same z.

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        x: (B, ...) images.
        prior: p(z) of one image, or of a batch; N(0, I) if None.
    """
    posterior = encoder(x)
    return negative_elbo_at(posterior.rsample(), posterior, decoder, x, prior)


def negative_elbo_at(
    z: Tensor,
    posterior: Distribution,
    decoder: Network,
    x: Tensor,
    prior: Distribution | None = None,
) -> Tensor:
    """Negative ELBO estimated with a given z ~ q(z|x) of each image, nats, (B,)."""
    prior = prior_of(posterior, prior, z.device)
    try:
        divergence = _sum_rest(kl_divergence(posterior, prior))
    except NotImplementedError:
        divergence = image_log_prob(posterior, z) - image_log_prob(prior, z)
    return divergence - image_log_prob(decoder(z), x)


def image_log_prob(distribution: Distribution, value: Tensor) -> Tensor:
    """Log probability summed over all dimensions but the batch's, nats, (B,)."""
    return _sum_rest(distribution.log_prob(value))


def sampled_images(decoder: Network, z: Tensor) -> Tensor:
    """Images x ~ p(x|z), without gradients."""
    with torch.no_grad():
        return decoder(z).sample()


def latent_prior(encoder: Network, x: Tensor) -> Distribution:
    """N(0, I) over the latents of one image, in the shape of the posterior of the first of x.

    A module is evaluated in evaluation mode, and put back into its mode.
    """
    training = isinstance(encoder, nn.Module) and encoder.training
    if isinstance(encoder, nn.Module):
        encoder.eval()
    with torch.no_grad():
        posterior = encoder(x[:1])
    if isinstance(encoder, nn.Module):
        encoder.train(training)
    return _unit_normal(posterior.batch_shape[1:], posterior.event_shape, x.device)


def prior_of(
    posterior: Distribution, prior: Distribution | None, device: torch.device
) -> Distribution:
    """p(z) for a batch of posteriors: the given prior expanded to the batch, or N(0, I)."""
    if prior is None:
        return _unit_normal(posterior.batch_shape, posterior.event_shape, device)
    same = prior.batch_shape == posterior.batch_shape
    return prior if same else prior.expand(posterior.batch_shape)


def _unit_normal(
    batch_shape: torch.Size, event_shape: torch.Size, device: torch.device
) -> Distribution:
    """N(0, I), wrapped like the posterior: torch has no divergence between the two forms."""
    normal = Normal(torch.zeros((), device=device), 1.0, validate_args=False)
    normal = normal.expand(batch_shape + event_shape)
    events = len(event_shape)
    return Independent(normal, events, validate_args=False) if events else normal


def _sum_rest(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1) if values.dim() > 1 else values
