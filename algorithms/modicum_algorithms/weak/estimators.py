"""Weak supervision as scikit-learn estimators: one class for each method of chapter 3.

    model = IntegratedWeakLearner(depends_on_x=True, random_state=0)
    model.fit(X, y, weak_labels=votes, X_valid=X_valid, y_valid=y_valid)
    model.predict_proba(X_new)
    model.label_model_.table

In a pipeline or a search, votes travel as metadata: `set_fit_request(weak_labels=True)` with
scikit-learn's `enable_metadata_routing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils.validation import validate_data
from torch import nn

import modicum as md
from modicum_algorithms.weak.class_numbers import class_numbers
from modicum_algorithms.weak.denoise import DenoiseSettings, denoise_objective
from modicum_algorithms.weak.end_model import Objective
from modicum_algorithms.weak.estimator_base import (
    VALIDATED,
    WeakClassifier,
    as_tensor,
    pick,
    read_votes,
)
from modicum_algorithms.weak.integrated import IntegratedSettings, integrated_objective
from modicum_algorithms.weak.majority_vote import majority_vote
from modicum_algorithms.weak.snorkel import SnorkelLabelModel, SnorkelSettings, fit_snorkel
from modicum_algorithms.weak.supervision import Supervision
from modicum_algorithms.weak.two_stage import labels_only_objective, two_stage_objective
from modicum_algorithms.weak.weasel import WeaselSettings, weasel_objective


@dataclass(kw_only=True, eq=False, repr=False)
class LabelsOnlyClassifier(WeakClassifier):
    """Learns from the class labels alone; what every other method must beat.

    Attributes are those of `WeakClassifier`.
    """

    _method: ClassVar[str] = "labels_only"

    def objective(
        self,
        model: nn.Module,
        supervision: Supervision,
        settings: Mapping[str, Any],
        generator: torch.Generator,
    ) -> Objective:
        """Cross-entropy to the class labels."""
        return labels_only_objective(model, supervision, settings["learning_rate"])


@dataclass(kw_only=True, eq=False, repr=False)
class MajorityVoteClassifier(WeakClassifier):
    """Learns normalised vote counts.

    Attributes:
        strong_labels: How class labels join: `vote`, as one more labeling function, or
            `replace`, in the place of the denoised label (appendix A.1).
        uncovered: Rows with neither a vote nor a label: `drop`, or train them towards `uniform`.
    """

    _method: ClassVar[str] = "majority_vote"

    strong_labels: str = "vote"
    uncovered: str = "drop"

    def objective(
        self,
        model: nn.Module,
        supervision: Supervision,
        settings: Mapping[str, Any],
        generator: torch.Generator,
    ) -> Objective:
        """Cross-entropy to the vote counts."""

        def denoise(votes_NK: np.ndarray) -> np.ndarray:
            return majority_vote(votes_NK, supervision.classes)

        return two_stage_objective(model, supervision, denoise, settings)


@dataclass(kw_only=True, eq=False, repr=False)
class SnorkelClassifier(WeakClassifier):
    """Learns the soft labels of Snorkel's label model (Ratner et al. 2019).

    Attributes:
        strong_labels: As in `MajorityVoteClassifier`.
        uncovered: As in `MajorityVoteClassifier`.
        class_balance: p(y = c): `uniform`, or counted on the `validation` set, uniform without one.
        epochs: Steps of gradient descent of the label model.
        snorkel_learning_rate: Of that descent.
        momentum: Of that descent.
        l2: Regularisation of the label model.
        precision_init: Precision that every labeling function starts from.
    """

    _method: ClassVar[str] = "snorkel"

    strong_labels: str = "vote"
    uncovered: str = "drop"
    class_balance: str = "validation"
    epochs: int = 100
    snorkel_learning_rate: float = 0.01
    momentum: float = 0.9
    l2: float = 0.0
    precision_init: float = 0.7

    def objective(
        self,
        model: nn.Module,
        supervision: Supervision,
        settings: Mapping[str, Any],
        generator: torch.Generator,
    ) -> Objective:
        """Cross-entropy to the label model's posteriors."""
        fitted: list[SnorkelLabelModel] = []

        def denoise(votes_NK: np.ndarray) -> np.ndarray:
            label_model = fit_snorkel(
                votes_NK,
                supervision.classes,
                pick(SnorkelSettings, settings, learning_rate=settings["snorkel_learning_rate"]),
                settings["class_balance_C"],
                generator.initial_seed(),
            )
            fitted.append(label_model)
            return label_model.predict(votes_NK)

        objective = two_stage_objective(model, supervision, denoise, settings)
        # The strong labels' own function, if there is one, comes last.
        functions = supervision.votes_NK.shape[1]
        return replace(objective, transitions=lambda: fitted[0].transitions()[:, :functions])


@dataclass(kw_only=True, eq=False, repr=False)
class WeaselClassifier(WeakClassifier):
    """End model and an encoder of the votes learn to agree (Rühling Cachay et al. 2021).

    Attributes:
        temperature: Divides the encoder's scores; `validated` tries 1, 0.5, 3 and 5, as the thesis
            does.
        dropout: Fraction of the encoder's hidden units left out in a step.
        class_balance: p(y = c): `uniform`, or counted on the `validation` set, uniform without one.
    """

    _method: ClassVar[str] = "weasel"
    tries: ClassVar[Mapping[str, tuple[Any, ...]]] = {"temperature": (1.0, 0.5, 3.0, 5.0)}

    temperature: float | str = 1.0
    dropout: float = 0.3
    class_balance: str = "validation"

    def objective(
        self,
        model: nn.Module,
        supervision: Supervision,
        settings: Mapping[str, Any],
        generator: torch.Generator,
    ) -> Objective:
        """Symmetric cross-entropy between end model and encoder."""
        balance_C = settings["class_balance_C"]
        chosen = pick(
            WeaselSettings,
            settings,
            class_balance=None if balance_C is None else balance_C.tolist(),
        )
        return weasel_objective(model, supervision, chosen, generator)


@dataclass(kw_only=True, eq=False, repr=False)
class DenoiseClassifier(WeakClassifier):
    """Attention over labeling functions, with self-supervision (Ren et al. 2020).

    Attributes:
        alpha: How much of a row's ensemble stays when a prediction joins it.
        c1: Weight of the attention's loss.
        c2: Weight of the end model's loss; what is left of 1 weighs the self-supervision.
        ramp_step: The step after which self-supervision starts.
    """

    _method: ClassVar[str] = "denoise"

    alpha: float = 0.6
    c1: float = 0.2
    c2: float = 0.7
    ramp_step: int = 100

    def objective(
        self,
        model: nn.Module,
        supervision: Supervision,
        settings: Mapping[str, Any],
        generator: torch.Generator,
    ) -> Objective:
        """The weighted sum of attention's, end model's and self-supervision's losses."""
        chosen = pick(DenoiseSettings, settings, hidden=(settings["hidden_units"],))
        return denoise_objective(model, supervision, chosen, generator)


@dataclass(kw_only=True, eq=False, repr=False)
class IntegratedWeakLearner(WeakClassifier):
    """End model and label model trained as one: iWL, and iWLD (thesis chapter 3).

    `IntegratedWeakLearner(**THESIS)`, with `THESIS` from `integrated`, is the thesis's own form.

    Attributes:
        depends_on_x: False for one transition matrix per labeling function (iWL), True for a
            network that makes the matrices of each point (iWLD).
        abstain: `emission`, an abstain is an outcome with a probability, or `missing`, it is left
            out of the product.
        strong_term: `complete`, the likelihood of features, label and votes together, or
            `marginal`, equation 3.5 as printed.
        lambda_strong: Weight of the strong term, equation 3.7; 1 in the thesis. `validated` tries 1
            and 0.3.
        lambda_weak: Weight of the weak term.
        lambda_balance: Weight of a term that holds predictions to the class balance.
        class_balance: π of that term and of `end_model_weight`: `uniform`, or counted on the
            `validation` set, uniform without one.
        vote_weight: Power of a vote as evidence of y; 1 in the thesis.
        abstain_weight: Power of an abstain as evidence of y; 1 in the thesis.
        end_model_weight: Power w of the end model's prediction as evidence of y, beside a class
            balance with power 1 - w; 1 in the thesis. `validated` tries 1 and 0.5.
        coverage_vote: Whether "some function votes here" is one more labeling function.
        self_supervision: Whether the end model's sure predictions are one more labeling function.
        self_confidence: How sure it has to be to vote.
        latent_states: States of a latent that makes functions depend on each other (A.4); 1 for
            none.
        transition_smoothing: Pseudo-count, per outcome, of the matrices' start.
        transition_prior: What it smooths towards: `base_rate` or `uniform`.
        transition_updates: Of iWL's matrices: `gradient`, or expectation-maximisation (`em`).
        transition_learning_rate: Adam's, of the matrices of iWL.
        label_network_learning_rate: Adam's, of the network of iWLD.
        label_network_hidden_units: Units in each of that network's hidden layers.
        label_network_hidden_layers: Number of them.
    """

    tries: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "end_model_weight": (1.0, 0.5),
        "lambda_strong": (1.0, 0.3),
    }

    depends_on_x: bool = False
    abstain: str = "emission"
    strong_term: str = "complete"
    lambda_strong: float | str = VALIDATED
    lambda_weak: float = 1.0
    lambda_balance: float = 0.0
    class_balance: str = "validation"
    vote_weight: float = 0.5
    abstain_weight: float = 0.0
    end_model_weight: float | str = VALIDATED
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

    @property
    def method(self) -> str:
        """`iwl` or `iwld`."""
        return "iwld" if self.depends_on_x else "iwl"

    def matters(self, parameter: str, supervision: Supervision) -> bool:
        """The two terms weigh against each other only where both have rows.

        See `WeakClassifier.matters`.
        """
        strong = len(supervision.strong)
        return strong < len(supervision) and (parameter != "lambda_strong" or strong > 0)

    def objective(
        self,
        model: nn.Module,
        supervision: Supervision,
        settings: Mapping[str, Any],
        generator: torch.Generator,
    ) -> Objective:
        """The negative of equation 3.7."""
        return integrated_objective(
            model, supervision, pick(IntegratedSettings, settings), generator
        )

    def predict_proba_with_votes(self, X: Any, weak_labels: Any) -> np.ndarray:
        """Class probabilities from features and votes together: the joint model's posterior.

        For rows that have votes, those of the training set included, to denoise them; a row on
        which no function votes has at most the end model's word. Where training had no vote,
        there is no label model, and these are the probabilities of `predict_proba`.

        Args:
            X: Features, (N, D).
            weak_labels: Votes of the same labeling functions as in `fit`, (N, K), class labels
                and -1 for an abstain.

        Returns:
            q(y) ∝ p_θ(y|x)^w π(y)^{1 − w} Π_k p(ỹ_k|y, x)^{w_k}, (N, C), float32, in the order
            of `classes_`; π is the class balance. With all powers 1 it is the posterior of
            equation 3.4's model.

        Raises:
            ValueError: An argument does not fit; the message names it.
        """
        probabilities_NC = self.predict_proba(X)
        X = validate_data(self, X, reset=False, dtype=np.float32, order="C")
        votes, names = read_votes(weak_labels, len(X))
        known = self.label_model_.names
        both_named = hasattr(weak_labels, "columns") and any(isinstance(n, str) for n in known)
        if len(names) != len(known) or (both_named and names != list(known)):
            raise md.InputError(
                f"weak_labels: must have the labeling functions of fit, {list(known)}, got {names}"
            )
        votes_NK = class_numbers(votes, self.classes_, "weak_labels")
        if not hasattr(self, "joint_posterior_"):
            raise md.InputError(
                "predict_proba_with_votes: a model read from a folder has no label network; fit it"
            )
        if self.joint_posterior_ is None:
            return probabilities_NC
        return self.joint_posterior_(as_tensor(X), votes_NK)
