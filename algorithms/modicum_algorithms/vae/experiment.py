"""The experiment `vae`: code lengths of unseen images under a VAE (chapter 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import modicum as md
from modicum_algorithms.vae.config import MEASURED_TRAINING_IMAGES, VaeConfig
from modicum_algorithms.vae.data import datasets
from modicum_algorithms.vae.model_spec import check_model


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
            "test/bpd before the encoder was trained further; left out in joint training.",
            goal="min",
            unit="bits",
        ),
        "test/bpd_optimal": md.Metric(
            "test/bpd with the encoder trained on the test images (equation 4.16).",
            goal="min",
            unit="bits",
        ),
        "test/iwae_bpd": md.Metric(
            "Negative IWAE bound on the test images, per dimension (equation 4.33).",
            goal="min",
            unit="bits",
        ),
        "test/iwae_bpd_optimal": md.Metric(
            "test/iwae_bpd with the optimal encoder.", goal="min", unit="bits"
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
            "train/bpd. Both depend on the encoder, so compare it for the VAE alone.",
            unit="bits",
        ),
        "gap/closed": md.Metric(
            "Share of the VAE's amortized inference gap that further training closed; left out "
            "without a gap, and in joint training.",
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
        """Refuse models that do not fit their images, and a classifier without labels."""
        check_model(config, config.samples)
        if config.classification:
            data = datasets.load(config.dataset, binarisation=config.binarisation, seed=0)
            if data.train_labels_N is None or data.test_labels_N is None:
                raise md.InputError(
                    f"classification: {config.dataset!r} has no labels in train and test"
                )

    def resources(self, config: VaeConfig) -> md.Resources:
        """One core, and the GPUs that the settings ask for."""
        return config.resources

    def data_digests(self, config: VaeConfig) -> Mapping[str, str]:
        """Digest of the images."""
        return datasets.data_digests(config.dataset)

    def saves_checkpoints(self, config: VaeConfig) -> bool:
        """True if the trained model is kept."""
        return config.save_model

    def run(self, config: VaeConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Train a VAE, refine its encoder, and measure both at each checkpoint.

        A record's budget is the number of training images.
        """
        from modicum_algorithms.vae.run import run

        return run(config, trial)
