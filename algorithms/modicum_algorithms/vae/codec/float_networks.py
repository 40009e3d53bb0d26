"""Encoders and decoders in PyTorch's floating point, with fixed conditions for the last bits.

The same machine and version of PyTorch give the same bits for the same shapes, threads and
settings. Another may not, which the decoder detects by checksums. Shapes: B batch, C channels,
H height, W width, L latent dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from modicum_algorithms.vae.codec.elementary import Floats
from modicum_algorithms.vae.codec.symbols import LatticePosterior, Pixels, parameter_bits
from modicum_algorithms.vae.codec.tables import LATTICE_SCALE, Integers, level_boundaries
from modicum_algorithms.vae.methods.k_step import k_step_posterior
from modicum_algorithms.vae.networks import VAE

# Beyond the range of all tables.
_LIMIT = 2.0**30


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """A context with a number of threads, deterministic algorithms and full precision."""
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    precision = torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_float32_matmul_precision(precision)


class PinnedNetworks:
    """Encoder and decoder of a model on the CPU, in floats, optionally with K-step inference."""

    def __init__(
        self, model: VAE, threads: int, inference_steps: int, inference_learning_rate: float
    ) -> None:
        self._model = model
        self._threads = threads
        self._steps, self._learning_rate = inference_steps, inference_learning_rate
        self._dtype = next(model.parameters()).dtype
        self._parameter_scale = 2.0 ** parameter_bits(model.spec.likelihood)

    def posterior(self, x_BCHW: Pixels) -> LatticePosterior:
        """q(z|x) of each image, after K steps of inference (algorithm 4)."""
        images_BCHW = torch.from_numpy(x_BCHW).to(self._dtype)
        with torch.no_grad(), pinned(self._threads):
            q = k_step_posterior(
                self._model.decoder,
                self._model.encoder(images_BCHW),
                images_BCHW,
                self._steps,
                self._learning_rate,
                seed=0,
            ).base_dist
        level_BL = np.searchsorted(level_boundaries(), q.scale.double().numpy())
        return LatticePosterior.within_prior(_whole(q.loc, LATTICE_SCALE), level_BL)

    def parameters(self, z_BL: Integers) -> Floats:
        """Parameters of p(x|z) of each image, as integers."""
        with torch.no_grad(), pinned(self._threads):
            latents_BL = torch.from_numpy(z_BL / LATTICE_SCALE).to(self._dtype)
            return _whole(self._model.decoder.network(latents_BL), self._parameter_scale)


def _whole(numbers: torch.Tensor, scale: float) -> Floats:
    """Numbers rounded to multiples of 1/scale and counted in it; NaN becomes 0."""
    scaled = numbers.double().mul_(scale).add_(0.5).floor_().clamp_(-_LIMIT, _LIMIT)
    whole: Floats = scaled.nan_to_num_(0.0).numpy()
    return whole
