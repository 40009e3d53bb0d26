"""The discrete distributions of the codec, selected by integers.

Encoder and decoder need the same bits on every machine, so the tables are made by `elementary` and
by sums in a fixed order. Latents are integers: they lie on a lattice of spacing 2^-LATTICE_BITS.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import constriction
import numpy as np
import torch
from numpy.typing import NDArray

from modicum_algorithms.vae.codec.elementary import (
    Floats,
    exponential,
    logarithm,
    sigmoid,
    softplus,
)
from modicum_algorithms.vae.likelihoods import (
    LEVELS,
    LOG_SCALE_MAXIMUM,
    LOG_SCALE_MINIMUM,
    LOGIT_LIMIT,
)

Integers = NDArray[np.int64]

# Bits of the least probable symbol in constriction's models.
MOST_BITS = 24

LATTICE_BITS = 8
LATTICE_SCALE = 2**LATTICE_BITS
# The prior's table has latents from -20 to 20.
LATENT_LIMIT = 20 * LATTICE_SCALE

# Levels of a posterior's standard deviation: 2^-9 to 2 in geometric steps.
LEVELS_AN_OCTAVE = 16
SMALLEST_OCTAVE, LARGEST_OCTAVE = -9, 1
_WIDTH_IN_STANDARD_DEVIATIONS = 6.5

# Fraction bits of the decoder's outputs: logits, and parameters of logistic distributions.
LOGIT_BITS = 8
LOGISTIC_BITS = 12

# The logistic function is tabulated from -32 to 32 in steps of 2^-8, in units of 2^-46.
_STEPS = 256
_TABLE_LIMIT = 32 * _STEPS
_TOTAL = 2.0**46
# Log scales are rounded to 2^-7.
_LOG_SCALE_STEPS = 128


def standard_deviations() -> Floats:
    """Levels of a posterior's σ, ascending."""
    octaves = LARGEST_OCTAVE - SMALLEST_OCTAVE
    level = np.arange(octaves * LEVELS_AN_OCTAVE + 1, dtype=np.float64)
    ln2 = logarithm(np.array([2.0]))
    return exponential((level / LEVELS_AN_OCTAVE + SMALLEST_OCTAVE) * ln2)


@cache
def level_boundaries() -> Floats:
    """Boundaries between neighbouring levels of σ: their geometric means."""
    levels = standard_deviations()
    return np.sqrt(levels[1:] * levels[:-1])


@cache
def _levels_of_raw() -> Integers:
    """The levels of ρ = -8 to 4 in steps of the lattice."""
    raw = np.arange(-8 * LATTICE_SCALE, 4 * LATTICE_SCALE + 1) / LATTICE_SCALE
    return np.searchsorted(level_boundaries(), softplus(raw))


def level_of_raw(raw: Floats) -> Integers:
    """Number of the level of σ = softplus(ρ), for integers ρ in units of 2^-LATTICE_BITS."""
    table = _levels_of_raw()
    place = raw.astype(np.int64)
    place += 8 * LATTICE_SCALE
    return table.take(place, mode="clip")


def gaussian_weights(standard_deviation: float, width: int) -> Floats:
    """Probabilities of a discrete Gaussian at -width … width steps of the lattice.

    They are normalised densities, not integrals over bins: they need no error function, and agree
    with the integrals if σ is at least the spacing of the lattice.
    """
    steps = np.arange(-width, width + 1) / LATTICE_SCALE / standard_deviation
    density = exponential(np.maximum(-0.5 * (steps * steps), -700.0))
    return density / math.fsum(density)


@cache
def prior_model() -> Any:
    """N(0, 1) on symbols 0 … 2 LATENT_LIMIT, which stand for z from -LATENT_LIMIT up."""
    return _model(gaussian_weights(1.0, LATENT_LIMIT))


@cache
def posterior_widths() -> Integers:
    """Largest distance of z from its mean in steps of the lattice, for each level of σ."""
    widths = np.floor(standard_deviations() * (_WIDTH_IN_STANDARD_DEVIATIONS * LATTICE_SCALE))
    return widths.astype(np.int64) + 1


@cache
def posterior_models() -> list[Any]:
    """For each level of σ, z − μ on symbols 0 … 2 width, which stand for -width … width."""
    pairs = zip(standard_deviations(), posterior_widths(), strict=True)
    return [_model(gaussian_weights(float(level), int(width))) for level, width in pairs]


def _model(probabilities: Floats) -> Any:
    return constriction.stream.model.Categorical(probabilities, perfect=False)


@cache
def bernoulli_family() -> Any:
    """A Bernoulli distribution with the probability of 1 as its parameter."""
    return constriction.stream.model.Bernoulli(perfect=False)


@cache
def _bernoulli_table() -> Floats:
    largest = math.floor(LOGIT_LIMIT * 2**LOGIT_BITS)
    return sigmoid(np.arange(-largest, largest + 1) / 2**LOGIT_BITS)


def bernoulli_probabilities(logits: Floats) -> Floats:
    """P(1), clipped like the likelihood's, for integer logits in units of 2^-LOGIT_BITS."""
    table = _bernoulli_table()
    # PyTorch's gather with 32-bit indices takes a sixth of NumPy's time.
    place = torch.from_numpy(logits).add(len(table) // 2).clamp_(0, len(table) - 1).int()
    probabilities = torch.index_select(torch.from_numpy(table), 0, place.view(-1))
    return probabilities.view(place.shape).numpy()


@cache
def _logistic_table() -> tuple[Floats, Floats]:
    """The logistic function in units of 1 / _TOTAL, and the differences of its entries."""
    place = np.arange(-_TABLE_LIMIT, _TABLE_LIMIT + 1) / _STEPS
    counts = np.floor(sigmoid(place) * _TOTAL)
    return counts, np.append(np.diff(counts), 0.0)


@cache
def _inverse_scales() -> Floats:
    """Steps of the logistic table per unit of a mean, for each log scale."""
    count = round((LOG_SCALE_MAXIMUM - LOG_SCALE_MINIMUM) * _LOG_SCALE_STEPS) + 1
    log_scale = np.arange(count) / _LOG_SCALE_STEPS + LOG_SCALE_MINIMUM
    return exponential(-log_scale) * _STEPS / (2**LOGISTIC_BITS * (LEVELS - 1))


def inverse_scales(log_scales: Floats) -> Floats:
    """1/s in the unit that `cumulative` takes, for integers ln s in units of 2^-LOGISTIC_BITS."""
    step = 2**LOGISTIC_BITS // _LOG_SCALE_STEPS
    place = np.floor((log_scales + step // 2) / step).astype(np.int64)
    place -= round(LOG_SCALE_MINIMUM * _LOG_SCALE_STEPS)
    return _inverse_scales().take(place, mode="clip")


def cumulative(value: Floats, means: Floats, inverse: Floats) -> Floats:
    """P(pixel < value), an integer in units of 1 / `cumulative_total()`.

    The logistic function at the lower edge (2 value − 256)/255 of the value's bin, plus one unit
    for each value below. The sum increases strictly with `value`, so that each pixel value can be
    coded.

    Args:
        value: Pixel values, 1 … 255.
        means: μ, integers in units of 2^-LOGISTIC_BITS/255.
        inverse: 1/s, from `inverse_scales`.
    """
    counts, steps = _logistic_table()
    place = value * float(2 * 2**LOGISTIC_BITS)
    place -= float(LEVELS * 2**LOGISTIC_BITS)
    place -= means
    place *= inverse
    np.clip(place, -_TABLE_LIMIT, _TABLE_LIMIT, out=place)
    whole = np.floor(place)
    place -= whole
    index = whole.astype(np.int64)
    index += _TABLE_LIMIT
    # Linear interpolation stays between the entries when rounded, so the result never decreases.
    place *= steps.take(index)
    place += counts.take(index)
    np.floor(place, out=place)
    place += value
    return place


def cumulative_total() -> float:
    """P(pixel < 256), in the unit of `cumulative`."""
    return _TOTAL + LEVELS
