"""Importance of settings: their shares in the variance of a search's objective."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from modicum.library_logging import quiet_loggers
from modicum.results.layout import Objective
from modicum.results.ranking import summaries_of
from modicum.results.records import StudyRecords, Where

# Fewer configurations say nothing; more of them take long, and change little.
_FEWEST, _MOST = 10, 500


@dataclass(frozen=True)
class Configurations:
    """Finished configurations of a study, by the settings that vary.

    Attributes:
        names: The settings.
        keys: Values of the settings in each configuration; None where one has no effect.
        values: Mean of the objective over seeds, one for each configuration.
    """

    names: Sequence[str]
    keys: Sequence[Sequence[Any]]
    values: Sequence[float]

    def column(self, name: str) -> list[Any]:
        """Value of a setting in each configuration."""
        index = list(self.names).index(name)
        return [key[index] for key in self.keys]


@dataclass(frozen=True)
class Importance:
    """Importance of settings for an objective.

    Attributes:
        shares: Share of each setting, the largest first; they add up to 1.
        method: `fANOVA` or `permutation`.
        configurations: Number of finished configurations that it was computed from.
    """

    shares: Mapping[str, float]
    method: str
    configurations: int


def finished_configurations(
    records: StudyRecords, names: Sequence[str], objective: Objective, where: Where = None
) -> Configurations:
    """Configurations with finished trials, and the settings of `names` that vary among them."""
    found = {
        key: summary.mean
        for key, summary in summaries_of(records, objective.metric, names, where).items()
        if np.isfinite(summary.mean)
    }
    varied = [i for i in range(len(names)) if len({repr(key[i]) for key in found}) > 1]
    return Configurations(
        names=[names[i] for i in varied],
        keys=[[key[i] for i in varied] for key in found],
        values=list(found.values()),
    )


def importance_of(found: Configurations) -> Importance | None:
    """Compute the importance of settings.

    By functional ANOVA (Hutter et al., 2014: https://proceedings.mlr.press/v32/hutter14.html) where
    Optuna is installed and every setting has an effect in every configuration. Otherwise by the
    permutation of a setting's values under a random forest (Breiman, 2001), on the data that the
    forest was fitted to.

    Returns:
        None with fewer than ten configurations, fewer than two settings, or an objective that does
        not vary.
    """
    if len(found.values) < _FEWEST or len(found.names) < 2 or len(set(found.values)) < 2:
        return None
    step = -(-len(found.values) // _MOST)
    keys, values = found.keys[::step], np.asarray(found.values[::step], dtype=float)
    columns = dict(zip(found.names, zip(*keys, strict=True), strict=True))
    whole = all(value is not None for column in columns.values() for value in column)
    if whole and find_spec("optuna") is not None:
        method, shares = "fANOVA", _fanova(columns, values)
    else:
        method, shares = "permutation", _permutation(columns, values)
    total = sum(shares.values())
    if not total > 0:
        return None
    order = sorted(shares, key=lambda name: -shares[name])
    return Importance({name: shares[name] / total for name in order}, method, len(values))


def _fanova(columns: Mapping[str, Sequence[Any]], values: np.ndarray) -> dict[str, float]:
    import optuna

    codes = {name: encoded(column) for name, column in columns.items()}
    domains: dict[str, Any] = {}
    for name, column in columns.items():
        if is_numeric(column):
            low, high = float(min(codes[name])), float(max(codes[name]))
            domains[name] = optuna.distributions.FloatDistribution(low, high)
        else:
            choices = [float(code) for code in sorted(set(codes[name]))]
            domains[name] = optuna.distributions.CategoricalDistribution(choices)
    with quiet_loggers("optuna"), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study()
        for index, value in enumerate(values):
            params = {name: float(code[index]) for name, code in codes.items()}
            trial = optuna.trial.create_trial(
                params=params, distributions=domains, value=float(value)
            )
            study.add_trial(trial)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _permutation(columns: Mapping[str, Sequence[Any]], values: np.ndarray) -> dict[str, float]:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    inputs = np.column_stack([encoded(column) for column in columns.values()])
    forest = RandomForestRegressor(100, random_state=0).fit(inputs, values)
    found = permutation_importance(forest, inputs, values, n_repeats=10, random_state=0)
    return dict(zip(columns, np.maximum(found.importances_mean, 0.0).tolist(), strict=True))


def is_numeric(column: Sequence[Any]) -> bool:
    """Tell whether all values that a setting has are numbers."""
    return all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        for value in column
    )


def is_logarithmic(column: Sequence[Any]) -> bool:
    """Tell whether the numbers of a setting span so much that they want a logarithmic axis."""
    numbers = [value for value in column if value is not None]
    return is_numeric(column) and bool(numbers) and 0 < 20 * min(numbers) < max(numbers)


def encoded(column: Sequence[Any]) -> np.ndarray:
    """A setting's values as numbers: logarithms of a wide span, places of texts in their order.

    A setting without an effect gets a number below all others.
    """
    if not is_numeric(column):
        places = {text: place for place, text in enumerate(dict.fromkeys(map(repr, column)))}
        return np.array([places[repr(value)] for value in column], dtype=float)
    scale = np.log10 if is_logarithmic(column) else np.asarray
    numbers = np.array([np.nan if v is None else float(scale(v)) for v in column])
    known = numbers[~np.isnan(numbers)]
    below = known.min() - max(float(np.ptp(known)), 1.0) / 4
    return np.where(np.isnan(numbers), below, numbers)
