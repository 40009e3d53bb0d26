"""Weak supervision as scikit-learn estimators: one class for each method of chapter 3.

    model = IntegratedWeakLearner(depends_on_x=True, random_state=0)
    model.fit(X, y, weak_labels=votes, X_valid=X_valid, y_valid=y_valid)
    model.predict_proba(X_new)
    model.label_model_.table

Parameters are the settings of the method's class in `config`. In a pipeline or a search, votes are
passed as metadata: `set_fit_request(weak_labels=True)` with scikit-learn's
`enable_metadata_routing`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import validate_data
from torch import nn

import modicum as md
from modicum_algorithms.weak.classifier import WeakClassifier
from modicum_algorithms.weak.config import (
    DenoiseConfig,
    EndModelConfig,
    IntegratedConfig,
    SnorkelConfig,
    TwoStageConfig,
    WeakMethodConfig,
    WeaselConfig,
)
from modicum_algorithms.weak.data.arguments import as_tensor, class_numbers, read_votes
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.methods.denoise import denoise_objective, rebuilt_attention
from modicum_algorithms.weak.methods.integrated import integrated_objective
from modicum_algorithms.weak.methods.snorkel import snorkel_objective
from modicum_algorithms.weak.methods.soft_labels import (
    labels_only_objective,
    majority_vote_objective,
)
from modicum_algorithms.weak.methods.weasel import rebuilt_encoder, weasel_objective
from modicum_algorithms.weak.models.label_model import (
    LabelModel,
    mean_transitions,
    rebuilt_label_model,
)
from modicum_algorithms.weak.training import Objective


class LabelsOnlyClassifier(WeakClassifier, config=EndModelConfig, objective=labels_only_objective):
    """Learns from the class labels alone: the baseline of every other method.

    Attributes are those of `WeakClassifier`.
    """

    method = "labels_only"


class MajorityVoteClassifier(
    WeakClassifier, config=TwoStageConfig, objective=majority_vote_objective
):
    """Learns normalised vote counts."""

    method = "majority_vote"


class SnorkelClassifier(
    WeakClassifier, config=SnorkelConfig, objective=snorkel_objective, prefix="snorkel_"
):
    """Learns the soft labels of Snorkel's label model (Ratner et al. 2019)."""

    method = "snorkel"


class WeaselClassifier(
    WeakClassifier,
    config=WeaselConfig,
    objective=weasel_objective,
    network=rebuilt_encoder,
    prefix="weasel_",
):
    """End model and an encoder of the votes learn to agree (Rühling Cachay et al. 2021)."""

    method = "weasel"


class DenoiseClassifier(
    WeakClassifier,
    config=DenoiseConfig,
    objective=denoise_objective,
    network=rebuilt_attention,
    prefix="denoise_",
):
    """Attention over labeling functions, with self-supervision (Ren et al. 2020)."""

    method = "denoise"


class IntegratedWeakLearner(
    WeakClassifier,
    config=IntegratedConfig,
    network=rebuilt_label_model,
    own={"depends_on_x": False},
):
    """End model and label model trained as one: iWL, and iWLD (thesis chapter 3).

    `IntegratedWeakLearner(**THESIS)`, with `THESIS` from `config`, has the thesis's objective.

    Attributes:
        depends_on_x: False for one transition matrix per labeling function (iWL), True for a
            network that makes the matrices of each point (iWLD).
    """

    depends_on_x: bool

    @property
    def method(self) -> str:
        """`iwl` or `iwld`."""
        return "iwld" if self.depends_on_x else "iwl"

    def matters(self, setting: str, supervision: Supervision) -> bool:
        """See `WeakClassifier`; the two terms compete only where both have rows."""
        strong = len(supervision.strong)
        return strong < len(supervision) and (setting != "lambda_strong" or strong > 0)

    def objective(
        self,
        model: nn.Module,
        supervision: Supervision,
        config: IntegratedConfig,
        generator: torch.Generator,
    ) -> Objective:
        """The negative of equation 3.7."""
        return integrated_objective(
            model, supervision, config, generator, depends_on_x=self.depends_on_x
        )

    def transitions_at(self, X: Any) -> np.ndarray:
        """Transition matrices φ_k(v|c) at given points, averaged over the states of h.

        Args:
            X: Features of M points, (M, D).

        Returns:
            Probabilities, shape (M, V, K, C); V is C, or C + 1 with abstain as the last outcome.
            With `depends_on_x=False` all points have the same.

        Raises:
            ValueError: X is wrong, or training had no votes.
        """
        X = validate_data(self, X, reset=False, dtype=np.float32, order="C")
        if not isinstance(self.label_network_, LabelModel):
            raise md.InputError("transitions_at: the model was trained without votes")
        functions = len(self.label_model_.names)
        with torch.inference_mode():
            transitions_MVKC = mean_transitions(self.label_network_, as_tensor(X))
        return transitions_MVKC[:, :, :functions].numpy()

    def predict_proba_with_votes(self, X: Any, weak_labels: Any) -> np.ndarray:
        """Class probabilities from features and votes together: the joint model's posterior.

        This denoises the votes of any rows, those of the training set included. On a row without
        votes the end model alone decides, at most with its full power. If the training set had no
        votes, there is no label model, and these are the probabilities of `predict_proba`.

        Args:
            X: Features, (N, D).
            weak_labels: Votes of the same labeling functions as in `fit`, (N, K), class labels
                and -1 for an abstain.

        Returns:
            q(y) ∝ p_θ(y|x)^w π(y)^{1 − w} Π_k p(ỹ_k|y, x)^{w_k}, (N, C), float32, in the order
            of `classes_`; π is the class balance. With all powers 1 this is the posterior of
            equation 3.4's model.

        Raises:
            ValueError: An argument is wrong; the message names it.
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
                "predict_proba_with_votes: a model read from a folder lacks the class balance of "
                "its training; fit it"
            )
        if self.joint_posterior_ is None:
            return probabilities_NC
        return self.joint_posterior_(as_tensor(X), votes_NK)


def estimator_of(config: WeakMethodConfig, classes: int, seed: int) -> WeakClassifier:
    """The estimator that an experiment's configuration describes; labels are class numbers."""
    kinds: dict[str, type[WeakClassifier]] = {
        "majority_vote": MajorityVoteClassifier,
        "snorkel": SnorkelClassifier,
        "weasel": WeaselClassifier,
        "denoise": DenoiseClassifier,
        "labels_only": LabelsOnlyClassifier,
        "iwl": IntegratedWeakLearner,
        "iwld": IntegratedWeakLearner,
    }
    kind = kinds[config.method]
    settings = {name: getattr(config, field) for name, field in kind.names.items()}
    if config.method == "iwld":
        settings["depends_on_x"] = True
    return kind(classes=list(range(classes)), random_state=seed, **settings)
