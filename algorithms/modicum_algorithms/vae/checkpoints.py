"""A VAE at one checkpoint of its training: its encoders, and what is measured of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

import modicum as md
from modicum_algorithms.vae.experiment import MEASURED_TRAINING_IMAGES, VaeConfig
from modicum_algorithms.vae.measures import bits_per_dimension
from modicum_algorithms.vae.methods import InferenceMethod
from modicum_algorithms.vae.networks import VAE
from modicum_algorithms.vae.pretraining import Refinement, Stage, pretrained, refined
from modicum_algorithms.vae.trained import (
    Images,
    inference_method,
    post_hoc_refinement,
    pretraining,
)
from modicum_algorithms.vae.training import TrainingSettings


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
    training = pretraining(config, images, trial, config.checkpoint_every or config.epochs)
    method = inference_method(config)
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


def measure(
    config: VaeConfig, trial: md.Trial, images: Images, encoded: Encoded
) -> dict[str, float | int]:
    """What a record says, by the names of the experiment's metrics."""

    def bits(model: VAE, of: Tensor, iwae_samples: int = 0) -> float:
        per_image = bits_per_dimension(
            model.encoder,
            model.decoder,
            of,
            seed=trial.seed_for("evaluation"),
            iwae_samples=iwae_samples,
        )
        return float(per_image.double().mean())

    model, stage = encoded.model, encoded.stage
    test, train = bits(model, images.test), bits(model, images.train[:MEASURED_TRAINING_IMAGES])
    before = test if model is stage.model else bits(stage.model, images.test)
    metrics: dict[str, float | int] = {
        "test/bpd": test,
        "test/bpd_vae": before,
        "train/bpd": train,
        "train/epoch": encoded.epoch,
        "train/seconds": stage.seconds,
        "refine/epoch": encoded.refined_epochs,
        "refine/seconds": encoded.seconds,
    }
    if config.iwae_samples:
        metrics["test/iwae_bpd"] = bits(model, images.test, config.iwae_samples)
    if config.optimal_epochs:
        best = _optimal(config, trial, images, stage)
        optimal = bits(best, images.test)
        metrics |= {
            "test/bpd_optimal": optimal,
            "gap/amortized_inference": test - optimal,
            "gap/generative": optimal - train,
            "evaluation/samples": len(images.test),
        }
        if before > optimal:
            metrics["gap/closed"] = (before - test) / (before - optimal)
        if config.iwae_samples:
            metrics["test/iwae_bpd_optimal"] = bits(best, images.test, config.iwae_samples)
    if config.classification:
        from modicum_algorithms.vae.classification import classification_accuracy

        data = images.data
        assert data.train_labels_N is not None
        assert data.test_labels_N is not None
        metrics["test/classification_accuracy"] = classification_accuracy(
            model.encoder,
            images.train,
            data.train_labels_N,
            images.test,
            data.test_labels_N,
            seed=trial.seed_for("classification"),
        )
    return metrics


def _optimal(config: VaeConfig, trial: md.Trial, images: Images, stage: Stage) -> VAE:
    """The model with the encoder that is trained on the test images (equation 4.16)."""
    refinement = Refinement(
        stage=stage,
        images=images.test,
        images_key=images.test_key,
        method=InferenceMethod("wake"),
        settings=TrainingSettings(
            config.optimal_epochs, config.batch_size, config.learning_rate, config.precision
        ),
        seed=trial.seed_for("optimal"),
    )
    return refined(refinement).model
