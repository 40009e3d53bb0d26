"""From settings to data, models and methods."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from torch import Tensor

import modicum as md
from modicum_algorithms.vae import datasets
from modicum_algorithms.vae.config import DataConfig, InferenceConfig, ModelConfig
from modicum_algorithms.vae.methods import InferenceMethod
from modicum_algorithms.vae.names import LikelihoodName, Schedule
from modicum_algorithms.vae.networks import ModelSpec, check_spec
from modicum_algorithms.vae.pretraining import Pretraining, Refinement, Stage
from modicum_algorithms.vae.training import TrainingSettings


@dataclass(frozen=True)
class Images:
    """A data set as tensors, with digests that identify the two splits.

    Attributes:
        data: As it was read.
        train: (N, C, H, W) uint8.
        test: (M, C, H, W) uint8.
        train_key: Digest of the training images.
        test_key: Digest of the test images.
    """

    data: datasets.ImageData
    train: Tensor
    test: Tensor
    train_key: str
    test_key: str


def load_images(config: DataConfig, trial: md.Trial, samples: int | None) -> Images:
    """The images of a trial, with so many of the training images (None: all)."""
    seed = trial.seed_for("images")
    data = datasets.load(
        config.dataset, binarisation=config.binarisation, seed=seed, samples=samples
    )
    digests = datasets.data_digests(config.dataset)
    drawn = seed if config.binarisation == "sampling" else None
    chosen = None if samples is None else [samples, seed]
    test_key = json.dumps([digests, config.binarisation, drawn], sort_keys=True)
    device = _device(config)
    return Images(
        data=data,
        # Copied, for a shared array is read-only.
        train=torch.from_numpy(data.train_NCHW.copy()).to(device),
        test=torch.from_numpy(data.test_NCHW.copy()).to(device),
        train_key=json.dumps([test_key, chosen]),
        test_key=test_key,
    )


def _device(config: DataConfig) -> torch.device:
    if not config.gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise md.InputError("gpus: must be 0 where PyTorch sees no GPU")
    return torch.device("cuda")


def check_model(config: ModelConfig, samples: int | None) -> None:
    """Refuse a model that does not fit its images.

    Raises:
        InputError: Naming the setting.
    """
    data = datasets.load(config.dataset, binarisation=config.binarisation, seed=0, samples=samples)
    spec = model_spec(config, data)
    if spec.levels != data.levels:
        pixels = "binary images" if data.levels == 2 else "pixels of 0 to 255"
        raise md.InputError(f"likelihood: {spec.likelihood} does not model {pixels}")
    check_spec(spec)


def model_spec(config: ModelConfig, data: datasets.ImageData) -> ModelSpec:
    """What the model is built from, `auto` resolved by the images."""
    likelihood: LikelihoodName
    if config.likelihood != "auto":
        likelihood = config.likelihood
    elif data.levels == 2:
        likelihood = "bernoulli"
    else:
        likelihood = "autoregressive_logistic" if data.shape[0] == 3 else "discretised_logistic"
    return ModelSpec(
        shape=data.shape,
        likelihood=likelihood,
        network=config.network,
        latent_size=config.latent_size,
        hidden_layers=config.hidden_layers,
        hidden_units=config.hidden_units,
        residual_blocks=config.residual_blocks,
        channels=config.channels,
    )


def training_settings(
    config: ModelConfig,
    epochs: int,
    learning_rate: float | None = None,
    schedule: Schedule = "constant",
) -> TrainingSettings:
    """Of any training in a trial; the learning rate is the VAE's if None."""
    return TrainingSettings(
        epochs,
        config.batch_size,
        learning_rate or config.learning_rate,
        config.precision,
        schedule,
    )


def pretraining(
    config: ModelConfig, images: Images, trial: md.Trial, stage_epochs: int | None = None
) -> Pretraining:
    """The usual training of a trial's VAE, kept ten times on its way or every so many epochs."""
    return Pretraining(
        spec=model_spec(config, images.data),
        images=images.train,
        images_key=images.train_key,
        settings=training_settings(config, config.epochs),
        seed=trial.seed_for("training"),
        stage_epochs=stage_epochs or max(1, config.epochs // 10),
    )


def inference_method(config: InferenceConfig, levels: int) -> InferenceMethod | None:
    """How the encoder is trained further on images of so many levels; None if it is not."""
    if config.inference == "vae":
        return None
    return InferenceMethod(
        config.inference,
        alpha=config.alpha,
        samples_from=config.samples_from,
        noise=config.noise * (levels - 1),
    )


def post_hoc_refinement(
    config: InferenceConfig,
    trial: md.Trial,
    images: Images,
    stage: Stage,
    method: InferenceMethod,
) -> Refinement:
    """Further training of a trial's encoder on its training images."""
    return Refinement(
        stage=stage,
        images=images.train,
        images_key=images.train_key,
        method=method,
        settings=training_settings(
            config, config.refine_epochs, config.refine_learning_rate, config.refine_schedule
        ),
        seed=trial.seed_for("refinement"),
    )
