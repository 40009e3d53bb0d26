"""idx files of MNIST (LeCun et al. 1998) and data sets in its format, with or without gzip.

An idx file holds, big-endian: 0, 0, the type of the values (8 for unsigned bytes), the number of
dimensions, each dimension in four bytes, and the values.
"""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, cast

import numpy as np

from modicum.data.images.layout import image_shape
from modicum.data.images.source import ImageSource, collect, stream_images
from modicum.data.images.splits import ImageSplits, checked_splits
from modicum.data.images.streams import read_exactly, readable, require_end
from modicum.errors import InputError

GZIP_START = b"\x1f\x8b"
IDX_START = b"\0\0\x08"  # Of a file of unsigned bytes with any dimensions.
_STEMS = ("train-images-idx3", "t10k-images-idx3", "train-labels-idx1", "t10k-labels-idx1")


@contextmanager
def _opened(path: Path, skip: int = 0) -> Iterator[IO[bytes]]:
    """The uncompressed content, from byte `skip` on."""
    with path.open("rb") as plain:
        packed = plain.read(len(GZIP_START)) == GZIP_START
        plain.seek(0)
        with cast(IO[bytes], gzip.open(plain)) if packed else plain as file:
            file.read(skip)
            yield file


def _header(path: Path, where: str) -> tuple[int, ...]:
    """The dimensions: (N,) of labels, (N, H, W) of images."""
    with readable(where), _opened(path) as file:
        start = file.read(len(IDX_START) + 1)
        if start[:-1] != IDX_START or start[-1] not in (1, 3):
            raise InputError(
                f"{where} is not an idx file of images or labels; "
                "its first four bytes must be 0x00000803 or 0x00000801"
            )
        dimensions = start[-1]
        shape = struct.unpack(f">{dimensions}I", read_exactly(file, 4 * dimensions, where))
        plain = not isinstance(file, gzip.GzipFile)
    length = path.stat().st_size - _header_length(shape)
    if plain and length != math.prod(shape):
        raise InputError(
            f"{where} holds {length} bytes of data; its header announces {math.prod(shape)}"
        )
    return shape


def _header_length(shape: tuple[int, ...]) -> int:
    return 4 + 4 * len(shape)


def open_idx(path: Path, field: str) -> ImageSource:
    """The images of an idx file.

    Raises:
        InputError: The file is not an idx file of images, has no images, or (without gzip) has
            another length than its header announces.
    """
    where = f"{field}: {path}"
    shape = _header(path, where)
    if len(shape) != 3:
        raise InputError(f"{where} holds labels; allowed: an idx file of images (0x00000803)")
    open_pixels = partial(_opened, path, _header_length(shape))
    return ImageSource(
        shape=image_shape(shape, np.dtype(np.uint8), where),
        count=shape[0],
        names=None,
        read=partial(stream_images, open_pixels, shape, where),
    )


def read_idx(path: Path, field: str = "dataset") -> np.ndarray:
    """Read an idx file: images as uint8 (N, 1, H, W), or labels as int64 (N,).

    Raises:
        InputError: The file is not an idx file of images or labels, or is broken.
    """
    where = f"{field}: {path}"
    shape = _header(path, where)
    if len(shape) == 3:
        return collect(open_idx(path, field), where)
    with readable(where), _opened(path, _header_length(shape)) as file:
        labels = read_exactly(file, shape[0], where)
        require_end(file, where)
    return np.frombuffer(labels, np.uint8).astype(np.int64)


def mnist_files(folder: Path) -> list[Path]:
    """The four files of MNIST: images for training and test, then labels for training and test.

    Raises:
        InputError: A file is missing.
    """
    return [_mnist_file(folder, stem) for stem in _STEMS]


def _mnist_file(folder: Path, stem: str) -> Path:
    name = f"{stem}-ubyte"
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InputError(f"dataset: {folder} has no {name} or {name}.gz")


def read_mnist(folder: Path) -> ImageSplits:
    """Read MNIST, or another data set in the same four files, with or without gzip.

    Raises:
        InputError: A file is missing or broken, or images and labels do not fit together.
    """
    train, test, train_labels, test_labels = (read_idx(path) for path in mnist_files(folder))
    return checked_splits(train, test, train_labels, test_labels, where=str(folder))
