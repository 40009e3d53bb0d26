"""`refine_encoder`: improve the encoder of a VAE that is trained already (section 4.4.3)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import modicum as md
from modicum_algorithms.vae.methods import InferenceMethod
from modicum_algorithms.vae.names import (
    MethodName,
    Precision,
    SampleSource,
    Schedule,
)
from modicum_algorithms.vae.objectives import image_log_prob
from modicum_algorithms.vae.seeding import seeded
from modicum_algorithms.vae.training import TrainingSettings, refine_epochs

if TYPE_CHECKING:
    import numpy as np


def refine_encoder(
    encoder: nn.Module,
    decoder: nn.Module,
    data: Tensor | np.ndarray,
    method: MethodName = "reverse_half_sleep",
    *,
    alpha: float = 0.5,
    samples_from: SampleSource = "prior",
    noise: float = 0.1,
    epochs: int = 100,
    batch_size: int = 100,
    learning_rate: float = 3e-4,
    schedule: Schedule = "linear",
    precision: Precision = "float32",
    seed: int = 0,
    on_epoch: Callable[[int, nn.Module, float], None] | None = None,
) -> nn.Module:
    """A copy of an encoder, trained further against a decoder that stays as it is.

    The decoder may be anybody's, as long as p(z) is N(0, I). Reverse half-sleep trains on the data
    and on the model's own images (equation 4.25), so that q(z|x) is near p(z|x) on images that it
    has not seen; nothing but training data is used. Trained on test data with `wake`, the copy is
    the optimal encoder of that data (equation 4.16).

    Args:
        encoder: Maps (B, ...) images to a `torch.distributions` distribution over latents, with
            `rsample`. All parameters of its copy are trained.
        decoder: Maps latents to a distribution over images, with `sample` and `log_prob`.
        data: (N, ...) training images, of any numeric type, in the units that the encoder expects
            as floats.
        method: The objective: `reverse_half_sleep`, `reverse_sleep`, `sleep`, `denoising`, `wake`.
        alpha: Weight of the model's images (`reverse_half_sleep`) or of the noisy images
            (`denoising`).
        samples_from: Where the latents of the model's images come from: the `prior`, or the
            `aggregate_posterior`, for a model whose images from the prior are poor.
        noise: Standard deviation of denoising's noise, in the images' units.
        epochs: Passes over the data.
        batch_size: Images in a step, and as many of the model's.
        learning_rate: Adam's.
        schedule: Whether the learning rate falls to zero epoch by epoch, or stays `constant`.
        precision: `bfloat16` for matrix products in half precision.
        seed: Of order and samples; torch's own random state is left alone.
        on_epoch: Called after every epoch with its number from 1, the copy in evaluation mode and
            its mean loss.

    Returns:
        The trained copy, in evaluation mode.

    Raises:
        InputError: A setting is outside its range, there is no data, or the modules do not return
            distributions that fit the data.
    """
    chosen = InferenceMethod(method, alpha=alpha, samples_from=samples_from, noise=noise)
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise md.InputError(f"{name}: must be 1 or more, got {value}")
    if not learning_rate > 0:
        raise md.InputError(f"learning_rate: must be above 0, got {learning_rate}")
    md.require_choice("precision", precision, Precision)
    md.require_choice("schedule", schedule, Schedule)
    if seed < 0:
        raise md.InputError(f"seed: must be 0 or more, got {seed}")
    images = _as_tensor(data)
    if images.dim() < 2 or len(images) == 0:
        raise md.InputError(
            f"data: must hold at least one image, as (N, ...), got shape {tuple(images.shape)}"
        )
    # Copies from here on: `eval` and `train` would lose the modes of the modules inside.
    refined = copy.deepcopy(encoder).requires_grad_(True)
    fixed = copy.deepcopy(decoder).eval().requires_grad_(False)
    settings = TrainingSettings(epochs, batch_size, learning_rate, precision, schedule)
    with settings.autocast(images.device):
        _check_modules(refined.eval(), fixed, images[:2].float())
    refined.train()
    losses = refine_epochs(refined, fixed, images, chosen, settings, seed=seed)
    for epoch, loss in enumerate(losses, 1):
        if on_epoch is not None:
            on_epoch(epoch, refined.eval(), loss)
            refined.train()
    return refined.eval()


def _as_tensor(data: Tensor | np.ndarray) -> Tensor:
    if isinstance(data, Tensor):
        return data
    import numpy as np

    # Tensors cannot be read-only; arrays of the cache are.
    return torch.from_numpy(np.require(data, requirements=["C", "W"]))


def _check_modules(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> None:
    """Images through both, so that a misfit is named before training starts."""
    if next(encoder.parameters(), None) is None:
        raise md.InputError("encoder: must have parameters to train")
    shape, one_each = tuple(x.shape[1:]), x.shape[:1]
    with torch.no_grad(), seeded(0):
        with _misfit(
            f"encoder: must map a batch of images of shape {shape} to a torch distribution with "
            "rsample"
        ):
            posterior = encoder(x)
            z = posterior.rsample()
            densities = image_log_prob(posterior, z)
        if densities.shape != one_each:
            raise md.InputError(
                "encoder: its distribution must give one log probability for each image of a "
                f"batch, for {len(x)} it gives the shape {tuple(densities.shape)}"
            )
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
        if probabilities.shape != one_each:
            raise md.InputError(
                "decoder: its distribution must give one log probability for each image of a "
                f"batch, for {len(x)} it gives the shape {tuple(probabilities.shape)}"
            )


@contextmanager
def _misfit(message: str) -> Iterator[None]:
    """What goes wrong inside as an InputError."""
    try:
        yield
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise md.InputError(f"{message} ({reason})") from error
