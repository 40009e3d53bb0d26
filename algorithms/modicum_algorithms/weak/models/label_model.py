"""Label models p(ỹ|y, x): transition matrices shared by all points (iWL) or made from x (iWLD).

A label model may have a latent variable h with a few states, which makes labeling functions depend
on each other given y (appendix A.4). One state gives the plain model.

Shapes: N rows, B mini-batch, D features, K labeling functions, C classes, V outcomes of a vote
(C classes, then abstain if it is an outcome), H states of h. Outcomes are the first dimension of a
matrix, φ[v, k, c, h] = p(ỹ_k = v | y = c, h): normalising over a leading dimension is many times
faster than over a short last one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import modicum as md
from modicum_algorithms.weak.config import IntegratedConfig
from modicum_algorithms.weak.labeling import majority_vote
from modicum_algorithms.weak.models.end_model import mlp

_LEAST_RATE = 1e-4  # rate of an outcome that a labeling function never shows
_STATE_NOISE = 0.5  # standard deviation of the initial noise between the states of h


@dataclass(frozen=True)
class Votes:
    """Votes as outcomes of a label model.

    Attributes:
        outcomes_NK: Outcome of every vote, int64, from 0 to `size` - 1.
        counted_NK: 1 for votes in the product over labeling functions, 0 for those left out.
        evidence_NK: Power of each vote in the posterior over y (thesis: 1).
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
        *,
        vote_weight: float,
        abstain_weight: float,
    ) -> Votes:
        """Encode votes, of which -1 is an abstain; the other arguments are settings.

        `emission` makes abstain the last of C + 1 outcomes (section 3.2.1), `missing` leaves
        abstains out of the product.
        """
        voted_NK = votes_NK != md.data.ABSTAIN
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
        """Votes of some of the rows."""
        return Votes(
            self.outcomes_NK[rows_B], self.counted_NK[rows_B], self.evidence_NK[rows_B], self.size
        )

    def joined_by(self, outcomes_N: Tensor, counted_N: Tensor, evidence_N: Tensor) -> Votes:
        """Votes of the same rows with one more labeling function, the last."""

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
    """Initial transition matrices, counted against the majority vote (section 3.4.1).

    φ_k(v|c) ∝ smoothing · V · r_k(v) + Σ_n q_n(c) 1[ỹ_k = v], where q is the majority vote of the
    covered rows. Smoothing towards a function's base rates adds no evidence of y; smoothing towards
    uniform outcomes makes every rare vote evidence for the classes that have few rows.

    Args:
        votes_NK: Votes, -1 is an abstain.
        classes: Number of classes.
        abstain: Setting `abstain`.
        smoothing: Setting `transition_smoothing`.
        towards: Setting `transition_prior`: r is a function's rates of its outcomes, or 1/V.

    Returns:
        Log-probabilities, shape (V, K, C).
    """
    covered_NK = votes_NK[(votes_NK != md.data.ABSTAIN).any(1)]
    soft_NC = majority_vote(covered_NK, classes)
    outcomes = [*range(classes)] if abstain == "missing" else [*range(classes), md.data.ABSTAIN]
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
    """Initial matrix of the coverage vote: 0 where some function votes on the row, else 1.

    Log-probabilities, shape (V, 1, C), the same for every class; coverage is the share of rows with
    a vote.
    """
    rates_V = torch.full((outcomes,), _LEAST_RATE)
    rates_V[:2] += torch.tensor([coverage, 1 - coverage])
    return (rates_V / rates_V.sum()).log()[:, None, None].expand(outcomes, 1, classes)


def self_transitions(accuracy: float, outcomes: int, classes: int) -> Tensor:
    """Initial matrix of the self vote, which repeats the end model's prediction.

    Log-probabilities, shape (V, 1, C). The accuracy is p(ỹ = y | y); the other classes share the
    rest equally.
    """
    wrong = (1 - accuracy) / max(classes - 1, 1)
    votes_CC = torch.full((classes, classes), wrong).fill_diagonal_(accuracy)
    abstain_VC = torch.full((outcomes - classes, classes), _LEAST_RATE)
    matrix_VC = torch.cat([votes_CC, abstain_VC])
    return (matrix_VC / matrix_VC.sum(0)).log().unsqueeze(1)


def shared_log_votes(
    outcomes_BK: Tensor, weights_BK: Tensor, log_transitions_VKC: Tensor
) -> Tensor:
    """Σ_k w_k log φ_k(ỹ_k|y) with one transition matrix per labeling function (equation 3.4).

    Args:
        outcomes_BK: Outcome of every vote, int64.
        weights_BK: Powers of the votes: 1 for votes in the product, 0 for those left out.
        log_transitions_VKC: log φ_k(ỹ_k = v | y = c), a distribution over v.

    Returns:
        Shape (B, C).
    """
    matrices_LC = log_transitions_VKC.flatten(0, 1)  # row v·K + k
    functions = outcomes_BK.shape[1]
    places_BK = outcomes_BK * functions + torch.arange(functions)
    # The votes as indicators turn the sum into one matrix product, forwards and backwards.
    indicators_BL = matrices_LC.new_zeros(len(outcomes_BK), len(matrices_LC))
    indicators_BL.scatter_(1, places_BK, weights_BK.to(matrices_LC.dtype))
    return indicators_BL @ matrices_LC


def pointwise_log_votes(
    outcomes_BK: Tensor, weights_BK: Tensor, log_transitions_BVKC: Tensor
) -> Tensor:
    """Σ_k w_k log p(ỹ_k|y, φ_k = f_η(x)[k]) with transition matrices for each point (3.8).

    Args:
        outcomes_BK: Outcome of every vote, int64.
        weights_BK: Powers of the votes: 1 for votes in the product, 0 for those left out.
        log_transitions_BVKC: Logarithms of each row's transition matrices.

    Returns:
        Shape (B, C).
    """
    batch, _, functions, classes = log_transitions_BVKC.shape
    index_B1KC = outcomes_BK[:, None, :, None].expand(batch, 1, functions, classes)
    chosen_BKC = log_transitions_BVKC.gather(1, index_B1KC).squeeze(1)
    return (chosen_BKC * weights_BK.unsqueeze(-1)).sum(1)


class LabelModel(nn.Module):
    """p(ỹ_1, …, ỹ_K | y, x): equation 3.4 or 3.8, or A.2 with more than one state of h.

    Attributes:
        shape_VKCH: Shape of the transition matrices.
    """

    shape_VKCH: tuple[int, int, int, int]

    def forward(self, features_BD: Tensor, votes: Votes) -> tuple[Tensor, Tensor]:
        """Log p(ỹ|y, x), and the same with every vote raised to its power as evidence.

        Both are (B, C); no gradient passes through the second. iWL's label model ignores x.
        """
        raise NotImplementedError

    def outputs(self, features_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities for every row: transitions (B, V, K, C, H) and p(h|x) (B, H)."""
        raise NotImplementedError


def _likelihood_and_evidence(
    votes: Votes,
    log_votes: Callable[[Tensor, Tensor, Tensor], Tensor],
    log_transitions: Tensor,
    log_states_BH: Tensor,
) -> tuple[Tensor, Tensor]:
    """Log-likelihood and evidence of the votes, as `LabelModel.forward` returns them.

    The transitions are those that `log_votes` takes, with classes and states as one dimension
    L = C·H.
    """

    def total(weights_BK: Tensor, log_transitions: Tensor) -> Tensor:
        log_votes_BL = log_votes(votes.outcomes_NK, weights_BK, log_transitions)
        return _over_states(log_votes_BL, log_states_BH)

    return (
        total(votes.counted_NK, log_transitions),
        total(votes.evidence_NK, log_transitions.detach()).detach(),
    )


def _over_states(log_votes_BL: Tensor, log_states_BH: Tensor) -> Tensor:
    """Log Σ_h p(h|x) Π_k p(ỹ_k|y, h), equation A.2; class c and state h are at l = c·H + h."""
    states = log_states_BH.shape[-1]
    if states == 1:
        return log_votes_BL
    by_state_BCH = log_votes_BL.unflatten(1, (-1, states)) + log_states_BH.unsqueeze(1)
    return torch.logsumexp(by_state_BCH, -1)


def _with_states(initial_VKC: Tensor, states: int, generator: torch.Generator) -> Tensor:
    """Initial matrices of every state, with noise: states that start alike would stay alike."""
    initial_VKCH = initial_VKC.unsqueeze(-1).repeat(1, 1, 1, states)
    if states > 1:
        noise_VKCH = torch.randn(initial_VKCH.shape, generator=generator)
        initial_VKCH = initial_VKCH + _STATE_NOISE * noise_VKCH
    return initial_VKCH


class SharedTransitions(LabelModel):
    """p_φk(ỹ_k|y): one matrix per labeling function, the same at every point (figure 3.1a)."""

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
        """See `LabelModel`; all rows have the same."""
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
        # Saved with the weights, whose shapes do not tell these sizes.
        self.register_buffer("sizes_VKCH", torch.tensor(self.shape_VKCH))
        # With one state p(h|x) is 1 and needs no output.
        self._state_outputs = states if states > 1 else 0
        outputs = initial_VKCH.numel() + self._state_outputs
        self.network = mlp(inputs, outputs, hidden, generator)
        last = list(self.network.modules())[-1]
        assert isinstance(last, nn.Linear)
        # At first every point has the majority vote's matrices.
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


def with_abstains(transitions_VKC: np.ndarray, votes_NK: np.ndarray) -> np.ndarray:
    """Transitions (C + 1, K, C) of a model that leaves abstains out, with abstain as last outcome.

    A function's abstain rate is its observed one, the same for every class.
    """
    coverage_K1 = (votes_NK != md.data.ABSTAIN).mean(0)[:, None]
    abstain_1KC = np.broadcast_to(1 - coverage_K1, transitions_VKC.shape[1:])[None]
    return np.concatenate([transitions_VKC * coverage_K1, abstain_1KC])


def mean_transitions(label_model: LabelModel, features_BD: Tensor) -> Tensor:
    """p(ỹ_k = v | y = c, x) = Σ_h p(h|x) φ_k(v|c, h) at each point, shape (B, V, K, C)."""
    log_transitions_BVKCH, log_states_BH = label_model.outputs(features_BD)
    return torch.einsum("bvkch,bh->bvkc", log_transitions_BVKCH.exp(), log_states_BH.exp())


def rebuilt_label_model(
    config: IntegratedConfig, weights: Mapping[str, Tensor], inputs: int
) -> LabelModel:
    """A `SharedTransitions` or `PointwiseTransitions` from its saved tensors."""
    generator = torch.Generator()
    label_model: LabelModel
    if "logits_VKCH" in weights:
        *shape_VKC, states = weights["logits_VKCH"].shape
        label_model = SharedTransitions(torch.zeros(shape_VKC), states, generator)
    else:
        *shape_VKC, states = weights["sizes_VKCH"].tolist()
        label_model = PointwiseTransitions(
            inputs, torch.zeros(shape_VKC), config.label_network_hidden, states, generator
        )
    label_model.load_state_dict(weights)
    return label_model
