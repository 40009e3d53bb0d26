"""Training in epochs: a whole VAE, or an inference network alone.

Each epoch draws its order and its samples from a seed of its own, so that training resumed from a
saved state gives the numbers of uninterrupted training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

import modicum as md
from modicum_algorithms.vae.config import Precision, Schedule, TrainingConfig
from modicum_algorithms.vae.methods.elbo import Network, latent_prior
from modicum_algorithms.vae.methods.inference_method import InferenceMethod
from modicum_algorithms.vae.networks import autocast


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training by Adam, whose other settings are torch's defaults.

    The learning rate is that of the first epoch. Weights, losses and Adam are in float32, whatever
    the precision of matrix products.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    precision: Precision
    schedule: Schedule

    @classmethod
    def of(cls, config: TrainingConfig, schedule: Schedule) -> TrainingSettings:
        """The settings of a configuration, with a learning rate schedule."""
        return cls(
            config.epochs, config.batch_size, config.learning_rate, config.precision, schedule
        )

    def rate(self, epoch: int) -> float:
        """The learning rate in an epoch, counted from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 - epoch / self.epochs)


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> Adam:
    """The optimiser of all training in this family."""
    return Adam(list(parameters), lr=learning_rate, fused=True)


def train_epoch(
    images: Tensor,
    optimiser: Optimizer,
    fill_gradients: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    seed: int,
) -> float:
    """Train for one epoch, on images in random order.

    Args:
        images: (N, ...), of any numeric type; mini-batches become floats.
        optimiser: Optimiser of the parameters to train.
        fill_gradients: Sets the parameters' gradients from a mini-batch, and returns the loss.
        batch_size: Mini-batch size; the last mini-batch may be smaller.
        seed: Seed of the order and of everything sampled.

    Returns:
        Mean loss over the images.
    """
    total = torch.zeros((), device=images.device)
    with md.seeded(seed):
        order = torch.randperm(len(images))
        for batch in order.split(batch_size):
            optimiser.zero_grad()
            loss = fill_gradients(images[batch].float())
            optimiser.step()
            total += loss.detach() * len(batch)
    return float(total) / len(images)


def refine_epochs(
    encoder: nn.Module,
    decoder: Network,
    images: Tensor,
    method: InferenceMethod,
    settings: TrainingSettings,
    *,
    seed: int,
) -> Iterator[float]:
    """Train an encoder in place against a fixed decoder; yields the mean loss after each epoch.

    Images (N, ...) are of any numeric type. Gradients of the decoder's parameters would be computed
    in vain, so they should not require any.
    """
    prior = latent_prior(encoder, images[:1].float())
    optimiser = adam(encoder.parameters(), settings.learning_rate)

    def fill(x: Tensor) -> Tensor:
        with autocast(settings.precision, x.device):
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
