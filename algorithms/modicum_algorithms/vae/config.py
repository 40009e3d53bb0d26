"""Settings of the family: names, defaults, limits and descriptions stand here and nowhere else.

Where a default differs from the thesis's value, the description says so.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

import modicum as md

Binarisation = Literal["none", "threshold", "sampling"]
NetworkName = Literal["mlp", "resnet"]
LikelihoodName = Literal["bernoulli", "discretised_logistic", "autoregressive_logistic"]
MethodName = Literal["wake", "sleep", "reverse_sleep", "reverse_half_sleep", "denoising"]
SampleSource = Literal["prior", "aggregate_posterior"]
Schedule = Literal["constant", "linear"]
Precision = Literal["float32", "bfloat16"]
CoderMode = Literal["portable", "pinned"]

# Training images that bits per dimension are measured on, at most: the size of MNIST's test set.
MEASURED_TRAINING_IMAGES = 10_000

# Settings under which the encoder is trained further, and under which it is after the VAE.
_REFINED = {"inference": ("wake", "sleep", "reverse_sleep", "reverse_half_sleep", "denoising")}
_POST_HOC = _REFINED | {"apply": ("post_hoc",)}
_RESNET = {"network": ("resnet",)}
_MLP = {"network": ("mlp",)}


class DataConfig(md.Config):
    """The images, and the hardware that computes on them."""

    dataset: str = md.setting(
        "digits",
        description="digits (embedded), or a folder, given as a path or as a name under "
        "MODICUM_DATA, with MNIST's idx files, CIFAR-10's binary files, parquet files of Hugging "
        "Face, or train and test sets as .npy or .npz.",
        identity=False,
    )
    binarisation: Binarisation = md.setting(
        "sampling",
        description="Conversion of grey images to binary images: sampling draws each pixel once "
        "from a Bernoulli distribution with the grey value as its probability, threshold cuts at "
        "127, none keeps the images (colour images, or images that are binary already).",
    )
    samples: int | None = md.setting(
        None,
        description="Number of training images, drawn at random; a smaller draw is a subset of a "
        "larger one. null takes all.",
        unit="images",
        sets_budget=True,
        ge=2,
    )

    gpus: float = md.setting(
        0.0,
        description="GPUs per trial, possibly a fraction; 0 computes on the CPU.",
        identity=False,
        ge=0.0,
    )

    @property
    def resources(self) -> md.Resources:
        """Resources of a trial: one core, and the GPUs."""
        return md.Resources(trial=md.Bundle(gpus=self.gpus))


class ArchitectureConfig(md.Config):
    """The likelihood and the networks of a VAE."""

    likelihood: Literal["auto", LikelihoodName] = md.setting(
        "auto",
        description="p(x|z); auto is bernoulli for binary images, autoregressive_logistic for "
        "colour images, discretised_logistic for grey images.",
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
        500, description="Units of each hidden layer.", ge=1, le=100_000, used_by=_MLP
    )
    residual_blocks: int = md.setting(
        2,
        description="Residual blocks of the encoder, and of the decoder.",
        ge=0,
        le=100,
        used_by=_RESNET,
    )
    channels: int = md.setting(
        64, description="Channels of each layer of a ResNet.", ge=1, le=10_000, used_by=_RESNET
    )


class TrainingConfig(md.Config):
    """Training by mini-batches with Adam."""

    epochs: int = md.setting(
        100,
        description="Epochs of training (thesis: 1000 for the VAE).",
        unit="epochs",
        ge=1,
    )
    batch_size: int = md.setting(100, description="Mini-batch size.", unit="images", ge=1)
    learning_rate: float = md.setting(
        5e-4, description="Adam's learning rate (thesis: 5e-4 and 3e-4).", gt=0.0
    )
    precision: Precision = md.setting(
        "float32",
        description="Precision of the matrix products in training; everything else, and every "
        "measurement, is in float32.",
    )


class ModelConfig(TrainingConfig, ArchitectureConfig, DataConfig):
    """A VAE trained on images."""


class MethodConfig(md.Config):
    """The objective on which an encoder is trained further."""

    inference: Literal["vae", MethodName] = md.setting(
        "vae",
        description="Objective of the encoder's further training: vae has none, wake continues "
        "with the VAE's objective, sleep, reverse_sleep and reverse_half_sleep use images sampled "
        "from the model, denoising uses noisy images.",
    )
    alpha: float = md.setting(
        0.5,
        description="Weight of the term on the model's images (reverse_half_sleep) or on noisy "
        "images (denoising).",
        ge=0.0,
        le=1.0,
        used_by={"inference": ("reverse_half_sleep", "denoising")},
    )
    samples_from: SampleSource = md.setting(
        "prior",
        description="Distribution of the latents from which the model's images are sampled: p(z), "
        "or the aggregate posterior q(z) of the training images (the thesis's choice for "
        "CIFAR-10).",
        used_by={"inference": ("sleep", "reverse_sleep", "reverse_half_sleep")},
    )
    noise: float = md.setting(
        0.1,
        description="Standard deviation of the denoising objective's noise. In experiments its "
        "unit is the range of pixel values; in refine_encoder, the images' own unit.",
        ge=0.0,
        used_by={"inference": ("denoising",)},
    )


class InferenceConfig(MethodConfig, ModelConfig):
    """A VAE, and the further training of its encoder."""

    refine_epochs: int = md.setting(
        100,
        description="Epochs of the encoder's further training.",
        unit="epochs",
        ge=1,
        used_by=_POST_HOC,
    )
    refine_learning_rate: float | None = md.setting(
        None,
        description="Adam's learning rate in the encoder's further training; null takes the VAE's.",
        gt=0.0,
        used_by=_POST_HOC,
    )
    refine_schedule: Schedule = md.setting(
        "linear",
        description="Learning rate schedule of the encoder's further training: linear decays to "
        "zero epoch by epoch (thesis: constant).",
        used_by=_POST_HOC,
    )


class RefinementConfig(MethodConfig, TrainingConfig):
    """Settings of `refine_encoder`; `inference` is the argument `method`."""

    learning_rate: float = md.setting(3e-4, description="Adam's learning rate.", gt=0.0)
    schedule: Schedule = md.setting(
        "linear",
        description="Learning rate schedule: linear decays to zero epoch by epoch.",
    )


class ClassifierConfig(md.Config):
    """The classifier of latents (section 4.5.2): two hidden layers of ReLU units with dropout."""

    epochs: int = md.setting(10, description="Epochs of training.", unit="epochs", ge=0)
    hidden_units: int = md.setting(200, description="Units of each hidden layer.", ge=1)
    dropout: float = md.setting(
        0.1, description="Share of hidden units that a training step drops.", ge=0.0, lt=1.0
    )
    learning_rate: float = md.setting(3e-4, description="Adam's learning rate.", gt=0.0)
    batch_size: int = md.setting(100, description="Mini-batch size.", unit="images", ge=1)
    samples: int = md.setting(
        100, description="K, latents per test image whose predictions are averaged.", ge=1
    )


class VaeConfig(InferenceConfig):
    """Settings of the experiment `vae`."""

    apply: Literal["post_hoc", "joint"] = md.setting(
        "post_hoc",
        description="post_hoc trains the encoder further at checkpoints of the VAE, with the "
        "decoder fixed; joint trains it on its own objective together with the decoder.",
        used_by=_REFINED,
    )
    joint_from: int = md.setting(
        0,
        description="Epochs of usual training before the encoder's objective changes.",
        unit="epochs",
        ge=0,
        used_by=_REFINED | {"apply": ("joint",)},
    )
    checkpoint_every: int | None = md.setting(
        None,
        description="Epochs between two checkpoints of the VAE's training, each of which is "
        "refined and measured; null for the last alone.",
        unit="epochs",
        ge=1,
    )
    measure_every: int | None = md.setting(
        None,
        description="Epochs of the encoder's further training between two records; null for its "
        "end alone.",
        unit="epochs",
        ge=1,
        used_by=_POST_HOC,
    )
    optimal_epochs: int = md.setting(
        0,
        description="Epochs over the test images, with a learning rate that decays linearly, that "
        "train the optimal encoder for the generalization gaps; 0 leaves it out (thesis: 500 for "
        "100 epochs over the training images).",
        unit="epochs",
        ge=0,
    )
    iwae_samples: int = md.setting(
        0, description="Samples of the IWAE bound; 0 leaves it out (thesis: 10).", ge=0
    )
    classification: bool = md.setting(
        False, description="Train and test a classifier on samples of q(z|x)."
    )
    save_model: bool = md.setting(
        False, description="Keep the trained model as a checkpoint.", identity=False
    )

    @model_validator(mode="after")
    def _epochs_fit(self) -> Self:
        every = self.checkpoint_every
        if every is not None and self.epochs % every:
            raise ValueError(f"checkpoint_every: must divide epochs, {self.epochs}, got {every}")
        if self.trained_jointly and self.joint_from >= self.epochs:
            raise ValueError(
                f"joint_from: must be below epochs, {self.epochs}, got {self.joint_from}"
            )
        measured = self.measure_every
        if self.refined_post_hoc and measured is not None and self.refine_epochs % measured:
            raise ValueError(
                f"measure_every: must divide refine_epochs, {self.refine_epochs}, got {measured}"
            )
        return self

    @property
    def trained_jointly(self) -> bool:
        """True if encoder and decoder are trained together on different objectives."""
        return self.inference != "vae" and self.apply == "joint"

    @property
    def refined_post_hoc(self) -> bool:
        """True if the encoder is trained further with the decoder fixed."""
        return self.inference != "vae" and self.apply == "post_hoc"

    @property
    def records_at_checkpoint(self) -> int:
        """Number of records for each checkpoint of the VAE's training."""
        if not self.refined_post_hoc or self.measure_every is None:
            return 1
        return self.refine_epochs // self.measure_every


class CoderSettings(md.Config):
    """The user's settings of the codec."""

    mode: CoderMode = md.setting(
        "portable",
        description="portable evaluates the networks in exact integers, so that a file decodes on "
        "every machine; pinned evaluates them in floating point, so that it decodes on this kind "
        "of CPU with this version of torch.",
    )
    inference_steps: int = md.setting(
        0,
        description="K, steps of Adam that fit each image's posterior (algorithm 4); more than 0 "
        "needs mode: pinned.",
        unit="steps",
        ge=0,
    )
    inference_learning_rate: float = md.setting(
        5e-3,
        description="Adam's learning rate in these steps (thesis: 5e-3 on MNIST, 1e-3 on "
        "CIFAR-10).",
        gt=0.0,
        used_by={"mode": ("pinned",)},
    )
    coder_batch: int = md.setting(
        512,
        description="Images that the coder passes through the networks at once, at most; 1 codes "
        "image by image, as the thesis times it.",
        unit="images",
        ge=1,
    )

    @model_validator(mode="after")
    def _mode_fits(self) -> Self:
        if self.inference_steps and self.mode == "portable":
            raise ValueError("inference_steps: more than 0 needs mode: pinned")
        return self


class CompressionConfig(CoderSettings, InferenceConfig):
    """Settings of the experiment `vae_compression`."""

    coded_images: int | None = md.setting(
        None,
        description="Number of test images to code, the first of the set; null codes all.",
        unit="images",
        ge=1,
    )
    general_codecs: bool = md.setting(
        False,
        description="Measure PNG, WebP, zstd and xz on the same images.",
    )


class ConsistencyConfig(ModelConfig):
    """Settings of the experiment `vae_consistency`; the trained model is taken for the truth."""

    samples: int = md.setting(
        10_000,
        description="Number of training images sampled from the trained model, which itself is "
        "trained on the whole data set; a smaller sample is a subset of a larger one.",
        unit="images",
        sets_budget=True,
        ge=2,
    )
    test_samples: int = md.setting(
        1000, description="Number of test images sampled from the model.", unit="images", ge=1
    )
    inference: MethodName = md.setting(
        description="Objective of a fresh encoder, with the true decoder; reverse_half_sleep has "
        "alpha 0.5, denoising has noise of 0.1 of the range of pixel values."
    )
    inference_epochs: int = md.setting(
        100, description="Epochs over the sampled training images.", unit="epochs", ge=1
    )
    measure_every: int = md.setting(
        1, description="Epochs between two records.", unit="epochs", ge=1
    )

    @model_validator(mode="after")
    def _epochs_fit(self) -> Self:
        if self.inference_epochs % self.measure_every:
            raise ValueError(
                f"measure_every: must divide inference_epochs, {self.inference_epochs}, got "
                f"{self.measure_every}"
            )
        return self
