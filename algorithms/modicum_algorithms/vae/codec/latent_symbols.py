"""Latents on the stack, under the prior and under posteriors.

A posterior has a mean on the lattice and one of the levels of σ of `tables`.

Shapes: B batch, L latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modicum_algorithms.vae.codec.elementary import Floats
from modicum_algorithms.vae.codec.stack import CorruptChunk, Stack
from modicum_algorithms.vae.codec.tables import (
    LATENT_LIMIT,
    Integers,
    posterior_models,
    posterior_widths,
    prior_model,
)


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
        """A posterior whose mean is clipped, so that the prior's table has each z within reach.

        Args:
            mean_BL: μ, integers in steps of the lattice.
            level_BL: Number of the level of σ.
        """
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
