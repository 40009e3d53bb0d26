"""Images that are read in batches, so files may be larger than memory.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from modicum.data.images.layout import channels_first
from modicum.data.images.streams import read_exactly, readable, require_end
from modicum.errors import InputError

_PIECE = 2**24  # Bytes to read at once when all images are wanted.


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

    Args:
        source: Source of the images.
        where: Setting and file, for the message.

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
    """Yield batches from a file of plain pixels.

    Args:
        open_pixels: Function that opens the file at its first pixel.
        array_shape: Shape of the pixels, in a layout that `image_shape` accepts.
        where: Setting and file, for the message.
        size: Number of images in a batch.

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
