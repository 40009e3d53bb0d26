"""Pixels of binary images, coded as 0 and 1, stored as 0 and 1 or as 0 and 255.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np

import modicum as md

_ONES = (1, 255)


class BinaryPixels:
    """Reads images with pixels 0 and 1, or 0 and 255, piece by piece.

    Attributes:
        one: Pixel value that stands for 1; None until a pixel has it.
    """

    def __init__(self, names: tuple[str, ...] | None) -> None:
        """Start before the first image.

        Args:
            names: Names of all images for errors; None numbers the images.
        """
        self.one: int | None = None
        self._names = names
        self._seen = 0

    def read(self, images_NCHW: np.ndarray) -> np.ndarray:
        """The next images, with pixels 0 and 1.

        Raises:
            InputError: A pixel is neither 0 nor the value that stands for 1; the error names the
                first image with such a pixel.
        """
        set_NCHW = images_NCHW != 0
        if self.one is None and set_NCHW.any():
            first = int(images_NCHW.flat[int(set_NCHW.argmax())])
            self.one = first if first in _ONES else None
        wrong_NCHW = set_NCHW if self.one is None else set_NCHW & (images_NCHW != self.one)
        if wrong_NCHW.any():
            place = int(wrong_NCHW.argmax())
            raise self._error(place // wrong_NCHW[0].size, int(images_NCHW.flat[place]))
        self._seen += len(images_NCHW)
        return set_NCHW.view(np.uint8)

    def _error(self, place: int, value: int) -> md.InputError:
        number = self._seen + place
        name = f"image {number}" if self._names is None else f"image {self._names[number]!r}"
        earlier = "" if self.one is None else f" beside {self.one}"
        return md.InputError(
            f"images: {name} has a pixel of value {value}{earlier}; a Bernoulli model codes images "
            "whose pixels are all 0 and 1, or all 0 and 255"
        )


def restore(pixels_NCHW: np.ndarray, one: int) -> np.ndarray:
    """Images from coded pixels, with the value that stood for 1."""
    return pixels_NCHW if one == 1 else pixels_NCHW * np.uint8(one)
