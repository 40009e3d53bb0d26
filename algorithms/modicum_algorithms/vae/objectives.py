"""What an inference network can be trained on, as pure functions (chapter 4).

An encoder maps a batch x to a distribution q(z|x), a decoder maps z to a distribution p(x|z); both
may be anything callable whose distributions come from `torch.distributions`. `negative_elbo` is in
nats for each of the B images, the objectives are means over a batch. Expectations over q take one
reparameterised sample, those over the model one sampled image. Gradients flow to whichever
parameters ask for them; sampled images carry none.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

Network = Callable[[Tensor], Distribution]


def image_log_prob(distribution: Distribution, value: Tensor) -> Tensor:
    """Log probability with everything behind the batch dimension summed, nats, (B,)."""
    return _sum_rest(distribution.log_prob(value))


def standard_normal(posterior: Distribution, device: torch.device) -> Distribution:
    """N(0, I) of a posterior's shapes: the prior where none is given."""
    return _unit_normal(posterior.batch_shape, posterior.event_shape, device)


def latent_prior(encoder: Network, x: Tensor) -> Distribution:
    """N(0, I) over the latents of one image, by a look at what an encoder makes of one.

    Args:
        encoder: q(z|x); a module is asked in evaluation mode.
        x: (B, ...) images, of which the first is used.
    """
    training = isinstance(encoder, nn.Module) and encoder.training
    if isinstance(encoder, nn.Module):
        encoder.eval()
    with torch.no_grad():
        posterior = encoder(x[:1])
    if isinstance(encoder, nn.Module):
        encoder.train(training)
    return _unit_normal(posterior.batch_shape[1:], posterior.event_shape, x.device)


def negative_elbo(
    encoder: Network, decoder: Network, x: Tensor, prior: Distribution | None = None
) -> Tensor:
    """-E_q(z|x) [log p(x|z)] + KL(q(z|x) || p(z)), nats, (B,) (equations 4.1 and 4.29).

    The divergence is exact where torch knows it, else estimated with the same z.

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        x: (B, ...) images.
        prior: p(z) of one image, or of a batch; N(0, I) if None.
    """
    return _negative_elbo(encoder(x), decoder, x, prior)


def wake(
    encoder: Network, decoder: Network, x: Tensor, prior: Distribution | None = None
) -> Tensor:
    """The negative ELBO on data, mean over images in nats, a scalar (equations 4.6 and 4.8).

    On test data, with the decoder held fixed, it is optimal inference (equation 4.16).

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        x: (B, ...) images.
        prior: As in `negative_elbo`.
    """
    return negative_elbo(encoder, decoder, x, prior).mean()


def sleep(encoder: Network, decoder: Network, z: Tensor) -> Tensor:
    """-log q(z|x) at x ~ p(x|z), mean in nats, a scalar (equation 4.21, of 4.20).

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        z: (B, ...) draws from the prior.
    """
    return -image_log_prob(encoder(sampled_images(decoder, z)), z).mean()


def reverse_sleep(
    encoder: Network, decoder: Network, z: Tensor, prior: Distribution | None = None
) -> Tensor:
    """The negative ELBO on images x ~ p(x|z) of the model (equation 4.23).

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        z: Latents to sample images from, of p(z) or of the aggregate posterior q(z).
        prior: p(z); N(0, I) if None.
    """
    return wake(encoder, decoder, sampled_images(decoder, z), prior)


def reverse_half_sleep(
    encoder: Network,
    decoder: Network,
    x: Tensor,
    z: Tensor,
    alpha: float = 0.5,
    prior: Distribution | None = None,
) -> Tensor:
    """α times reverse sleep plus 1 - α times wake (equation 4.25; 4.26 swaps the two).

    Both batches pass the networks together.

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        x: Data.
        z: Latents to sample the model's images from.
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


def denoising(
    encoder: Network,
    decoder: Network,
    x: Tensor,
    noise: Tensor,
    alpha: float = 0.5,
    prior: Distribution | None = None,
) -> Tensor:
    """α KL(q(z|x + ε) || p(z|x)) + (1 - α) KL(q(z|x) || p(z|x)), up to log p(x) (equation 4.28).

    Args:
        encoder: q(z|x).
        decoder: p(x|z).
        x: Data.
        noise: ε of the data's shape and units.
        alpha: Weight of the noisy term; 0 is `wake`.
        prior: p(z); N(0, I) if None.
    """
    if alpha == 0:
        return wake(encoder, decoder, x, prior)
    noisy = x + noise
    if alpha == 1:
        return _negative_elbo(encoder(noisy), decoder, x, prior).mean()
    seen, target = torch.cat([noisy, x]), torch.cat([x, x])
    from_noisy, from_clean = _negative_elbo(encoder(seen), decoder, target, prior).chunk(2)
    return alpha * from_noisy.mean() + (1 - alpha) * from_clean.mean()


def sampled_images(decoder: Network, z: Tensor) -> Tensor:
    """Images x ~ p(x|z), without gradients."""
    with torch.no_grad():
        return decoder(z).sample()


def _negative_elbo(
    posterior: Distribution, decoder: Network, x: Tensor, prior: Distribution | None
) -> Tensor:
    return negative_elbo_at(posterior.rsample(), posterior, decoder, x, prior)


def negative_elbo_at(
    z: Tensor,
    posterior: Distribution,
    decoder: Network,
    x: Tensor,
    prior: Distribution | None = None,
) -> Tensor:
    """The negative ELBO with the z ~ q(z|x) given, nats, (B,).

    Args:
        z: One latent of each posterior.
        posterior: q(z|x) of the batch.
        decoder: p(x|z).
        x: (B, ...) images.
        prior: p(z) of one image, or of a batch; N(0, I) if None.
    """
    prior = prior_of(posterior, prior, z.device)
    try:
        divergence = _sum_rest(kl_divergence(posterior, prior))
    except NotImplementedError:
        divergence = image_log_prob(posterior, z) - image_log_prob(prior, z)
    return divergence - image_log_prob(decoder(z), x)


def prior_of(
    posterior: Distribution, prior: Distribution | None, device: torch.device
) -> Distribution:
    """The prior of a batch of posteriors: the one given, once for each, or N(0, I)."""
    if prior is None:
        return standard_normal(posterior, device)
    same = prior.batch_shape == posterior.batch_shape
    return prior if same else prior.expand(posterior.batch_shape)


def _unit_normal(
    batch_shape: torch.Size, event_shape: torch.Size, device: torch.device
) -> Distribution:
    """N(0, I); torch has no divergence of a bare normal distribution from a wrapped one."""
    normal = Normal(torch.zeros((), device=device), 1.0, validate_args=False)
    normal = normal.expand(batch_shape + event_shape)
    events = len(event_shape)
    return Independent(normal, events, validate_args=False) if events else normal


def _sum_rest(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1) if values.dim() > 1 else values
