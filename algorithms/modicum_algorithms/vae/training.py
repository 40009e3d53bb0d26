"""Training in epochs: a whole VAE, or an inference network alone.

Every epoch draws its order and its samples from a seed of its own, so training that goes on from a
saved state gives the numbers of training that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

import modicum as md
from modicum_algorithms.vae.methods import InferenceMethod
from modicum_algorithms.vae.names import Precision, Schedule
from modicum_algorithms.vae.networks import VAE
from modicum_algorithms.vae.objectives import Network, latent_prior, wake
from modicum_algorithms.vae.seeding import seeded


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast; Adam's other settings are torch's.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images in a step.
        learning_rate: Adam's.
        precision: Of the networks' matrix products; weights, losses and Adam stay in float32.
        schedule: Whether the learning rate stays, or falls epoch by epoch towards zero.
    """

    epochs: int
    batch_size: int = 100
    learning_rate: float = 3e-4
    precision: Precision = "float32"
    schedule: Schedule = "constant"

    def rate(self, epoch: int) -> float:
        """The learning rate in an epoch, counted from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 - epoch / self.epochs)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Context in which losses are computed."""
        # Its cache would hand weights that were cast without gradients to a pass that needs them.
        enabled = self.precision == "bfloat16"
        return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> Adam:
    """The optimiser of everything here."""
    return Adam(list(parameters), lr=learning_rate, fused=True)


def train_epoch(
    images: Tensor,
    optimiser: Optimizer,
    fill_gradients: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    seed: int,
) -> float:
    """One pass over images in random order.

    Args:
        images: (N, ...), of any numeric type; batches become floats.
        optimiser: Of the parameters to train.
        fill_gradients: Sets their gradients from a batch and returns the loss.
        batch_size: Images in a step; the last may have fewer.
        seed: Of the order and of everything sampled.

    Returns:
        Mean loss over the images.
    """
    total = torch.zeros((), device=images.device)
    with seeded(seed):
        order = torch.randperm(len(images))
        for batch in order.split(batch_size):
            optimiser.zero_grad()
            loss = fill_gradients(images[batch].float())
            optimiser.step()
            total += loss.detach() * len(batch)
    return float(total) / len(images)


def vae_gradients(
    model: VAE, settings: TrainingSettings, inference: InferenceMethod | None = None
) -> Callable[[Tensor], Tensor]:
    """Gradients of joint training, for `train_epoch`.

    Args:
        model: Whose gradients are set.
        settings: Of which the precision is used.
        inference: Objective of the encoder; the decoder always minimises the negative ELBO. None
            for the negative ELBO for both, the usual VAE.
    """
    theta, phi = list(model.decoder.parameters()), list(model.encoder.parameters())
    device = phi[0].device
    prior = latent_prior(model.encoder, torch.zeros(1, *model.spec.shape, device=device))

    def fill(x: Tensor) -> Tensor:
        with settings.autocast(device):
            loss = wake(model.encoder, model.decoder, x, prior)
        if inference is None:
            loss.backward()
            return loss
        _set_gradients(theta, torch.autograd.grad(loss, theta))
        with settings.autocast(device):
            objective = inference.loss(model.encoder, model.decoder, x, prior)
        _set_gradients(phi, torch.autograd.grad(objective, phi))
        return loss

    return fill


def refine_epochs(
    encoder: nn.Module,
    decoder: Network,
    images: Tensor,
    method: InferenceMethod,
    settings: TrainingSettings,
    *,
    seed: int,
) -> Iterator[float]:
    """Train an encoder in place against a fixed decoder; yields the mean loss after every epoch.

    The decoder's parameters must not ask for gradients, or they are computed in vain.
    """
    prior = latent_prior(encoder, images[:1].float())
    optimiser = adam(encoder.parameters(), settings.learning_rate)

    def fill(x: Tensor) -> Tensor:
        with settings.autocast(x.device):
            loss = method.loss(encoder, decoder, x, prior)
        loss.backward()
        return loss

    for epoch in range(settings.epochs):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate(epoch)
        yield train_epoch(
            images,
            optimiser,
            fill,
            batch_size=settings.batch_size,
            seed=md.derive_seed(seed, f"epoch {epoch}"),
        )


def _set_gradients(parameters: list[nn.Parameter], gradients: tuple[Tensor, ...]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
