"""Integrated weak learning: end model and label model trained as one (iWL and iWLD).

The thesis's objective (equation 3.7) has every exponent at 1 and the strong term `marginal`. The
defaults add, each as a setting: the likelihood of complete data on the strong set; votes raised to
a power below 1, and abstains left out, in the posterior over y; and two more labeling functions,
the coverage vote and the self vote.

Shapes: B mini-batch, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.config import IntegratedConfig, weight_of
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.models.joint_model import JointModel
from modicum_algorithms.weak.training import Objective


def votes_log_likelihood(log_joint_BC: Tensor) -> Tensor:
    """Log Σ_y p_θ(y|x) p(ỹ|y, x): equation 3.4 (and 3.8, A.2), in log space.

    Args:
        log_joint_BC: log p_θ(y|x) + log p(ỹ|y, x).

    Returns:
        One log-likelihood per row, shape (B,).
    """
    return torch.logsumexp(log_joint_BC, dim=-1)


def marginal_strong_log_likelihood(
    log_classes_BC: Tensor, log_joint_BC: Tensor, labels_B: Tensor
) -> Tensor:
    """L_S as printed, equation 3.5: mean of log p_θ(y|x) + log Σ_y' p_θ(y'|x) p(ỹ|y', x).

    The known label enters the first term only: the second still sums over all classes.

    Args:
        log_classes_BC: log p_θ(y|x) of rows with strong labels.
        log_joint_BC: log p_θ(y|x) + log p(ỹ|y, x) of the same rows.
        labels_B: Strong labels.
    """
    return (_at(log_classes_BC, labels_B) + votes_log_likelihood(log_joint_BC)).mean()


def complete_strong_log_likelihood(log_joint_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Mean of log p_θ(y|x) + log p(ỹ|y, x) at the known y: the likelihood of complete data.

    At a known y the votes give the end model no gradient. With all labels known the end model
    therefore learns from the labels alone, and the label model from labels and votes.

    Args:
        log_joint_BC: log p_θ(y|x) + log p(ỹ|y, x) of rows with strong labels.
        labels_B: Strong labels.
    """
    return _at(log_joint_BC, labels_B).mean()


def _at(values_BC: Tensor, labels_B: Tensor) -> Tensor:
    return values_BC.gather(-1, labels_B.unsqueeze(-1)).squeeze(-1)


def weak_lower_bound(posterior_BC: Tensor, log_joint_BC: Tensor) -> Tensor:
    """Mean of Σ_y q(y) (log p_θ(y|x) p(ỹ|y, x) − log q(y)) with q held fixed.

    A lower bound of L_W (equation 3.6) for every q. If q is the posterior, the bound equals L_W,
    and by Fisher's identity the gradients are equal, too.

    Args:
        posterior_BC: q, rows sum to 1.
        log_joint_BC: log p_θ(y|x) + log p(ỹ|y, x).
    """
    entropy_B = torch.special.entr(posterior_BC).sum(-1)
    return ((posterior_BC * log_joint_BC).sum(-1) + entropy_B).mean()


def balance_divergence(log_classes_BC: Tensor, balance_C: Tensor) -> Tensor:
    """KL(π ‖ mean of p_θ(y|x) over the batch): divergence of the predictions from the balance π.

    Args:
        log_classes_BC: log p_θ(y|x).
        balance_C: π, sums to 1.
    """
    log_mean_C = torch.logsumexp(log_classes_BC, 0) - math.log(len(log_classes_BC))
    return (torch.special.xlogy(balance_C, balance_C) - balance_C * log_mean_C).sum()


def integrated_objective(
    model: nn.Module,
    supervision: Supervision,
    config: IntegratedConfig,
    generator: torch.Generator,
    *,
    depends_on_x: bool,
) -> Objective:
    """The negative of equation 3.7 over the strong set S and the weak set W.

    Transition matrices are made from x (iWLD) if `depends_on_x`, else they are shared (iWL).
    """
    joint = JointModel(model, supervision, config, generator, depends_on_x=depends_on_x)
    targets_N = torch.tensor(supervision.labels_N)
    lambda_strong = weight_of(config, "lambda_strong")

    def loss(batches: Sequence[Tensor | None]) -> Tensor:
        strong_B, weak_B = batches
        # Both sets go through the networks together.
        log_classes_BC, log_joint_BC, evidence_BC = joint(
            torch.cat([rows for rows in batches if rows is not None])
        )
        size = 0 if strong_B is None else len(strong_B)
        objective = torch.zeros(())
        if strong_B is not None:  # λ_S L_S
            labels_B = targets_N[strong_B]
            strong = (
                complete_strong_log_likelihood(log_joint_BC[:size], labels_B)
                if config.strong_term == "complete"
                else marginal_strong_log_likelihood(  # equation 3.5
                    log_classes_BC[:size], log_joint_BC[:size], labels_B
                )
            )
            objective = objective + lambda_strong * strong
        if weak_B is not None:  # λ_W L_W, equation 3.6
            posterior_BC = joint.posterior(log_classes_BC[size:], evidence_BC[size:])
            weak = weak_lower_bound(posterior_BC, log_joint_BC[size:])
            objective = objective + config.lambda_weak * weak
            if config.lambda_balance > 0:
                divergence = balance_divergence(log_classes_BC[size:], joint.balance_C)
                objective = objective - config.lambda_balance * divergence
        return -objective  # the negative of equation 3.7

    def denoised() -> np.ndarray:
        soft_NC = joint.on_any_rows()(supervision.features_ND, supervision.votes_NK)
        return supervision.with_strong_labels(soft_NC)

    # A label network has no closed-form update, so iWLD always learns by gradient.
    by_gradient = depends_on_x or config.transition_updates == "gradient"
    joint.label_model.requires_grad_(by_gradient)
    groups = [{"params": list(model.parameters()), "lr": config.learning_rate}]
    if by_gradient:
        rate = (
            config.label_network_learning_rate if depends_on_x else config.transition_learning_rate
        )
        groups.append({"params": list(joint.label_model.parameters()), "lr": rate})
    return Objective(
        pools=[supervision.strong, joint.weak_rows()],
        loss=loss,
        groups=groups,
        denoised=denoised,
        transitions=joint.transitions,
        label_network=joint.label_model,
        joint_posterior=joint.on_any_rows(),
        refresh=(lambda: None) if by_gradient else joint.maximise,
    )
