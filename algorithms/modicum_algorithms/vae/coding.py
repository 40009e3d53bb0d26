"""Test images through the codec and back, with what it costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

import modicum as md
from modicum_algorithms.vae.codec.coder import CoderSettings
from modicum_algorithms.vae.codec.compress import compress_images
from modicum_algorithms.vae.codec.decompress import decompress_file
from modicum_algorithms.vae.compression import CompressionConfig
from modicum_algorithms.vae.inference import k_step_posterior
from modicum_algorithms.vae.measures import mean_bits_per_dimension
from modicum_algorithms.vae.networks import VAE


def code_images(
    model: VAE, images_NCHW: np.ndarray, config: CompressionConfig, folder: Path
) -> dict[str, float | int]:
    """Compress images to a file, decompress it, and compare.

    Args:
        model: Trained.
        images_NCHW: uint8, in the model's levels.
        config: Of the coder.
        folder: For the files.

    Returns:
        Metrics of the experiment, by name.

    Raises:
        RuntimeError: What came back is not what went in.
    """
    source, file, out = folder / "images.npy", folder / "images.modicum", folder / "decoded"
    # As decompressing stores them: (N, H, W) if grey, else (N, H, W, C).
    grey = images_NCHW.shape[1] == 1
    stored = images_NCHW[:, 0] if grey else np.moveaxis(images_NCHW, 1, -1)
    np.save(source, stored)
    pinned = config.mode == "pinned"
    settings = CoderSettings(
        mode=config.mode,
        inference_steps=config.inference_steps,
        inference_learning_rate=config.inference_learning_rate,
        batch_size=config.coder_batch,
        threads=torch.get_num_threads() if pinned else None,
    )
    written = compress_images(md.data.open_images(source), model, file, settings=settings)
    read = decompress_file(file, out, model)
    if not np.array_equal(np.load(out / "images.npy"), stored):
        raise RuntimeError("the decoded images are not those that were compressed")
    return {
        "test/code_bpd": written.bits_per_dimension,
        "code/bytes": written.bytes,
        "code/start_bits": written.start_bits,
        "code/images": written.images,
        "code/compress_seconds": written.seconds / written.images,
        "code/decompress_seconds": read.seconds / read.images,
    }


def negative_elbo_bits(model: VAE, images: Tensor, config: CompressionConfig, seed: int) -> float:
    """Negative ELBO per dimension under the coder's inference, in floating point."""
    # Not the noise that it is measured with: a posterior that was fitted to it looks too good.
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

    return mean_bits_per_dimension(posterior, model.decoder, images, seed=seed)
