"""A trial of the experiment `vae`: train a VAE, refine its encoder, measure it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import modicum as md
from modicum_algorithms.vae.checkpoints import Pretraining, Refinement, Stage, pretrained, refined
from modicum_algorithms.vae.config import VaeConfig
from modicum_algorithms.vae.data.tensors import Images, load_images
from modicum_algorithms.vae.evaluation import Encoder, checkpoint_metrics, encoder_metrics
from modicum_algorithms.vae.methods.inference_method import InferenceMethod
from modicum_algorithms.vae.saved_models import save_vae


def run(config: VaeConfig, trial: md.Trial) -> Iterator[md.Record]:
    """Records of a trial, for each checkpoint one or one for each look at the refinement.

    Weights come from the cache where an earlier trial has trained them. Records that are done
    already are skipped.
    """
    images = load_images(config, trial, config.samples)
    training = Pretraining.of(config, images, trial, config.checkpoint_every)
    if config.trained_jointly:
        method = InferenceMethod.of(config, images.data.pixel_range)
        training = replace(training, method=method, method_from=config.joint_from)
    every = config.checkpoint_every or config.epochs
    number = 0
    for epoch in range(every, config.epochs + 1, every):
        if number + config.records_at_checkpoint <= trial.records_done:
            number += config.records_at_checkpoint
            continue
        stage = pretrained(training, epoch)
        shared = checkpoint_metrics(config, images, trial, stage)
        for encoder in _encoders(config, images, trial, stage, epoch):
            number += 1
            if number <= trial.records_done:
                continue
            metrics = encoder_metrics(config, images, trial, encoder, shared)
            trial.log.info(
                "epoch %d, refined for %d: test/bpd %.4f, train/bpd %.4f",
                encoder.epoch,
                encoder.refined_epochs,
                metrics["test/bpd"],
                metrics["train/bpd"],
            )
            checkpoint: Path | None = None
            if config.save_model:
                checkpoint = trial.scratch / f"model-{number}"
                save_vae(encoder.model, checkpoint, config=config.model_dump(mode="json"))
            yield md.Record(budget=len(images.train), metrics=metrics, checkpoint=checkpoint)
            if checkpoint is not None:  # The runner has copied it.
                shutil.rmtree(checkpoint)


def _encoders(
    config: VaeConfig, images: Images, trial: md.Trial, stage: Stage, epoch: int
) -> Iterator[Encoder]:
    """The encoders to measure at a checkpoint, `config.records_at_checkpoint` in number."""
    if not config.refined_post_hoc:
        yield Encoder(stage.model, epoch)
        return
    refinement = Refinement.of(config, images, trial, stage)
    if config.measure_every is None:
        result = refined(refinement)
        yield Encoder(result.model, epoch, config.refine_epochs, result.seconds)
        return
    started = time.perf_counter()
    for number, model in enumerate(refinement.epochs(), 1):
        if number % config.measure_every == 0:
            yield Encoder(model, epoch, number, time.perf_counter() - started)
            started = time.perf_counter()
