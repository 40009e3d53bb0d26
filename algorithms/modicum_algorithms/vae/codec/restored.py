"""Restored images on disk, written chunk by chunk.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np


class PngFolder:
    """A folder with one PNG file for each image."""

    def __init__(self, folder: Path, names: Iterator[str]) -> None:
        """Prepare to write.

        Args:
            folder: An empty folder.
            names: Names of the files, without `.png`.
        """
        self._folder = folder
        self._names = names

    def add(self, images_NCHW: np.ndarray) -> None:
        """Write the next images, uint8 of one channel (grey) or three (RGB)."""
        from PIL import Image

        for image_CHW, name in zip(images_NCHW, self._names, strict=False):
            pixels = image_CHW[0] if len(image_CHW) == 1 else np.moveaxis(image_CHW, 0, -1)
            path = self._folder / f"{name}.png"
            with path.open("xb") as file:
                Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")


class NpyFile:
    """A `.npy` file of one array: (N, H, W) for images of one channel, (N, H, W, C) for more."""

    def __init__(self, file: IO[bytes], count: int, shape: tuple[int, int, int]) -> None:
        """Write the header of the file.

        Args:
            file: File open for writing, at its start.
            count: N, number of images.
            shape: (C, H, W) of an image.
        """
        channels, height, width = shape
        self._file = file
        self._flat = channels == 1
        array_shape = (count, height, width) if self._flat else (count, height, width, channels)
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": array_shape}
        )

    def add(self, images_NCHW: np.ndarray) -> None:
        """Write the next images, uint8."""
        pixels = images_NCHW if self._flat else np.moveaxis(images_NCHW, 1, -1)
        self._file.write(np.ascontiguousarray(pixels).data)
