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
from modicum_algorithms.weak.label_model import (
    LabelModel,
    PointwiseTransitions,
    SharedTransitions,
    mean_transitions,
)

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

    def at(self, features_MD: np.ndarray, labeling_functions: int) -> np.ndarray:
        """φ_k(v|c) at each point, averaged over the states of a latent h.

        Args:
            features_MD: Features of the points.
            labeling_functions: Their number K; votes that the method adds of its own are left out.

        Returns:
            Probabilities, shape (M, V, K, C); V is C, or C + 1 with abstain as the last outcome.
            Without a dependence on x all points have the same.

        Raises:
            InputError: The model was trained on other features or labeling functions.
        """
        label_model = self._label_model(features_MD.shape[1])
        _, functions, classes, _ = label_model.shape_VKCH
        if functions < labeling_functions or classes != len(self.classes):
            raise self._other_data()
        with torch.inference_mode():
            transitions_MVKC = mean_transitions(label_model, torch.from_numpy(features_MD))
            return transitions_MVKC[:, :, :labeling_functions].numpy()

    def _label_model(self, inputs: int) -> LabelModel:
        """The label model as it was trained; its sizes are those of its tensors."""
        generator = torch.Generator()
        label_model: LabelModel
        if "logits_VKCH" in self.weights:
            *shape_VKC, states = self.weights["logits_VKCH"].shape
            label_model = SharedTransitions(torch.zeros(shape_VKC), states, generator)
        else:
            # Layers stand in the order of their numbers: network.0.weight, network.2.weight, ...
            names = [name for name in self.weights if name.endswith(".weight")]
            names.sort(key=lambda name: int(name.split(".")[1]))
            if self.weights[names[0]].shape[1] != inputs:
                raise self._other_data()
            hidden = [self.weights[name].shape[0] for name in names[:-1]]
            *shape_VKC, states = self.weights["sizes_VKCH"].tolist()
            label_model = PointwiseTransitions(
                inputs, torch.zeros(shape_VKC), hidden, states, generator
            )
        label_model.load_state_dict(self.weights)
        return label_model

    @staticmethod
    def _other_data() -> md.InputError:
        return md.InputError(
            "model: it was trained on other features or labeling functions than those of the data "
            "set at hand"
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
    return md.find_checkpoint(
        location,
        "model.json",
        "model",
        "finished trial of iwld with a checkpoint; run it with save_model: true",
        method="iwld",
    )
