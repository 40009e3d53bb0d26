"""A trial of the experiment `vae_consistency`: a fresh encoder, trained on images of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import modicum as md
from modicum_algorithms.vae.checkpoints import Pretraining, pretrained
from modicum_algorithms.vae.config import ConsistencyConfig, MethodConfig
from modicum_algorithms.vae.data.tensors import load_images
from modicum_algorithms.vae.evaluation import mean_bits, model_images
from modicum_algorithms.vae.methods.inference_method import InferenceMethod
from modicum_algorithms.vae.networks import build_vae
from modicum_algorithms.vae.training import TrainingSettings, refine_epochs


def run(config: ConsistencyConfig, trial: md.Trial) -> Iterator[md.Record]:
    """Records of a trial, one every `measure_every` epochs."""
    images = load_images(config, trial, samples=None)
    stage = pretrained(Pretraining.of(config, images, trial), config.epochs)
    decoder, spec = stage.model.decoder, stage.model.spec
    train = model_images(stage.model, config.samples, trial.seed_for("model's training images"))
    test = model_images(stage.model, config.test_samples, trial.seed_for("model's test images"))
    encoder = build_vae(spec, trial.seed_for("encoder")).encoder.to(train.device)
    method = InferenceMethod.of(MethodConfig(inference=config.inference), images.data.pixel_range)
    settings = replace(TrainingSettings.of(config, "constant"), epochs=config.inference_epochs)
    losses = refine_epochs(
        encoder, decoder, train, method, settings, seed=trial.seed_for("inference")
    )
    seed = trial.seed_for("evaluation")
    for epoch, _ in enumerate(losses, 1):
        if epoch % config.measure_every:
            continue
        yield md.Record(
            budget=config.samples,
            metrics={
                "test/bpd": mean_bits(encoder, decoder, test, seed=seed),
                "train/bpd": mean_bits(encoder, decoder, train, seed=seed),
                "inference/epoch": epoch,
                "train/seconds": stage.seconds,
            },
        )
