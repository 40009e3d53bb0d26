"""Image data sets: training and test images of 8 bits per channel, or binary ones.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Literal

import numpy as np

import modicum as md
from modicum_algorithms.vae.config import Binarisation

EMBEDDED = "digits"

_DIGITS_TEST = 360  # the last of 1,797 rows
_DIGITS_MAXIMUM = 16
_WHITE = 255
_THRESHOLD = 127
_CACHED = 4  # data sets held in memory


@dataclass(frozen=True)
class ImageData:
    """A data set.

    Attributes:
        train_NCHW: Training images, uint8 below `levels`; read-only unless they are a subset.
        test_NCHW: Test images, uint8 below `levels`, read-only.
        train_labels_N: int64, or None for a data set without labels.
        test_labels_N: int64, or None for a data set without labels.
        levels: Number of values that a pixel can have: 2 in binary images, else 256.
    """

    train_NCHW: np.ndarray
    test_NCHW: np.ndarray
    train_labels_N: np.ndarray | None
    test_labels_N: np.ndarray | None
    levels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.train_NCHW.shape[1:]
        return (channels, height, width)

    @property
    def pixel_range(self) -> int:
        """Highest value that a pixel can have; the lowest is 0."""
        return self.levels - 1

    def subset(self, samples: int, seed: int) -> ImageData:
        """The data set with some of its training images, the first of a random permutation.

        A smaller number gives a subset of a larger one's.

        Raises:
            InputError: There are fewer training images.
        """
        available = len(self.train_NCHW)
        if not 1 <= samples <= available:
            raise md.InputError(
                f"samples: must be 1 to {available}, the number of training images, got {samples}"
            )
        chosen = _generator(seed, "samples").permutation(available)[:samples]
        labels = self.train_labels_N
        return replace(
            self,
            train_NCHW=self.train_NCHW[chosen],
            train_labels_N=None if labels is None else labels[chosen],
        )


def data_digests(dataset: str) -> dict[str, str]:
    """Digests of a data set's files for a trial's identity; no image is decoded.

    Raises:
        InputError: The data set cannot be found, or is in no known format.
    """
    if dataset == EMBEDDED:
        return {"dataset": _digits_digest()}
    return {"dataset": md.data.digest_files(md.data.image_set_files(md.data.find_data(dataset)))}


def load(dataset: str, *, binarisation: Binarisation, seed: int) -> ImageData:
    """A data set.

    Args:
        dataset: `digits` (scikit-learn's 8 × 8 digits, the last 360 for test); or a folder, by a
            name under `MODICUM_DATA` or a path, in one of the formats of
            `modicum.data.read_image_set`: MNIST's, CIFAR-10's binary, parquet, NumPy's.
        binarisation: `none`; `threshold`: 1 where a pixel is above 127; `sampling`: 1 with
            probability pixel / 255, drawn once for each image (static binarisation, Salakhutdinov
            and Murray 2008).
        seed: Seed of the draw. Not negative.

    Raises:
        InputError: The data cannot be found or read, or `binarisation` is asked of images that are
            in colour or binary already.
    """
    digest = data_digests(dataset)["dataset"]
    md.require_choice("binarisation", binarisation, Binarisation)
    original = _original(dataset, digest)
    if binarisation == "none":
        return original
    if original.shape[0] != 1:
        raise md.InputError(
            f"binarisation: {dataset} has {original.shape[0]} channels, {binarisation} is for grey "
            "images (allowed: none)"
        )
    if original.levels == 2:
        raise md.InputError(f"binarisation: the images of {dataset} are binary (allowed: none)")
    return _binary(dataset, digest, binarisation, seed if binarisation == "sampling" else None)


def _generator(seed: int, use: Literal["samples", "train", "test"]) -> np.random.Generator:
    """A generator for one use, so that no draw depends on the length of another."""
    return np.random.default_rng(md.derive_seed(seed, use))


@lru_cache(maxsize=_CACHED)
def _original(dataset: str, digest: str) -> ImageData:
    """A data set as it is stored, loaded once per process."""
    splits = (
        _digits() if dataset == EMBEDDED else md.data.read_image_set(md.data.find_data(dataset))
    )
    highest = max(int(splits.train_NCHW.max()), int(splits.test_NCHW.max()))
    return ImageData(
        splits.train_NCHW,
        splits.test_NCHW,
        splits.train_labels_N,
        splits.test_labels_N,
        levels=2 if highest <= 1 else _WHITE + 1,
    )


@lru_cache(maxsize=_CACHED)
def _binary(dataset: str, digest: str, binarisation: Binarisation, seed: int | None) -> ImageData:
    """Binary images, made once per process."""
    original = _original(dataset, digest)
    if seed is None:
        train, test = (
            (images > _THRESHOLD).view(np.uint8)
            for images in (original.train_NCHW, original.test_NCHW)
        )
    else:
        train = _sampled(original.train_NCHW, _generator(seed, "train"))
        test = _sampled(original.test_NCHW, _generator(seed, "test"))
    for images in (train, test):
        images.setflags(write=False)
    return ImageData(train, test, original.train_labels_N, original.test_labels_N, levels=2)


def _sampled(images_NCHW: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draws of Bernoulli(pixel / 255): `pixel` of the 255 integers 0 to 254 lie below a pixel."""
    uniform_NCHW = generator.integers(0, _WHITE, images_NCHW.shape, dtype=np.uint8)
    return (images_NCHW > uniform_NCHW).view(np.uint8)


@cache
def _digits() -> md.data.ImageSplits:
    """Scikit-learn's digits, their values 0 to 16 scaled to 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * _WHITE / _DIGITS_MAXIMUM).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    for array in (images, labels):
        array.setflags(write=False)
    parts = slice(None, -_DIGITS_TEST), slice(-_DIGITS_TEST, None)
    train, test = (images[part] for part in parts)
    train_labels, test_labels = (labels[part] for part in parts)
    return md.data.ImageSplits(train, test, train_labels, test_labels)


@cache
def _digits_digest() -> str:
    splits = _digits()
    return md.data.digest_arrays(
        {name: array for name, array in vars(splits).items() if array is not None}
    )
