"""Films of episodes as GIF or MP4 files.

Shapes: H height, W width, 3 colours.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import modicum as md

_SMALLEST_HEIGHT = 224  # pixels; smaller frames are enlarged
_GIF_UNIT = 10  # milliseconds
_SHORTEST_GIF_DELAY = 20  # milliseconds; viewers show shorter frames for a tenth of a second
# VP9, which browsers play, at the encoder's default quality; otherwise MPEG-4.
_CODECS = ("vp09", "mp4v")


def check_film_path(path: Path, field: str) -> None:
    """Refuse a file whose suffix is not that of a film; `field` names the setting in the error."""
    if path.suffix not in (".gif", ".mp4"):
        raise md.InputError(
            f"{field}: expected a file that ends in .gif or .mp4, got {str(path)!r}"
        )


class Film:
    """Frames of one size in a row, compressed in memory since episodes may be long.

    Attributes:
        frames_per_second: Speed of the film.
    """

    def __init__(self, frames_per_second: float) -> None:
        self.frames_per_second = frames_per_second
        self._compressed: list[bytes] = []
        self._shape: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self._compressed)

    def __iter__(self) -> Iterator[np.ndarray[Any, Any]]:
        for data in self._compressed:
            yield np.frombuffer(zlib.decompress(data), np.uint8).reshape(self._shape)

    def add(self, frame_HW3: np.ndarray[Any, Any]) -> None:
        """Add a frame, uint8 (H, W, 3)."""
        assert frame_HW3.dtype == np.uint8
        assert frame_HW3.ndim == 3
        assert frame_HW3.shape == (self._shape or frame_HW3.shape)
        self._shape = frame_HW3.shape
        self._compressed.append(zlib.compress(frame_HW3.tobytes(), 1))

    def write(self, path: Path, field: str = "path") -> None:
        """Write the film, with small frames enlarged by a whole number.

        Args:
            path: A file that ends in .gif or .mp4; its folder is made where it does not exist.
            field: Setting to name in an error.

        Raises:
            InputError: The suffix is another, or the file cannot be written.
        """
        check_film_path(path, field)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            (_write_gif if path.suffix == ".gif" else _write_mp4)(self, path)
        except OSError as error:
            message = f"{field}: {str(path)!r} cannot be written ({error})"
            raise md.InputError(message) from error


def observation_picture(observation: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Channels of an image observation side by side in grey, uint8 (H, W', 3).

    Args:
        observation: Image of shape (H, W) or (H, W, C), uint8 or from 0 to 1.

    Raises:
        InputError: The observation is not an image.
    """
    if observation.ndim not in (2, 3):
        raise md.InputError(
            f"observations of shape {observation.shape} are not images, and there is no picture"
        )
    image_HWC = np.atleast_3d(observation)
    if image_HWC.dtype != np.uint8:
        image_HWC = np.rint(image_HWC.clip(0, 1) * 255).astype(np.uint8)
    side_by_side = np.concatenate(np.moveaxis(image_HWC, -1, 0), axis=1)
    return np.repeat(side_by_side[:, :, None], 3, axis=2)


def _enlarged(frame_HW3: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    times = -(-_SMALLEST_HEIGHT // len(frame_HW3))
    return frame_HW3.repeat(times, axis=0).repeat(times, axis=1)


def _even(frame_HW3: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The frame with odd sides extended by their last row or column: MP4 needs even sides."""
    height, width, _ = frame_HW3.shape
    return np.pad(frame_HW3, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _write_gif(film: Film, path: Path) -> None:
    from PIL import Image

    delay = max(round(1000 / film.frames_per_second / _GIF_UNIT) * _GIF_UNIT, _SHORTEST_GIF_DELAY)
    first, *others = (Image.fromarray(_enlarged(frame)).quantize() for frame in film)
    first.save(path, save_all=True, append_images=others, duration=delay, loop=0)


def _write_mp4(film: Film, path: Path) -> None:
    writer: Any = None
    for frame_HW3 in film:
        picture = np.ascontiguousarray(_even(_enlarged(frame_HW3))[:, :, ::-1])  # blue first
        writer = writer or _opened(path, film.frames_per_second, picture.shape)
        writer.write(picture)
    if writer is not None:
        writer.release()


def _opened(path: Path, frames_per_second: float, shape: tuple[int, ...]) -> Any:
    import cv2

    height, width, _ = shape
    for codec in _CODECS:
        code = cv2.VideoWriter.fourcc(*codec)
        writer = cv2.VideoWriter(str(path), code, frames_per_second, (width, height))
        if writer.isOpened():
            return writer
    raise OSError("OpenCV has no encoder for it, or the folder cannot be written to")
