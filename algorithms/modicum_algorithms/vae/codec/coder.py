"""Bits-back coding of images with a VAE (appendix B.1, algorithms 3 and 4).

Bits back: the encoder decodes latents from bits that earlier images have left on the stack, so that
the decoder gets these bits back when it encodes the latents again.

Shapes: N images of a chunk, B batch, C channels, H height, W width, L latent dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

import modicum as md
from modicum_algorithms.vae.codec.float_networks import PinnedNetworks
from modicum_algorithms.vae.codec.integer_networks import PortableNetworks
from modicum_algorithms.vae.codec.stack import Stack, Words
from modicum_algorithms.vae.codec.symbols import (
    Pixels,
    pop_pixels,
    pop_posterior,
    pop_prior,
    push_pixels,
    push_posterior,
    push_prior,
)
from modicum_algorithms.vae.codec.tables import MOST_BITS
from modicum_algorithms.vae.config import CoderMode, CoderSettings
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import VAE

# Version of everything that decides what words mean: tables, integer networks, order on the stack.
VERSION = 1
# Threads that a file may ask for: a forged file must not start millions.
_MOST_THREADS = 1024


@dataclass(frozen=True)
class FileSettings:
    """Settings on which encoder and decoder must agree, beside the model, as a file stores them.

    Attributes:
        mode: `portable` evaluates the networks in integers, `pinned` in floating point.
        inference_steps: K of algorithm 4; 0 is algorithm 3. More needs `pinned`.
        inference_learning_rate: Adam's learning rate in these steps.
        batch_size: Images that pass through the networks at once, at most.
        threads: PyTorch's threads in mode `pinned`; None in `portable`, where any number gives the
            same bits.
        version: Version of the coder.
    """

    mode: CoderMode
    inference_steps: int
    inference_learning_rate: float
    batch_size: int
    threads: int | None
    version: int

    @classmethod
    def here(cls, settings: CoderSettings) -> FileSettings:
        """A user's settings as this process carries them out."""
        return cls(
            mode=settings.mode,
            inference_steps=settings.inference_steps,
            inference_learning_rate=settings.inference_learning_rate,
            batch_size=settings.coder_batch,
            threads=torch.get_num_threads() if settings.mode == "pinned" else None,
            version=VERSION,
        )


@dataclass(frozen=True)
class Chunk:
    """Images coded onto one stack of bits.

    Attributes:
        words: The stack, top last; decoding needs it and `count`.
        count: Number of images.
        start_bits: Bits of `words` that the first latents took from the fixed start of the stack:
            the overhead of a chunk.
    """

    words: Words
    count: int
    start_bits: float


class BitsBackCoder:
    """Codes chunks of images with one model.

    Args:
        model: A trained model; its encoder gives q(z|x), its decoder p(x|z), and p(z) is N(0, I).
        settings: The settings, the same for encoding and decoding.

    Raises:
        InputError: The settings do not fit together, or do not fit the model.
    """

    def __init__(self, model: VAE, settings: FileSettings) -> None:
        _check_settings(settings)
        if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
            raise md.InputError("model: its weights must be finite")
        self._spec = model.spec
        self._batch_size = settings.batch_size
        self._networks: PortableNetworks | PinnedNetworks
        if settings.mode == "portable":
            self._networks = PortableNetworks(model)
        else:
            assert settings.threads is not None
            self._networks = PinnedNetworks(
                model,
                settings.threads,
                settings.inference_steps,
                settings.inference_learning_rate,
            )

    def encode(self, images_NCHW: NDArray[np.uint8]) -> Chunk:
        """Compress images into one independent chunk.

        Args:
            images_NCHW: Pixel values, 0 and 1 for Bernoulli models.

        Raises:
            InputError: The images do not have the shape or the pixel values of the model.
        """
        self._check_images(images_NCHW)
        count = len(images_NCHW)
        stack = Stack.started(count * self._spec.latent_size * MOST_BITS)
        for batch in batches(count, self._batch_size, batch_growth(self._spec)):
            x_BCHW = images_NCHW[batch].copy()
            # Algorithm 4, line 3, for K > 0.
            posterior = self._networks.posterior(x_BCHW)
            # Algorithm 3, line 3; algorithm 4, line 4.
            z_BL = pop_posterior(stack, posterior)
            # Algorithm 3, line 4; algorithm 4, line 5.
            parameters_BCHW = self._networks.parameters(z_BL)
            push_pixels(stack, self._spec.likelihood, x_BCHW, parameters_BCHW)
            # Algorithm 3, line 5; algorithm 4, line 6.
            push_prior(stack, z_BL)
        words, start_bits = stack.taken()
        return Chunk(words, count, start_bits)

    def decode(self, words: NDArray[np.uint32], count: int) -> NDArray[np.uint8]:
        """The images of a chunk, (N, C, H, W).

        Raises:
            CorruptChunk: `encode` does not make these words with this model and these settings.
        """
        stack = Stack.received(words)
        images_NCHW = np.empty((count, *self._spec.shape), np.uint8)
        for batch in reversed(batches(count, self._batch_size, batch_growth(self._spec))):
            size = batch.stop - batch.start
            # Algorithm 3, line 7; algorithm 4, line 8.
            z_BL = pop_prior(stack, size, self._spec.latent_size)
            # Algorithm 3, line 8; algorithm 4, line 9.
            parameters_BCHW = self._networks.parameters(z_BL)
            x_BCHW: Pixels = pop_pixels(stack, self._spec.likelihood, parameters_BCHW)
            # Algorithm 4, line 10, for K > 0.
            posterior = self._networks.posterior(x_BCHW)
            # Algorithm 3, line 9; algorithm 4, line 11.
            push_posterior(stack, posterior, z_BL)
            images_NCHW[batch] = x_BCHW
        stack.check_start()
        return images_NCHW

    def _check_images(self, images_NCHW: NDArray[np.uint8]) -> None:
        spec = self._spec
        if images_NCHW.dtype != np.uint8 or images_NCHW.shape[1:] != spec.shape:
            raise md.InputError(
                f"images: the model takes 8-bit images of shape {spec.shape}, these are "
                f"{images_NCHW.dtype} of shape {images_NCHW.shape[1:]}"
            )
        if images_NCHW.size and images_NCHW.max() >= spec.levels:
            raise md.InputError(
                f"images: the model takes pixel values below {spec.levels}, got {images_NCHW.max()}"
            )


def batches(count: int, batch_size: int, growth: float = 1.0) -> list[slice]:
    """Batches, each of `growth` times as many images as were coded before, from 1 to `batch_size`.

    The latents of a batch are decoded from bits that earlier images have left. A larger batch would
    take bits from the start of the stack, which lengthens the file.

    """
    result, start = [], 0
    while start < count:
        size = min(batch_size, max(1, math.floor(growth * start)), count - start)
        result.append(slice(start, start + size))
        start += size
    return result


def batch_growth(spec: ModelSpec) -> float:
    """Growth of batches at which images leave enough bits for the latents of the next batch.

    An image leaves its code length, assumed to be at least 0.15 bits for a binary pixel and 1.2 for
    others; a latent takes about ten bits. These numbers are part of the coder's version.
    """
    left = spec.dimensions * (0.15 if spec.levels == 2 else 1.2)
    return min(1.0, max(0.1, left / (10 * spec.latent_size)))


def _check_settings(settings: FileSettings) -> None:
    """Refuse settings that only a forged file or another version of the coder has."""
    md.require_choice("mode", settings.mode, CoderMode)
    if settings.version != VERSION:
        raise md.InputError(f"version: this coder is version {VERSION}, got {settings.version}")
    if settings.batch_size < 1:
        raise md.InputError(f"batch_size: must be at least 1, got {settings.batch_size}")
    if settings.inference_steps < 0:
        raise md.InputError(f"inference_steps: must be at least 0, got {settings.inference_steps}")
    if settings.inference_steps and settings.mode != "pinned":
        raise md.InputError("inference_steps: more than 0 needs mode 'pinned'")
    rate = settings.inference_learning_rate
    if not (math.isfinite(rate) and rate > 0):
        raise md.InputError(f"inference_learning_rate: must be positive, got {rate}")
    if settings.mode == "pinned" and not 1 <= (settings.threads or 0) <= _MOST_THREADS:
        raise md.InputError(
            f"threads: mode 'pinned' needs 1 to {_MOST_THREADS}, got {settings.threads}"
        )
    if settings.mode == "portable" and settings.threads is not None:
        raise md.InputError("threads: only mode 'pinned' takes them")
