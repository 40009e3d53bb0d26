"""The experiment `vae`: how well a VAE codes images that it has not seen (chapter 4)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import model_validator

import modicum as md
from modicum_algorithms.vae import datasets
from modicum_algorithms.vae.config import POST_HOC, REFINED, InferenceConfig

# Training images that bits per dimension are measured on; as many as MNIST has for testing.
MEASURED_TRAINING_IMAGES = 10_000


class VaeConfig(InferenceConfig):
    """Settings of the experiment."""

    apply: Literal["post_hoc", "joint"] = md.setting(
        "post_hoc",
        description="Train the encoder further at checkpoints with the decoder fixed, or train it "
        "so together with the decoder.",
        used_by=REFINED,
    )
    joint_from: int = md.setting(
        0,
        description="Epochs of usual training before the encoder's objective changes.",
        unit="epochs",
        ge=0,
        used_by=REFINED | {"apply": ("joint",)},
    )
    checkpoint_every: int | None = md.setting(
        None,
        description="Epochs of the VAE's training between two checkpoints, each of them refined "
        "and measured; null for the last alone.",
        unit="epochs",
        ge=1,
    )
    measure_every: int | None = md.setting(
        None,
        description="Epochs of that training between two records; null for its end alone.",
        unit="epochs",
        ge=1,
        used_by=POST_HOC,
    )
    optimal_epochs: int = md.setting(
        0,
        description="Passes over the test images, with a falling learning rate, by which the "
        "optimal encoder is found, for the generalization gaps; 0 leaves it out (thesis: 500 for "
        "100 of the training images).",
        unit="epochs",
        ge=0,
    )
    iwae_samples: int = md.setting(
        0, description="Samples of the IWAE bound; 0 leaves it out (thesis: 10).", ge=0
    )
    classification: bool = md.setting(
        False, description="Whether a classifier is trained on samples of q(z|x)."
    )
    save_model: bool = md.setting(
        False, description="Keep the trained model as a checkpoint.", identity=False
    )

    @model_validator(mode="after")
    def _epochs_fit(self) -> Self:
        every = self.checkpoint_every
        if every is not None and self.epochs % every:
            raise ValueError(f"checkpoint_every: must divide epochs, {self.epochs}, got {every}")
        if self.inference == "vae":
            return self
        if self.apply == "joint" and self.joint_from >= self.epochs:
            raise ValueError(
                f"joint_from: must be below epochs, {self.epochs}, got {self.joint_from}"
            )
        measured = self.measure_every
        if self.apply == "post_hoc" and measured is not None and self.refine_epochs % measured:
            raise ValueError(
                f"measure_every: must divide refine_epochs, {self.refine_epochs}, got {measured}"
            )
        return self

    @property
    def records_at_checkpoint(self) -> int:
        """Records of one checkpoint of the VAE's training."""
        if self.inference == "vae" or self.apply == "joint" or self.measure_every is None:
            return 1
        return self.refine_epochs // self.measure_every


class VaeInference(md.Experiment[VaeConfig]):
    """Amortized inference in VAEs, its generalization gap, and ways to narrow it (chapter 4)."""

    name = "vae"
    version = "1"
    budget_unit = "samples"
    Config = VaeConfig
    uses_torch = True
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "test/bpd": md.Metric(
            "Negative ELBO on the test images, per dimension.", goal="min", unit="bits"
        ),
        "test/bpd_vae": md.Metric(
            "The same before the encoder was trained further; not if it was so jointly.",
            goal="min",
            unit="bits",
        ),
        "test/bpd_optimal": md.Metric(
            "The same with the encoder trained on the test images (equation 4.16).",
            goal="min",
            unit="bits",
        ),
        "test/iwae_bpd": md.Metric(
            "Negative IWAE bound on the test images, per dimension (equation 4.33).",
            goal="min",
            unit="bits",
        ),
        "test/iwae_bpd_optimal": md.Metric(
            "The same with the optimal encoder.", goal="min", unit="bits"
        ),
        "test/classification_accuracy": md.Metric(
            "Accuracy of a classifier on samples of q(z|x) (equation 4.27).", goal="max"
        ),
        "train/bpd": md.Metric(
            f"Negative ELBO on training images ({MEASURED_TRAINING_IMAGES:,} at most), per "
            "dimension.",
            unit="bits",
        ),
        "gap/amortized_inference": md.Metric(
            "Amortized inference generalization gap: test/bpd minus test/bpd_optimal (equations "
            "4.13 and 4.14).",
            goal="min",
            unit="bits",
        ),
        "gap/generative": md.Metric(
            "Estimate of the generative model's generalization gap: test/bpd_optimal minus "
            "train/bpd, both of which depend on the encoder: compare it for the VAE alone.",
            unit="bits",
        ),
        "gap/closed": md.Metric(
            "Share of the VAE's amortized inference gap that further training closed; not where "
            "there was no gap or no VAE before.",
            goal="max",
        ),
        "train/epoch": md.Metric("Epochs of the VAE's training.", unit="epochs"),
        "refine/epoch": md.Metric("Epochs of the encoder's further training.", unit="epochs"),
        "train/seconds": md.Metric("Time of the VAE's training.", unit="s", timing=True),
        "refine/seconds": md.Metric(
            "Time of the encoder's further training, since the last record.", unit="s", timing=True
        ),
        "evaluation/samples": md.Metric(
            "Test images that the optimal encoder was trained on.",
            unit="images",
            evaluation_cost=True,
        ),
    }

    def check(self, config: VaeConfig) -> None:
        """Refuse models that do not fit their images, and classes that there are not."""
        from modicum_algorithms.vae.trained import check_model

        check_model(config, config.samples)
        if config.classification:
            data = datasets.load(config.dataset, binarisation=config.binarisation, seed=0)
            if data.train_labels_N is None or data.test_labels_N is None:
                raise md.InputError(
                    f"classification: {config.dataset!r} has no labels in train and test"
                )

    def resources(self, config: VaeConfig) -> md.Resources:
        """One core, and the GPUs that are asked for."""
        return config.resources

    def data_digests(self, config: VaeConfig) -> Mapping[str, str]:
        """Digest of the images."""
        return datasets.data_digests(config.dataset)

    def saves_checkpoints(self, config: VaeConfig) -> bool:
        """Only on request."""
        return config.save_model

    def run(self, config: VaeConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Train a VAE or take it from the cache, refine and measure it at its checkpoints.

        A record's budget is the number of training images.
        """
        from modicum_algorithms.vae.checkpoints import Measures, encoders_at
        from modicum_algorithms.vae.saved_models import save_vae
        from modicum_algorithms.vae.trained import load_images

        images = load_images(config, trial, config.samples)
        measures = Measures(config, trial, images)
        every = config.checkpoint_every or config.epochs
        number = 0
        for epoch in range(every, config.epochs + 1, every):
            following = number + config.records_at_checkpoint
            if following <= trial.records_done:  # safe before the process died
                number = following
                continue
            for encoded in encoders_at(config, trial, images, epoch):
                number += 1
                if number <= trial.records_done:
                    continue
                checkpoint: Path | None = None
                if config.save_model:
                    checkpoint = trial.scratch / f"model-{number}"
                    save_vae(encoded.model, checkpoint, config=config.model_dump(mode="json"))
                metrics = measures.of(encoded)
                trial.log.info(
                    "epoch %d, refined for %d: test/bpd %.4f, train/bpd %.4f",
                    encoded.epoch,
                    encoded.refined_epochs,
                    metrics["test/bpd"],
                    metrics["train/bpd"],
                )
                yield md.Record(budget=len(images.train), metrics=metrics, checkpoint=checkpoint)
                if checkpoint is not None:  # copied by now
                    shutil.rmtree(checkpoint)
