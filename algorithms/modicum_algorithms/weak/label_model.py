"""Label models: transition matrices, shared by all points (iWL) or made from x (iWLD).

A label model may also have a latent h with a few states, so that labeling functions depend on each
other given y (appendix A.4); with one state that is the plain model.

Shapes: N rows, B mini-batch, D features, K labeling functions, C classes, V outcomes of a vote,
H states of the latent h. Outcomes come first in a matrix, φ[v, k, c, h] = p(ỹ_k = v | y = c, h):
normalising over a leading dimension is many times faster than over a short last one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.end_model import mlp
from modicum_algorithms.weak.losses import pointwise_log_votes, shared_log_votes
from modicum_algorithms.weak.majority_vote import majority_vote
from modicum_algorithms.weak.supervision import ABSTAIN

_LEAST_RATE = 1e-4  # of an outcome that a labeling function never shows
_STATE_NOISE = 0.5  # standard deviation of what tells the states of h apart at the start


@dataclass(frozen=True)
class Votes:
    """Votes as outcomes of a label model.

    Attributes:
        outcomes_NK: Outcome of every vote, int64, below `size`.
        counted_NK: 1 for votes in the product over labeling functions, 0 for those left out.
        evidence_NK: The power of each vote in the posterior over y; 1 throughout in the thesis.
        size: Number of outcomes V.
    """

    outcomes_NK: Tensor
    counted_NK: Tensor
    evidence_NK: Tensor
    size: int

    @classmethod
    def of(
        cls,
        votes_NK: np.ndarray,
        classes: int,
        abstain: str,
        vote_weight: float = 1.0,
        abstain_weight: float = 1.0,
    ) -> Votes:
        """Votes (-1 is an abstain) as outcomes.

        Args:
            votes_NK: The votes.
            classes: Number of classes.
            abstain: `emission` makes abstain the last of C + 1 outcomes (section 3.2.1);
                `missing` leaves abstains out of the product.
            vote_weight: Power of a vote in the posterior.
            abstain_weight: Power of an abstain in the posterior, under `emission`.
        """
        voted_NK = votes_NK != ABSTAIN
        emitted = abstain == "emission"
        outcomes_NK = np.where(voted_NK, votes_NK, classes if emitted else 0)
        counted_NK = np.ones_like(voted_NK) if emitted else voted_NK
        evidence_NK = np.where(voted_NK, vote_weight, abstain_weight if emitted else 0.0)
        return cls(
            torch.from_numpy(outcomes_NK.astype(np.int64)),
            torch.from_numpy(counted_NK.astype(np.float32)),
            torch.from_numpy(evidence_NK.astype(np.float32)),
            classes + 1 if emitted else classes,
        )

    def rows(self, rows_B: Tensor) -> Votes:
        """Some of the rows."""
        return Votes(
            self.outcomes_NK[rows_B], self.counted_NK[rows_B], self.evidence_NK[rows_B], self.size
        )

    def joined_by(self, outcomes_N: Tensor, counted_N: Tensor, evidence_N: Tensor) -> Votes:
        """The same rows with one more labeling function."""

        def join(left_NK: Tensor, right_N: Tensor) -> Tensor:
            return torch.cat([left_NK, right_N.unsqueeze(1).to(left_NK.dtype)], 1)

        return Votes(
            join(self.outcomes_NK, outcomes_N),
            join(self.counted_NK, counted_N),
            join(self.evidence_NK, evidence_N),
            self.size,
        )


def majority_vote_transitions(
    votes_NK: np.ndarray, classes: int, abstain: str, smoothing: float, towards: str
) -> Tensor:
    """Transition matrices counted against the majority vote, to start from (section 3.4.1).

    φ_k(v|c) ∝ smoothing · V · r_k(v) + Σ_n q_n(c) 1[ỹ_k = v], with q the majority vote of covered
    rows. Smoothing towards a function's own base rate says nothing of y; smoothing towards uniform
    outcomes makes every rare vote evidence for the classes that have few rows.

    Args:
        votes_NK: Votes, -1 is an abstain.
        classes: Number of classes.
        abstain: As in `Votes.of`.
        smoothing: Pseudo-count of each outcome, on average.
        towards: What r is: `base_rate`, how often a function shows the outcome, or `uniform`, 1/V.

    Returns:
        Log-probabilities, shape (V, K, C).
    """
    covered_NK = votes_NK[(votes_NK != ABSTAIN).any(1)]
    soft_NC = majority_vote(covered_NK, classes)
    outcomes = [*range(classes)] if abstain == "missing" else [*range(classes), ABSTAIN]
    counts_VKC = np.stack([(covered_NK == v).T.astype(np.float32) @ soft_NC for v in outcomes])
    if towards == "base_rate":
        shown_VK = np.stack([(covered_NK == v).sum(0) for v in outcomes])
        rates_VK = shown_VK.astype(np.float32) + _LEAST_RATE
        rates_VK /= rates_VK.sum(0)
        counts_VKC += smoothing * len(outcomes) * rates_VK[:, :, None]
    else:
        counts_VKC += smoothing
    return torch.from_numpy(np.log(counts_VKC / counts_VKC.sum(0)).astype(np.float32))


def coverage_transitions(coverage: float, outcomes: int, classes: int) -> Tensor:
    """Where the function starts that says whether any other votes: 0 for yes, 1 for no.

    Args:
        coverage: Share of rows with a vote.
        outcomes: Number of outcomes V, of which it shows two.
        classes: Number of classes.

    Returns:
        Log-probabilities, the same for every class, shape (V, 1, C).
    """
    rates_V = torch.full((outcomes,), _LEAST_RATE)
    rates_V[:2] += torch.tensor([coverage, 1 - coverage])
    return (rates_V / rates_V.sum()).log()[:, None, None].expand(outcomes, 1, classes)


def self_transitions(accuracy: float, outcomes: int, classes: int) -> Tensor:
    """Where the function starts that votes what the end model predicts.

    Args:
        accuracy: p(ỹ = y | y); the other classes share the rest.
        outcomes: Number of outcomes V.
        classes: Number of classes.

    Returns:
        Log-probabilities, shape (V, 1, C).
    """
    wrong = (1 - accuracy) / max(classes - 1, 1)
    votes_CC = torch.full((classes, classes), wrong).fill_diagonal_(accuracy)
    abstain_VC = torch.full((outcomes - classes, classes), _LEAST_RATE)
    matrix_VC = torch.cat([votes_CC, abstain_VC])
    return (matrix_VC / matrix_VC.sum(0)).log().unsqueeze(1)


class LabelModel(nn.Module):
    """p(ỹ_1, …, ỹ_K | y, x): equation 3.4 or 3.8, or A.2 with more than one state of h.

    Attributes:
        shape_VKCH: Sizes of the transition matrices.
    """

    shape_VKCH: tuple[int, int, int, int]

    def forward(self, features_BD: Tensor, votes: Votes) -> tuple[Tensor, Tensor]:
        """Log p(ỹ|y, x), and the same with every vote raised to its power as evidence.

        Args:
            features_BD: Features; the label model of iWL does not look at them.
            votes: Votes of the same rows.

        Returns:
            Two tensors (B, C); no gradient passes through the second.
        """
        raise NotImplementedError

    def outputs(self, features_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of every row: transitions (B, V, K, C, H) and p(h|x) (B, H)."""
        raise NotImplementedError

    def log_transitions(self, features_BD: Tensor) -> Tensor:
        """Log-probabilities of every row, shape (B, V, K, C, H)."""
        return self.outputs(features_BD)[0]

    def log_states(self, features_BD: Tensor) -> Tensor:
        """Log p(h|x), shape (B, H)."""
        return self.outputs(features_BD)[1]


def _likelihood_and_evidence(
    votes: Votes,
    log_votes: Callable[[Tensor, Tensor, Tensor], Tensor],
    log_transitions: Tensor,
    log_states_BH: Tensor,
) -> tuple[Tensor, Tensor]:
    """What `LabelModel.forward` returns.

    Args:
        votes: Votes of the rows.
        log_votes: `shared_log_votes` or `pointwise_log_votes`.
        log_transitions: What it takes, with classes and states as one dimension L = C·H.
        log_states_BH: log p(h|x).
    """

    def total(weights_BK: Tensor, log_transitions: Tensor) -> Tensor:
        log_votes_BL = log_votes(votes.outcomes_NK, weights_BK, log_transitions)
        return _over_states(log_votes_BL, log_states_BH)

    return (
        total(votes.counted_NK, log_transitions),
        total(votes.evidence_NK, log_transitions.detach()).detach(),
    )


def _over_states(log_votes_BL: Tensor, log_states_BH: Tensor) -> Tensor:
    """Log Σ_h p(h|x) Π_k p(ỹ_k|y, h), equation A.2; L = C·H, c·H + h."""
    states = log_states_BH.shape[-1]
    if states == 1:
        return log_votes_BL
    by_state_BCH = log_votes_BL.unflatten(1, (-1, states)) + log_states_BH.unsqueeze(1)
    return torch.logsumexp(by_state_BCH, -1)


def _with_states(initial_VKC: Tensor, states: int, generator: torch.Generator) -> Tensor:
    """Start of every state; noise tells them apart, else they would stay alike for ever."""
    initial_VKCH = initial_VKC.unsqueeze(-1).repeat(1, 1, 1, states)
    if states > 1:
        noise_VKCH = torch.randn(initial_VKCH.shape, generator=generator)
        initial_VKCH = initial_VKCH + _STATE_NOISE * noise_VKCH
    return initial_VKCH


class SharedTransitions(LabelModel):
    """p_φk(ỹ_k|y): one matrix per labeling function, whatever the point (figure 3.1a)."""

    def __init__(self, initial_VKC: Tensor, states: int, generator: torch.Generator) -> None:
        super().__init__()
        initial_VKCH = _with_states(initial_VKC, states, generator)
        outcomes, functions, classes = initial_VKC.shape
        self.shape_VKCH = (outcomes, functions, classes, states)
        self.logits_VKCH = nn.Parameter(initial_VKCH)
        self.state_logits_H = nn.Parameter(torch.zeros(states))

    def forward(self, features_BD: Tensor, votes: Votes) -> tuple[Tensor, Tensor]:
        """See `LabelModel`."""
        log_transitions_VKL = self.logits_VKCH.log_softmax(0).flatten(2)
        log_states_BH = self._log_states(len(features_BD))
        return _likelihood_and_evidence(votes, shared_log_votes, log_transitions_VKL, log_states_BH)

    def outputs(self, features_BD: Tensor) -> tuple[Tensor, Tensor]:
        """See `LabelModel`; the same for every row."""
        shared_1VKCH = self.logits_VKCH.log_softmax(0).unsqueeze(0)
        rows = len(features_BD)
        return shared_1VKCH.expand(rows, *self.shape_VKCH), self._log_states(rows)

    def _log_states(self, rows: int) -> Tensor:
        return self.state_logits_H.log_softmax(0).expand(rows, -1)


class PointwiseTransitions(LabelModel):
    """p(ỹ_k|y, φ_k = f_η(x)[k]): a network makes each point's matrices (figure 3.1b, 3.8)."""

    def __init__(
        self,
        inputs: int,
        initial_VKC: Tensor,
        hidden: Sequence[int],
        states: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        initial_VKCH = _with_states(initial_VKC, states, generator)
        outcomes, functions, classes = initial_VKC.shape
        self.shape_VKCH = (outcomes, functions, classes, states)
        # Kept with the weights, whose own shapes do not tell.
        self.register_buffer("sizes_VKCH", torch.tensor(self.shape_VKCH))
        # With one state there is nothing to say of h.
        self._state_outputs = states if states > 1 else 0
        outputs = initial_VKCH.numel() + self._state_outputs
        self.network = mlp(inputs, outputs, hidden, generator)
        last = list(self.network.modules())[-1]
        assert isinstance(last, nn.Linear)
        # Start from the majority vote's matrices at every point.
        with torch.no_grad():
            last.weight.zero_()
            last.bias.zero_()
            last.bias[: initial_VKCH.numel()] = initial_VKCH.flatten()

    def forward(self, features_BD: Tensor, votes: Votes) -> tuple[Tensor, Tensor]:
        """See `LabelModel`."""
        log_transitions_BVKCH, log_states_BH = self.outputs(features_BD)
        return _likelihood_and_evidence(
            votes, pointwise_log_votes, log_transitions_BVKCH.flatten(3), log_states_BH
        )

    def outputs(self, features_BD: Tensor) -> tuple[Tensor, Tensor]:
        """See `LabelModel`."""
        outcomes, functions, classes, states = self.shape_VKCH
        outputs_BO = self.network(features_BD)
        matrices = outcomes * functions * classes * states
        logits_BVL = outputs_BO[:, :matrices].unflatten(-1, (outcomes, -1))
        log_transitions_BVKCH = logits_BVL.log_softmax(1).unflatten(
            -1, (functions, classes, states)
        )
        if not self._state_outputs:
            return log_transitions_BVKCH, outputs_BO.new_zeros(len(features_BD), 1)
        return log_transitions_BVKCH, outputs_BO[:, matrices:].log_softmax(-1)


def mean_transitions(label_model: LabelModel, features_BD: Tensor) -> Tensor:
    """p(ỹ_k = v | y = c, x) = Σ_h p(h|x) φ_k(v|c, h) at each point, shape (B, V, K, C)."""
    log_transitions_BVKCH, log_states_BH = label_model.outputs(features_BD)
    return torch.einsum("bvkch,bh->bvkc", log_transitions_BVKCH.exp(), log_states_BH.exp())
