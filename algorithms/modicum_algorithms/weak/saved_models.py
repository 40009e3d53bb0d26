"""Trained estimators as folders: weights and arrays as safetensors, the rest as JSON.

model.json                       estimator, its parameters, classes, and what the study adds
end_model.safetensors            the network from features to logits
labeling_functions.safetensors   transitions, class balance, coverage, conflict
label_model.safetensors          what the method trained beside the end model, if anything
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_model

import modicum as md
from modicum_algorithms.weak import estimators
from modicum_algorithms.weak.end_model import mlp
from modicum_algorithms.weak.estimator_base import WeakClassifier
from modicum_algorithms.weak.label_summary import LabelModel
from modicum_algorithms.weak.metrics import Scores

_ARRAYS = ("transitions", "class_balance", "coverage", "conflict")


def save_trained(
    estimator: WeakClassifier,
    folder: Path,
    classes: Sequence[Any] | None = None,
    **more: Any,
) -> None:
    """Write a fitted estimator to a new folder.

    Args:
        estimator: Fitted.
        folder: Must not exist.
        classes: Names to predict in the place of `classes_`, in its order.
        **more: What else `model.json` shall hold.
    """
    folder.mkdir(parents=True)
    save_model(estimator.end_model_, str(folder / "end_model.safetensors"))
    label_network = getattr(estimator, "label_network_", None)  # one read from a folder lacks it
    if label_network is not None:
        save_model(label_network, str(folder / "label_model.safetensors"))
    label_model = estimator.label_model_
    arrays = {name: np.ascontiguousarray(getattr(label_model, name)) for name in _ARRAYS}
    save_arrays(arrays, str(folder / "labeling_functions.safetensors"))
    parameters = estimator.get_params(deep=False) | {"classes": None}
    if isinstance(parameters["random_state"], np.random.RandomState):
        parameters["random_state"] = None
    scores = estimator.validation_scores_
    described = {
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
    (folder / "model.json").write_text(json.dumps(described, indent=1, default=_plain))


def load_model(folder: str | Path) -> WeakClassifier:
    """A saved estimator, ready to predict.

    `label_network_` is not rebuilt: what it says of the labeling functions is in `label_model_`.

    Raises:
        InputError: The folder holds no saved model.
    """
    folder = Path(folder)
    try:
        described = json.loads((folder / "model.json").read_text())
        kind = getattr(estimators, described["estimator"])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise md.InputError(f"folder: {folder} holds no model of this family") from error
    estimator: WeakClassifier = kind(**described["parameters"])
    estimator.classes_ = np.array(described["classes"])
    estimator.n_features_in_ = described["features"]
    if described["feature_names"]:
        estimator.feature_names_in_ = np.array(described["feature_names"], dtype=object)
    hidden = [estimator.hidden_units] * estimator.hidden_layers
    end_model = mlp(described["features"], len(estimator.classes_), hidden, torch.Generator())
    end_model.load_state_dict(load_file(folder / "end_model.safetensors"))
    estimator.end_model_ = end_model.eval()
    arrays = load_arrays(folder / "labeling_functions.safetensors")
    estimator.label_model_ = LabelModel(names=described["labeling_functions"], **arrays)
    estimator.chosen_ = described["chosen"]
    estimator.n_iter_ = described["iterations"]
    estimator.best_iteration_ = described["best_iteration"]
    scores = described["validation_scores"]
    estimator.validation_score_ = described["validation_score"]
    estimator.validation_scores_ = None if scores is None else Scores(**scores)
    return estimator


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
