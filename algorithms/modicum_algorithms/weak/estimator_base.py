"""What all estimators share: reading the arguments of `fit`, training, prediction.

Studies train through the same estimators, so their numbers are the same (`training.py`).

Shapes: N rows, D features, K labeling functions, C classes.
"""

from __future__ import annotations

import dataclasses
import itertools
import numbers
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

import modicum as md
from modicum_algorithms.weak.class_numbers import class_numbers, distinct, given
from modicum_algorithms.weak.end_model import Fitted, Objective, Schedule, fit, mlp, predict
from modicum_algorithms.weak.experiment import WeakLearningConfig
from modicum_algorithms.weak.label_summary import describe_votes
from modicum_algorithms.weak.memory import require_memory
from modicum_algorithms.weak.supervision import UNKNOWN, Supervision
from modicum_algorithms.weak.two_stage import labels_only_objective

VALIDATED = "validated"  # a parameter's value: try several, keep the best on validation
_ITERATIONS = {True: 10_000, False: 1_000}  # with a validation set, and without

T = TypeVar("T")


def setting_name(method: str, parameter: str) -> str | None:
    """The experiment's setting that an estimator's parameter is; None if it is none.

    A parameter is the setting of its own name, else the one with the method before it:
    `temperature` of `weasel` is `weasel_temperature`.
    """
    fields = WeakLearningConfig.model_fields
    return next((n for n in (parameter, f"{method}_{parameter}") if n in fields), None)


def pick(settings_class: type[T], settings: Mapping[str, Any], **others: Any) -> T:
    """A method's settings from the parameters of the same names."""
    names = {field.name for field in dataclasses.fields(settings_class)}  # type: ignore[arg-type]
    return settings_class(**{n: settings[n] for n in names & set(settings)} | others)


@dataclass(frozen=True)
class _Candidate:
    """A trained end model.

    Attributes:
        chosen: The settings tried, by parameter; empty if there was nothing to try.
        end_model: From features to logits.
        objective: What was minimised.
        fitted: Scores and iterations.
    """

    chosen: Mapping[str, Any]
    end_model: nn.Module
    objective: Objective
    fitted: Fitted

    def score(self, metric: str) -> float:
        """The metric on the validation set; 0 without one."""
        validation = self.fitted.validation
        return 0.0 if validation is None else float(getattr(validation, metric))


@dataclass(kw_only=True, eq=False, repr=False)
class WeakClassifier(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Base of the estimators: an end model trained on votes, class labels, or both.

    The end model is a feed-forward network on the features (section 3.4.1).

    Attributes:
        classes: The classes; None to take them from y, or from the votes if y has no label.
        hidden_units: Units in each hidden layer.
        hidden_layers: Number of hidden layers.
        learning_rate: Adam's, of the end model.
        batch_size: Rows of labels, and of votes, in a step.
        max_iterations: Gradient steps at most; None for 10,000 with a validation set and 1,000
            without one.
        evaluate_every: Steps between two looks at the validation set.
        patience: How long to go on without a better validation metric.
        patience_unit: What patience counts, `iterations` or `evaluations`.
        early_stopping_metric: `accuracy` or `f1` (of the second class if there are two, else the
            macro mean).
        random_state: Seed, or a `RandomState` to draw one from.
        classes_: The classes, sorted.
        n_features_in_: Number of features.
        feature_names_in_: Their names, where X has names.
        end_model_: The trained network, from features to logits.
        label_network_: What the method trained beside it; None for a method that does not.
        label_model_: What the method says of the labeling functions.
        joint_posterior_: Of a joint model, what it says of any rows with votes; None for a method
            that has none.
        chosen_: The settings that won on the validation set, where several were tried.
        n_iter_: Gradient steps made.
        best_iteration_: The step whose weights were kept.
        validation_score_: The early-stopping metric on the validation set; None without one.
        validation_scores_: Accuracy and F1 on the validation set; None without one.
    """

    _method: ClassVar[str]
    tries: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Values that a parameter set to `validated` stands for; the first is the default."""

    classes: Sequence[Any] | None = None
    hidden_units: int = 100
    hidden_layers: int = 2
    learning_rate: float = 1e-3
    batch_size: int = 128
    max_iterations: int | None = None
    evaluate_every: int = 10
    patience: int = 300
    patience_unit: str = "iterations"
    early_stopping_metric: str = "accuracy"
    random_state: int | np.random.RandomState | None = None

    @property
    def method(self) -> str:
        """Name of the method in the experiment's settings."""
        return self._method

    @abstractmethod
    def objective(
        self,
        model: nn.Module,
        supervision: Supervision,
        settings: Mapping[str, Any],
        generator: torch.Generator,
    ) -> Objective:
        """What the method minimises.

        Args:
            model: The end model, from features to logits.
            supervision: Features, votes of which at least one is cast, and labels.
            settings: The estimator's parameters, `hidden` (sizes of hidden layers) and
                `class_balance_C` (None for a uniform one).
            generator: Of everything random.
        """

    def candidates(self, supervision: Supervision) -> list[dict[str, Any]]:
        """Settings to try against each other: all combinations of what `validated` stands for.

        Where a setting has no effect on what there is to learn from, its first value stands alone.
        """
        asked = [name for name in self.tries if getattr(self, name) == VALIDATED]
        values = itertools.product(
            *(
                self.tries[name] if self.matters(name, supervision) else self.tries[name][:1]
                for name in asked
            )
        )
        return [dict(zip(asked, combination, strict=True)) for combination in values]

    def matters(self, parameter: str, supervision: Supervision) -> bool:
        """Whether a parameter in `tries` has an effect on what there is to learn from."""
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
            y: Class labels, (N,), -1 (or "-1") where unknown; None if all are.
            weak_labels: Votes of labeling functions, (N, K), class labels as in y and -1 for an
                abstain; columns of a data frame name the functions. None if there are none.
            X_valid: Features of a validation set for early stopping. In scikit-learn's
                cross-validation it must not have as many rows as X: it would be cut into folds
                like X.
            y_valid: Its class labels, all known.

        Raises:
            ValueError: An argument or a parameter does not fit; the message names it.
        """
        # Without y, scikit-learn's function returns X alone.
        checked = validate_data(self, X, y, dtype=np.float32, order="C")
        X, y = (checked, None) if y is None else checked
        supervision, names = self._supervision(X, y, weak_labels)
        validation = self._validation(X_valid, y_valid)
        settings = self._settings(supervision, validation)
        schedule = pick(Schedule, settings, metric=settings["early_stopping_metric"])
        if supervision.classes == 1:
            schedule = dataclasses.replace(schedule, max_iterations=0)
        seed = self._seed()
        candidates = self.candidates(supervision)[: None if validation is not None else 1]
        best: _Candidate | None = None
        for chosen in candidates:
            tried = self._train(
                chosen, {**settings, **chosen}, supervision, validation, schedule, seed
            )
            if best is None or tried.score(schedule.metric) > best.score(schedule.metric):
                best = tried
        assert best is not None
        self._keep(best, supervision, names, schedule.metric)
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
        tags.target_tags.required = False  # votes do
        return tags

    def _supervision(
        self, X: np.ndarray, y: np.ndarray | None, weak_labels: Any
    ) -> tuple[Supervision, list[str | int]]:
        """What to learn from, and the names of the labeling functions; sets `classes_`."""
        rows = len(X)
        labels = np.full(rows, UNKNOWN) if y is None else y
        votes, names = read_votes(weak_labels, rows)
        in_labels, in_votes = distinct(labels, "y"), distinct(votes, "weak_labels")
        if len(in_labels):
            check_classification_targets(labels[given(labels)])
        if not len(in_labels) and (not len(in_votes) or self.method == "labels_only"):
            missing = "y" if self.method == "labels_only" else "y or votes in weak_labels"
            raise md.InputError(
                f"y: {type(self).__name__} needs class labels in {missing}, got none"
            )
        if self.classes is not None:
            self.classes_ = distinct(np.asarray(self.classes), "classes")
        else:
            self.classes_ = in_labels if len(in_labels) else in_votes
        labels_N = class_numbers(labels, self.classes_, "y")
        votes_NK = class_numbers(votes, self.classes_, "weak_labels")
        return Supervision(as_tensor(X), votes_NK, labels_N, len(self.classes_)), names

    def _validation(self, X_valid: Any, y_valid: Any) -> tuple[Tensor, np.ndarray] | None:
        if X_valid is None and y_valid is None:
            return None
        if X_valid is None or y_valid is None:
            missing = "X_valid" if X_valid is None else "y_valid"
            raise md.InputError(f"{missing}: X_valid and y_valid must be given together")
        X, y = validate_data(self, X_valid, y_valid, reset=False, dtype=np.float32, order="C")
        labels_N = class_numbers(y, self.classes_, "y_valid")
        if (labels_N == UNKNOWN).any():
            raise md.InputError("y_valid: every row of the validation set needs a label, got -1")
        return as_tensor(X), labels_N

    def _settings(
        self, supervision: Supervision, validation: tuple[Tensor, np.ndarray] | None
    ) -> dict[str, Any]:
        """The parameters, checked by the experiment's limits, and what methods derive from them."""
        parameters = self.get_params(deep=False)
        if parameters["max_iterations"] is None:
            parameters["max_iterations"] = _ITERATIONS[validation is not None]
        fields = {
            name: setting
            for name in parameters
            if (setting := setting_name(self.method, name)) is not None
        }
        given_values = {setting: _plain(parameters[name]) for name, setting in fields.items()}
        try:
            config = WeakLearningConfig(method=self.method, **given_values)
        except ValidationError as error:
            raise _as_input_error(error, fields) from error
        rows, features = supervision.features_ND.shape
        require_memory(
            config,
            rows=rows,
            features=features,
            classes=supervision.classes,
            labeling_functions=supervision.votes_NK.shape[1],
        )
        settings = parameters | {n: getattr(config, setting) for n, setting in fields.items()}
        settings["hidden"] = [settings["hidden_units"]] * settings["hidden_layers"]
        settings["class_balance_C"] = None
        if settings.get("class_balance") == "validation" and validation is not None:
            # Methods need every class possible, also one that the validation set lacks.
            counts_C = np.bincount(validation[1], minlength=len(self.classes_)).clip(min=1)
            settings["class_balance_C"] = counts_C / counts_C.sum()
        return settings

    def _seed(self) -> int:
        if isinstance(self.random_state, numbers.Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _train(
        self,
        chosen: Mapping[str, Any],
        settings: Mapping[str, Any],
        supervision: Supervision,
        validation: tuple[Tensor, np.ndarray] | None,
        schedule: Schedule,
        seed: int,
    ) -> _Candidate:
        features_valid_ND, labels_valid_N = (None, None) if validation is None else validation
        start = md.derive_seed(seed, "initialisation")
        generator = torch.Generator().manual_seed(start)
        # Layers that draw from torch's own generator must neither be led by it nor move it.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(start)
            model = mlp(
                supervision.features_ND.shape[1],
                supervision.classes,
                settings["hidden"],
                generator,
            )
            if supervision.classes == 1 or not supervision.covered.any():
                objective = labels_only_objective(model, supervision, settings["learning_rate"])
            else:
                objective = self.objective(model, supervision, settings, generator)
            fitted = fit(
                model,
                objective,
                features_valid_ND,
                labels_valid_N,
                supervision.classes,
                schedule,
                md.derive_seed(seed, "batches"),
            )
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise md.InputError(
                f"learning_rate: training diverged at {settings['learning_rate']}; take a smaller "
                "one, or scale X"
            )
        return _Candidate(chosen, model.eval(), objective, fitted)

    def _keep(
        self,
        best: _Candidate,
        supervision: Supervision,
        names: Sequence[str | int],
        metric: str,
    ) -> None:
        objective, fitted = best.objective, best.fitted
        assert objective.denoised is not None
        self.end_model_ = best.end_model
        self.label_network_ = objective.label_model
        self.joint_posterior_ = objective.joint_posterior
        self.label_model_ = describe_votes(
            supervision.votes_NK,
            objective.denoised(),
            None if objective.transitions is None else objective.transitions(),
            names,
        )
        self.chosen_ = dict(best.chosen)
        self.n_iter_ = fitted.iterations
        self.best_iteration_ = fitted.best_iteration
        self.validation_scores_ = fitted.validation
        self.validation_score_ = None if fitted.validation is None else best.score(metric)


def _as_input_error(error: ValidationError, fields: Mapping[str, str]) -> md.InputError:
    """The first problem with the experiment's settings, under the parameter's name."""
    errors = error.errors(include_url=False)
    first = errors[0]
    # A setting of two types, a number or `validated`, has a message for each.
    about = [e["msg"] for e in errors if e["loc"][:1] == first["loc"][:1]]
    message = ", or: ".join(text.removeprefix("Value error, ") for text in about)
    if not first["loc"]:  # about several settings; the message names them
        return md.InputError(message)
    field = str(first["loc"][0])
    name = next(n for n, setting in fields.items() if setting == field)
    return md.InputError(f"{name}: {message[:1].lower()}{message[1:]} (got {first['input']!r})")


def read_votes(weak_labels: Any, rows: int) -> tuple[np.ndarray, list[str | int]]:
    """Votes as a table of class labels, and the names of the labeling functions.

    Args:
        weak_labels: A table, (N, K), or None if there are no labeling functions.
        rows: N.

    Raises:
        InputError: The table does not have N rows.
    """
    if weak_labels is None:
        return np.empty((rows, 0), dtype=np.int64), []
    votes = np.asarray(weak_labels)
    if votes.ndim != 2 or len(votes) != rows:
        raise md.InputError(
            f"weak_labels: must have {rows} rows, as X, and a column for each labeling function, "
            f"got shape {votes.shape}"
        )
    names = getattr(weak_labels, "columns", range(votes.shape[1]))
    return votes, list(names)


def as_tensor(array: np.ndarray) -> Tensor:
    """An array as a float32 tensor; copied only where it is read-only, which torch warns of."""
    return torch.from_numpy(np.require(array, np.float32, ["C", "W"]))


def _plain(value: Any) -> Any:
    """NumPy's numbers, as grids yield them, as Python's."""
    return value.item() if isinstance(value, np.generic) else value
