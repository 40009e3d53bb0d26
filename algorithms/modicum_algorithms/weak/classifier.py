"""Base of the scikit-learn estimators: arguments of `fit`, choice of settings, prediction.

Studies train through the same estimators, so their numbers are the same.

Shapes: N rows, D features, K labeling functions, C classes.
"""

from __future__ import annotations

import itertools
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

import modicum as md
from modicum_algorithms.weak.config import (
    ITERATIONS_WITHOUT_VALIDATION,
    TRIED,
    VALIDATED,
    EndModelConfig,
)
from modicum_algorithms.weak.data.arguments import as_tensor, class_numbers, read_arguments
from modicum_algorithms.weak.data.supervision import Supervision, ValidationSet
from modicum_algorithms.weak.memory import require_memory
from modicum_algorithms.weak.methods.soft_labels import labels_only_objective
from modicum_algorithms.weak.models.end_model import predict
from modicum_algorithms.weak.models.label_summary import describe_votes
from modicum_algorithms.weak.parameters import (
    checked_config,
    constructor,
    described,
    parameter_names,
)
from modicum_algorithms.weak.training import MakeObjective, Objective, train_best


class WeakClassifier(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Base of the estimators: an end model trained on votes, class labels, or both.

    The end model is a feed-forward network on the features (section 3.4.1). The parameters are the
    settings of the method's config, `classes`, `max_iterations` and `random_state`.

    Attributes:
        classes: The classes; None to take them from y, or from the votes if y has no label.
        max_iterations: Maximum number of gradient steps; None for the config's default with a
            validation set and 1,000 without one.
        random_state: Seed, or a `RandomState` to draw one from.
        classes_: The classes, sorted.
        n_features_in_: Number of features.
        feature_names_in_: Names of the features, if X has names.
        end_model_: The trained network, from features to logits.
        label_network_: The network trained beside the end model; None for methods without one.
        label_model_: Estimates of how the labeling functions vote (`LabelModelSummary`).
        joint_posterior_: Posterior of the joint model for any rows with votes; None for methods
            without a joint model.
        chosen_: The settings that won on the validation set, if several were tried.
        n_iter_: Gradient steps made.
        best_iteration_: Step whose weights were kept.
        validation_score_: The early-stopping metric on the validation set; None without one.
        validation_scores_: Accuracy and F1 on the validation set; None without one.
    """

    config_class: ClassVar[type[EndModelConfig]]
    names: ClassVar[Mapping[str, str]]
    """The parameters that are settings, each with the name of its setting."""
    make_objective: ClassVar[MakeObjective | None]
    rebuild_network: ClassVar[Callable[..., nn.Module] | None]

    classes: Sequence[Any] | None
    random_state: int | np.random.RandomState | None
    max_iterations: int | None

    def __init_subclass__(
        cls,
        *,
        config: type[EndModelConfig],
        objective: MakeObjective | None = None,
        network: Callable[..., nn.Module] | None = None,
        prefix: str = "",
        own: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Build the constructor from a method's config.

        Args:
            config: Config of the method.
            objective: The method's loss; None for a class that overrides `objective`.
            network: Rebuilds the network that the method trains beside the end model, from config,
                saved tensors and number of features.
            prefix: Prefix of the method's settings, which parameters leave out.
            own: Default values of parameters that are no settings.
            **more: Passed on to scikit-learn.
        """
        super().__init_subclass__(**more)
        cls.config_class, cls.names = config, parameter_names(config, prefix)
        cls.make_objective, cls.rebuild_network = objective, network
        defaults = {name: config.model_fields[field].default for name, field in cls.names.items()}
        # An estimator may have no validation set, so its number of steps depends on that.
        defaults |= {"classes": None, "max_iterations": None, "random_state": None, **(own or {})}
        cls.__init__ = constructor(defaults)  # type: ignore[method-assign]
        cls.__doc__ = f"{cls.__doc__}\n\nSettings:\n{described(config, cls.names)}\n"

    def __init__(self, **parameters: Any) -> None:
        raise NotImplementedError  # every subclass has a constructor of its parameters

    @property
    @abstractmethod
    def method(self) -> str:
        """Name of the method in the experiments' settings."""

    def objective(
        self,
        model: nn.Module,
        supervision: Supervision,
        config: Any,
        generator: torch.Generator,
    ) -> Objective:
        """The method's loss on a training set with votes; see `MakeObjective`."""
        make_objective = type(self).make_objective
        assert make_objective is not None
        return make_objective(model, supervision, config, generator)

    def matters(self, setting: str, supervision: Supervision) -> bool:
        """Tell whether a setting in `TRIED` has an effect on this training set."""
        return True

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        weak_labels: Any = None,
        X_valid: Any = None,
        y_valid: Any = None,
    ) -> Self:
        """Train the end model.

        Without any vote every method learns from the class labels alone.

        Args:
            X: Features, (N, D).
            y: Class labels, (N,), -1 (or "-1") where unknown; None if all are unknown.
            weak_labels: Votes of labeling functions, (N, K), class labels as in y and -1 for an
                abstain; columns of a data frame name the functions. None if there are none.
            X_valid: Features of a validation set for early stopping. In scikit-learn's
                cross-validation it must not have as many rows as X: it would be cut into folds
                like X.
            y_valid: Class labels of the validation set, all known.

        Raises:
            ValueError: An argument or a parameter is wrong; the message names it.
        """
        # Without y, scikit-learn's function returns X alone.
        checked = validate_data(self, X, y, dtype=np.float32, order="C")
        X, y = (checked, None) if y is None else checked
        arguments = read_arguments(
            X,
            y,
            weak_labels,
            self.classes,
            estimator=type(self).__name__,
            labels_alone=self.method == "labels_only",
        )
        self.classes_, supervision = arguments.classes, arguments.supervision
        validation = self._validation(X_valid, y_valid)
        config = self._config(supervision, validation is not None)
        if validation is not None and getattr(config, "class_balance", "") == "validation":
            balance_C = validation.class_balance(supervision.classes)
            supervision = replace(supervision, class_balance_C=balance_C)
        alone = supervision.classes == 1 or not supervision.covered.any()
        tried = self._tried(config)
        best = train_best(
            labels_only_objective if alone else self.objective,
            self._candidates(config, tried, supervision, validation is not None),
            supervision,
            validation,
            self._seed(),
        )
        objective, fitted = best.objective, best.fitted
        self.end_model_ = best.end_model
        self.label_network_ = objective.label_network
        self.joint_posterior_ = objective.joint_posterior
        self.label_model_ = describe_votes(
            supervision.votes_NK,
            objective.denoised(),
            None if objective.transitions is None else objective.transitions(),
            arguments.functions,
        )
        self.chosen_ = {name: getattr(best.config, setting) for name, setting in tried.items()}
        self.n_iter_ = fitted.iterations
        self.best_iteration_ = fitted.best_iteration
        self.validation_scores_ = fitted.validation
        self.validation_score_ = best.validation_score
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities p_θ(y|x), (N, C), float32, in the order of `classes_`."""
        check_is_fitted(self, "end_model_")
        X = validate_data(self, X, reset=False, dtype=np.float32, order="C")
        probabilities_NC = predict(self.end_model_, as_tensor(X))
        if not np.isfinite(probabilities_NC).all():
            raise md.InputError("X: has values too large for the trained network")
        return probabilities_NC

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, (N,)."""
        best_N = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best_N])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False  # votes are enough
        return tags

    def config(self, *, validated: bool) -> EndModelConfig:
        """The parameters as the method's config; a validation set decides the number of steps.

        Raises:
            InputError: A parameter is outside its limits.
        """
        values = self.get_params(deep=False)
        if values["max_iterations"] is None:
            default = self.config_class.model_fields["max_iterations"].default
            values["max_iterations"] = default if validated else ITERATIONS_WITHOUT_VALIDATION
        return checked_config(self.config_class, self.names, values)

    def _config(self, supervision: Supervision, validated: bool) -> EndModelConfig:
        """The config for a training set, whose training must fit into memory."""
        config = self.config(validated=validated)
        rows, features = supervision.features_ND.shape
        require_memory(
            config,
            self.method,
            rows=rows,
            features=features,
            classes=supervision.classes,
            labeling_functions=supervision.votes_NK.shape[1],
        )
        one_class = supervision.classes == 1  # there is nothing to learn
        return config.model_copy(update={"max_iterations": 0}) if one_class else config

    def _validation(self, X_valid: Any, y_valid: Any) -> ValidationSet | None:
        if X_valid is None and y_valid is None:
            return None
        if X_valid is None or y_valid is None:
            missing = "X_valid" if X_valid is None else "y_valid"
            raise md.InputError(f"{missing}: X_valid and y_valid must be given together")
        X, y = validate_data(self, X_valid, y_valid, reset=False, dtype=np.float32, order="C")
        labels_N = class_numbers(y, self.classes_, "y_valid")
        if (labels_N == md.data.UNKNOWN).any():
            raise md.InputError("y_valid: every row of the validation set needs a label, got -1")
        return ValidationSet(as_tensor(X), labels_N)

    def _seed(self) -> int:
        if isinstance(self.random_state, numbers.Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _tried(self, config: EndModelConfig) -> dict[str, str]:
        """Parameters that are `validated`, each with its setting, in the order of `TRIED`."""
        names = {setting: name for name, setting in self.names.items()}
        return {names[s]: s for s in TRIED if s in names and getattr(config, s) == VALIDATED}

    def _candidates(
        self,
        config: EndModelConfig,
        tried: Mapping[str, str],
        supervision: Supervision,
        validated: bool,
    ) -> list[EndModelConfig]:
        """The config with each combination of values to try; with the first one without validation.

        A setting without an effect on the training set has its first value throughout.
        """
        values = itertools.product(
            *(TRIED[s] if self.matters(s, supervision) else TRIED[s][:1] for s in tried.values())
        )
        rows = [dict(zip(tried.values(), row, strict=True)) for row in values]
        return [config.model_copy(update=row) for row in (rows if validated else rows[:1])]
