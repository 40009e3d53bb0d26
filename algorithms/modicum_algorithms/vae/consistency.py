"""The experiment `vae_consistency`: inference when the model is perfect (figure 4.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

from pydantic import model_validator

import modicum as md
from modicum_algorithms.vae import datasets
from modicum_algorithms.vae.config import ModelConfig
from modicum_algorithms.vae.names import MethodName


class ConsistencyConfig(ModelConfig):
    """Settings of the experiment; those of `vae` describe the model that is taken for the truth."""

    samples: int = md.setting(
        10_000,
        description="Training images, sampled from the trained model; the model itself is trained "
        "on all of the data set's. Smaller numbers are subsets of larger ones.",
        unit="images",
        sets_budget=True,
        ge=2,
    )
    test_samples: int = md.setting(
        1000, description="Test images, sampled from the model.", unit="images", ge=1
    )
    inference: MethodName = md.setting(
        description="What a fresh encoder is trained on, the decoder being the truth; "
        "reverse_half_sleep with alpha 0.5, denoising with noise of 0.1 of the pixels' range."
    )
    inference_epochs: int = md.setting(
        100, description="Passes over the sampled training images.", unit="epochs", ge=1
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
        "train/bpd": md.Metric("The same on the model's training images.", unit="bits"),
        "inference/epoch": md.Metric("Epochs of the encoder's training.", unit="epochs"),
        "train/seconds": md.Metric("Time of the VAE's training.", unit="s", timing=True),
    }

    def check(self, config: ConsistencyConfig) -> None:
        """Refuse models that do not fit their images."""
        from modicum_algorithms.vae.trained import check_model

        check_model(config, samples=None)

    def resources(self, config: ConsistencyConfig) -> md.Resources:
        """One core, and the GPUs that are asked for."""
        return config.resources

    def data_digests(self, config: ConsistencyConfig) -> Mapping[str, str]:
        """Digest of the images that the model is trained on."""
        return datasets.data_digests(config.dataset)

    def run(self, config: ConsistencyConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Train a VAE, sample images from it, and train a fresh encoder on them.

        A record's budget is the number of sampled training images.
        """
        from modicum_algorithms.vae.measures import mean_bits_per_dimension, model_images
        from modicum_algorithms.vae.methods import InferenceMethod
        from modicum_algorithms.vae.networks import build_vae
        from modicum_algorithms.vae.pretraining import pretrained
        from modicum_algorithms.vae.trained import load_images, pretraining, training_settings
        from modicum_algorithms.vae.training import refine_epochs

        images = load_images(config, trial, samples=None)
        stage = pretrained(pretraining(config, images, trial), config.epochs)
        decoder, spec = stage.model.decoder, stage.model.spec
        train = model_images(stage.model, config.samples, trial.seed_for("model's training images"))
        test = model_images(stage.model, config.test_samples, trial.seed_for("model's test images"))
        encoder = build_vae(spec, trial.seed_for("encoder")).encoder.to(train.device)
        losses = refine_epochs(
            encoder,
            decoder,
            train,
            InferenceMethod(config.inference, noise=0.1 * (spec.levels - 1)),
            training_settings(config, config.inference_epochs),
            seed=trial.seed_for("inference"),
        )
        for epoch, _ in enumerate(losses, 1):
            if epoch % config.measure_every:
                continue
            test_bits, train_bits = (
                mean_bits_per_dimension(encoder, decoder, of, seed=trial.seed_for("evaluation"))
                for of in (test, train)
            )
            yield md.Record(
                budget=config.samples,
                metrics={
                    "test/bpd": test_bits,
                    "train/bpd": train_bits,
                    "inference/epoch": epoch,
                    "train/seconds": stage.seconds,
                },
            )
