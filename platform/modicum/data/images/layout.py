"""Layouts of images in arrays.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np

from modicum.errors import InputError

CHANNELS = (1, 3)  # grey, RGB


def image_shape(shape: tuple[int, ...], dtype: np.dtype, where: str) -> tuple[int, int, int]:
    """The (C, H, W) of the images in an array.

    Args:
        shape: Shape of the array: (N, H, W) for grey images, else channels last or first,
            (N, H, W, C) or (N, C, H, W), with C of 1 or 3.
        dtype: Type of the array: uint8 or bool.
        where: Setting and file, for the message.

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
