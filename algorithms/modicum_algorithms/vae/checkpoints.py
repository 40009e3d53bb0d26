"""A VAE at one checkpoint of its training: its encoders, and what is measured of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import modicum as md
from modicum_algorithms.vae.experiment import MEASURED_TRAINING_IMAGES, VaeConfig
from modicum_algorithms.vae.measures import mean_bits_per_dimension
from modicum_algorithms.vae.methods import InferenceMethod
from modicum_algorithms.vae.networks import VAE
from modicum_algorithms.vae.pretraining import Refinement, Stage, pretrained, refined
from modicum_algorithms.vae.trained import (
    Images,
    inference_method,
    post_hoc_refinement,
    pretraining,
    training_settings,
)


@dataclass(frozen=True)
class Encoded:
    """A decoder with one of its encoders.

    Attributes:
        stage: The VAE as it was trained.
        epoch: Of its training.
        model: The same decoder with the encoder in question, in evaluation mode.
        refined_epochs: Epochs of the encoder's further training.
        seconds: Time of those since the encoder before.
    """

    stage: Stage
    epoch: int
    model: VAE
    refined_epochs: int = 0
    seconds: float = 0.0


def encoders_at(
    config: VaeConfig, trial: md.Trial, images: Images, epoch: int
) -> Iterator[Encoded]:
    """The encoders to measure at a checkpoint, `config.records_at_checkpoint` of them."""
    training = pretraining(config, images, trial, config.checkpoint_every)
    method = inference_method(config, images.data.levels)
    if method is not None and config.apply == "joint":
        training = replace(training, inference=method, inference_from=config.joint_from)
    stage = pretrained(training, epoch)
    if method is None or config.apply == "joint":
        yield Encoded(stage, epoch, stage.model)
        return
    refinement = post_hoc_refinement(config, trial, images, stage, method)
    if config.measure_every is None:
        result = refined(refinement)
        yield Encoded(stage, epoch, result.model, config.refine_epochs, result.seconds)
        return
    started = time.perf_counter()
    for number, model in enumerate(refinement.epochs(), 1):
        if number % config.measure_every == 0:
            yield Encoded(stage, epoch, model, number, time.perf_counter() - started)
            started = time.perf_counter()


def gaps(test: float, optimal: float, train: float, before: float | None) -> dict[str, float]:
    """Generalization gaps, by the names of their metrics (equations 4.13 and 4.14).

    Args:
        test: Bits per dimension of the test images.
        optimal: The same with the optimal encoder.
        train: Bits per dimension of training images.
        before: As `test`, before the encoder was trained further; None where there is none.
    """
    found = {"gap/amortized_inference": test - optimal, "gap/generative": optimal - train}
    if before is not None and before > optimal:
        found["gap/closed"] = (before - test) / (before - optimal)
    return found


@dataclass(frozen=True)
class _OfCheckpoint:
    """What is the same for all encoders of a checkpoint.

    Attributes:
        key: Of the stage.
        test: Bits per dimension of the test images with the encoder as it was trained.
        metrics: The rest, by the names of the experiment's metrics.
    """

    key: str
    test: float
    metrics: Mapping[str, float]


class Measures:
    """What records say, by the names of the experiment's metrics.

    What is the same for all encoders of a checkpoint is measured once.
    """

    def __init__(self, config: VaeConfig, trial: md.Trial, images: Images) -> None:
        self._config = config
        self._trial = trial
        self._images = images
        self._shared: _OfCheckpoint | None = None

    def of(self, encoded: Encoded) -> dict[str, float]:
        """Every metric of one encoder."""
        config, images, model = self._config, self._images, encoded.model
        shared = self._of_checkpoint(encoded.stage)
        joint = config.inference != "vae" and config.apply == "joint"
        unrefined = model is encoded.stage.model
        test = shared.test if unrefined else self._bits(model, images.test)
        # A model that was trained jointly never was a usual VAE.
        before = None if joint else shared.test
        optimal = shared.metrics.get("test/bpd_optimal")
        train = self._bits(model, images.train[:MEASURED_TRAINING_IMAGES])
        metrics = {
            **shared.metrics,
            "test/bpd": test,
            "train/bpd": train,
            "train/epoch": encoded.epoch,
            "refine/epoch": encoded.refined_epochs,
            "refine/seconds": encoded.seconds,
        }
        if before is not None:
            metrics["test/bpd_vae"] = before
        if config.iwae_samples:
            metrics["test/iwae_bpd"] = self._bits(model, images.test, config.iwae_samples)
        if optimal is not None:
            metrics |= gaps(test, optimal, train, before)
        if config.classification:
            metrics["test/classification_accuracy"] = self._accuracy(model)
        return metrics

    def _of_checkpoint(self, stage: Stage) -> _OfCheckpoint:
        if self._shared is not None and self._shared.key == stage.key:
            return self._shared
        config, images = self._config, self._images
        metrics = {"train/seconds": stage.seconds}
        if config.optimal_epochs:
            best = _optimal(config, self._trial, images, stage)
            metrics |= {
                "test/bpd_optimal": self._bits(best, images.test),
                "evaluation/samples": len(images.test),
            }
            if config.iwae_samples:
                metrics["test/iwae_bpd_optimal"] = self._bits(
                    best, images.test, config.iwae_samples
                )
        self._shared = _OfCheckpoint(stage.key, self._bits(stage.model, images.test), metrics)
        return self._shared

    def _bits(self, model: VAE, images: Tensor, iwae_samples: int = 0) -> float:
        return mean_bits_per_dimension(
            model.encoder,
            model.decoder,
            images,
            seed=self._trial.seed_for("evaluation"),
            iwae_samples=iwae_samples,
        )

    def _accuracy(self, model: VAE) -> float:
        from modicum_algorithms.vae.classification import classification_accuracy

        images = self._images
        assert images.data.train_labels_N is not None
        assert images.data.test_labels_N is not None
        return classification_accuracy(
            model.encoder,
            images.train,
            torch.from_numpy(images.data.train_labels_N.copy()),
            images.test,
            torch.from_numpy(images.data.test_labels_N.copy()),
            seed=self._trial.seed_for("classification"),
        )


def _optimal(config: VaeConfig, trial: md.Trial, images: Images, stage: Stage) -> VAE:
    """The model with the encoder that is trained on the test images (equation 4.16)."""
    refinement = Refinement(
        stage=stage,
        images=images.test,
        images_key=images.test_key,
        method=InferenceMethod("wake"),
        settings=training_settings(config, config.optimal_epochs, schedule="linear"),
        seed=trial.seed_for("optimal"),
    )
    return refined(refinement).model
