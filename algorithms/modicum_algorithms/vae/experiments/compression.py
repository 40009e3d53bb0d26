"""The experiment `vae_compression`: test images as files, and back (appendix B)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import modicum as md
from modicum_algorithms.vae.codec import require_constriction
from modicum_algorithms.vae.config import CompressionConfig
from modicum_algorithms.vae.data import datasets
from modicum_algorithms.vae.model_spec import check_model


class VaeCompression(md.Experiment[CompressionConfig]):
    """Lossless compression with bits back, for each way of inference (appendix B.1)."""

    name = "vae_compression"
    version = "2"
    budget_unit = "samples"
    Config = CompressionConfig
    uses_torch = True
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "test/code_bpd": md.Metric(
            "Bits of the whole file per dimension, container and start included, without the "
            "model.",
            goal="min",
            unit="bits",
        ),
        "test/bpd": md.Metric(
            "Negative ELBO on the same images with the same inference, per dimension.",
            goal="min",
            unit="bits",
        ),
        "test/overhead": md.Metric("Length of the file relative to the negative ELBO, minus one."),
        "code/bytes": md.Metric("Length of the file.", unit="bytes"),
        "code/start_bits": md.Metric(
            "Bits that the first latents took from the fixed start of the stack; part of the file.",
            unit="bits",
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
        require_constriction("experiment: vae_compression")
        check_model(config, config.samples)
        data = datasets.load(config.dataset, binarisation=config.binarisation, seed=0)
        if config.coded_images is not None and config.coded_images > len(data.test_NCHW):
            raise md.InputError(
                f"coded_images: {config.dataset} has {len(data.test_NCHW)} test images, got "
                f"{config.coded_images}"
            )

    def resources(self, config: CompressionConfig) -> md.Resources:
        """One core, and the GPUs that the settings ask for."""
        return config.resources

    def data_digests(self, config: CompressionConfig) -> Mapping[str, str]:
        """Digest of the images."""
        return datasets.data_digests(config.dataset)

    def run(self, config: CompressionConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Train, refine, compress the test images, and decompress them again.

        A record's budget is the number of training images.

        Raises:
            RuntimeError: The decoded images differ from the test images.
        """
        from modicum_algorithms.vae.experiments.compression_run import run

        return run(config, trial)
