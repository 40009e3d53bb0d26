"""The experiment `vae_compression`: test images as files, and back (appendix B)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, Self

from pydantic import model_validator

import modicum as md
from modicum_algorithms.vae import datasets
from modicum_algorithms.vae.config import InferenceConfig


class CompressionConfig(InferenceConfig):
    """Settings of the experiment."""

    mode: Literal["portable", "pinned"] = md.setting(
        "portable",
        description="Networks in exact integers, which any machine decodes, or in floats, which "
        "this one does.",
    )
    inference_steps: int = md.setting(
        0,
        description="K: steps of Adam on each image's own posterior (algorithm 4).",
        unit="steps",
        ge=0,
    )
    inference_learning_rate: float = md.setting(
        5e-3,
        description="Adam's learning rate in those steps (thesis: 5e-3 on MNIST, 1e-3 on "
        "CIFAR-10).",
        gt=0.0,
        used_by={"mode": ("pinned",)},
    )
    coder_batch: int = md.setting(
        512,
        description="Images that the networks see at once in the coder, at most; 1 codes image by "
        "image, as the thesis times it.",
        unit="images",
        ge=1,
    )
    coded_images: int | None = md.setting(
        None,
        description="The first so many test images are coded; null for all.",
        unit="images",
        ge=1,
    )
    general_codecs: bool = md.setting(
        False,
        description="Whether PNG, WebP, zstd and xz are measured on the same images.",
    )

    @model_validator(mode="after")
    def _mode_fits(self) -> Self:
        if self.inference_steps and self.mode == "portable":
            raise ValueError("inference_steps: more than 0 needs mode: pinned")
        return self


class VaeCompression(md.Experiment[CompressionConfig]):
    """Lossless compression with bits back, for each way of inference (appendix B.1)."""

    name = "vae_compression"
    version = "2"
    budget_unit = "samples"
    Config = CompressionConfig
    uses_torch = True
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "test/code_bpd": md.Metric(
            "Bits of the whole file, container and start included, the model not, per dimension.",
            goal="min",
            unit="bits",
        ),
        "test/bpd": md.Metric(
            "Negative ELBO on the same images with the same inference, per dimension.",
            goal="min",
            unit="bits",
        ),
        "test/overhead": md.Metric("How much longer the file is than the negative ELBO, relative."),
        "code/bytes": md.Metric("Length of the file.", unit="bytes"),
        "code/start_bits": md.Metric(
            "Bits that the first images took from nowhere; part of the file.", unit="bits"
        ),
        "code/images": md.Metric("Images in the file.", unit="images"),
        "code/compress_seconds": md.Metric(
            "Time of compressing one image, verification included in pinned mode.",
            goal="min",
            unit="s",
            timing=True,
        ),
        "code/decompress_seconds": md.Metric(
            "Time of decompressing one image.", goal="min", unit="s", timing=True
        ),
        "general/*_bpd": md.Metric(
            "Bits of a general codec on the same images, per dimension: png and webp as one file "
            "for each image and for all in one picture, zstd and xz over all pixels.",
            goal="min",
            unit="bits",
        ),
        "train/seconds": md.Metric("Time of the VAE's training.", unit="s", timing=True),
    }

    def check(self, config: CompressionConfig) -> None:
        """Refuse models that do not fit their images, and more test images than there are."""
        from modicum_algorithms.vae.codec.requirements import require_constriction
        from modicum_algorithms.vae.trained import check_model

        require_constriction("experiment: vae_compression")
        check_model(config, config.samples)
        data = datasets.load(config.dataset, binarisation=config.binarisation, seed=0)
        if config.coded_images is not None and config.coded_images > len(data.test_NCHW):
            raise md.InputError(
                f"coded_images: {config.dataset} has {len(data.test_NCHW)} test images, got "
                f"{config.coded_images}"
            )

    def resources(self, config: CompressionConfig) -> md.Resources:
        """One core, and the GPUs that are asked for."""
        return config.resources

    def data_digests(self, config: CompressionConfig) -> Mapping[str, str]:
        """Digest of the images."""
        return datasets.data_digests(config.dataset)

    def run(self, config: CompressionConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Train, refine, compress the test images, and decompress them again.

        A record's budget is the number of training images.

        Raises:
            RuntimeError: What came back is not what went in.
        """
        from modicum_algorithms.vae.coding import code_images, negative_elbo_bits
        from modicum_algorithms.vae.general_codecs import general_codecs
        from modicum_algorithms.vae.pretraining import pretrained, refined
        from modicum_algorithms.vae.trained import (
            inference_method,
            load_images,
            post_hoc_refinement,
            pretraining,
        )

        images = load_images(config, trial, config.samples)
        trained = pretrained(pretraining(config, images, trial), config.epochs)
        method = inference_method(config, images.data.levels)
        stage = trained
        if method is not None:
            stage = refined(post_hoc_refinement(config, trial, images, trained, method))
        coded = images.test[: config.coded_images]
        metrics = code_images(stage.model.cpu(), coded.cpu().numpy(), config, trial.scratch)
        bits = negative_elbo_bits(stage.model, coded.cpu(), config, trial.seed_for("evaluation"))
        metrics |= {
            "test/bpd": bits,
            "test/overhead": metrics["test/code_bpd"] / bits - 1,
            "train/seconds": trained.seconds,
        }
        if config.general_codecs:
            found = general_codecs(coded.cpu().numpy(), stage.model.spec.levels)
            metrics |= {f"general/{name}_bpd": value for name, value in found.items()}
        yield md.Record(budget=len(images.train), metrics=metrics)
