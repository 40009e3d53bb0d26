"""Variational optimisation of a function that can only be evaluated (appendix C.1).

Shapes: J perturbations, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


def fitness_shaping(objectives_J: Tensor) -> Tensor:
    """Utilities that depend on the objectives' ranks alone (reference [154] of the thesis).

    The best gets max(0, log(J/2 + 1) − log 1), the second − log 2, and so on down to 0; they are
    scaled to a sum of 1, and 1/J is taken off, so that they sum to 0. Equal objectives share the
    mean of their places' utilities, so that a constant objective moves nothing.

    Args:
        objectives_J: Of J perturbations; larger is better.

    Returns:
        Shape (J,).
    """
    number = len(objectives_J)
    places = torch.arange(1, number + 1, dtype=torch.float32, device=objectives_J.device)
    utilities = torch.relu(math.log(number / 2 + 1) - torch.log(places))
    utilities = utilities / utilities.sum() - 1 / number
    distinct, group_J = torch.unique(objectives_J, return_inverse=True)
    order = objectives_J.argsort(descending=True, stable=True)
    sums = torch.zeros(len(distinct), device=utilities.device)
    counts = torch.zeros_like(sums)
    sums.index_add_(0, group_J[order], utilities)
    counts.index_add_(0, group_J[order], torch.ones_like(utilities))
    return (sums / counts)[group_J]


def perturbations(
    number: int, size: int, generator: Generator, *, antithetic: bool, device: torch.device | str
) -> Tensor:
    """Standard normal noise, shape (J, P); with `antithetic` in pairs of opposite sign."""
    if not antithetic:
        return torch.randn(number, size, generator=generator, device=device)
    half = torch.randn((number + 1) // 2, size, generator=generator, device=device)
    return torch.cat([half, -half])[:number]


def gradient(noise_JP: Tensor, utilities_J: Tensor, standard_deviation: float) -> Tensor:
    """Estimate of ∂U/∂μ (equation C.2), where U is minus the expected objective.

    With w = μ + σ ε, the score ∂ log p(w | μ, σ)/∂μ is ε / σ.

    Args:
        noise_JP: ε.
        utilities_J: E(w) / J of each perturbation, or its shaped fitness in the place of that.
        standard_deviation: σ.

    Returns:
        Shape (P,).
    """
    return -(utilities_J @ noise_JP) / standard_deviation


@dataclass(frozen=True)
class VariationalOptimiser:
    """Settings of the search.

    Attributes:
        iterations: Updates of μ, N_policy.
        number: Perturbations in each, J.
        standard_deviation: σ.
        learning_rate: Adam's.
        antithetic: Whether perturbations come in pairs of opposite sign.
    """

    iterations: int = 50
    number: int = 50
    standard_deviation: float = 0.2
    learning_rate: float = 1e-2
    antithetic: bool = True

    def maximise(
        self, objective: Callable[[Tensor], Tensor], mean_P: Tensor, generator: Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Follow equation C.2 with fitness shaping and Adam (algorithm 1, lines 19 to 35).

        Args:
            objective: From parameters, shape (J, P), to their E(w), shape (J,).
            mean_P: Where μ starts.
            generator: Of the perturbations, on μ's device.

        Yields:
            μ after each iteration, shape (P,), and the objectives seen in it, shape (J,).
        """
        mean_P = mean_P.clone()
        adam = torch.optim.Adam([mean_P], lr=self.learning_rate)
        for _ in range(self.iterations):
            noise_JP = perturbations(
                self.number,
                len(mean_P),
                generator,
                antithetic=self.antithetic,
                device=mean_P.device,
            )
            objectives_J = objective(mean_P + self.standard_deviation * noise_JP)  # line 25
            utilities_J = fitness_shaping(objectives_J)
            mean_P.grad = gradient(noise_JP, utilities_J, self.standard_deviation)  # line 34
            adam.step()
            yield mean_P.clone(), objectives_J
