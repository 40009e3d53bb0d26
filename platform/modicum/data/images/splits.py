"""Data sets of images with a training and a test split.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modicum.errors import InputError


@dataclass(frozen=True)
class ImageSplits:
    """A data set of images.

    Attributes:
        train_NCHW: Images for training, uint8.
        test_NCHW: Images for test, uint8, of the same (C, H, W).
        train_labels_N: Labels for training, int64, or None.
        test_labels_N: Labels for test, int64, or None.
    """

    train_NCHW: np.ndarray
    test_NCHW: np.ndarray
    train_labels_N: np.ndarray | None
    test_labels_N: np.ndarray | None


def checked_splits(
    train_NCHW: np.ndarray,
    test_NCHW: np.ndarray,
    train_labels_N: np.ndarray | None,
    test_labels_N: np.ndarray | None,
    where: str,
) -> ImageSplits:
    """Create a data set whose parts fit together.

    Raises:
        InputError: A split is empty, the splits' images differ in shape, or a split has not
            exactly one label for each image.
    """
    for split, images, labels in (
        ("train", train_NCHW, train_labels_N),
        ("test", test_NCHW, test_labels_N),
    ):
        if images.ndim != 4 or not len(images):
            raise InputError(f"dataset: {where}: {split} has no images")
        if labels is not None and labels.shape != (len(images),):
            raise InputError(
                f"dataset: {where}: {split} has {len(images)} images, "
                f"its labels have the shape {labels.shape}; one label for each image is needed"
            )
    if train_NCHW.shape[1:] != test_NCHW.shape[1:]:
        raise InputError(
            f"dataset: {where}: images of train have the shape {train_NCHW.shape[1:]} "
            f"(channels, height, width), those of test {test_NCHW.shape[1:]}; "
            "they must be the same"
        )
    return ImageSplits(train_NCHW, test_NCHW, train_labels_N, test_labels_N)
