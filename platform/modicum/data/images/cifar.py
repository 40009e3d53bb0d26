"""The binary version of CIFAR-10 (Krizhevsky 2009): records of a label and 3 x 32 x 32 bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modicum.data.images.splits import ImageSplits, checked_splits
from modicum.errors import InputError

TRAIN_PATTERN = "data_batch_*.bin"
TEST_NAME = "test_batch.bin"
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32
_CLASSES = 10


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
