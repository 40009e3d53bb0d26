"""The joint model log p_θ(y|x) + log p(ỹ|y, x) of integrated weak learning, and its posteriors.

Shapes: N rows, B mini-batch, D features, K labeling functions, C classes, V outcomes of a vote,
H states of a latent h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import modicum as md
from modicum_algorithms.weak.config import IntegratedConfig, weight_of
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.models.expectation_maximisation import (
    maximise_expectation,
    responsibilities,
)
from modicum_algorithms.weak.models.label_model import (
    LabelModel,
    PointwiseTransitions,
    SharedTransitions,
    Votes,
    coverage_transitions,
    majority_vote_transitions,
    mean_transitions,
    self_transitions,
    with_abstains,
)

_NUMBERS_AT_ONCE = 2**22  # transition probabilities in memory, in passes over the training split
_SELF_ACCURACY = 0.7  # initial accuracy of the end model's own votes


def tempered_prior(
    log_classes_BC: Tensor, end_model_weight: float, log_balance_C: Tensor
) -> Tensor:
    """Evidence of y before the votes, w log p_θ(y|x) + (1 − w) log π(y), without gradient.

    Args:
        log_classes_BC: log p_θ(y|x).
        end_model_weight: w.
        log_balance_C: log π(y).

    Returns:
        Shape (B, C); not normalised.
    """
    return end_model_weight * log_classes_BC.detach() + (1 - end_model_weight) * log_balance_C


def tempered_posterior(
    log_classes_BC: Tensor, evidence_BC: Tensor, end_model_weight: float, log_balance_C: Tensor
) -> Tensor:
    """q(y) ∝ p_θ(y|x)^w π(y)^{1 − w} Π_k p(ỹ_k|y, x)^{w_k}, without gradient.

    With all powers 1 this is the posterior p(y|x, ỹ); with w = 0 it is the soft label that a
    two-stage method makes of the votes alone. Powers below 1 are the remedy of Miller and Dunson
    (2019, "Robust Bayesian Inference via Coarsening") for a misspecified likelihood: labeling
    functions are not independent given y, so their product is overconfident.

    Args:
        log_classes_BC: log p_θ(y|x).
        evidence_BC: Σ_k w_k log p(ỹ_k|y, x).
        end_model_weight: w.
        log_balance_C: log π(y).
    """
    prior_BC = tempered_prior(log_classes_BC, end_model_weight, log_balance_C)
    return (prior_BC + evidence_BC.detach()).softmax(-1)


def encode_votes(
    votes_NK: np.ndarray, classes: int, config: IntegratedConfig, says_coverage: bool
) -> Votes:
    """Votes as outcomes, with the coverage vote as the last function if there is one."""
    votes = Votes.of(
        votes_NK,
        classes,
        config.abstain,
        vote_weight=config.vote_weight,
        abstain_weight=config.abstain_weight,
    )
    if not says_coverage:
        return votes
    ones_N = torch.ones(len(votes_NK))
    uncovered_N = torch.from_numpy((votes_NK == md.data.ABSTAIN).all(1))
    return votes.joined_by(uncovered_N, ones_N, ones_N)


def with_end_model_vote(votes: Votes, log_classes_BC: Tensor, config: IntegratedConfig) -> Votes:
    """Votes of some rows together with the end model's (section 3.4.2), if it votes."""
    if not config.self_supervision:
        return votes
    confidence_B, predicted_B = log_classes_BC.detach().max(-1)
    sure_B = confidence_B.exp() > config.self_confidence
    return votes.joined_by(predicted_B, sure_B, config.vote_weight * sure_B)


@dataclass(frozen=True)
class JointPosterior:
    """Posteriors of a trained joint model for any rows, independent of its training rows.

    Attributes:
        model: End model, from features to logits.
        label_model: Label model.
        config: Settings of the training.
        says_coverage: True if there is a coverage vote, the last one before the end model's.
        balance_C: Class balance π, float32.
    """

    model: nn.Module
    label_model: LabelModel
    config: IntegratedConfig
    says_coverage: bool
    balance_C: Tensor

    @torch.inference_mode()
    def __call__(self, features_ND: Tensor, votes_NK: np.ndarray) -> np.ndarray:
        """Posterior q(y) of features and votes together, shape (N, C); see `tempered_posterior`."""
        votes, posteriors = self._encoded(votes_NK), []
        weight = weight_of(self.config, "end_model_weight")
        for rows_B in self._chunks(features_ND):
            features_BD = features_ND[rows_B]
            log_classes_BC = self.model(features_BD).log_softmax(-1)
            joined = with_end_model_vote(votes.rows(rows_B), log_classes_BC, self.config)
            _, evidence_BC = self.label_model(features_BD, joined)
            posteriors.append(
                tempered_posterior(log_classes_BC, evidence_BC, weight, self.balance_C.log())
            )
        return torch.cat(posteriors).numpy()

    @torch.inference_mode()
    def of_votes(
        self, features_ND: Tensor, votes_NK: np.ndarray, prior_C: np.ndarray
    ) -> np.ndarray:
        """Posterior of the votes alone, p(y|ỹ) ∝ π(y) Π_k p(ỹ_k|y, x)^{w_k}, shape (N, C).

        The end model has no part in it, nor has its own vote (`self_supervision`).
        """
        votes, posteriors = self._encoded(votes_NK), []
        if self.config.self_supervision:
            silent_N = torch.zeros(len(votes_NK))
            votes = votes.joined_by(silent_N, silent_N, silent_N)
        log_prior_C = torch.from_numpy(np.log(prior_C.clip(min=1e-30))).float()
        for rows_B in self._chunks(features_ND):
            _, evidence_BC = self.label_model(features_ND[rows_B], votes.rows(rows_B))
            posteriors.append((log_prior_C + evidence_BC).softmax(-1))
        return torch.cat(posteriors).numpy()

    def _encoded(self, votes_NK: np.ndarray) -> Votes:
        classes = self.label_model.shape_VKCH[2]
        return encode_votes(votes_NK, classes, self.config, self.says_coverage)

    def _chunks(self, features_ND: Tensor) -> Sequence[Tensor]:
        return torch.arange(len(features_ND)).split(_rows_at_once(self.label_model))


def _rows_at_once(label_model: LabelModel) -> int:
    """Rows of a pass without gradients; few where every row has large matrices."""
    return max(1, _NUMBERS_AT_ONCE // math.prod(label_model.shape_VKCH))


class JointModel:
    """The joint model of the rows of a training split.

    Attributes:
        model: End model, from features to logits.
        label_model: Label model.
        votes: Votes of the training split, with the coverage vote.
        says_coverage: True if there is a coverage vote.
        balance_C: Class balance π, float32.
        config: Settings of the method.
    """

    def __init__(
        self,
        model: nn.Module,
        supervision: Supervision,
        config: IntegratedConfig,
        generator: torch.Generator,
        *,
        depends_on_x: bool,
    ) -> None:
        self.model, self.config, self._supervision = model, config, supervision
        self.balance_C = torch.tensor(supervision.balance, dtype=torch.float32)
        covered = supervision.covered
        self.says_coverage = config.coverage_vote and bool(0 < covered.mean() < 1)
        self.votes = encode_votes(
            supervision.votes_NK, supervision.classes, config, self.says_coverage
        )
        initial_VKC = self._initial_transitions()
        states, hidden = config.latent_states, config.label_network_hidden
        inputs = supervision.features_ND.shape[1]
        self.label_model: LabelModel = (
            PointwiseTransitions(inputs, initial_VKC, hidden, states, generator)
            if depends_on_x
            else SharedTransitions(initial_VKC, states, generator)
        )
        # A prior worth a few rows, centred on the initial transitions.
        self._pseudo_counts_VKCH = (
            config.transition_smoothing * self.votes.size * initial_VKC.exp().unsqueeze(-1)
        )

    def _initial_transitions(self) -> Tensor:
        config, supervision, outcomes = self.config, self._supervision, self.votes.size
        initial = [
            majority_vote_transitions(
                supervision.votes_NK,
                supervision.classes,
                config.abstain,
                config.transition_smoothing,
                config.transition_prior,
            )
        ]
        if self.says_coverage:
            coverage = float(supervision.covered.mean())
            initial.append(coverage_transitions(coverage, outcomes, supervision.classes))
        if config.self_supervision:
            initial.append(self_transitions(_SELF_ACCURACY, outcomes, supervision.classes))
        return torch.cat(initial, 1)

    def __call__(self, rows_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log p_θ(y|x), log p_θ(y|x) + log p(ỹ|y, x) and the evidence of the votes, (B, C) each."""
        features_BD = self._supervision.features_ND[rows_B]
        log_classes_BC = self.model(features_BD).log_softmax(-1)
        votes = self.all_votes(rows_B, log_classes_BC)
        log_votes_BC, evidence_BC = self.label_model(features_BD, votes)
        return log_classes_BC, log_classes_BC + log_votes_BC, evidence_BC

    def all_votes(self, rows_B: Tensor, log_classes_BC: Tensor) -> Votes:
        """Votes of some rows, the end model's included (section 3.4.2)."""
        return with_end_model_vote(self.votes.rows(rows_B), log_classes_BC, self.config)

    def posterior(self, log_classes_BC: Tensor, evidence_BC: Tensor) -> Tensor:
        """Posterior q(y) of features and votes together, shape (B, C)."""
        weight = weight_of(self.config, "end_model_weight")
        return tempered_posterior(log_classes_BC, evidence_BC, weight, self.balance_C.log())

    def weak_rows(self) -> np.ndarray:
        """Row numbers of W: rows without a strong label whose posterior carries information.

        A row without votes is informative only if silence is evidence. If the end model's power is
        below 1, the posterior of such a row is only a flatter prediction.
        """
        config, supervision = self.config, self._supervision
        silence = config.abstain == "emission" and config.abstain_weight > 0
        everywhere = silence or self.says_coverage or config.self_supervision
        usable = np.ones(len(supervision), dtype=bool)
        if not everywhere or weight_of(config, "end_model_weight") < 1:
            usable = supervision.covered.copy()
        usable[supervision.strong] = False
        return np.flatnonzero(usable)

    @torch.no_grad()
    def maximise(self) -> None:
        """One step of expectation-maximisation of the label model over S and W."""
        assert isinstance(self.label_model, SharedTransitions)
        rows_B = torch.from_numpy(np.concatenate([self._supervision.strong, self.weak_rows()]))
        log_classes_BC = self.model(self._supervision.features_ND[rows_B]).log_softmax(-1)
        votes = self.all_votes(rows_B, log_classes_BC)
        weight = weight_of(self.config, "end_model_weight")
        expected_BCH, _ = responsibilities(
            self.label_model,
            votes.outcomes_NK,
            votes.evidence_NK,
            tempered_prior(log_classes_BC, weight, self.balance_C.log()),
            torch.from_numpy(self._supervision.labels_N)[rows_B],
        )
        maximise_expectation(self.label_model, votes, expected_BCH, self._pseudo_counts_VKCH)

    def on_any_rows(self) -> JointPosterior:
        """The same model without the training split."""
        return JointPosterior(
            self.model, self.label_model, self.config, self.says_coverage, self.balance_C
        )

    @torch.inference_mode()
    def transitions(self) -> np.ndarray:
        """p(ỹ_k = v | y = c), (C + 1, K, C), averaged over rows and states of h."""
        functions = self._supervision.votes_NK.shape[1]
        outcomes, _, classes, _ = self.label_model.shape_VKCH
        total_VKC = torch.zeros(outcomes, functions, classes)
        for features_BD in self._supervision.features_ND.split(_rows_at_once(self.label_model)):
            total_VKC += mean_transitions(self.label_model, features_BD)[:, :, :functions].sum(0)
        mean_VKC = (total_VKC / len(self._supervision)).numpy()
        if self.config.abstain == "emission":
            return mean_VKC
        return with_abstains(mean_VKC, self._supervision.votes_NK)
