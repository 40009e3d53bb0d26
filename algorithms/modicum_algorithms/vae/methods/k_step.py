"""K-step inference: a posterior fitted to its own image (section 4.3, appendix B.1).

Shapes: B batch, C channels, H height, W width, L latent dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.nn.functional import softplus

from modicum_algorithms.vae.methods.elbo import negative_elbo_at
from modicum_algorithms.vae.networks import ImageDecoder


def k_step_posterior(
    decoder: ImageDecoder,
    start: Independent[Normal],
    x_BCHW: Tensor,
    steps: int,
    learning_rate: float,
    seed: int,
) -> Independent[Normal]:
    """K steps of Adam on each image's own (μ, σ), up its ELBO (equation B.2, algorithm 4).

    The steps move μ and ρ, where σ = softplus(ρ), from posteriors over (B, L). Each step estimates
    the ELBO with one reparameterised sample and the closed form of the Kullback-Leibler divergence
    to N(0, I). The loss is a sum over the batch, so that images do not affect each other. The
    decoder stays as it is. Images are in the likelihood's own units.
    """
    if steps == 0:
        return start
    std_BL = start.base_dist.scale.detach()
    mean_BL = start.base_dist.loc.detach().clone().requires_grad_()
    raw_BL = (std_BL + torch.log(-torch.expm1(-std_BL))).requires_grad_()
    optimizer = torch.optim.Adam([mean_BL, raw_BL], lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        noise_BL = torch.randn(mean_BL.shape, generator=generator, dtype=mean_BL.dtype)
        with torch.enable_grad():
            posterior = _posterior(mean_BL, raw_BL)
            z_BL = mean_BL + posterior.base_dist.scale * noise_BL
            loss = negative_elbo_at(z_BL, posterior, decoder, x_BCHW).sum()
            # `backward` would also compute gradients of the decoder's weights.
            mean_BL.grad, raw_BL.grad = torch.autograd.grad(loss, [mean_BL, raw_BL])
        optimizer.step()
    return _posterior(mean_BL.detach(), raw_BL.detach())


def _posterior(mean_BL: Tensor, raw_BL: Tensor) -> Independent[Normal]:
    std_BL = softplus(raw_BL).clamp_min(1e-20)
    return Independent(Normal(mean_BL, std_BL, validate_args=False), 1, validate_args=False)
