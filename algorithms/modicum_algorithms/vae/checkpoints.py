"""A VAE at one checkpoint of its training: its encoders, and what is measured of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

import modicum as md
from modicum_algorithms.vae.experiment import MEASURED_TRAINING_IMAGES, VaeConfig
from modicum_algorithms.vae.measures import bits_per_dimension
from modicum_algorithms.vae.networks import VAE, build_vae
from modicum_algorithms.vae.pretraining import Stage, optimal_encoder, pretrained
from modicum_algorithms.vae.trained import Images, inference_method, pretraining
from modicum_algorithms.vae.training import TrainingSettings, refine_epochs


@dataclass(frozen=True)
class Encoded:
    """A decoder with one of its encoders.

    Attributes:
        stage: The VAE as it was trained.
        epoch: Of its training.
        model: The same decoder with the encoder in question, in evaluation mode.
        refined: Epochs of the encoder's further training.
        seconds: Time of those since the encoder before.
    """

    stage: Stage
    epoch: int
    model: VAE
    refined: int = 0
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
    model = build_vae(stage.model.spec, seed=0)
    model.load_state_dict(stage.model.state_dict())
    model.decoder.requires_grad_(False)
    losses = refine_epochs(
        model.encoder,
        model.decoder,
        images.train,
        method,
        TrainingSettings(
            config.refine_epochs,
            config.batch_size,
            config.refine_learning_rate or config.learning_rate,
            config.precision,
        ),
        seed=trial.seed_for("refinement"),
    )
    started = time.perf_counter()
    for refined, loss in enumerate(losses, 1):
        trial.log.info("epoch %d, refinement %d: loss %.4f", epoch, refined, loss)
        if refined % (config.measure_every or config.refine_epochs) == 0:
            seconds = time.perf_counter() - started
            yield Encoded(stage, epoch, model, refined, seconds)
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
        "refine/epoch": encoded.refined,
        "refine/seconds": encoded.seconds,
    }
    if config.iwae_samples:
        metrics["test/iwae_bpd"] = bits(model, images.test, config.iwae_samples)
    if config.optimal_epochs:
        settings = TrainingSettings(
            config.optimal_epochs, config.batch_size, config.learning_rate, config.precision
        )
        best = optimal_encoder(
            stage, images.test, images.test_key, settings, trial.seed_for("optimal")
        )
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
