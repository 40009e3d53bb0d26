"""Images that are read in batches, so files may be larger than memory, and their layouts.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from modicum.errors import InputError, reason_of

CHANNELS = (1, 3)  # grey, RGB
# Errors of gzip, zipfile and the file system. zipfile raises RuntimeError for an encrypted member
# and UnicodeDecodeError for a broken name.
_BROKEN = (
    OSError,
    EOFError,
    RuntimeError,
    UnicodeDecodeError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
_CHUNK = 2**20  # Bytes.
_PIECE = 2**24  # Bytes to read at once when all images are wanted.


def image_shape(shape: tuple[int, ...], dtype: np.dtype, where: str) -> tuple[int, int, int]:
    """The (C, H, W) of the images in an array of uint8 or bool.

    The array's shape is (N, H, W) for grey images, else channels stand last or first, (N, H, W, C)
    or (N, C, H, W), with C of 1 or 3.

    Raises:
        InputError: The type or shape is another one, the shape is ambiguous, or the array is empty.
    """
    if dtype not in (np.dtype(np.uint8), np.dtype(np.bool_)):
        raise InputError(f"{where} has values of type {dtype}; allowed: uint8 or bool")
    if len(shape) not in (3, 4) or (len(shape) == 4 and not (_first(shape) or _last(shape))):
        raise InputError(
            f"{where} has the shape {shape}; allowed: (N, H, W), or (N, H, W, C) or (N, C, H, W) "
            "with 1 or 3 channels C"
        )
    if len(shape) == 4 and _first(shape) and _last(shape):
        raise InputError(
            f"{where} has the shape {shape}, whose channels can stand first or last; "
            "save grey images as (N, H, W), or others with a height and width that are not 1 or 3"
        )
    if min(shape) < 1:
        raise InputError(f"{where} has the shape {shape}; at least one image with pixels is needed")
    if len(shape) == 3:
        return (1, shape[1], shape[2])
    channels_last = (shape[3], shape[1], shape[2])
    return channels_last if _last(shape) else (shape[1], shape[2], shape[3])


def channels_first(array: np.ndarray) -> np.ndarray:
    """View an array that `image_shape` accepts as uint8 (N, C, H, W); bool becomes 0 and 1."""
    if array.ndim == 3:
        array = array[:, None]
    elif _last(array.shape):
        array = np.moveaxis(array, -1, 1)
    return array.view(np.uint8)


def _first(shape: tuple[int, ...]) -> bool:
    return shape[1] in CHANNELS


def _last(shape: tuple[int, ...]) -> bool:
    return shape[3] in CHANNELS


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Turn errors of reading a file in the block into an `InputError`."""
    try:
        yield
    except _BROKEN as error:
        raise InputError(f"{where} cannot be read ({reason_of(error)})") from error


def read_exactly(file: IO[bytes], length: int, where: str) -> bytearray:
    """Read a number of bytes.

    Raises:
        InputError: The file ends too early, or is broken.
    """
    data = bytearray()
    while len(data) < length:
        # A broken header may announce more data than fits in memory.
        with readable(where):
            piece = file.read(min(length - len(data), _CHUNK))
        if not piece:
            break
        data += piece
    if len(data) != length:
        raise InputError(f"{where} is truncated: its header announces more data than there is")
    return data


def require_end(file: IO[bytes], where: str) -> None:
    """Check that the file ends here; reading the end makes gzip and zip compare their checksums.

    Raises:
        InputError: More data follows, or the data is broken.
    """
    with readable(where):
        more = file.read(1)
    if more:
        raise InputError(f"{where} is broken: it holds more data than its header announces")


@dataclass(frozen=True)
class ImageSource:
    """Images of one size.

    Attributes:
        shape: (C, H, W) of each image.
        count: Number of images, at least 1.
        names: Names of the images (file names without `.png`), or None.
        read: Function that yields consecutive batches, uint8 (N, C, H, W), of a given size; the
            last batch may be smaller.
    """

    shape: tuple[int, int, int]
    count: int
    names: tuple[str, ...] | None
    read: Callable[[int], Iterator[np.ndarray]] = field(repr=False, compare=False)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yield the images in order, from the first; the last batch may be smaller.

        Args:
            size: Number of images in a batch.

        Returns:
            Batches, uint8 (N, C, H, W), contiguous and owned by the caller.

        Raises:
            InputError: `size` is not positive or, during reading, a file is found to be broken.
        """
        if size < 1:
            raise InputError(f"size: a batch must hold 1 image or more, got {size}")
        return self.read(size)


def collect(source: ImageSource, where: str) -> np.ndarray:
    """Read all images of a source, uint8 (N, C, H, W).

    Raises:
        InputError: A file is broken, or the images do not fit in memory.
    """
    try:
        images_NCHW = np.empty((source.count, *source.shape), np.uint8)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"{where} announces {source.count} images of the shape {source.shape}, "
            "more than fit in memory"
        ) from error
    start = 0
    for batch_NCHW in source.batches(max(1, _PIECE // math.prod(source.shape))):
        images_NCHW[start : start + len(batch_NCHW)] = batch_NCHW
        start += len(batch_NCHW)
    return images_NCHW


def stream_images(
    open_pixels: Callable[[], AbstractContextManager[IO[bytes]]],
    array_shape: tuple[int, ...],
    where: str,
    size: int,
) -> Iterator[np.ndarray]:
    """Yield batches from a file of plain pixels, in a layout that `image_shape` accepts.

    Raises:
        InputError: The file is broken, or its length does not match its shape.
    """
    with ExitStack() as stack:
        with readable(where):
            file = stack.enter_context(open_pixels())
        for start in range(0, array_shape[0], size):
            count = min(size, array_shape[0] - start)
            pixels = read_exactly(file, count * math.prod(array_shape[1:]), where)
            batch = np.frombuffer(pixels, np.uint8).reshape(count, *array_shape[1:])
            yield np.array(channels_first(batch), order="C")
        require_end(file, where)


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
