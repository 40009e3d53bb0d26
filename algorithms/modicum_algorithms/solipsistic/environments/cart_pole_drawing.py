"""Small grey frames of the cart and the pole, equal to those of gymnasium's renderer and wrappers.

The picture comes from the same calls of pygame's `gfxdraw` as gymnasium's, on a canvas of 400 x
600. The time is saved elsewhere: only the rectangle where something moved is cleared, turned grey
and averaged, and the rest of a frame is background. pygame is never initialised, so it starts no
window system and installs no signal handler.

Shapes: H rows and W columns of a frame (64 both), R rows and C columns of a part of the canvas, N
pixels. Rows of the canvas count from its foot, rows of pictures and frames from the top.
"""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import numpy as np

# pygame greets on standard output.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "hide")

import pygame
from pygame import gfxdraw

PICTURE_ROWS = 400
PICTURE_COLUMNS = 600
FRAME_SIZE = 64

_SCALE = PICTURE_COLUMNS / 4.8  # pixels per metre
_TRACK_ROW = 100
_AXLE_HEIGHT = 7.5  # above the track
_AXLE_RADIUS = 5
_CART = ((-25.0, -15.0), (-25.0, 15.0), (25.0, 15.0), (25.0, -15.0))
_POLE = ((-5.0, -5.0), (-5.0, 120.0), (5.0, 120.0), (5.0, -5.0))
_REACH = 2  # pixels by which rounding and smooth edges may extend a shape

_CART_COLOUR = (0, 0, 0)
_POLE_COLOUR = (202, 152, 101)
_AXLE_COLOUR = (129, 132, 203)
_TRACK_COLOUR = (0, 0, 0)
_BACKGROUND = np.uint32(0xFFFFFFFF)  # four bytes of an empty pixel

# Weights of red, green and blue of gymnasium's GrayscaleObservation.
_RED, _GREEN, _BLUE = (np.arange(256) * weight for weight in (0.2125, 0.7154, 0.0721))


class _Rectangle(NamedTuple):
    """Pixels from `left` to `right` - 1 in the rows from `first` to `last` - 1."""

    first: int
    last: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.first, self.last), slice(self.left, self.right)

    @property
    def empty(self) -> bool:
        return self.first >= self.last or self.left >= self.right


class CartPoleDrawing:
    """Draws pictures and frames of states.

    Args:
        rows: First row and end (exclusive) of the picture's 400 rows that a frame shows.
    """

    def __init__(self, rows: tuple[int, int]) -> None:
        self._canvas_RC4 = np.full((PICTURE_ROWS, PICTURE_COLUMNS, 4), 255, np.uint8)
        self._pixels_RC = self._canvas_RC4.view(np.uint32)[:, :, 0]
        self._surface = pygame.image.frombuffer(
            self._canvas_RC4.data, (PICTURE_COLUMNS, PICTURE_ROWS), "RGBX"
        )
        self._drawn = _Rectangle(0, 0, 0, 0)
        first, last = rows
        self._height, self._foot = last - first, PICTURE_ROWS - last
        # Counted from the foot of the canvas, and so are the rows of the frame here.
        self._rows_HR = area_weights(self._height, FRAME_SIZE)
        self._columns_CW = area_weights(PICTURE_COLUMNS, FRAME_SIZE).T.copy()
        self._draw_track()
        whole = _Rectangle(0, FRAME_SIZE, 0, FRAME_SIZE)
        self._empty_HW = self._averaged(whole).astype(np.uint8)

    def picture(self, state: np.ndarray) -> np.ndarray:
        """Picture of a state as gymnasium's CartPole renders it, uint8 (400, 600, 3)."""
        self._draw(state)
        return self._canvas_RC4[::-1, :, :3].copy()

    def frame(self, state: np.ndarray) -> np.ndarray:
        """Frame of a state: rows of the picture in grey, averaged over areas to uint8 (64, 64)."""
        self._draw(state)
        frame_HW = self._empty_HW.copy()
        changed = self._changed()
        if not changed.empty:
            frame_HW[changed.slices] = self._averaged(changed)
        return frame_HW[::-1]

    def _draw(self, state: np.ndarray) -> None:
        """Replace the drawing, by the steps and numbers of gymnasium's CartPole `render`."""
        self._pixels_RC[self._drawn.slices] = _BACKGROUND
        position, _, angle, _ = state.tolist()
        middle = position * _SCALE + PICTURE_COLUMNS / 2.0
        axle = _TRACK_ROW + _AXLE_HEIGHT
        cart = [(x + middle, y + _TRACK_ROW) for x, y in _CART]
        turned = [pygame.math.Vector2(corner).rotate_rad(-angle) for corner in _POLE]
        pole = [(x + middle, y + axle) for x, y in turned]
        self._drawn = _bounds(cart + pole)
        if not self._drawn.empty:
            for corners, colour in ((cart, _CART_COLOUR), (pole, _POLE_COLOUR)):
                gfxdraw.aapolygon(self._surface, corners, colour)
                gfxdraw.filled_polygon(self._surface, corners, colour)
            circle = (int(middle), int(axle), _AXLE_RADIUS)
            gfxdraw.aacircle(self._surface, *circle, _AXLE_COLOUR)
            gfxdraw.filled_circle(self._surface, *circle, _AXLE_COLOUR)
        self._draw_track()

    def _draw_track(self) -> None:
        gfxdraw.hline(self._surface, 0, PICTURE_COLUMNS, _TRACK_ROW, _TRACK_COLOUR)

    def _changed(self) -> _Rectangle:
        """Part of a frame that is not background, with rows counted from the foot."""
        first = max(self._drawn.first - self._foot, 0)
        last = min(self._drawn.last - self._foot, self._height)
        return _Rectangle(
            first * FRAME_SIZE // self._height,
            -(-last * FRAME_SIZE // self._height),
            self._drawn.left * FRAME_SIZE // PICTURE_COLUMNS,
            -(-self._drawn.right * FRAME_SIZE // PICTURE_COLUMNS),
        )

    def _averaged(self, part: _Rectangle) -> np.ndarray:
        """Grey levels of a part of a frame, whole numbers in float32."""
        foot, height = self._foot, self._height
        rows = slice(part.first * height // FRAME_SIZE, -(-part.last * height // FRAME_SIZE))
        columns = slice(
            part.left * PICTURE_COLUMNS // FRAME_SIZE,
            -(-part.right * PICTURE_COLUMNS // FRAME_SIZE),
        )
        grey_RC = _grey(self._pixels_RC[foot + rows.start : foot + rows.stop, columns])
        rows_HR = self._rows_HR[part.first : part.last, rows]
        columns_CW = self._columns_CW[columns, part.left : part.right]
        return np.rint(rows_HR @ (grey_RC @ columns_CW))


def area_weights(pixels: int, averages: int) -> np.ndarray:
    """Weights of pixels in averages over equal lengths of a row or column, as in INTER_AREA.

    There are as many pixels as averages or more. The weights are float32 (averages, pixels), and
    every row sums to 1.
    """
    length = pixels / averages
    starts = np.arange(averages)[:, None] * length
    left = np.arange(pixels)
    overlap = np.minimum(starts + length, left + 1) - np.maximum(starts, left)
    return (np.maximum(overlap, 0) / length).astype(np.float32)


def _bounds(corners: list[tuple[float, float]]) -> _Rectangle:
    """Part of the canvas that contains the corners; empty if they lie outside."""
    columns, rows = zip(*corners, strict=True)
    return _Rectangle(
        max(math.floor(min(rows)) - _REACH, 0),
        min(math.ceil(max(rows)) + _REACH + 1, PICTURE_ROWS),
        max(math.floor(min(columns)) - _REACH, 0),
        min(math.ceil(max(columns)) + _REACH + 1, PICTURE_COLUMNS),
    )


def _grey(pixels_RC: np.ndarray) -> np.ndarray:
    """Grey levels in float32, rounded down to whole numbers like gymnasium's."""
    pixels_RC = np.ascontiguousarray(pixels_RC)
    drawn_N = np.flatnonzero(pixels_RC != _BACKGROUND)
    red_N, green_N, blue_N, _ = pixels_RC.reshape(-1)[drawn_N].view(np.uint8).reshape(-1, 4).T
    grey_RC = np.full(pixels_RC.shape, 255, np.float32)
    grey_RC.reshape(-1)[drawn_N] = np.floor(_RED[red_N] + _GREEN[green_N] + _BLUE[blue_N])
    return grey_RC
