"""Majority vote: soft labels are normalised vote counts (two-stage baseline)."""

from __future__ import annotations

import numpy as np
from torch import nn

from modicum_algorithms.weak.config import TwoStageConfig
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.data.votes import majority_vote
from modicum_algorithms.weak.methods.objective import Objective
from modicum_algorithms.weak.methods.soft_labels import two_stage_objective


def majority_vote_objective(
    model: nn.Module, supervision: Supervision, config: TwoStageConfig
) -> Objective:
    """Cross-entropy to the normalised vote counts.

    Args:
        model: End model, from features to logits.
        supervision: Features, votes and strong labels.
        config: Settings of the method.
    """

    def denoise(votes_NK: np.ndarray) -> np.ndarray:
        return majority_vote(votes_NK, supervision.classes)

    return two_stage_objective(model, supervision, config, denoise)
