"""Variational optimisation of a black-box function (appendix C.1).

Shapes: J perturbations, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from modicum_algorithms.solipsistic.rllib_settings import SolipsisticAlgorithmOptions


def fitness_shaping(objectives_J: Tensor) -> Tensor:
    """Utilities from the ranks of the objectives alone (reference [154] of the thesis).

    The k-th best of J perturbations gets max(0, log(J/2 + 1) − log k). The utilities are scaled to
    a sum of 1 and reduced by 1/J, so that they sum to 0. Equal objectives share the mean of their
    utilities, so that a constant objective moves nothing.

    Args:
        objectives_J: Objectives of J perturbations; larger is better.

    Returns:
        The utilities, shape (J,).
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
    """Standard normal noise, shape (J, P), with `antithetic` in pairs of opposite sign."""
    if not antithetic:
        return torch.randn(number, size, generator=generator, device=device)
    half = torch.randn((number + 1) // 2, size, generator=generator, device=device)
    return torch.cat([half, -half])[:number]


def gradient(noise_JP: Tensor, utilities_J: Tensor, standard_deviation: float) -> Tensor:
    """Estimate of ∂U/∂μ (equation C.2), where U is minus the expected objective.

    With w = μ + σ ε, the score ∂ log p(w | μ, σ)/∂μ is ε / σ.

    Args:
        noise_JP: Standard normal noise ε.
        utilities_J: E(w) / J of each perturbation, or its shaped fitness instead.
        standard_deviation: Standard deviation σ of the perturbations.

    Returns:
        The gradient, shape (P,).
    """
    return -(utilities_J @ noise_JP) / standard_deviation


def maximise(
    objective: Callable[[Tensor], Tensor],
    mean_P: Tensor,
    options: SolipsisticAlgorithmOptions,
    generator: Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Follow equation C.2 with fitness shaping and Adam (algorithm 1, lines 19 to 35).

    Args:
        objective: Function from parameters, shape (J, P), to their E(w), shape (J,).
        mean_P: Initial μ.
        options: Settings of the policy search: `policy_iterations`, `perturbations`,
            `perturbation_scale`, `policy_learning_rate` and `antithetic`.
        generator: Random generator of the perturbations, on the device of μ.

    Yields:
        μ after each iteration, shape (P,), and the objectives seen in the iteration, shape (J,).
    """
    scale = options.perturbation_scale
    mean_P = mean_P.clone()
    adam = torch.optim.Adam([mean_P], lr=options.policy_learning_rate)
    for _ in range(options.policy_iterations):
        noise_JP = perturbations(
            options.perturbations,
            len(mean_P),
            generator,
            antithetic=options.antithetic,
            device=mean_P.device,
        )
        objectives_J = objective(mean_P + scale * noise_JP)  # line 25
        mean_P.grad = gradient(noise_JP, fitness_shaping(objectives_J), scale)  # line 34
        adam.step()
        yield mean_P.clone(), objectives_J
