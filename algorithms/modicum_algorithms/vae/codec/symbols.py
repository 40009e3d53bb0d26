"""Latents and pixels on the stack.

A latent's posterior has a mean on the lattice and one of the levels of σ of `tables`; a pixel's
distribution has integer parameters.

Shapes: B batch, L latent dimensions, C channels, H height, W width, M pixels of a piece. A
decoder's output has `PARAMETERS` numbers for every channel of a pixel, stacked along the channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modicum_algorithms.vae.codec.elementary import Floats
from modicum_algorithms.vae.codec.stack import CorruptChunk, Stack
from modicum_algorithms.vae.codec.tables import (
    LATENT_LIMIT,
    LOGISTIC_BITS,
    LOGIT_BITS,
    Integers,
    bernoulli_family,
    bernoulli_probabilities,
    cumulative,
    cumulative_total,
    inverse_scales,
    posterior_models,
    posterior_widths,
    prior_model,
)
from modicum_algorithms.vae.config import LikelihoodName
from modicum_algorithms.vae.likelihoods import LEVELS, PARAMETERS

Pixels = NDArray[np.uint8]

# Pixels coded at once, so that intermediate results fit the processor's cache. The order of symbols
# on the stack depends on it.
PIECE = 2**15
# Halves of the range of pixel values at each of the binary decisions that make a value.
_HALVES = tuple(2**place for place in reversed(range(8)))


@dataclass(frozen=True)
class LatticePosterior:
    """q(z|x) on the lattice.

    Attributes:
        mean_BL: μ, in steps of the lattice.
        level_BL: Number of the level of σ.
    """

    mean_BL: Integers
    level_BL: Integers

    @classmethod
    def within_prior(cls, mean_BL: Floats, level_BL: Integers) -> LatticePosterior:
        """A posterior whose mean is clipped, so that the prior's table has each z within reach."""
        reach_BL = LATENT_LIMIT - posterior_widths().take(level_BL)
        return cls(np.clip(mean_BL.astype(np.int64), -reach_BL, reach_BL), level_BL)


def push_prior(stack: Stack, z_BL: Integers) -> None:
    """Encode z ~ p(z)."""
    stack.push((z_BL + LATENT_LIMIT).ravel(), prior_model())


def pop_prior(stack: Stack, batch_size: int, latent_size: int) -> Integers:
    """Decode z ~ p(z), (B, L)."""
    symbols = stack.pop(prior_model(), batch_size * latent_size)
    return symbols.astype(np.int64).reshape(batch_size, latent_size) - LATENT_LIMIT


def pop_posterior(stack: Stack, posterior: LatticePosterior) -> Integers:
    """Decode z ~ q(z|x), (B, L), level after level: posteriors of one level share a table."""
    level = posterior.level_BL.ravel()
    models, widths = posterior_models(), posterior_widths()
    groups = [
        stack.pop(models[each], int(count)).astype(np.int64) - widths[each]
        for each, count in _populated(level)
    ]
    z = np.empty(len(level), np.int64)
    z[np.argsort(level, kind="stable")] = np.concatenate(groups)
    return z.reshape(posterior.mean_BL.shape) + posterior.mean_BL


def push_posterior(stack: Stack, posterior: LatticePosterior, z_BL: Integers) -> None:
    """Encode z ~ q(z|x), the inverse of `pop_posterior`.

    Raises:
        CorruptChunk: A latent is out of reach of q(z|x).
    """
    level = posterior.level_BL.ravel()
    models, widths = posterior_models(), posterior_widths()
    offset = (z_BL - posterior.mean_BL).ravel()
    if (np.abs(offset) > widths.take(level)).any():
        raise CorruptChunk("a latent is out of its posterior's reach")
    offset = offset[np.argsort(level, kind="stable")]
    end = len(offset)
    for each, count in reversed(_populated(level)):
        stack.push(offset[end - count : end] + widths[each], models[each])
        end -= count


def _populated(level: Integers) -> list[tuple[int, int]]:
    counts = np.bincount(level)
    return [(int(each), int(counts[each])) for each in np.flatnonzero(counts)]


def parameter_bits(name: LikelihoodName) -> int:
    """Fraction bits of the decoder's output."""
    return LOGIT_BITS if name == "bernoulli" else LOGISTIC_BITS


def push_pixels(
    stack: Stack, name: LikelihoodName, x_BCHW: Pixels, parameters_BCHW: Floats
) -> None:
    """Encode x ~ p(x|z)."""
    if name == "bernoulli":
        probabilities = bernoulli_probabilities(parameters_BCHW).ravel()
        stack.push(x_BCHW.ravel(), bernoulli_family(), probabilities)
        return
    parts = np.split(parameters_BCHW, PARAMETERS[name], axis=1)
    for channels in reversed(_turns(name, x_BCHW.shape[1])):
        means, inverse = _logistic(parts, x_BCHW, channels)
        _push_values(stack, x_BCHW[:, channels].ravel(), means, inverse)


def pop_pixels(stack: Stack, name: LikelihoodName, parameters_BCHW: Floats) -> Pixels:
    """Decode x ~ p(x|z), (B, C, H, W)."""
    batch_size, stacked, height, width = parameters_BCHW.shape
    shape = batch_size, stacked // PARAMETERS[name], height, width
    if name == "bernoulli":
        probabilities = bernoulli_probabilities(parameters_BCHW).ravel()
        return stack.pop(bernoulli_family(), probabilities).astype(np.uint8).reshape(shape)
    x_BCHW = np.empty(shape, np.uint8)
    parts = np.split(parameters_BCHW, PARAMETERS[name], axis=1)
    for channels in _turns(name, shape[1]):
        means, inverse = _logistic(parts, x_BCHW, channels)
        x_BCHW[:, channels] = _pop_values(stack, means, inverse).reshape(x_BCHW[:, channels].shape)
    return x_BCHW


def _turns(name: LikelihoodName, channels: int) -> list[slice]:
    """Channels that are coded together; autoregressive channels follow one after the other."""
    if name == "autoregressive_logistic":
        return [slice(channel, channel + 1) for channel in range(channels)]
    return [slice(0, channels)]


def _logistic(parts: list[Floats], x_BCHW: Pixels, channels: slice) -> tuple[Floats, Floats]:
    """μ and 1/s of some channels, flat, as arguments of `cumulative`.

    With x̃ = (2x − 255)/255, the mean of a later channel is an integer in units of
    2^-LOGISTIC_BITS/255.
    """
    mean_BCHW = parts[0][:, channels] * float(LEVELS - 1)
    if len(parts) == 3 and channels.start > 0:
        a_BHW, b_BHW, c_BHW = parts[2].transpose(1, 0, 2, 3)
        by_channel = {1: (a_BHW,), 2: (b_BHW, c_BHW)}[channels.start]
        for earlier, coefficient_BHW in enumerate(by_channel):
            scaled_BHW = x_BCHW[:, earlier] * 2.0 - (LEVELS - 1)
            mean_BCHW[:, 0] += coefficient_BHW * scaled_BHW
    return mean_BCHW.ravel(), inverse_scales(parts[1][:, channels]).ravel()


class _Descent:
    """Bisection of the 256 values of M pixels, in eight binary decisions.

    A pixel takes eight binary symbols and eight values of the distribution function. A table of 256
    probabilities for each pixel would take longer to make and to code.
    """

    def __init__(self, means: Floats, inverse: Floats) -> None:
        self._means, self._inverse = means, inverse
        self.low = np.zeros_like(means)
        self._below = np.zeros_like(means)
        self._above = np.full_like(means, cumulative_total())
        self._middle = self._below

    def probability_of_upper(self, half: int) -> Floats:
        """P(value ≥ low + half | low ≤ value < low + 2 half)."""
        self._middle = cumulative(self.low + half, self._means, self._inverse)
        return (self._above - self._middle) / (self._above - self._below)

    def follow(self, upper: NDArray[np.bool_], half: int) -> None:
        """Continue with the upper or the lower half."""
        self.low += upper * float(half)
        self._below = np.where(upper, self._middle, self._below)
        self._above = np.where(upper, self._above, self._middle)


def _pieces(count: int) -> Iterator[slice]:
    return (slice(start, min(start + PIECE, count)) for start in range(0, count, PIECE))


def _push_values(stack: Stack, values: Pixels, means: Floats, inverse: Floats) -> None:
    for piece in reversed(list(_pieces(len(values)))):
        piece_values = values[piece]
        descent = _Descent(means[piece], inverse[piece])
        bits = np.empty((len(_HALVES), len(piece_values)), np.int32)
        probabilities = np.empty(bits.shape)
        for row, half in enumerate(_HALVES):
            upper = (piece_values & half) != 0
            bits[row] = upper
            probabilities[row] = descent.probability_of_upper(half)
            descent.follow(upper, half)
        stack.push(bits.ravel(), bernoulli_family(), probabilities.ravel())


def _pop_values(stack: Stack, means: Floats, inverse: Floats) -> Pixels:
    values = np.empty(len(means), np.uint8)
    for piece in _pieces(len(values)):
        descent = _Descent(means[piece], inverse[piece])
        for half in _HALVES:
            bits = stack.pop(bernoulli_family(), descent.probability_of_upper(half))
            descent.follow(bits.astype(bool), half)
        values[piece] = descent.low
    return values
