"""Expectation-maximisation of a label model with shared transitions (appendix A.4).

Shapes: N rows, K labeling functions, C classes, V outcomes of a vote, H states of the latent h.
"""

from __future__ import annotations

import torch
from torch import Tensor

import modicum as md
from modicum_algorithms.weak.models.label_model import SharedTransitions, Votes, shared_log_votes

_LEAST_COUNT = 1e-30


def responsibilities(
    label_model: SharedTransitions,
    outcomes_NK: Tensor,
    weights_NK: Tensor,
    log_classes_NC: Tensor,
    labels_N: Tensor,
) -> tuple[Tensor, Tensor]:
    """E-step: r(y, h) ∝ p_θ(y|x) p(h) Π_k p(ỹ_k|y, h)^{w_k}, and the logarithm of its sum.

    With every power 1 the sum is the likelihood of the observed votes. A row with a known label has
    all its weight at that label, and its likelihood is that of label and votes together.

    Args:
        label_model: Transitions and p(h).
        outcomes_NK: Outcome of every vote.
        weights_NK: Powers w of the votes; in plain EM 1, or 0 for votes left out.
        log_classes_NC: log p_θ(y|x), held fixed.
        labels_N: Known labels, -1 where unknown.

    Returns:
        Responsibilities (N, C, H), and log-likelihoods (N,).
    """
    states = label_model.shape_VKCH[3]
    log_transitions_VKL = label_model.logits_VKCH.log_softmax(0).flatten(2)
    log_votes_NL = shared_log_votes(outcomes_NK, weights_NK, log_transitions_VKL)
    log_votes_NCH = log_votes_NL.unflatten(1, (-1, states))
    log_states_H = label_model.state_logits_H.log_softmax(0)
    log_joint_NCH = log_classes_NC.unsqueeze(-1) + log_votes_NCH + log_states_H
    known_N1 = (labels_N != md.data.UNKNOWN).unsqueeze(1)
    other_NC = labels_N.unsqueeze(1) != torch.arange(log_classes_NC.shape[1])
    log_joint_NCH = log_joint_NCH.masked_fill((known_N1 & other_NC).unsqueeze(-1), -torch.inf)
    log_likelihood_N = torch.logsumexp(log_joint_NCH, (1, 2))
    return (log_joint_NCH - log_likelihood_N[:, None, None]).exp(), log_likelihood_N


@torch.no_grad()
def maximise_expectation(
    label_model: SharedTransitions,
    votes: Votes,
    responsibilities_NCH: Tensor,
    pseudo_counts_VKCH: Tensor | float = 0.0,
) -> None:
    """M-step: transitions and p(h) from expected counts, in place.

    φ_k(v|c, h) ∝ Σ_n r_n(c, h) 1[ỹ_k = v] over the votes that count, and p(h) ∝ Σ_n,c r_n(c, h).
    Pseudo-counts make it a maximum a posteriori step under a Dirichlet prior.
    """
    sizes_CH = label_model.shape_VKCH[2:]
    weights_NL = responsibilities_NCH.flatten(1)
    counts_VKL = torch.stack(
        [
            ((votes.outcomes_NK == outcome) * votes.counted_NK).T.to(weights_NL) @ weights_NL
            for outcome in range(votes.size)
        ]
    )
    counts_VKCH = counts_VKL.unflatten(2, sizes_CH) + pseudo_counts_VKCH
    counts_H = responsibilities_NCH.sum((0, 1))
    # Outcomes without any count keep a probability with a finite logarithm.
    label_model.logits_VKCH.copy_(counts_VKCH.clamp(min=_LEAST_COUNT).log().log_softmax(0))
    label_model.state_logits_H.copy_(counts_H.clamp(min=_LEAST_COUNT).log().log_softmax(0))
