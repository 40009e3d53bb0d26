"""Training images of the ten digits, from MNIST or scikit-learn.

Shapes: N images of a digit, H height, W width (28 both).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

import modicum as md

Images = Literal["auto", "mnist", "digits"]

DIGITS = 10
SIZE = 28

_MNIST = "mnist"


def found_images(images: Images) -> Images:
    """The images that `auto` stands for on this machine; other names are returned unchanged."""
    if images != "auto":
        return images
    root = md.data.data_folder()
    return "mnist" if root is not None and (root / _MNIST).is_dir() else "digits"


def digit_images(images: Images, count: int) -> np.ndarray:
    """First `count` training images of every digit.

    Args:
        images: `mnist`, from the folder `MODICUM_DATA`; `digits` of scikit-learn, whose 8 x 8
            pixels become squares of 3 x 3 within a margin of 2; or `auto`, MNIST if it is there
            and scikit-learn's digits otherwise.
        count: Images of each digit, at least 1.

    Returns:
        uint8 (10, count, 28, 28), read-only.
    """
    images = found_images(images)
    folder = md.data.find_data(_MNIST, field="images") if images == "mnist" else None
    return _selected(folder, count)


def image_digest(options: Mapping[str, Any]) -> str:
    """SHA-256 digest of the images of an MNIST game with these keyword arguments."""
    images = digit_images(options.get("images", "auto"), options.get("images_per_digit", 1))
    return hashlib.sha256(images.tobytes()).hexdigest()


@lru_cache
def _selected(mnist: Path | None, count: int) -> np.ndarray:
    """The chosen images, cached since a process may play many copies of the game."""
    images_NHW, labels_N = _scikit_learn_digits() if mnist is None else _read(mnist)
    rows = [np.flatnonzero(labels_N == digit) for digit in range(DIGITS)]
    fewest = min(map(len, rows))
    if count > fewest:
        raise md.InputError(
            f"images_per_digit: a digit has only {fewest} images "
            f"(allowed: 1 to {fewest}), got {count}"
        )
    chosen = np.stack([images_NHW[row[:count]] for row in rows])
    chosen.setflags(write=False)
    return chosen


def _read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    splits = md.data.read_image_set(folder)
    labels = splits.train_labels_N
    if splits.train_NCHW.shape[1:] != (1, SIZE, SIZE) or labels is None:
        raise md.InputError(f"images: {folder} must hold grey images of 28 x 28 with their labels")
    return splits.train_NCHW[:, 0], labels


def _scikit_learn_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.rint(digits.images * 255 / 16).astype(np.uint8)  # their brightest pixels have 16
    large = small.repeat(3, axis=1).repeat(3, axis=2)
    # 2 + 3 x 8 + 2 = 28 pixels; MNIST's digits have margins, too.
    return np.pad(large, ((0, 0), (2, 2), (2, 2))), digits.target
