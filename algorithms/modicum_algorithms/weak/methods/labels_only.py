"""Maximum likelihood on the strong labels alone (equation 3.1), the baseline without votes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from modicum_algorithms.weak.config import EndModelConfig
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.methods.objective import Objective
from modicum_algorithms.weak.methods.soft_labels import soft_label_objective
from modicum_algorithms.weak.models.end_model import predict


def labels_only_objective(
    model: nn.Module, supervision: Supervision, config: EndModelConfig
) -> Objective:
    """Cross-entropy to the strong labels; votes are ignored.

    The denoised labels are the known ones, and elsewhere the end model's predictions.

    Args:
        model: End model, from features to logits.
        supervision: Features and strong labels.
        config: Settings of the end model.
    """
    nothing_NC = np.zeros((len(supervision), supervision.classes), dtype=np.float32)
    soft_NC = supervision.with_strong_labels(nothing_NC)
    features_ND = supervision.features_ND
    objective = soft_label_objective(
        model, features_ND, soft_NC, supervision.strong, config.learning_rate
    )
    return replace(
        objective,
        denoised=lambda: supervision.with_strong_labels(predict(model, features_ND)),
    )
