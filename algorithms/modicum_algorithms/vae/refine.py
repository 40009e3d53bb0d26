"""`refine_encoder`: improve the encoder of a VAE that is trained already (section 4.4.3)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import modicum as md
from modicum_algorithms.vae.config import MethodName, RefinementConfig
from modicum_algorithms.vae.methods.elbo import image_log_prob
from modicum_algorithms.vae.methods.inference_method import InferenceMethod
from modicum_algorithms.vae.networks import autocast
from modicum_algorithms.vae.training import TrainingSettings, refine_epochs


def refine_encoder(
    encoder: nn.Module,
    decoder: nn.Module,
    data: Tensor | np.ndarray,
    method: MethodName = "reverse_half_sleep",
    *,
    seed: int = 0,
    on_epoch: Callable[[int, nn.Module, float], None] | None = None,
    **settings: Any,
) -> nn.Module:
    """A copy of an encoder, trained further against a decoder that stays as it is.

    The decoder may be any, as long as p(z) is N(0, I). Reverse half-sleep trains on the data and on
    images sampled from the model (equation 4.25), so that q(z|x) comes near p(z|x) on unseen
    images; it uses nothing but training data. Trained on test data with `wake`, the copy is the
    optimal encoder of that data (equation 4.16).

    Args:
        encoder: Maps (B, ...) images to a `torch.distributions` distribution over latents, with
            `rsample`. All parameters of its copy are trained.
        decoder: Maps latents to a distribution over images, with `sample` and `log_prob`.
        data: (N, ...) training images, of any numeric type, in the units that the encoder expects
            as floats.
        method: The objective: `reverse_half_sleep`, `reverse_sleep`, `sleep`, `denoising`, `wake`.
        seed: Seed of order and samples; the global generators stay as they are.
        on_epoch: Called after each epoch with its number from 1, the copy in evaluation mode, and
            the mean loss of the epoch.
        **settings: Fields of `RefinementConfig`: `alpha`, `samples_from`, `noise`, `epochs`,
            `batch_size`, `learning_rate`, `schedule`, `precision`.

    Returns:
        The trained copy, in evaluation mode.

    Raises:
        InputError: A setting is unknown or outside its range, there is no data, or the modules do
            not return distributions that fit the data.
    """
    md.require_choice("method", method, MethodName)
    config = md.validated(RefinementConfig, {**settings, "inference": method})
    if seed < 0:
        raise md.InputError(f"seed: must be 0 or more, got {seed}")
    images = _as_tensor(data)
    # Copies from here on: `eval` and `train` would lose the modes of the modules inside.
    refined = copy.deepcopy(encoder).requires_grad_(True)
    fixed = copy.deepcopy(decoder).eval().requires_grad_(False)
    with autocast(config.precision, images.device):
        _check_modules(refined.eval(), fixed, images[:2].float())
    refined.train()
    training = TrainingSettings.of(config, config.schedule)
    losses = refine_epochs(refined, fixed, images, InferenceMethod.of(config), training, seed=seed)
    for epoch, loss in enumerate(losses, 1):
        if on_epoch is not None:
            on_epoch(epoch, refined.eval(), loss)
            refined.train()
    return refined.eval()


def _as_tensor(data: Tensor | np.ndarray) -> Tensor:
    if not isinstance(data, Tensor):
        # Writeable, because tensors cannot be read-only.
        data = torch.from_numpy(np.require(data, requirements=["C", "W"]))
    if data.dim() < 2 or len(data) == 0:
        raise md.InputError(
            f"data: must hold at least one image, as (N, ...), got shape {tuple(data.shape)}"
        )
    return data


def _check_modules(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> None:
    """Pass images through both modules, so that a misfit is named before training starts."""
    if next(encoder.parameters(), None) is None:
        raise md.InputError("encoder: must have parameters to train")
    shape = tuple(x.shape[1:])
    with torch.no_grad(), md.seeded(0):
        with _misfit(
            f"encoder: must map a batch of images of shape {shape} to a torch distribution with "
            "rsample"
        ):
            posterior = encoder(x)
            z = posterior.rsample()
            densities = image_log_prob(posterior, z)
        _check_one_each("encoder", densities, len(x))
        with _misfit(
            "decoder: must map the encoder's latents to a torch distribution with sample, and with "
            "a log_prob of the data"
        ):
            likelihood = decoder(z)
            sampled = likelihood.sample()
            probabilities = image_log_prob(likelihood, x)
        if sampled.shape != x.shape:
            raise md.InputError(
                f"decoder: its images must have the data's shape {shape}, a batch of {len(x)} has "
                f"the shape {tuple(sampled.shape)}"
            )
        _check_one_each("decoder", probabilities, len(x))


def _check_one_each(module: str, log_probabilities: Tensor, count: int) -> None:
    if log_probabilities.shape != (count,):
        raise md.InputError(
            f"{module}: its distribution must give one log probability for each image of a "
            f"batch, for {count} it gives the shape {tuple(log_probabilities.shape)}"
        )


@contextmanager
def _misfit(message: str) -> Iterator[None]:
    """Turn an exception in the block into an InputError."""
    try:
        yield
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise md.InputError(f"{message} ({md.reason_of(error)})") from error
