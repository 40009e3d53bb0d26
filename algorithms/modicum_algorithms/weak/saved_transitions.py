"""The label model of a saved iWL or iWLD, for looking at its transition matrices.

Shapes: M points, D features, K labeling functions, C classes, V outcomes of a vote.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

import modicum as md
from modicum_algorithms.weak.label_model import PointwiseTransitions, SharedTransitions

_METHODS = ("iwl", "iwld")


@dataclass(frozen=True)
class SavedTransitions:
    """A saved label model.

    Attributes:
        classes: Names of the classes.
        config: Settings of the trial that trained it.
        weights: Its tensors by name.
    """

    classes: tuple[str, ...]
    config: dict[str, Any]
    weights: dict[str, Tensor]

    @property
    def depends_on_x(self) -> bool:
        """Whether every point has matrices of its own (iWLD)."""
        return "logits_VKC" not in self.weights

    def at(self, features_MD: np.ndarray, labeling_functions: int) -> np.ndarray:
        """φ_k(v|c) at each point.

        Args:
            features_MD: Features of the points.
            labeling_functions: Their number K.

        Returns:
            Probabilities, shape (M, V, K, C); V is C, or C + 1 with abstain as the last outcome.
            Without a dependence on x all points have the same.

        Raises:
            InputError: The model was trained on other features or labeling functions.
        """
        with torch.inference_mode():
            if not self.depends_on_x:
                shared_VKC = SharedTransitions(self.weights["logits_VKC"]).log_transitions().exp()
                self._require(shared_VKC.shape[1] == labeling_functions)
                return shared_VKC.expand(len(features_MD), *shared_VKC.shape).numpy()
            network = self._network(features_MD.shape[1], labeling_functions)
            return network.log_transitions(torch.from_numpy(features_MD)).exp().numpy()

    def _network(self, inputs: int, labeling_functions: int) -> PointwiseTransitions:
        # Layers stand in the order of their numbers: network.0.weight, network.2.weight, ...
        names = [name for name in self.weights if name.endswith(".weight")]
        names.sort(key=lambda name: int(name.split(".")[1]))
        *hidden, outputs = [self.weights[name].shape[0] for name in names]
        columns = labeling_functions * len(self.classes)
        self._require(self.weights[names[0]].shape[1] == inputs and outputs % columns == 0)
        shape_VKC = (outputs // columns, labeling_functions, len(self.classes))
        network = PointwiseTransitions(inputs, torch.zeros(shape_VKC), hidden, torch.Generator())
        network.load_state_dict(self.weights)
        return network

    def _require(self, fits: bool) -> None:
        if not fits:
            raise md.InputError(
                "model: it was trained on other features or labeling functions than those of "
                "the data set at hand"
            )


def read_transitions(folder: Path) -> SavedTransitions:
    """The label model in a checkpoint that `save_model: true` kept.

    Raises:
        InputError: There is none, or it is not one of iWL or iWLD.
    """
    try:
        described = json.loads((folder / "model.json").read_text())
        classes, config = tuple(described["classes"]), dict(described["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise md.InputError(
            f"model: {folder} holds no model of a trial with save_model: true ({error})"
        ) from error
    if config.get("method") not in _METHODS:
        raise md.InputError(
            f"model: {config.get('method')} has no transition matrices "
            f"(allowed: {', '.join(_METHODS)})"
        )
    return SavedTransitions(classes, config, load_file(folder / "label_model.safetensors"))


def find_model(location: str) -> Path:
    """A checkpoint folder: the one given, or that of a run's first finished iWLD trial.

    Raises:
        InputError: The location is neither, or the run has no such trial.
    """
    folder = Path(location).expanduser()
    if (folder / "model.json").is_file():
        return folder
    if not (folder / "plan.json").is_file():
        raise md.InputError(
            f"model: {location!r} is neither a saved model (model.json) nor a run (plan.json)"
        )
    results = md.load_results(folder)
    for trial in results.trials:
        if trial.status == "finished" and trial.columns.get("method") == "iwld":
            saved = results.folder.read_json("trials", trial.id, "trial.json")
            where = saved["best_checkpoint"] or saved["checkpoint"]
            if where is not None:
                return folder / where
    raise md.InputError(
        f"model: {location!r} has no finished trial of iwld with a checkpoint; run it with "
        "save_model: true"
    )
