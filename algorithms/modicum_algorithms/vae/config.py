"""Settings that the experiments of this family share; what is not the thesis's says so."""

from __future__ import annotations

from typing import Literal

import modicum as md
from modicum_algorithms.vae.names import (
    Binarisation,
    LikelihoodName,
    MethodName,
    NetworkName,
    Precision,
    SampleSource,
    Schedule,
)

# Where the encoder is trained further.
REFINED = {"inference": ("wake", "sleep", "reverse_sleep", "reverse_half_sleep", "denoising")}
# Where that training has epochs of its own; joint training is the VAE's.
POST_HOC = REFINED | {"apply": ("post_hoc",)}
_RESNET = {"network": ("resnet",)}
_MLP = {"network": ("mlp",)}


class DataConfig(md.Config):
    """Images."""

    dataset: str = md.setting(
        "digits",
        description="digits (embedded); a folder, by path or by name under MODICUM_DATA: MNIST's "
        "idx files, CIFAR-10's binary files, parquet files of Hugging Face, or train and test as "
        ".npy or .npz.",
        identity=False,
    )
    binarisation: Binarisation = md.setting(
        "sampling",
        description="Grey images as 0 and 1: by one draw of Bernoulli variables with the grey "
        "values as probabilities, by a threshold at 127, or not at all (colour, or images that are "
        "0 and 1 already).",
    )
    samples: int | None = md.setting(
        None,
        description="Training images, chosen at random; smaller numbers are subsets of larger "
        "ones. null for all.",
        unit="images",
        sets_budget=True,
        ge=2,
    )

    gpus: float = md.setting(
        0.0,
        description="GPUs of a trial, may be a fraction; 0 computes on the CPU.",
        identity=False,
        ge=0.0,
    )

    @property
    def resources(self) -> md.Resources:
        """What a trial needs."""
        return md.Resources(trial=md.Bundle(gpus=self.gpus))


class ModelConfig(DataConfig):
    """Images, and a VAE trained on them."""

    likelihood: Literal["auto", LikelihoodName] = md.setting(
        "auto",
        description="p(x|z); auto is bernoulli for binary images, autoregressive_logistic for "
        "colour, discretised_logistic for grey.",
    )
    network: NetworkName = md.setting(
        "mlp", description="Multi-layer perceptrons, or fully convolutional ResNets."
    )
    latent_size: int = md.setting(16, description="Dimensions of z.", ge=1, le=100_000)
    hidden_layers: int = md.setting(
        2,
        description="Hidden layers of the encoder, and of the decoder (the authors' code has 3).",
        ge=0,
        le=20,
        used_by=_MLP,
    )
    hidden_units: int = md.setting(
        500, description="Units in each hidden layer.", ge=1, le=100_000, used_by=_MLP
    )
    residual_blocks: int = md.setting(
        2,
        description="Residual blocks of the encoder, and of the decoder.",
        ge=0,
        le=100,
        used_by=_RESNET,
    )
    channels: int = md.setting(
        64, description="Channels of a ResNet's layers.", ge=1, le=10_000, used_by=_RESNET
    )
    epochs: int = md.setting(
        100,
        description="Passes of the VAE's training over its images (thesis: 1000).",
        unit="epochs",
        ge=1,
    )
    batch_size: int = md.setting(100, description="Images in a step.", unit="images", ge=1)
    learning_rate: float = md.setting(
        5e-4, description="Adam's learning rate (thesis: 5e-4 and 3e-4).", gt=0.0
    )
    precision: Precision = md.setting(
        "float32",
        description="Of matrix products in training; everything else, and every measure, is "
        "float32.",
    )


class InferenceConfig(ModelConfig):
    """Images, a VAE, and how its encoder is trained further."""

    inference: Literal["vae", MethodName] = md.setting(
        "vae",
        description="vae leaves the encoder as the VAE's training made it; the others train it "
        "further: wake on the same objective, sleep, reverse_sleep and reverse_half_sleep on the "
        "model's own images, denoising on noisy ones.",
    )
    alpha: float = md.setting(
        0.5,
        description="Weight of the model's images (reverse_half_sleep), or of the noisy ones "
        "(denoising).",
        ge=0.0,
        le=1.0,
        used_by={"inference": ("reverse_half_sleep", "denoising")},
    )
    samples_from: SampleSource = md.setting(
        "prior",
        description="Where the latents of the model's images come from: p(z), or q(z), the "
        "aggregate posterior of the training images (the thesis's choice for CIFAR-10).",
        used_by={"inference": ("sleep", "reverse_sleep", "reverse_half_sleep")},
    )
    noise: float = md.setting(
        0.1,
        description="Standard deviation of the noise, in units of the range of pixel values.",
        ge=0.0,
        used_by={"inference": ("denoising",)},
    )
    refine_epochs: int = md.setting(
        100,
        description="Passes of the encoder's further training over the training images.",
        unit="epochs",
        ge=1,
        used_by=POST_HOC,
    )
    refine_learning_rate: float | None = md.setting(
        None,
        description="Adam's learning rate of that training; null for the VAE's.",
        gt=0.0,
        used_by=POST_HOC,
    )
    refine_schedule: Schedule = md.setting(
        "linear",
        description="Whether that learning rate falls to zero epoch by epoch, or stays (thesis: "
        "constant).",
        used_by=POST_HOC,
    )
