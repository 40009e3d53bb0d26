"""Snorkel: a label model fitted by matrix completion (two-stage baseline).

Ratner et al. (2019), "Training Complex Models with Multi-Task Weak Supervision". Labeling functions
are assumed to vote independently given the class. Their agreements and disagreements then determine
the accuracy of each, without labels. Defaults, initial values and clamping are those of the package
`snorkel` 0.10, which WRENCH and the thesis use.

Shapes: N rows, K labeling functions, C classes, V votes (the classes again), L = K·V indicators,
of which k·V + v is 1 where function k votes v.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import modicum as md
from modicum_algorithms.weak.config import SnorkelConfig
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.methods.soft_labels import two_stage_objective
from modicum_algorithms.weak.training import Objective


def snorkel_objective(
    model: nn.Module, supervision: Supervision, config: SnorkelConfig, generator: torch.Generator
) -> Objective:
    """Cross-entropy to the label model's posteriors.

    The generator's seed scales the label model's initial values.
    """
    fitted: list[SnorkelLabelModel] = []

    def denoise(votes_NK: np.ndarray) -> np.ndarray:
        label_model = fit_snorkel(votes_NK, config, supervision.balance, generator.initial_seed())
        fitted.append(label_model)
        return label_model.predict(votes_NK)

    objective = two_stage_objective(model, supervision, config, denoise)
    # The strong labels' function, if there is one, comes last and is left out.
    functions = supervision.votes_NK.shape[1]
    return replace(objective, transitions=lambda: fitted[0].transitions()[:, :functions])


@dataclass(frozen=True)
class SnorkelLabelModel:
    """A fitted label model.

    Attributes:
        conditionals_KVC: p(ỹ_k = v | y = c), float32; the sum over v is at most 1 if the model
            fits, but is not constrained.
        class_balance_C: p(y = c).
    """

    conditionals_KVC: np.ndarray
    class_balance_C: np.ndarray

    def predict(self, votes_NK: np.ndarray) -> np.ndarray:
        """Soft labels p(y | votes) ∝ p(y) Π_k p(ỹ_k | y) over the functions that vote.

        Shape (N, C), float32; uniform where every function abstains.
        """
        functions, votes, classes = self.conditionals_KVC.shape
        log_conditionals_LC = np.log(self.conditionals_KVC).reshape(functions * votes, classes)
        scores_NC = _indicators(votes_NK, votes) @ log_conditionals_LC
        scores_NC += np.log(self.class_balance_C).astype(np.float32)
        scores_NC[(votes_NK == md.data.ABSTAIN).all(1)] = 0
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


def fit_snorkel(
    votes_NK: np.ndarray, config: SnorkelConfig, class_balance_C: np.ndarray, seed: int
) -> SnorkelLabelModel:
    """Fit the label model to votes by gradient descent on `matching_loss`.

    The seed scales the initial values, as the package's seed does.

    Raises:
        InputError: The descent diverges.
    """
    classes = len(class_balance_C)
    rows, functions = votes_NK.shape
    indicators_NL = _indicators(votes_NK, classes)
    # Counts are whole numbers: exact in float32 up to 2^24 rows.
    agreement_LL = torch.from_numpy(indicators_NL.T @ indicators_NL) / rows
    balance_C = torch.from_numpy(class_balance_C).float()
    between_LL = 1 - torch.kron(torch.eye(functions), torch.ones(classes, classes))
    start_LC = _start(agreement_LL.diagonal(), balance_C, config.snorkel_precision_init)
    # The package scales its start by the first number of this generator.
    conditionals_LC = start_LC * np.random.RandomState(seed % 2**32).random()
    conditionals_LC.requires_grad_()
    optimiser = torch.optim.SGD(
        [conditionals_LC],
        lr=config.snorkel_learning_rate,
        momentum=config.snorkel_momentum,
        weight_decay=config.snorkel_l2,
    )
    for _ in range(config.snorkel_epochs):
        loss = matching_loss(conditionals_LC, agreement_LL, balance_C, between_LL)
        loss = loss + config.snorkel_l2**2 * (conditionals_LC - start_LC).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fitted_LC = conditionals_LC.detach()
    if not fitted_LC.isfinite().all():
        raise md.InputError(
            f"snorkel_learning_rate: Snorkel diverges at {config.snorkel_learning_rate} "
            "(allowed: smaller rates)"
        )
    least = min(0.01, 10.0 ** -np.ceil(np.log10(rows)))
    fitted_KVC = fitted_LC.clamp(least, 1 - least).reshape(functions, classes, classes).numpy()
    return SnorkelLabelModel(
        conditionals_KVC=most_trusting(fitted_KVC, balance_C.numpy()),
        class_balance_C=class_balance_C,
    )


def matching_loss(
    conditionals_LC: Tensor, agreement_LL: Tensor, balance_C: Tensor, between_LL: Tensor
) -> Tensor:
    """‖O − μPμᵀ‖² between functions + ‖diag(O) − μp‖² (Ratner et al. 2019).

    Given the class, two functions vote independently, so the expected O of two different functions
    is μPμᵀ. Within one function only the diagonal of O, the rate of each vote, is used.

    Args:
        conditionals_LC: μ, p(ỹ_k = v | y = c).
        agreement_LL: O, the fraction of rows on which two indicators are both 1.
        balance_C: p(y = c), the diagonal of P.
        between_LL: 1 for indicators of different functions, else 0.
    """
    joint_LC = conditionals_LC * balance_C
    difference_LL = (agreement_LL - joint_LC @ conditionals_LC.T) * between_LL
    rates_L = agreement_LL.diagonal()
    return difference_LL.square().sum() + (joint_LC.sum(1) - rates_L).square().sum()


def _start(rates_L: Tensor, balance_C: Tensor, precision: float) -> Tensor:
    """Initial conditionals at one precision: p(ỹ_k = y | y) = p(ỹ_k = y) · precision / p(y).

    All other votes start at 0.
    """
    classes = len(balance_C)
    correct_KC = (rates_L.reshape(-1, classes) * precision / balance_C).clamp(0, 1)
    return torch.diag_embed(correct_KC).reshape(-1, classes)


def most_trusting(conditionals_KVC: np.ndarray, balance_C: np.ndarray) -> np.ndarray:
    """Permute the classes so that the functions are most often right.

    Permuting classes with the same balance (to three decimals) leaves the loss unchanged. With the
    initial values of `fit_snorkel` a permutation is rarely needed.
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
    """Indicators of the votes: 1 where function k votes v, shape (N, K·V), float32."""
    indicators_NKV = votes_NK[:, :, None] == np.arange(classes)
    size = votes_NK.shape[1] * classes
    return indicators_NKV.reshape(len(votes_NK), size).astype(np.float32)
