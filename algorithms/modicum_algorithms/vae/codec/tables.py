"""The discrete distributions of the codec, each picked by integers.

Encoder and decoder share them bit by bit on every machine: they are made by `elementary` and sums
in a fixed order. Latents lie on a lattice of spacing 2^-LATTICE_BITS and are counted in it.
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

# The dearest symbol of constriction's models costs as many bits.
MOST_BITS = 24

LATTICE_BITS = 8
LATTICE_SCALE = 2**LATTICE_BITS
# Latents of the prior's table, from -20 to 20.
LATENT_LIMIT = 20 * LATTICE_SCALE

# Standard deviations of posteriors: 2^-9 to 2 in geometric steps.
LEVELS_AN_OCTAVE = 16
SMALLEST_OCTAVE, LARGEST_OCTAVE = -9, 1
_WIDTH_IN_STANDARD_DEVIATIONS = 6.5

# Fraction bits of a decoder's output: logits, and parameters of logistic distributions.
LOGIT_BITS = 8
LOGISTIC_BITS = 12

# The logistic function is tabulated from -32 to 32 in steps of 2^-8, as counts out of 2^46.
_STEPS = 256
_TABLE_LIMIT = 32 * _STEPS
_TOTAL = 2.0**46
# Log scales are rounded to 2^-7.
_LOG_SCALE_STEPS = 128


def standard_deviations() -> Floats:
    """σ of every level of a posterior, ascending."""
    octaves = LARGEST_OCTAVE - SMALLEST_OCTAVE
    level = np.arange(octaves * LEVELS_AN_OCTAVE + 1, dtype=np.float64)
    ln2 = logarithm(np.array([2.0]))
    return exponential((level / LEVELS_AN_OCTAVE + SMALLEST_OCTAVE) * ln2)


@cache
def level_boundaries() -> Floats:
    """The σ at which one level gives way to the next: their geometric means."""
    levels = standard_deviations()
    return np.sqrt(levels[1:] * levels[:-1])


@cache
def levels_of_raw() -> Integers:
    """Level of σ = softplus(ρ) for ρ = -8 to 4 in steps of the lattice."""
    raw = np.arange(-8 * LATTICE_SCALE, 4 * LATTICE_SCALE + 1) / LATTICE_SCALE
    return np.searchsorted(level_boundaries(), softplus(raw))


def level_of_raw(raw: Floats) -> Integers:
    """Level of σ = softplus(ρ).

    Args:
        raw: ρ, integers counting 2^-LATTICE_BITS.
    """
    table = levels_of_raw()
    place = raw.astype(np.int64)
    place += 8 * LATTICE_SCALE
    return table.take(place, mode="clip")


def gaussian_weights(standard_deviation: float, width: int) -> Floats:
    """A Gaussian's density at -width … width steps of the lattice, divided by the sum.

    A discrete Gaussian, not a Gaussian's mass in bins: it needs no error function, and where σ is
    no smaller than the spacing they agree.
    """
    steps = np.arange(-width, width + 1) / LATTICE_SCALE / standard_deviation
    density = exponential(np.maximum(-0.5 * (steps * steps), -700.0))
    return density / math.fsum(density)


@cache
def prior_model() -> Any:
    """N(0, 1) over 0 … 2 LATENT_LIMIT, counted from -LATENT_LIMIT."""
    return _model(gaussian_weights(1.0, LATENT_LIMIT))


@cache
def posterior_widths() -> Integers:
    """How many steps of the lattice z may lie from its mean, for every level."""
    widths = np.floor(standard_deviations() * (_WIDTH_IN_STANDARD_DEVIATIONS * LATTICE_SCALE))
    return widths.astype(np.int64) + 1


@cache
def posterior_models() -> list[Any]:
    """For every level, z − μ over 0 … 2 width, counted from -width."""
    pairs = zip(standard_deviations(), posterior_widths(), strict=True)
    return [_model(gaussian_weights(float(level), int(width))) for level, width in pairs]


def _model(probabilities: Floats) -> Any:
    return constriction.stream.model.Categorical(probabilities, perfect=False)


@cache
def bernoulli_family() -> Any:
    """Takes the probability of 1 for every symbol."""
    return constriction.stream.model.Bernoulli(perfect=False)


@cache
def _bernoulli_table() -> Floats:
    largest = math.floor(LOGIT_LIMIT * 2**LOGIT_BITS)
    return sigmoid(np.arange(-largest, largest + 1) / 2**LOGIT_BITS)


def bernoulli_probabilities(logits: Floats) -> Floats:
    """P(1), clipped as the likelihood's.

    Args:
        logits: Integers counting 2^-LOGIT_BITS.
    """
    table = _bernoulli_table()
    # PyTorch's gather of 32-bit places takes a sixth of NumPy's time here, and is as exact.
    place = torch.from_numpy(logits).add(len(table) // 2).clamp_(0, len(table) - 1).int()
    probabilities = torch.index_select(torch.from_numpy(table), 0, place.view(-1))
    return probabilities.view(place.shape).numpy()


@cache
def _logistic_table() -> tuple[Floats, Floats]:
    """Whole counts of the logistic function out of _TOTAL, and from each to the next."""
    place = np.arange(-_TABLE_LIMIT, _TABLE_LIMIT + 1) / _STEPS
    counts = np.floor(sigmoid(place) * _TOTAL)
    return counts, np.append(np.diff(counts), 0.0)


@cache
def _inverse_scales() -> Floats:
    """Steps of the logistic table in one unit of a mean, for every log scale."""
    count = round((LOG_SCALE_MAXIMUM - LOG_SCALE_MINIMUM) * _LOG_SCALE_STEPS) + 1
    log_scale = np.arange(count) / _LOG_SCALE_STEPS + LOG_SCALE_MINIMUM
    return exponential(-log_scale) * _STEPS / (2**LOGISTIC_BITS * (LEVELS - 1))


def inverse_scales(log_scales: Floats) -> Floats:
    """1/s as `cumulative` takes it.

    Args:
        log_scales: Integers counting 2^-LOGISTIC_BITS.
    """
    step = 2**LOGISTIC_BITS // _LOG_SCALE_STEPS
    place = np.floor((log_scales + step // 2) / step).astype(np.int64)
    place -= round(LOG_SCALE_MINIMUM * _LOG_SCALE_STEPS)
    return _inverse_scales().take(place, mode="clip")


def cumulative(value: Floats, means: Floats, inverse: Floats) -> Floats:
    """P(pixel < value), in whole counts out of `cumulative_total()`.

    Strictly increasing in `value`, so that every pixel value can be coded: the logistic function
    at the lower edge (2 value − 256)/255 of the value's bin, plus one count for each value below.

    Args:
        value: 1 … 255.
        means: μ, integers counting 2^-LOGISTIC_BITS/255.
        inverse: From `inverse_scales`.
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
    # Between entries on a straight line: rounded, it stays between them, and never falls.
    place *= steps.take(index)
    place += counts.take(index)
    np.floor(place, out=place)
    place += value
    return place


def cumulative_total() -> float:
    """P(pixel < 256) in counts."""
    return _TOTAL + LEVELS
