"""Integrated weak learning: end model and label model trained as one (iWL and iWLD).

The thesis's objective (equation 3.7) is here with every exponent at 1 and the strong term
`marginal`. What the defaults add, each of them a setting: the likelihood of complete data on the
strong set, votes raised to a power below 1 and silence left out of the posterior over y, and two
more labeling functions, one that says whether any other votes and one that votes what the end
model is sure of.

Shapes: N rows, D features, B mini-batch, K labeling functions, C classes, V outcomes of a vote,
H states of a latent h.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.end_model import Objective
from modicum_algorithms.weak.expectation_maximisation import (
    maximise_expectation,
    responsibilities,
)
from modicum_algorithms.weak.label_model import (
    LabelModel,
    PointwiseTransitions,
    SharedTransitions,
    Votes,
    coverage_transitions,
    majority_vote_transitions,
    mean_transitions,
    self_transitions,
)
from modicum_algorithms.weak.losses import (
    balance_divergence,
    complete_strong_log_likelihood,
    marginal_strong_log_likelihood,
    tempered_posterior,
    tempered_prior,
    weak_lower_bound,
)
from modicum_algorithms.weak.supervision import ABSTAIN, Supervision
from modicum_algorithms.weak.two_stage import with_strong_labels

_NUMBERS_AT_ONCE = 2**22  # of transitions, in passes over the training split
_SELF_ACCURACY = 0.7  # that the end model's own votes start from


THESIS: Mapping[str, Any] = MappingProxyType(
    {
        "abstain": "emission",
        "strong_term": "marginal",
        "vote_weight": 1.0,
        "abstain_weight": 1.0,
        "end_model_weight": 1.0,
        "coverage_vote": False,
        "self_supervision": False,
        "transition_prior": "uniform",
        "label_network_learning_rate": 1e-3,
    }
)
"""Settings of the objective as the thesis has it, for the estimator and the experiment alike."""


@dataclass(frozen=True)
class IntegratedSettings:
    """Settings of the joint objective; see `WeakLearningConfig` for what they mean."""

    depends_on_x: bool = False
    abstain: str = "emission"
    strong_term: str = "complete"
    lambda_strong: float = 1.0
    lambda_weak: float = 1.0
    lambda_balance: float = 0.0
    class_balance_C: np.ndarray | None = None
    vote_weight: float = 0.5
    abstain_weight: float = 0.0
    end_model_weight: float = 1.0
    coverage_vote: bool = True
    self_supervision: bool = True
    self_confidence: float = 0.8
    latent_states: int = 1
    transition_smoothing: float = 1.0
    transition_prior: str = "base_rate"
    transition_updates: str = "gradient"
    transition_learning_rate: float = 1e-3
    label_network_learning_rate: float = 1e-4
    label_network_hidden_units: int = 100
    label_network_hidden_layers: int = 2
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class JointPosterior:
    """What a trained joint model says of y on any rows, without those that it was trained on.

    Attributes:
        model: The end model, from features to logits.
        label_model: The label model.
        settings: As in training.
        says_coverage: Whether the last vote, that of the end model apart, is the coverage vote.
        balance_C: The class balance π.
    """

    model: nn.Module
    label_model: LabelModel
    settings: IntegratedSettings
    says_coverage: bool
    balance_C: Tensor

    @torch.inference_mode()
    def __call__(self, features_ND: Tensor, votes_NK: np.ndarray) -> np.ndarray:
        """q(y), what features and votes say together, shape (N, C); see `tempered_posterior`.

        Args:
            features_ND: Features.
            votes_NK: Votes of the labeling functions, -1 is an abstain.
        """
        votes, posteriors = self._encoded(votes_NK), []
        for rows_B in self._chunks(features_ND):
            features_BD = features_ND[rows_B]
            log_classes_BC = self.model(features_BD).log_softmax(-1)
            joined = with_end_model_vote(votes.rows(rows_B), log_classes_BC, self.settings)
            _, evidence_BC = self.label_model(features_BD, joined)
            posteriors.append(
                tempered_posterior(
                    log_classes_BC,
                    evidence_BC,
                    self.settings.end_model_weight,
                    self.balance_C.log(),
                )
            )
        return torch.cat(posteriors).numpy()

    @torch.inference_mode()
    def of_votes(
        self, features_ND: Tensor, votes_NK: np.ndarray, prior_C: np.ndarray
    ) -> np.ndarray:
        """p(y|ỹ) ∝ π(y) Π_k p(ỹ_k|y, x)^{w_k}, the label model's word alone, shape (N, C).

        The end model has no part in it, its own vote (`self_supervision`) included.

        Args:
            features_ND: Features, which decide the matrices of iWLD.
            votes_NK: Votes of the labeling functions, -1 is an abstain.
            prior_C: π.
        """
        votes, posteriors = self._encoded(votes_NK), []
        if self.settings.self_supervision:
            silent_N = torch.zeros(len(votes_NK))
            votes = votes.joined_by(silent_N, silent_N, silent_N)
        log_prior_C = torch.from_numpy(np.log(prior_C.clip(min=1e-30))).float()
        for rows_B in self._chunks(features_ND):
            _, evidence_BC = self.label_model(features_ND[rows_B], votes.rows(rows_B))
            posteriors.append((log_prior_C + evidence_BC).softmax(-1))
        return torch.cat(posteriors).numpy()

    def _encoded(self, votes_NK: np.ndarray) -> Votes:
        classes = self.label_model.shape_VKCH[2]
        return encode_votes(votes_NK, classes, self.settings, self.says_coverage)

    def _chunks(self, features_ND: Tensor) -> Sequence[Tensor]:
        return torch.arange(len(features_ND)).split(_rows_at_once(self.label_model))


def encode_votes(
    votes_NK: np.ndarray, classes: int, settings: IntegratedSettings, says_coverage: bool
) -> Votes:
    """Votes as outcomes, the coverage vote joined as the last function if there is one."""
    votes = Votes.of(
        votes_NK, classes, settings.abstain, settings.vote_weight, settings.abstain_weight
    )
    if not says_coverage:
        return votes
    ones_N = torch.ones(len(votes_NK))
    uncovered_N = torch.from_numpy((votes_NK == ABSTAIN).all(1))
    return votes.joined_by(uncovered_N, ones_N, ones_N)


def with_end_model_vote(
    votes: Votes, log_classes_BC: Tensor, settings: IntegratedSettings
) -> Votes:
    """Votes of some rows with those of the end model (section 3.4.2), if it votes."""
    if not settings.self_supervision:
        return votes
    confidence_B, predicted_B = log_classes_BC.detach().max(-1)
    sure_B = confidence_B.exp() > settings.self_confidence
    return votes.joined_by(predicted_B, sure_B, settings.vote_weight * sure_B)


def _rows_at_once(label_model: LabelModel) -> int:
    """Rows of a pass without gradients, few where each has large matrices."""
    return max(1, _NUMBERS_AT_ONCE // math.prod(label_model.shape_VKCH))


class JointModel:
    """The joint model log p_θ(y|x) + log p(ỹ|y, x) of a training split's rows.

    Attributes:
        model: The end model, from features to logits.
        label_model: The label model.
        votes: Votes of the training split, the coverage vote included.
        balance_C: The class balance π.
        settings: How.
    """

    def __init__(
        self,
        model: nn.Module,
        supervision: Supervision,
        settings: IntegratedSettings,
        generator: torch.Generator,
    ) -> None:
        classes, votes_NK = supervision.classes, supervision.votes_NK
        self.model, self.settings, self._supervision = model, settings, supervision
        balance_C = settings.class_balance_C
        if balance_C is None:
            balance_C = np.full(classes, 1 / classes)
        self.balance_C = torch.tensor(balance_C, dtype=torch.float32)
        covered = supervision.covered
        self.says_coverage = settings.coverage_vote and bool(0 < covered.mean() < 1)
        self.votes = encode_votes(votes_NK, classes, settings, self.says_coverage)
        initial = [
            majority_vote_transitions(
                votes_NK,
                classes,
                settings.abstain,
                settings.transition_smoothing,
                settings.transition_prior,
            )
        ]
        outcomes = self.votes.size
        if self.says_coverage:
            initial.append(coverage_transitions(float(covered.mean()), outcomes, classes))
        if settings.self_supervision:
            initial.append(self_transitions(_SELF_ACCURACY, outcomes, classes))
        initial_VKC = torch.cat(initial, 1)
        self.label_model = _label_model(initial_VKC, supervision, settings, generator)
        # A prior worth a few rows, around the transitions that the majority vote starts from.
        self._pseudo_counts_VKCH = (
            settings.transition_smoothing * outcomes * initial_VKC.exp().unsqueeze(-1)
        )

    def __call__(self, rows_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log p_θ(y|x), log p_θ(y|x) + log p(ỹ|y, x) and the evidence of the votes, (B, C) each."""
        features_BD = self._supervision.features_ND[rows_B]
        log_classes_BC = self.model(features_BD).log_softmax(-1)
        votes = self.all_votes(rows_B, log_classes_BC)
        log_votes_BC, evidence_BC = self.label_model(features_BD, votes)
        return log_classes_BC, log_classes_BC + log_votes_BC, evidence_BC

    def all_votes(self, rows_B: Tensor, log_classes_BC: Tensor) -> Votes:
        """Votes of some rows, those of the end model included (section 3.4.2)."""
        return with_end_model_vote(self.votes.rows(rows_B), log_classes_BC, self.settings)

    def posterior(self, log_classes_BC: Tensor, evidence_BC: Tensor) -> Tensor:
        """q(y), what the model makes of features and votes together, shape (B, C)."""
        return tempered_posterior(
            log_classes_BC, evidence_BC, self.settings.end_model_weight, self.balance_C.log()
        )

    def weak_rows(self) -> np.ndarray:
        """Row numbers of W: those without a strong label whose posterior can teach something.

        A row without any vote teaches only if silence is evidence; where the end model's own power
        is below 1 its posterior would be no more than a flatter prediction.
        """
        settings, supervision = self.settings, self._supervision
        silence = settings.abstain == "emission" and settings.abstain_weight > 0
        everywhere = silence or self.says_coverage or settings.self_supervision
        usable = np.ones(len(supervision), dtype=bool)
        if not everywhere or settings.end_model_weight < 1:
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
        expected_BCH, _ = responsibilities(
            self.label_model,
            votes.outcomes_NK,
            votes.evidence_NK,
            tempered_prior(log_classes_BC, self.settings.end_model_weight, self.balance_C.log()),
            torch.from_numpy(self._supervision.labels_N)[rows_B],
        )
        maximise_expectation(self.label_model, votes, expected_BCH, self._pseudo_counts_VKCH)

    def on_any_rows(self) -> JointPosterior:
        """The same model without the training split."""
        return JointPosterior(
            self.model, self.label_model, self.settings, self.says_coverage, self.balance_C
        )

    def denoised(self) -> np.ndarray:
        """q(y) of every training row, the strong label where there is one, shape (N, C)."""
        supervision = self._supervision
        soft_NC = self.on_any_rows()(supervision.features_ND, supervision.votes_NK)
        return with_strong_labels(supervision, soft_NC)

    @torch.inference_mode()
    def transitions(self) -> np.ndarray:
        """p(ỹ_k = v | y = c) of the labeling functions, averaged over rows and states of h.

        Shape (C + 1, K, C). Where abstains are missing, a function votes as often as it did,
        whatever the class.
        """
        functions = self._supervision.votes_NK.shape[1]
        outcomes, _, classes, _ = self.label_model.shape_VKCH
        total_VKC = torch.zeros(outcomes, functions, classes)
        for features_BD in self._supervision.features_ND.split(_rows_at_once(self.label_model)):
            total_VKC += mean_transitions(self.label_model, features_BD)[:, :, :functions].sum(0)
        mean_VKC = (total_VKC / len(self._supervision)).numpy()
        if self.settings.abstain == "emission":
            return mean_VKC
        coverage_K1 = (self._supervision.votes_NK != ABSTAIN).mean(0)[:, None]
        abstain_1KC = np.broadcast_to(1 - coverage_K1, mean_VKC.shape[1:])[None]
        return np.concatenate([mean_VKC * coverage_K1, abstain_1KC])


def _label_model(
    initial_VKC: Tensor,
    supervision: Supervision,
    settings: IntegratedSettings,
    generator: torch.Generator,
) -> LabelModel:
    if not settings.depends_on_x:
        return SharedTransitions(initial_VKC, settings.latent_states, generator)
    hidden: Sequence[int] = [
        settings.label_network_hidden_units
    ] * settings.label_network_hidden_layers
    inputs = supervision.features_ND.shape[1]
    return PointwiseTransitions(inputs, initial_VKC, hidden, settings.latent_states, generator)


def integrated_objective(
    model: nn.Module,
    supervision: Supervision,
    settings: IntegratedSettings,
    generator: torch.Generator,
) -> Objective:
    """The objective of equation 3.7 over the strong set S and the weak set W.

    Args:
        model: End model, from features to logits.
        supervision: Features, votes and strong labels.
        settings: How.
        generator: Initialises the label model.
    """
    joint = JointModel(model, supervision, settings, generator)
    label_model = joint.label_model
    targets_N = torch.tensor(supervision.labels_N)

    def loss(batches: Sequence[Tensor | None]) -> Tensor:
        strong_B, weak_B = batches
        # Both sets go through the networks together, then part.
        log_classes_BC, log_joint_BC, evidence_BC = joint(
            torch.cat([rows for rows in batches if rows is not None])
        )
        size = 0 if strong_B is None else len(strong_B)
        objective = torch.zeros(())
        if strong_B is not None:  # λ_S L_S
            labels_B = targets_N[strong_B]
            strong = (
                complete_strong_log_likelihood(log_joint_BC[:size], labels_B)
                if settings.strong_term == "complete"
                else marginal_strong_log_likelihood(  # equation 3.5
                    log_classes_BC[:size], log_joint_BC[:size], labels_B
                )
            )
            objective = objective + settings.lambda_strong * strong
        if weak_B is not None:  # λ_W L_W, equation 3.6
            posterior_BC = joint.posterior(log_classes_BC[size:], evidence_BC[size:])
            weak = weak_lower_bound(posterior_BC, log_joint_BC[size:])
            objective = objective + settings.lambda_weak * weak
            if settings.lambda_balance > 0:
                divergence = balance_divergence(log_classes_BC[size:], joint.balance_C)
                objective = objective - settings.lambda_balance * divergence
        return -objective  # the negative of equation 3.7

    groups: list[dict[str, object]] = [
        {"params": list(model.parameters()), "lr": settings.learning_rate}
    ]
    # A label network has no closed form to step to.
    by_gradient = settings.depends_on_x or settings.transition_updates == "gradient"
    label_model.requires_grad_(by_gradient)
    if by_gradient:
        rate = (
            settings.label_network_learning_rate
            if settings.depends_on_x
            else settings.transition_learning_rate
        )
        groups.append({"params": list(label_model.parameters()), "lr": rate})
    return Objective(
        pools=[supervision.strong, joint.weak_rows()],
        loss=loss,
        groups=groups,
        denoised=joint.denoised,
        transitions=joint.transitions,
        label_model=label_model,
        joint_posterior=joint.on_any_rows(),
        refresh=(lambda: None) if by_gradient else joint.maximise,
    )
