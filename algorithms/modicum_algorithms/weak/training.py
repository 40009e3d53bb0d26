"""The training loop, common to all methods.

Section 3.4.1: Adam at 1e-3, mini-batches of 128, early stopping on the validation metric.

Shapes: N rows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.config import EndModelConfig
from modicum_algorithms.weak.data.supervision import ValidationSet
from modicum_algorithms.weak.evaluation import Scores, score
from modicum_algorithms.weak.methods.objective import Objective


@dataclass(frozen=True)
class Fitted:
    """Outcome of a training run.

    Attributes:
        validation: Scores of the kept weights on the validation split; None without one.
        iterations: Gradient steps made.
        best_iteration: Step whose weights were kept.
    """

    validation: Scores | None
    iterations: int
    best_iteration: int


def train(
    model: nn.Module,
    objective: Objective,
    validation: ValidationSet | None,
    config: EndModelConfig,
    seed: int,
) -> Fitted:
    """Minimise an objective with Adam and restore the weights that were best on validation.

    Without a validation split all iterations are made and the last weights stay.

    Args:
        model: End model, from features to logits; trained in place.
        objective: Loss to minimise; its label network is trained and restored with the end model.
        validation: Validation split, or None.
        config: Batch size, number of steps and early stopping.
        seed: Seed of the mini-batches.
    """
    optimiser = torch.optim.Adam(objective.groups, fused=True)
    batches = [
        _batches(rows, config.batch_size, np.random.default_rng([seed, index]))
        for index, rows in enumerate(objective.pools)
    ]
    trained = nn.ModuleList([model])
    if objective.label_network is not None:
        trained.append(objective.label_network)
    best = None if validation is None else _evaluate(model, validation)
    weights = {} if validation is None else copy.deepcopy(trained.state_dict())
    iteration = best_iteration = 0
    while iteration < config.max_iterations:
        if best is not None and out_of_patience(config, iteration, best_iteration):
            break
        for _ in range(min(config.evaluate_every, config.max_iterations - iteration)):
            loss = objective.loss([next(batch) for batch in batches])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            iteration += 1
        objective.refresh()
        if validation is None or best is None:
            continue
        scores = _evaluate(model, validation)
        metric = config.early_stopping_metric
        if getattr(scores, metric) > getattr(best, metric):
            best, best_iteration = scores, iteration
            weights = copy.deepcopy(trained.state_dict())
    trained.zero_grad(set_to_none=True)  # gradients are not kept with a trained model
    if best is None:
        return Fitted(None, iteration, iteration)
    trained.load_state_dict(weights)
    return Fitted(best, iteration, best_iteration)


def out_of_patience(config: EndModelConfig, iteration: int, best_iteration: int) -> bool:
    """Tell whether early stopping ends the training at an iteration."""
    waited = iteration - best_iteration
    if config.patience_unit == "evaluations":
        waited //= config.evaluate_every
    return waited >= config.patience


def _batches(
    rows: np.ndarray, size: int, generator: np.random.Generator
) -> Iterator[Tensor | None]:
    """Endless mini-batches of row numbers, shuffled anew after every pass; None without rows."""
    if len(rows) == 0:
        while True:
            yield None
    while True:
        order = generator.permutation(rows)
        full = max(1, len(rows) // size)
        for index in range(full):
            yield torch.from_numpy(order[index * size : (index + 1) * size])


def _evaluate(model: nn.Module, validation: ValidationSet) -> Scores:
    with torch.inference_mode():
        logits_NC = model(validation.features_ND)
    return score(validation.labels_N, logits_NC.argmax(-1).numpy(), logits_NC.shape[1])
