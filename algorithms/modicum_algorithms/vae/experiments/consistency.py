"""The experiment `vae_consistency`: inference when the model is perfect (figure 4.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import modicum as md
from modicum_algorithms.vae.config import ConsistencyConfig
from modicum_algorithms.vae.data import datasets
from modicum_algorithms.vae.model_spec import check_model


class VaeConsistency(md.Experiment[ConsistencyConfig]):
    """Amortized inference on images of a perfect model (section 4.4.2)."""

    name = "vae_consistency"
    version = "2"
    budget_unit = "samples"
    Config = ConsistencyConfig
    uses_torch = True
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "test/bpd": md.Metric(
            "Negative ELBO on the model's test images, per dimension.", goal="min", unit="bits"
        ),
        "train/bpd": md.Metric(
            "Negative ELBO on the model's training images, per dimension.", unit="bits"
        ),
        "inference/epoch": md.Metric("Epochs of the encoder's training.", unit="epochs"),
        "train/seconds": md.Metric("Time of the VAE's training.", unit="s", timing=True),
    }

    def check(self, config: ConsistencyConfig) -> None:
        """Refuse models that do not fit their images."""
        check_model(config, samples=None)

    def resources(self, config: ConsistencyConfig) -> md.Resources:
        """One core, and the GPUs that the settings ask for."""
        return config.resources

    def data_digests(self, config: ConsistencyConfig) -> Mapping[str, str]:
        """Digest of the images that the model is trained on."""
        return datasets.data_digests(config.dataset)

    def run(self, config: ConsistencyConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Train a VAE, sample images from it, and train a fresh encoder on them.

        A record's budget is the number of sampled training images.
        """
        from modicum_algorithms.vae.experiments.consistency_run import run

        return run(config, trial)
