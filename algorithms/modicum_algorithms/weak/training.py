"""One training run of any method: strong labels, objective, end model, test scores."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

import modicum as md
from modicum_algorithms.weak.datasets import Split, WeakData
from modicum_algorithms.weak.end_model import Fitted, Objective, Schedule, fit, mlp, predict
from modicum_algorithms.weak.integrated import IntegratedSettings, integrated_objective
from modicum_algorithms.weak.majority_vote import covered, soft_labels
from modicum_algorithms.weak.metrics import Scores, score
from modicum_algorithms.weak.two_stage import soft_label_objective

if TYPE_CHECKING:
    from modicum_algorithms.weak.experiment import WeakLearningConfig


@dataclass(frozen=True)
class Trained:
    """A trained end model and what it scored.

    Attributes:
        end_model: From features to logits.
        label_model: The label model of iWL and iWLD, else None.
        strong_labels: Number of strong labels used.
        fitted: Validation scores and iterations.
        test: Test scores.
        seconds: Time of the training loop.
    """

    end_model: nn.Module
    label_model: nn.Module | None
    strong_labels: int
    fitted: Fitted
    test: Scores
    seconds: float

    def save(self, folder: Path, config: WeakLearningConfig, classes: Sequence[str]) -> None:
        """Write weights as safetensors, with the settings and class names beside them."""
        from safetensors.torch import save_model

        folder.mkdir(parents=True)
        save_model(self.end_model, str(folder / "end_model.safetensors"))
        if self.label_model is not None:
            save_model(self.label_model, str(folder / "label_model.safetensors"))
        described = {"config": config.model_dump(mode="json"), "classes": list(classes)}
        (folder / "model.json").write_text(json.dumps(described, indent=1))


def choose_strong(rows: int, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Row numbers whose labels are given: random, at least one if the fraction is not zero.

    Under one seed a larger fraction contains the smaller ones.
    """
    count = 0 if fraction == 0 else max(1, round(fraction * rows))
    return np.sort(generator.permutation(rows)[:count])


def train(config: WeakLearningConfig, data: WeakData, trial: md.Trial) -> Trained:
    """Train the end model by the configured method and score it on the test split."""
    classes = len(data.classes)
    strong = choose_strong(len(data.train), config.strong_fraction, trial.generator("strong"))
    generator = torch.Generator().manual_seed(trial.seed_for("initialisation"))
    hidden = [config.hidden_units] * config.hidden_layers
    end_model = mlp(data.train.features_ND.shape[1], classes, hidden, generator)
    objective, label_model = _objective(
        config, data.train, strong, end_model, classes, hidden, generator
    )
    schedule = Schedule(
        batch_size=config.batch_size,
        max_iterations=config.max_iterations,
        evaluate_every=config.evaluate_every,
        patience=config.patience,
        patience_unit=config.patience_unit,
        metric=config.early_stopping_metric,
    )
    started = time.perf_counter()
    fitted = fit(
        end_model,
        objective,
        torch.from_numpy(np.array(data.valid.features_ND)),
        np.asarray(data.valid.labels_N),
        classes,
        schedule,
        trial.seed_for("batches"),
    )
    seconds = time.perf_counter() - started
    probabilities_NC = predict(end_model, torch.from_numpy(np.array(data.test.features_ND)))
    test = score(np.asarray(data.test.labels_N), probabilities_NC.argmax(1), classes)
    return Trained(end_model, label_model, len(strong), fitted, test, seconds)


def _objective(
    config: WeakLearningConfig,
    split: Split,
    strong: np.ndarray,
    end_model: nn.Module,
    classes: int,
    hidden: Sequence[int],
    generator: torch.Generator,
) -> tuple[Objective, nn.Module | None]:
    features_ND = torch.from_numpy(np.array(split.features_ND))
    votes_NK, labels_N = np.asarray(split.votes_NK), np.asarray(split.labels_N)
    rate = config.learning_rate
    if config.method == "labels_only":
        soft_NC = np.zeros((len(split), classes), dtype=np.float32)
        soft_NC[strong, labels_N[strong]] = 1
        return soft_label_objective(end_model, features_ND, soft_NC, strong, rate), None
    if config.method == "majority_vote":
        soft_NC = soft_labels(votes_NK, classes, strong, labels_N, config.strong_labels)
        used = np.ones(len(split), dtype=bool)
        if config.uncovered == "drop":
            used = covered(votes_NK)
            used[strong] = True
        rows = np.flatnonzero(used)
        return soft_label_objective(end_model, features_ND, soft_NC, rows, rate), None
    depends_on_x = config.method == "iwld"
    settings = IntegratedSettings(
        depends_on_x=depends_on_x,
        abstain=config.abstain,
        lambda_strong=config.lambda_strong,
        lambda_weak=config.lambda_weak,
        smoothing=config.transition_smoothing,
        end_model_rate=rate,
        label_model_rate=config.label_network_learning_rate
        if depends_on_x
        else config.transition_learning_rate,
        hidden=hidden,
    )
    return integrated_objective(
        end_model, features_ND, votes_NK, labels_N, strong, classes, settings, generator
    )
