"""Fitted estimators as folders: weights and arrays as safetensors, the rest as JSON.

model.json                       estimator, its parameters, classes, and settings of the study
end_model.safetensors            the network from features to logits
labeling_functions.safetensors   transitions, class balance, coverage, conflict
label_model.safetensors          the network trained beside the end model, if there is one
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import modicum as md
from modicum_algorithms.weak import estimators
from modicum_algorithms.weak.classifier import WeakClassifier
from modicum_algorithms.weak.evaluation import Scores
from modicum_algorithms.weak.models.end_model import mlp
from modicum_algorithms.weak.models.label_summary import LabelModelSummary

_ARRAYS = ("transitions", "class_balance", "coverage", "conflict")


def save_trained(
    estimator: WeakClassifier,
    folder: Path,
    classes: Sequence[Any] | None = None,
    **more: Any,
) -> None:
    """Write a fitted estimator to a new folder.

    Args:
        estimator: Fitted estimator.
        folder: Folder to make; it must not exist.
        classes: Names to predict in the place of `classes_`, in the same order.
        **more: Further entries of `model.json`.
    """
    folder.mkdir(parents=True)
    label_model, label_network = estimator.label_model_, estimator.label_network_
    arrays = {name: np.ascontiguousarray(getattr(label_model, name)) for name in _ARRAYS}
    weights = {
        "end_model": estimator.end_model_.state_dict(),
        "labeling_functions": {name: torch.from_numpy(a) for name, a in arrays.items()},
    }
    if label_network is not None:
        weights["label_model"] = label_network.state_dict()
    parameters = estimator.get_params(deep=False) | {"classes": None}
    if isinstance(parameters["random_state"], np.random.RandomState):
        parameters["random_state"] = None
    scores = estimator.validation_scores_
    description = {
        "estimator": type(estimator).__name__,
        "parameters": parameters,
        "classes": estimator.classes_.tolist() if classes is None else list(classes),
        "features": estimator.n_features_in_,
        "feature_names": getattr(estimator, "feature_names_in_", np.array([])).tolist(),
        "labeling_functions": list(label_model.names),
        "chosen": estimator.chosen_,
        "iterations": estimator.n_iter_,
        "best_iteration": estimator.best_iteration_,
        "validation_score": estimator.validation_score_,
        "validation_scores": None if scores is None else asdict(scores),
        **more,
    }
    md.save_model(folder, description, weights)


def load_model(folder: str | Path) -> WeakClassifier:
    """A saved estimator, ready to predict.

    `predict_proba_with_votes` is not available: the class balance of the training is not saved.

    Raises:
        InputError: The folder holds no saved model.
    """
    with md.loading_model(folder, "model of weak learning", "folder"):
        saved = md.load_model(folder)
        description, weights = saved.description, saved.weights
        kind: type[WeakClassifier] = getattr(estimators, description["estimator"])
        estimator = kind(**description["parameters"])
        estimator.classes_ = np.array(description["classes"])
        estimator.n_features_in_ = description["features"]
        if description["feature_names"]:
            estimator.feature_names_in_ = np.array(description["feature_names"], dtype=object)
        estimator.chosen_ = description["chosen"]
        estimator.n_iter_ = description["iterations"]
        estimator.best_iteration_ = description["best_iteration"]
        scores = description["validation_scores"]
        estimator.validation_score_ = description["validation_score"]
        estimator.validation_scores_ = None if scores is None else Scores(**scores)
        estimator.label_model_ = LabelModelSummary(
            names=description["labeling_functions"],
            **{name: weights["labeling_functions"][name].numpy() for name in _ARRAYS},
        )
        _rebuild_networks(estimator, saved)
    return estimator


def _rebuild_networks(estimator: WeakClassifier, saved: md.SavedModel) -> None:
    """Set `end_model_` and `label_network_`."""
    chosen = {estimator.names[name]: value for name, value in estimator.chosen_.items()}
    config = estimator.config(validated=estimator.validation_scores_ is not None)
    config = config.model_copy(update=chosen)
    inputs, classes = estimator.n_features_in_, len(estimator.classes_)
    end_model = mlp(inputs, classes, config.hidden, torch.Generator())
    end_model.load_state_dict(saved.weights["end_model"])
    estimator.end_model_ = end_model.eval()
    estimator.label_network_ = None
    if (weights := saved.weights.get("label_model")) is not None:
        rebuild = type(estimator).rebuild_network
        assert rebuild is not None
        estimator.label_network_ = rebuild(config, weights, inputs)


def study_config(folder: Path) -> dict[str, Any]:
    """Settings of the trial that saved a model.

    Raises:
        InputError: The folder holds no model of a trial.
    """
    with md.loading_model(folder, "model of a trial with save_model: true", "model"):
        return dict(json.loads((folder / "model.json").read_text())["config"])


def find_model(location: str) -> Path:
    """A checkpoint folder: the given one, or that of a run's best finished iwld trial.

    Raises:
        InputError: The location is neither, or the run has no such trial.
    """
    return md.find_checkpoint(
        location,
        "model.json",
        "model",
        "finished trial of iwld with a checkpoint; run it with save_model: true",
        method="iwld",
    )
