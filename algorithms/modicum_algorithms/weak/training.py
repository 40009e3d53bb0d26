"""The training loop, common to all methods, and what a method hands to it.

Section 3.4.1: Adam at 1e-3, mini-batches of 128, early stopping on the validation metric.

Shapes: N rows, K labeling functions, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import modicum as md
from modicum_algorithms.weak.config import EndModelConfig
from modicum_algorithms.weak.data.supervision import Supervision, ValidationSet
from modicum_algorithms.weak.evaluation import Scores, score
from modicum_algorithms.weak.models.end_model import mlp
from modicum_algorithms.weak.models.joint_model import JointPosterior


@dataclass(frozen=True)
class Objective:
    """A method's loss, and its account of the votes once it is trained.

    Attributes:
        pools: Row numbers of the training split, one array for each set that a step draws a
            mini-batch from. Nothing is drawn from an empty pool.
        loss: From one mini-batch of row numbers per pool (None for an empty pool) to a scalar.
        groups: Parameter groups with learning rates, as Adam takes them.
        denoised: The method's soft labels of all training rows, (N, C); uniform where it has no
            information.
        transitions: The method's p(ỹ_k = v | y = c), (C + 1, K, C), with abstain as the last
            outcome; None for a method without such estimates.
        label_network: The network that is trained beside the end model, and saved with it.
        joint_posterior: Posterior of the joint model for any rows; None for a method without a
            joint model.
        refresh: Called before each evaluation on the validation split.
    """

    pools: Sequence[np.ndarray]
    loss: Callable[[Sequence[Tensor | None]], Tensor]
    groups: list[dict[str, Any]]
    denoised: Callable[[], np.ndarray]
    transitions: Callable[[], np.ndarray] | None = None
    label_network: nn.Module | None = None
    joint_posterior: JointPosterior | None = None
    refresh: Callable[[], None] = lambda: None


MakeObjective = Callable[[nn.Module, Supervision, Any, torch.Generator], Objective]
"""A method: from end model, training set, the method's config and the source of its randomness.

The end model maps features to logits.
"""


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


@dataclass(frozen=True)
class Candidate:
    """An end model, trained with one combination of the settings to try."""

    config: EndModelConfig
    end_model: nn.Module
    objective: Objective
    fitted: Fitted

    @property
    def validation_score(self) -> float | None:
        """The early-stopping metric on the validation set; None without one."""
        scores = self.fitted.validation
        return None if scores is None else getattr(scores, self.config.early_stopping_metric)


def train_best(
    make_objective: MakeObjective,
    configs: Iterable[EndModelConfig],
    supervision: Supervision,
    validation: ValidationSet | None,
    seed: int,
) -> Candidate:
    """Train an end model with each config from the same start; the best one on validation.

    Of equally good ones, and without a validation set, the first is the best.

    Raises:
        InputError: A training diverged.
    """
    best: Candidate | None = None
    start = md.derive_seed(seed, "initialisation")
    for config in configs:
        generator = torch.Generator().manual_seed(start)
        # Some layers draw from torch's global generator.
        with md.seeded(start):
            features = supervision.features_ND.shape[1]
            model = mlp(features, supervision.classes, config.hidden, generator)
            objective = make_objective(model, supervision, config, generator)
            fitted = train(model, objective, validation, config, md.derive_seed(seed, "batches"))
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise md.InputError(
                f"learning_rate: training diverged at {config.learning_rate}; take a smaller one, "
                "or scale X"
            )
        candidate = Candidate(config, model.eval(), objective, fitted)
        if best is None or (candidate.validation_score or 0) > (best.validation_score or 0):
            best = candidate
    assert best is not None
    return best


def train(
    model: nn.Module,
    objective: Objective,
    validation: ValidationSet | None,
    config: EndModelConfig,
    seed: int,
) -> Fitted:
    """Minimise an objective with Adam and restore the weights that were best on validation.

    Without a validation split all iterations are made and the last weights stay.

    The objective's label network is trained and restored with the end model. The seed is that of
    the mini-batches.
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
