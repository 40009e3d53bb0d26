"""Images that are read a few at a time, so that files may be larger than memory.

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

_PIECE = 2**24  # bytes read at a time when all images are wanted


@dataclass(frozen=True)
class ImageSource:
    """Images of one size.

    Attributes:
        shape: (C, H, W) of each image.
        count: How many there are, at least 1.
        names: Their names, if they have any: what stands before `.png`.
        read: Yields consecutive uint8 (N, C, H, W), all but the last of the size it is given.
    """

    shape: tuple[int, int, int]
    count: int
    names: tuple[str, ...] | None
    read: Callable[[int], Iterator[np.ndarray]] = field(repr=False, compare=False)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yield the images in order, from the first; the last batch may be smaller.

        Args:
            size: Images in a batch.

        Returns:
            uint8 (N, C, H, W) each, contiguous and the caller's own.

        Raises:
            InputError: `size` is not positive or, while reading, a file turns out to be broken.
        """
        if size < 1:
            raise InputError(f"size: a batch must hold 1 image or more, got {size}")
        return self.read(size)


def collect(source: ImageSource, where: str) -> np.ndarray:
    """All images of a source in memory, uint8 (N, C, H, W).

    Args:
        source: Where they come from.
        where: Setting and file, for the message.

    Raises:
        InputError: A file is broken, or memory does not hold them.
    """
    try:
        images_NCHW = np.empty((source.count, *source.shape), np.uint8)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"{where} announces {source.count} images of the shape {source.shape}, "
            "more than memory holds"
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
    """Yield batches from a file that holds nothing but pixels from where it is opened.

    Args:
        open_pixels: Opens the file at its first pixel.
        array_shape: That the pixels have, in a layout that `image_shape` accepts.
        where: Setting and file, for the message.
        size: Images in a batch.

    Raises:
        InputError: The file is broken, or not as long as its shape.
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
