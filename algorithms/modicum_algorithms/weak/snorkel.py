"""Snorkel: a label model found by matrix completion (two-stage baseline).

Ratner et al. (2019), "Training Complex Models with Multi-Task Weak Supervision". Labeling functions
vote independently given the class; how they agree and disagree with each other then determines
how accurate each is, without labels. Defaults, start and clamping are those of the package
`snorkel` 0.10, which WRENCH and the thesis use.

Shapes: N rows, K labeling functions, C classes, V votes (the classes again), L = K·V indicators
of one vote of one function, k·V + v.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import modicum as md
from modicum_algorithms.weak.supervision import ABSTAIN


@dataclass(frozen=True)
class SnorkelSettings:
    """How the label model is fitted.

    Attributes:
        epochs: Steps of gradient descent, each over all rows.
        learning_rate: Of the gradient descent.
        momentum: Of the gradient descent.
        l2: Pulls the conditionals towards their start, with weight l2², and towards zero, with
            weight l2 / 2; both, as the package does.
        precision_init: p(y = v | ỹ_k = v) that every labeling function starts from.
    """

    epochs: int = 100
    learning_rate: float = 0.01
    momentum: float = 0.9
    l2: float = 0.0
    precision_init: float = 0.7


@dataclass(frozen=True)
class SnorkelLabelModel:
    """A fitted label model.

    Attributes:
        conditionals_KVC: p(ỹ_k = v | y = c) of votes, float32; a function's sum over v leaves room
            for its abstains but is not constrained to.
        class_balance_C: p(y = c).
        coverage_K: Fraction of the training rows that each function votes on.
    """

    conditionals_KVC: np.ndarray
    class_balance_C: np.ndarray
    coverage_K: np.ndarray

    def predict(self, votes_NK: np.ndarray) -> np.ndarray:
        """Soft labels p(y | votes) ∝ p(y) Π_k p(ỹ_k | y) over the functions that vote.

        Args:
            votes_NK: Votes, -1 is an abstain.

        Returns:
            Shape (N, C), float32; uniform where every function abstains.
        """
        functions, votes, classes = self.conditionals_KVC.shape
        log_conditionals_LC = np.log(self.conditionals_KVC).reshape(functions * votes, classes)
        scores_NC = _indicators(votes_NK, votes) @ log_conditionals_LC
        scores_NC += np.log(self.class_balance_C).astype(np.float32)
        scores_NC[(votes_NK == ABSTAIN).all(1)] = 0
        soft_NC = np.exp(scores_NC - scores_NC.max(1, keepdims=True))
        return np.asarray(soft_NC / soft_NC.sum(1, keepdims=True), dtype=np.float32)

    def transitions(self) -> np.ndarray:
        """p(ỹ_k = v | y = c) with abstain as the last outcome, shape (C + 1, K, C).

        Where a function's votes sum to more than 1 they are scaled down, and it never abstains.
        """
        votes_VKC = self.conditionals_KVC.transpose(1, 0, 2)
        abstain_1KC = np.maximum(1 - votes_VKC.sum(0, keepdims=True), 0)
        outcomes_VKC = np.concatenate([votes_VKC, abstain_1KC])
        return np.asarray(outcomes_VKC / outcomes_VKC.sum(0))

    def accuracies(self) -> np.ndarray:
        """p(ỹ_k = y | function k votes), shape (K,), within [1e-6, 1].

        A function that never votes has the accuracy of chance.
        """
        correct_K = np.einsum("kcc,c->k", self.conditionals_KVC, self.class_balance_C)
        chance_K = np.full(len(correct_K), 1 / len(self.class_balance_C))
        accuracies_K = np.divide(
            correct_K, self.coverage_K, out=chance_K, where=self.coverage_K > 0
        )
        return np.asarray(accuracies_K.clip(1e-6, 1))


def fit_snorkel(
    votes_NK: np.ndarray,
    classes: int,
    settings: SnorkelSettings,
    class_balance_C: np.ndarray | None = None,
    seed: int = 0,
) -> SnorkelLabelModel:
    """Fit the label model to votes by gradient descent on `matching_loss`.

    Args:
        votes_NK: Votes, -1 is an abstain.
        classes: Number of classes.
        settings: How.
        class_balance_C: p(y = c), all above 0; uniform if not given.
        seed: Scales the start, as the package's seed does.

    Raises:
        InputError: A class has no weight in the balance, or the descent diverges.
    """
    if class_balance_C is None:
        class_balance_C = np.full(classes, 1 / classes)
    if len(class_balance_C) != classes or not (np.asarray(class_balance_C) > 0).all():
        raise md.InputError(f"class_balance: must be {classes} numbers above 0")
    rows, functions = votes_NK.shape
    indicators_NL = _indicators(votes_NK, classes)
    # Counts are whole numbers: exact in float32 up to 2^24 rows.
    agreement_LL = torch.from_numpy(indicators_NL.T @ indicators_NL) / rows
    balance_C = torch.from_numpy(np.asarray(class_balance_C)).float()
    between_LL = 1 - torch.kron(torch.eye(functions), torch.ones(classes, classes))
    start_LC = _start(agreement_LL.diagonal(), balance_C, settings.precision_init)
    # The package scales its start by the first number of this generator.
    conditionals_LC = start_LC * np.random.RandomState(seed % 2**32).random()
    conditionals_LC.requires_grad_()
    optimiser = torch.optim.SGD(
        [conditionals_LC],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.l2,
    )
    for _ in range(settings.epochs):
        loss = matching_loss(conditionals_LC, agreement_LL, balance_C, between_LL)
        loss = loss + settings.l2**2 * (conditionals_LC - start_LC).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fitted_LC = conditionals_LC.detach()
    if not fitted_LC.isfinite().all():
        raise md.InputError(
            f"snorkel_learning_rate: Snorkel diverges at {settings.learning_rate} "
            "(allowed: smaller rates)"
        )
    least = min(0.01, 10.0 ** -np.ceil(np.log10(rows)))
    fitted_KVC = fitted_LC.clamp(least, 1 - least).reshape(functions, classes, classes).numpy()
    return SnorkelLabelModel(
        conditionals_KVC=most_trusting(fitted_KVC, balance_C.numpy()),
        class_balance_C=np.asarray(class_balance_C),
        coverage_K=(votes_NK != ABSTAIN).mean(0),
    )


def matching_loss(
    conditionals_LC: Tensor, agreement_LL: Tensor, balance_C: Tensor, between_LL: Tensor
) -> Tensor:
    """‖O − μPμᵀ‖² between functions + ‖diag(O) − μp‖² (Ratner et al. 2019).

    Given the class, two functions vote independently, so the expected O of two different functions
    is μPμᵀ; that of one function with itself is known only on its diagonal, the rate of each vote.

    Args:
        conditionals_LC: μ, p(ỹ_k = v | y = c).
        agreement_LL: O, how often two indicators hold together.
        balance_C: p(y = c), the diagonal of P.
        between_LL: 1 for indicators of different functions, else 0.
    """
    joint_LC = conditionals_LC * balance_C
    difference_LL = (agreement_LL - joint_LC @ conditionals_LC.T) * between_LL
    rates_L = agreement_LL.diagonal()
    return difference_LL.square().sum() + (joint_LC.sum(1) - rates_L).square().sum()


def _start(rates_L: Tensor, balance_C: Tensor, precision: float) -> Tensor:
    """Conditionals of functions with one precision: p(ỹ_k = y | y) = p(ỹ_k = y) · precision / p(y).

    All other votes start at 0.
    """
    classes = len(balance_C)
    correct_KC = (rates_L.reshape(-1, classes) * precision / balance_C).clamp(0, 1)
    return torch.diag_embed(correct_KC).reshape(-1, classes)


def most_trusting(conditionals_KVC: np.ndarray, balance_C: np.ndarray) -> np.ndarray:
    """The permutation of the classes under which the functions are most often right.

    Classes with the same balance (to three decimals) can change places without a change of the
    loss. Fits that start as `fit_snorkel` does rarely need it.

    Args:
        conditionals_KVC: p(ỹ_k = v | y = c).
        balance_C: p(y = c).

    Returns:
        The conditionals with their classes in that order.
    """
    joint_VC = conditionals_KVC.sum(0) * balance_C
    permuted_KVC = conditionals_KVC.copy()
    rounded_C = balance_C.round(3)
    for balance in np.unique(rounded_C):
        group = np.flatnonzero(rounded_C == balance)
        votes, columns = linear_sum_assignment(joint_VC[np.ix_(group, group)], maximize=True)
        permuted_KVC[:, :, group[votes]] = conditionals_KVC[:, :, group[columns]]
    return permuted_KVC


def _indicators(votes_NK: np.ndarray, classes: int) -> np.ndarray:
    """1 where function k votes v, shape (N, K·V), float32."""
    indicators_NKV = votes_NK[:, :, None] == np.arange(classes)
    size = votes_NK.shape[1] * classes
    return indicators_NKV.reshape(len(votes_NK), size).astype(np.float32)
