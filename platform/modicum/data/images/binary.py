"""Binary files of images: idx, with or without gzip, and CIFAR-10's.

An idx file (MNIST, LeCun et al. 1998) holds, big-endian: 0, 0, the type of the values (8 for
unsigned bytes), the number of dimensions, each dimension in four bytes, and the values. CIFAR-10's
files (Krizhevsky 2009) hold records of a label and 3 x 32 x 32 bytes.
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

from modicum.data.images.source import (
    ImageSource,
    ImageSplits,
    checked_splits,
    collect,
    image_shape,
    read_exactly,
    readable,
    require_end,
    stream_images,
)
from modicum.errors import InputError

GZIP_START = b"\x1f\x8b"
IDX_START = b"\0\0\x08"  # Of a file of unsigned bytes with any dimensions.
_STEMS = ("train-images-idx3", "t10k-images-idx3", "train-labels-idx1", "t10k-labels-idx1")
TRAIN_PATTERN = "data_batch_*.bin"
TEST_NAME = "test_batch.bin"
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32
_CLASSES = 10


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


def cifar10_binary_files(folder: Path) -> list[Path]:
    """The training batches by name, then the test batch.

    Raises:
        InputError: There is no training batch, or no test batch.
    """
    train = sorted(folder.glob(TRAIN_PATTERN), key=lambda path: path.name)
    if not train:
        raise InputError(f"dataset: {folder} has no {TRAIN_PATTERN}")
    if not (folder / TEST_NAME).is_file():
        raise InputError(f"dataset: {folder} has no {TEST_NAME}")
    return [*train, folder / TEST_NAME]


def read_cifar10_binary(folder: Path) -> ImageSplits:
    """Read a folder of CIFAR-10's binary version, or of a part of it.

    Raises:
        InputError: A file is missing, does not hold a whole number of records, or has a label
            outside 0 to 9.
    """
    *train_files, test_file = cifar10_binary_files(folder)
    train = np.concatenate([_read_records(path) for path in train_files])
    test = _read_records(test_file)
    return checked_splits(
        _images(train), _images(test), _labels(train), _labels(test), where=str(folder)
    )


def _read_records(path: Path) -> np.ndarray:
    """Read the records of a file, uint8 (N, 3073)."""
    length = path.stat().st_size
    if length == 0 or length % _RECORD:
        raise InputError(
            f"dataset: {path} holds {length} bytes; CIFAR-10's records have {_RECORD} bytes each"
        )
    records = np.fromfile(path, np.uint8).reshape(-1, _RECORD)
    if records[:, 0].max() >= _CLASSES:
        raise InputError(
            f"dataset: {path} has the label {records[:, 0].max()}; "
            f"CIFAR-10's are 0 to {_CLASSES - 1}"
        )
    return records


def _images(records: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(records[:, 1:]).reshape(-1, *_SHAPE)


def _labels(records: np.ndarray) -> np.ndarray:
    return records[:, 0].astype(np.int64)
