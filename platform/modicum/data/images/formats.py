"""Images, and folders of images for training and test, in the usual formats of the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modicum.data.cache import cached_arrays
from modicum.data.digest import digest_files
from modicum.data.images import binary, encoded, numpy_files
from modicum.data.images.source import ImageSource, ImageSplits, readable
from modicum.errors import InputError

_LAYOUT = 1  # Version of the cached arrays; increase it when their names or meaning change.


def open_images(path: str | Path, field: str = "images") -> ImageSource:
    """Open images that are read in batches. The format is recognised by content, not by name.

    Args:
        path: A folder of PNG files (without its subfolders); a `.npy` file; a `.npz` file with one
            array or an array `images`; or an idx file (MNIST's format), with or without gzip.
            Arrays are uint8 or bool (which becomes 0 and 1), of shape (N, H, W), (N, H, W, C) or
            (N, C, H, W) with 1 or 3 channels. PNG files are grey or RGB with at most 8 bits per
            channel; fewer bits are scaled to 0 to 255, so black and white are 0 and 255.
        field: Setting to name in an error.

    Raises:
        InputError: The path does not exist, has another format, holds no image, or breaks a rule
            of its format. Errors that only decoding can find are raised by `batches`.
    """
    place = Path(path).expanduser().absolute()
    where = f"{field}: {place}"
    if place.is_dir():
        return encoded.open_png_folder(place, field)
    if not place.is_file():
        raise InputError(f"{field}: no file or folder at {str(path)!r}")
    with readable(where), place.open("rb") as file:
        start = file.read(8)
    if start.startswith(numpy_files.NPY_START):
        return numpy_files.open_npy(place, field)
    if start.startswith(numpy_files.NPZ_STARTS):
        return numpy_files.open_npz(place, field)
    if start.startswith((binary.GZIP_START, binary.IDX_START)):
        return binary.open_idx(place, field)
    raise InputError(
        f"{where} is none of: a folder of PNG files, a .npy file, a .npz file, an idx file"
    )


@dataclass(frozen=True)
class _Format:
    """A format of folders, recognised by file patterns, with functions that list and read files."""

    name: str
    patterns: tuple[str, ...]
    files: Callable[[Path], list[Path]]
    read: Callable[[Path], ImageSplits]

    def shows_in(self, folder: Path) -> bool:
        return any(any(folder.glob(pattern)) for pattern in self.patterns)


_FORMATS = (
    _Format(
        "MNIST's (train-images-idx3-ubyte, ...)",
        ("*-idx[13]-ubyte", "*-idx[13]-ubyte.gz"),
        binary.mnist_files,
        binary.read_mnist,
    ),
    _Format(
        "CIFAR-10's binary (data_batch_1.bin, ...)",
        (binary.TRAIN_PATTERN, binary.TEST_NAME),
        binary.cifar10_binary_files,
        binary.read_cifar10_binary,
    ),
    _Format(
        "Hugging Face's (train*.parquet, test*.parquet)",
        (encoded.TRAIN_PATTERN, encoded.TEST_PATTERN),
        lambda folder: [p for files in encoded.parquet_split_files(folder) for p in files],
        encoded.read_image_parquet,
    ),
    _Format(
        "NumPy's (train.npz and test.npz, or .npy)",
        tuple(f"{s}{suffix}" for s in ("train", "test") for suffix in numpy_files.NUMPY_SUFFIXES),
        numpy_files.numpy_split_files,
        numpy_files.read_numpy_splits,
    ),
)


def _recognised(folder: Path) -> _Format:
    found = [format_ for format_ in _FORMATS if format_.shows_in(folder)]
    if not found:
        names = "; ".join(format_.name for format_ in _FORMATS)
        raise InputError(f"dataset: {folder} has no files of a known format: {names}")
    if len(found) > 1:
        names = " and ".join(format_.name for format_ in found)
        raise InputError(f"dataset: {folder} has files of two formats: {names}; keep one")
    return found[0]


def image_set_files(folder: Path) -> list[Path]:
    """The files of a folder's images and labels.

    Raises:
        InputError: The folder has no known format, or several, or a file is missing.
    """
    return _recognised(folder).files(folder)


def read_image_set(folder: Path) -> ImageSplits:
    """Read images for training and test from a folder in any of the known formats.

    The formats are those of `read_mnist`, `read_cifar10_binary`, `read_image_parquet` and
    `read_numpy_splits`. The images are decoded once per machine. The arrays are memory-mapped and
    read-only, from the cache or, for `.npy`, from the files themselves.

    Raises:
        InputError: The folder has no known format, or several, or cannot be read.
    """
    format_ = _recognised(folder)
    files = format_.files(folder)
    if all(path.suffix == ".npy" for path in files):
        return format_.read(folder)
    key = f"images-{_LAYOUT}-{digest_files(files)}"
    arrays = cached_arrays(key, lambda: _named(format_.read(folder)))
    return ImageSplits(
        arrays["train"], arrays["test"], arrays.get("train_labels"), arrays.get("test_labels")
    )


def _named(splits: ImageSplits) -> dict[str, np.ndarray]:
    arrays = {
        "train": splits.train_NCHW,
        "test": splits.test_NCHW,
        "train_labels": splits.train_labels_N,
        "test_labels": splits.test_labels_N,
    }
    return {name: array for name, array in arrays.items() if array is not None}
