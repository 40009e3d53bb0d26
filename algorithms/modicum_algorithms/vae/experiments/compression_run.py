"""A trial of the experiment `vae_compression`: test images through the codec and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.distributions import Independent, Normal

import modicum as md
from modicum_algorithms.vae.checkpoints import Pretraining, Refinement, pretrained, refined
from modicum_algorithms.vae.codec.compress import compress_images
from modicum_algorithms.vae.codec.decompress import decompress_file
from modicum_algorithms.vae.codec.general_codecs import general_codecs
from modicum_algorithms.vae.config import CompressionConfig
from modicum_algorithms.vae.data.tensors import load_images
from modicum_algorithms.vae.evaluation import mean_bits
from modicum_algorithms.vae.methods.k_step import k_step_posterior
from modicum_algorithms.vae.networks import VAE


def run(config: CompressionConfig, trial: md.Trial) -> Iterator[md.Record]:
    """The record of a trial, whose scratch folder holds the files.

    Raises:
        RuntimeError: The decoded images differ from the test images.
    """
    images = load_images(config, trial, config.samples)
    trained = pretrained(Pretraining.of(config, images, trial), config.epochs)
    stage = trained
    if config.inference != "vae":
        stage = refined(Refinement.of(config, images, trial, trained))
    model, coded = stage.model.cpu(), images.test[: config.coded_images].cpu()
    metrics = _code_images(model, coded.numpy(), config, trial.scratch)
    bits = negative_elbo_bits(model, coded, config, trial.seed_for("evaluation"))
    metrics |= {
        "test/bpd": bits,
        "test/overhead": metrics["test/code_bpd"] / bits - 1,
        "train/seconds": trained.seconds,
    }
    if config.general_codecs:
        found = general_codecs(coded.numpy(), model.spec.levels)
        metrics |= {f"general/{name}_bpd": value for name, value in found.items()}
    yield md.Record(budget=len(images.train), metrics=metrics)


def _code_images(
    model: VAE, images_NCHW: np.ndarray, config: CompressionConfig, folder: Path
) -> dict[str, float | int]:
    """Compress images to a file, decompress it, and compare; returns metrics by name."""
    source, file, out = folder / "images.npy", folder / "images.modicum", folder / "decoded"
    # In the layout of decompressed arrays: (N, H, W) if grey, else (N, H, W, C).
    grey = images_NCHW.shape[1] == 1
    stored = images_NCHW[:, 0] if grey else np.moveaxis(images_NCHW, 1, -1)
    np.save(source, stored)
    written = compress_images(md.data.open_images(source), model, file, settings=config)
    read = decompress_file(file, out, model)
    if not np.array_equal(np.load(out / "images.npy"), stored):
        raise RuntimeError("the decoded images differ from those that were compressed")
    return {
        "test/code_bpd": written.bits_per_dimension,
        "code/bytes": written.bytes,
        "code/start_bits": written.start_bits,
        "code/images": written.images,
        "code/compress_seconds": written.seconds / written.images,
        "code/decompress_seconds": read.seconds / read.images,
    }


def negative_elbo_bits(model: VAE, images: Tensor, config: CompressionConfig, seed: int) -> float:
    """Mean negative ELBO in bits per dimension under the coder's inference, in floating point."""
    # Measured with other noise than it was fitted with: a fitted posterior would look too good.
    steps_seed = md.derive_seed(seed, "inference steps")

    def posterior(x_BCHW: Tensor) -> Independent[Normal]:
        return k_step_posterior(
            model.decoder,
            model.encoder(x_BCHW),
            x_BCHW,
            config.inference_steps,
            config.inference_learning_rate,
            steps_seed,
        )

    return mean_bits(posterior, model.decoder, images, seed=seed)
