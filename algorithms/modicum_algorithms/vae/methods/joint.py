"""Joint training: the decoder on the negative ELBO, the encoder on it or on its own objective."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from modicum_algorithms.vae.config import Precision
from modicum_algorithms.vae.methods.elbo import latent_prior, wake
from modicum_algorithms.vae.methods.inference_method import InferenceMethod
from modicum_algorithms.vae.networks import VAE, autocast


def vae_gradients(
    model: VAE, precision: Precision, method: InferenceMethod | None = None
) -> Callable[[Tensor], Tensor]:
    """Gradients of joint training (equations 4.6 and 4.19), for `train_epoch`.

    Returns a function that sets them from (B, C, H, W) floats and returns the negative ELBO, a
    scalar. The decoder always minimises the negative ELBO; so does the encoder, unless a method
    gives its objective (section 4.5.3).
    """
    theta, phi = list(model.decoder.parameters()), list(model.encoder.parameters())
    device = phi[0].device
    prior = latent_prior(model.encoder, torch.zeros(1, *model.spec.shape, device=device))

    def fill(x: Tensor) -> Tensor:
        with autocast(precision, device):
            loss = wake(model.encoder, model.decoder, x, prior)
        if method is None:
            loss.backward()
            return loss
        _set_gradients(theta, torch.autograd.grad(loss, theta))
        with autocast(precision, device):
            objective = method.loss(model.encoder, model.decoder, x, prior)
        _set_gradients(phi, torch.autograd.grad(objective, phi))
        return loss

    return fill


def _set_gradients(parameters: list[nn.Parameter], gradients: tuple[Tensor, ...]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
