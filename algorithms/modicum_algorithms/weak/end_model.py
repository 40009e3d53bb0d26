"""The end model p_θ(y|x), common to all methods, and its training loop.

Section 3.4.1: two hidden layers of 100 ReLU units, softmax, Adam at 1e-3, mini-batches of 128,
early stopping on the validation metric.

Shapes: N rows, D features, B mini-batch, C classes.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.metrics import Scores, score

if TYPE_CHECKING:
    from modicum_algorithms.weak.integrated import JointPosterior


def mlp(inputs: int, outputs: int, hidden: Sequence[int], generator: torch.Generator) -> nn.Module:
    """A feed-forward network with ReLU units, initialised from a generator of its own.

    Weights and biases are uniform within 1/√(inputs of the layer), torch's own default.
    """
    sizes = [inputs, *hidden, outputs]
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(sizes):
        layer = nn.utils.skip_init(nn.Linear, width, following)
        bound = width**-0.5
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class Schedule:
    """How long to train, and when to stop.

    Attributes:
        batch_size: Rows of each pool in a step.
        max_iterations: Gradient steps at most.
        evaluate_every: Steps between two looks at the validation split.
        patience: Steps, or evaluations, without a better validation metric.
        patience_unit: What `patience` counts: `iterations` (the thesis) or `evaluations`
            (WRENCH).
        metric: `accuracy` or `f1` on the validation split.
    """

    batch_size: int
    max_iterations: int
    evaluate_every: int
    patience: int
    patience_unit: str
    metric: str

    def exhausted(self, iteration: int, best_iteration: int) -> bool:
        """Whether the patience has run out."""
        waited = iteration - best_iteration
        if self.patience_unit == "evaluations":
            waited //= self.evaluate_every
        return waited >= self.patience


@dataclass(frozen=True)
class Objective:
    """What a method minimises, and how it explains the votes once it is trained.

    Attributes:
        pools: Row numbers of the training split for each set that a step draws from. An empty
            pool is drawn from never.
        loss: From one mini-batch of row numbers per pool (None for an empty pool) to a scalar.
        groups: Parameters in Adam's form, with learning rates.
        denoised: The method's soft labels of all training rows, (N, C); uniform where it has
            nothing to say.
        transitions: The method's p(ỹ_k = v | y = c), (C + 1, K, C) with abstain as the last
            outcome; None for a method that has none.
        label_model: What is trained beside the end model, to be saved with it.
        joint_posterior: What end model and label model say together of any rows; None for a
            method that has no joint model.
        refresh: Called before every look at the validation split.
    """

    pools: Sequence[np.ndarray]
    loss: Callable[[Sequence[Tensor | None]], Tensor]
    groups: list[dict[str, object]]
    denoised: Callable[[], np.ndarray] | None = None
    transitions: Callable[[], np.ndarray] | None = None
    label_model: nn.Module | None = None
    joint_posterior: JointPosterior | None = None
    refresh: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Fitted:
    """What training found.

    Attributes:
        validation: Scores of the kept weights on the validation split; None without one.
        iterations: Gradient steps made.
        best_iteration: The step whose weights were kept.
    """

    validation: Scores | None
    iterations: int
    best_iteration: int


def fit(
    model: nn.Module,
    objective: Objective,
    features_valid_ND: Tensor | None,
    labels_valid_N: np.ndarray | None,
    classes: int,
    schedule: Schedule,
    seed: int,
) -> Fitted:
    """Minimise an objective by Adam and restore the weights that were best on validation.

    Without a validation split all iterations are made and the last weights stay.

    Args:
        model: The end model, trained in place.
        objective: What to minimise; its label model is trained and restored with the end model.
        features_valid_ND: Features of the validation split, or None if there is none.
        labels_valid_N: Its labels.
        classes: Number of classes.
        schedule: How long.
        seed: Seed of the mini-batches.
    """
    optimiser = torch.optim.Adam(objective.groups, fused=True)
    batches = [
        _batches(rows, schedule.batch_size, np.random.default_rng([seed, index]))
        for index, rows in enumerate(objective.pools)
    ]
    trained = nn.ModuleList([model])
    if objective.label_model is not None:
        trained.append(objective.label_model)
    best, best_iteration, iteration = None, 0, 0
    if features_valid_ND is not None:
        assert labels_valid_N is not None
        best = _evaluate(model, features_valid_ND, labels_valid_N, classes)
        weights = copy.deepcopy(trained.state_dict())
    while iteration < schedule.max_iterations:
        if best is not None and schedule.exhausted(iteration, best_iteration):
            break
        for _ in range(min(schedule.evaluate_every, schedule.max_iterations - iteration)):
            loss = objective.loss([next(batch) for batch in batches])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            iteration += 1
        objective.refresh()
        if best is None:
            continue
        assert features_valid_ND is not None
        assert labels_valid_N is not None
        scores = _evaluate(model, features_valid_ND, labels_valid_N, classes)
        if getattr(scores, schedule.metric) > getattr(best, schedule.metric):
            best, best_iteration = scores, iteration
            weights = copy.deepcopy(trained.state_dict())
    trained.zero_grad(set_to_none=True)  # nothing to keep with a trained model
    if best is None:
        return Fitted(None, iteration, iteration)
    trained.load_state_dict(weights)
    return Fitted(best, iteration, best_iteration)


def _batches(
    rows: np.ndarray, size: int, generator: np.random.Generator
) -> Iterator[Tensor | None]:
    """Mini-batches without end: a fresh shuffle whenever the rows run out."""
    if len(rows) == 0:
        while True:
            yield None
    while True:
        order = generator.permutation(rows)
        full = max(1, len(rows) // size)
        for index in range(full):
            yield torch.from_numpy(order[index * size : (index + 1) * size])


def predict(model: nn.Module, features_ND: Tensor) -> np.ndarray:
    """Class probabilities p_θ(y|x), array (N, C)."""
    with torch.inference_mode():
        return model(features_ND).softmax(-1).numpy()


def _evaluate(model: nn.Module, features_ND: Tensor, labels_N: np.ndarray, classes: int) -> Scores:
    with torch.inference_mode():
        predicted_N = model(features_ND).argmax(-1).numpy()
    return score(labels_N, predicted_N, classes)
