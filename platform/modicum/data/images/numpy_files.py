"""Images in `.npy` and `.npz` files.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from modicum.data.images.source import (
    ImageSource,
    ImageSplits,
    channels_first,
    checked_splits,
    collect,
    image_shape,
    readable,
    stream_images,
)
from modicum.errors import InputError, reason_of

NPY_START = b"\x93NUMPY"
NPZ_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # The second is that of an empty archive.
NUMPY_SUFFIXES = (".npz", ".npy")
# Errors of NumPy for a file that is no array, or whose header is no Python literal.
_BROKEN_ARRAY = (ValueError, TypeError, tokenize.TokenError)
_IMAGES = "images"
_LABELS = "labels"


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def _read_header(file: IO[bytes], where: str) -> _Header:
    """Read the header of an array; the file is then at the first value."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with readable(where):
        try:
            version = np.lib.format.read_magic(file)
            if version not in readers:
                raise ValueError(f"version {version} of the format")
            return _Header(*readers[version](file))
        except _BROKEN_ARRAY as error:
            raise InputError(f"{where} is not an array of NumPy ({reason_of(error)})") from error


def _mapped(path: Path, where: str) -> np.ndarray:
    """A `.npy` file as a memory-mapped, read-only array."""
    with readable(where):
        try:
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except _BROKEN_ARRAY as error:
            raise InputError(f"{where} cannot be read ({reason_of(error)})") from error
    return array


def open_npy(path: Path, field: str) -> ImageSource:
    """The images of a `.npy` file.

    Raises:
        InputError: The file does not hold images, or is truncated.
    """
    where = f"{field}: {path}"
    with readable(where), path.open("rb") as file:
        header = _read_header(file, where)
    shape = image_shape(header.shape, header.dtype, where)
    _mapped(path, where)  # Finds a truncated file.
    return ImageSource(shape, header.shape[0], None, partial(_mapped_batches, path, where))


def _mapped_batches(path: Path, where: str, size: int) -> Iterator[np.ndarray]:
    images_NCHW = channels_first(_mapped(path, where))
    for start in range(0, len(images_NCHW), size):
        yield np.array(images_NCHW[start : start + size], order="C")


def open_npz(path: Path, field: str) -> ImageSource:
    """The images of a `.npz` file: its array `images`, or its only array.

    The images are read in pieces, whether the file is compressed (`np.savez_compressed`) or not.

    Raises:
        InputError: The file has several arrays and none is `images`, or the array does not hold
            images.
    """
    where = f"{field}: {path}"
    name = _image_array(_array_names(path, where), where)
    where = f"{where}: array {name}"
    with readable(where), _member(path, name) as file:
        header = _read_header(file, where)
    shape = image_shape(header.shape, header.dtype, where)
    if header.fortran:
        raise InputError(
            f"{where} is in Fortran's order, in which images cannot be read in batches; "
            "save np.ascontiguousarray of it"
        )
    open_pixels = partial(_member_values, path, name, where)
    read = partial(stream_images, open_pixels, header.shape, where)
    return ImageSource(shape, header.shape[0], None, read)


def _array_names(path: Path, where: str) -> list[str]:
    with readable(where), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return [name.removesuffix(".npy") for name in names if name.endswith(".npy")]


def _image_array(names: list[str], where: str) -> str:
    if _IMAGES in names:
        return _IMAGES
    if len(names) == 1:
        return names[0]
    raise InputError(
        f"{where} has the arrays {', '.join(sorted(names)) or 'none'}; "
        f"one alone or one named {_IMAGES} is needed"
    )


@contextmanager
def _member(path: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        yield file


@contextmanager
def _member_values(path: Path, name: str, where: str) -> Iterator[IO[bytes]]:
    with _member(path, name) as file:
        _read_header(file, where)
        yield file


def numpy_split_files(folder: Path) -> list[Path]:
    """The files `train` and `test` of a folder, each `.npz` or `.npy`.

    Raises:
        InputError: A split has no file, or two files.
    """
    chosen = []
    for split in ("train", "test"):
        names = [f"{split}{suffix}" for suffix in NUMPY_SUFFIXES]
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            raise InputError(f"dataset: {folder} has no {' or '.join(names)}")
        if len(found) > 1:
            raise InputError(f"dataset: {folder} has {' and '.join(names)}; keep one")
        chosen += found
    return chosen


def read_numpy_splits(folder: Path) -> ImageSplits:
    """Read a folder with `train` and `test`, each `.npz` or `.npy`.

    A `.npz` file holds `images` and, optionally, `labels`. A `.npy` file holds images, which are
    memory-mapped and read-only.

    Raises:
        InputError: A file is missing or broken, or does not hold images.
    """
    train, test = numpy_split_files(folder)
    return checked_splits(
        _read_images(train),
        _read_images(test),
        _read_labels(train),
        _read_labels(test),
        where=str(folder),
    )


def _read_images(path: Path) -> np.ndarray:
    if path.suffix == ".npz":
        return collect(open_npz(path, "dataset"), f"dataset: {path}")
    open_npy(path, "dataset")  # Checks the file.
    return channels_first(_mapped(path, f"dataset: {path}"))


def _read_labels(path: Path) -> np.ndarray | None:
    where = f"dataset: {path}"
    if path.suffix != ".npz" or _LABELS not in _array_names(path, where):
        return None
    where = f"{where}: array {_LABELS}"
    with readable(where), np.load(path, allow_pickle=False) as arrays:
        try:
            labels: np.ndarray = arrays[_LABELS]
        except _BROKEN_ARRAY as error:
            raise InputError(f"{where} cannot be read ({reason_of(error)})") from error
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(
            f"{where} has values of type {labels.dtype} and the shape {labels.shape}; "
            "integers, one for each image, are needed"
        )
    return labels.astype(np.int64)
