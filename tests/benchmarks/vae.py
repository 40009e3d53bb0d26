"""How fast the codec and the training of VAEs are, beside what bounds them.

Codec: binary MNIST's test images (or images of the same size, drawn at random, without
MODICUM_DATA) through files and back, the networks of the same arithmetic alone, and an
image-at-a-time coder. Training: achieved arithmetic beside a plain matrix product. All in one run,
in turns; medians. Run: python tests/benchmarks/vae.py [--repeats 5] [--threads 2] [--epochs 3]

Shapes: N images, B batch, D pixels.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import modicum as md
from modicum_algorithms.vae.codec.coder import BitsBackCoder, FileSettings
from modicum_algorithms.vae.codec.compress import compress_images
from modicum_algorithms.vae.codec.decompress import decompress_file
from modicum_algorithms.vae.codec.float_networks import PinnedNetworks
from modicum_algorithms.vae.codec.integer_networks import PortableNetworks
from modicum_algorithms.vae.config import CoderSettings, Precision
from modicum_algorithms.vae.data import datasets
from modicum_algorithms.vae.evaluation import bits_per_dimension
from modicum_algorithms.vae.methods.joint import vae_gradients
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import VAE, build_vae
from modicum_algorithms.vae.training import adam, train_epoch

SPEC = ModelSpec(shape=(1, 28, 28), likelihood="bernoulli", latent_size=16)
BATCH = 512  # the coder's
IMAGE_BY_IMAGE = 300  # images that are coded one at a time


def in_turns(repeats: int, works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each work, taken in turns so that a busy moment meets them all."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
    # The first turn warms up.
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def images() -> tuple[np.ndarray, np.ndarray]:
    """Binary training and test images, (N, 1, 28, 28)."""
    if md.data.data_folder() is None:
        drawn = np.random.default_rng(0).random((20_000, 1, 28, 28)) < 0.13
        return drawn[:10_000].astype(np.uint8), drawn[10_000:].astype(np.uint8)
    data = datasets.load("mnist", binarisation="sampling", seed=0)
    return data.train_NCHW, data.test_NCHW.copy()


def trained(train_NCHW: np.ndarray, epochs: int) -> VAE:
    """A model that has learned enough for sensible code lengths."""
    model = build_vae(SPEC, 0)
    optimiser = adam(model.parameters(), 5e-4)
    gradients = vae_gradients(model, "float32")
    pixels = torch.from_numpy(train_NCHW.copy())
    for epoch in range(epochs):
        train_epoch(pixels, optimiser, gradients, batch_size=100, seed=epoch)
    return model.eval().requires_grad_(False)


def networks_alone(networks: PortableNetworks | PinnedNetworks, x_NCHW: np.ndarray) -> None:
    """Encoder and decoder of every image, as the coder calls them."""
    z_BL = np.zeros((BATCH, SPEC.latent_size), np.int32)
    for start in range(0, len(x_NCHW), BATCH):
        x_BCHW = x_NCHW[start : start + BATCH]
        networks.posterior(x_BCHW)
        networks.parameters(z_BL[: len(x_BCHW)])


def codec(model: VAE, test_NCHW: np.ndarray, repeats: int, threads: int) -> None:
    """Images a second, and code lengths."""
    count = len(test_NCHW)
    negative_elbo = bits_per_dimension(
        model.encoder, model.decoder, torch.from_numpy(test_NCHW.copy()), seed=0
    )
    print(f"negative ELBO: {negative_elbo.mean():.5f} bits per dimension")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "images.npy", test_NCHW[:, 0])
        source = md.data.open_images(folder / "images.npy")
        for mode in ("portable", "pinned"):
            settings = CoderSettings(mode=mode)
            coder = BitsBackCoder(model, FileSettings.here(settings))
            one = BitsBackCoder(model, FileSettings.here(CoderSettings(mode=mode, coder_batch=1)))
            few = test_NCHW[:IMAGE_BY_IMAGE]
            chunk, few_chunk = coder.encode(test_NCHW), one.encode(few)
            networks = (
                PortableNetworks(model)
                if mode == "portable"
                else PinnedNetworks(model, threads, 0, 5e-3)
            )
            file = folder / f"{mode}.modicum"
            number = iter(range(10_000))

            def compress(settings=settings, file=file):
                return compress_images(source, model, file, settings=settings, overwrite=True)

            def decompress(file=file, number=number, mode=mode):
                return decompress_file(file, folder / f"{mode}-{next(number)}", model)

            written = compress()
            times = in_turns(
                repeats,
                {
                    "networks alone": lambda n=networks: networks_alone(n, test_NCHW),
                    "encode in memory": lambda c=coder: c.encode(test_NCHW),
                    "decode in memory": lambda c=coder, k=chunk: c.decode(k.words, k.count),
                    "compress to a file": compress,
                    "decompress a file": decompress,
                },
            )
            single = in_turns(
                1,
                {
                    "encode image by image": lambda c=one, x=few: c.encode(x),
                    "decode image by image": lambda c=one, k=few_chunk: c.decode(k.words, k.count),
                },
            )
            longer = written.bits_per_dimension / float(negative_elbo.mean()) - 1
            print(
                f"{mode}: {written.bytes} bytes, {written.bits_per_dimension:.5f} bits per "
                f"dimension, {longer:+.2%} of the negative ELBO, start "
                f"{written.start_bits:.0f} bits"
            )
            alone = times["networks alone"]
            for what, seconds in times.items():
                print(
                    f"  {what}: {count / seconds:,.0f} images/s, "
                    f"{seconds / alone:.2f} times the networks alone"
                )
            for what, seconds in single.items():
                print(f"  {what}: {seconds / IMAGE_BY_IMAGE * 1e3:.2f} ms an image")


def training(train_NCHW: np.ndarray, repeats: int) -> None:
    """Epochs a second and the arithmetic that they achieve."""
    pixels = torch.from_numpy(train_NCHW[:10_000].copy())
    weights = sum(p.numel() for p in build_vae(SPEC, 0).parameters() if p.dim() == 2)
    # Forward, and backward to inputs and to weights: a multiplication and an addition each.
    operations = 3 * 2 * weights * len(pixels)
    a, b = torch.randn(1000, 784), torch.randn(784, 500)
    products = 100

    def peak() -> None:
        for _ in range(products):
            torch.mm(a, b)

    works: dict[str, Callable[[], object]] = {"torch.mm": peak}
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        model = build_vae(SPEC, 0)
        optimiser = adam(model.parameters(), 5e-4)
        gradients = vae_gradients(model, precision)
        works[f"{precision}, an epoch of 10,000 images"] = lambda o=optimiser, g=gradients: (
            train_epoch(pixels, o, g, batch_size=100, seed=0)
        )
    times = in_turns(repeats, works)
    peak_rate = products * 2 * a.numel() * b.shape[1] / times.pop("torch.mm")
    print(f"torch.mm in float32: {peak_rate / 1e9:.0f} GFLOP/s")
    for what, seconds in times.items():
        rate = operations / seconds
        print(
            f"  {what}: {seconds:.2f} s, {rate / 1e9:.0f} GFLOP/s, {rate / peak_rate:.0%} of it "
            f"({seconds * 6:.1f} s for 60,000)"
        )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train_NCHW, test_NCHW = images()
    print(f"{len(test_NCHW):,} binary images of 784 pixels, {arguments.threads} threads")
    codec(trained(train_NCHW, arguments.epochs), test_NCHW, arguments.repeats, arguments.threads)
    training(train_NCHW, arguments.repeats)


if __name__ == "__main__":
    main()
