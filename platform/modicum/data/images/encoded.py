"""Encoded images: decoding them with Pillow, and a folder of PNG files.

Only images that decode without loss to 8 bits per channel, grey or RGB, are accepted: Pillow
silently reduces 16 bits of RGB to 8, and its other modes are not plain pixels.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from modicum.data.images.source import ImageSource, read_exactly, readable
from modicum.errors import InputError, reason_of

PNG_START = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2  # Colour types of PNG.
_REFUSED = {3: "a palette", 4: "an alpha channel", 6: "an alpha channel"}
_CHANNELS = {"1": 1, "L": 1, "RGB": 3}  # By Pillow's mode.
_ALLOWED = "allowed: grey or RGB, at most 8 bits a channel, without transparency"


def require_pillow(where: str) -> None:
    """Check that Pillow is installed."""
    try:
        import PIL.Image  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(f"{where} needs the package 'pillow' (extra 'vae')") from error


def png_shape(file: IO[bytes], where: str) -> tuple[int, int, int]:
    """The (C, H, W) of a PNG file, from the heads of its chunks; no pixel is decoded.

    Raises:
        InputError: The file is not PNG, is truncated, or has a palette, transparency, more than
            8 bits per channel, or several pictures.
    """
    if read_exactly(file, len(PNG_START), where) != PNG_START:
        raise InputError(f"{where} is not a PNG file")
    length, kind = _chunk_head(file, where)
    if kind != b"IHDR" or length != 13:
        raise InputError(f"{where} is a broken PNG file (it does not start with a header)")
    width, height, bits, colour = struct.unpack(">IIBB", read_exactly(file, 10, where))
    if not width or not height or bits not in (1, 2, 4, 8, 16):
        raise InputError(f"{where} is a broken PNG file ({width} x {height}, {bits} bits)")
    if colour not in (_GREY, _RGB):
        raise InputError(f"{where} has {_REFUSED.get(colour, 'unknown colours')}; {_ALLOWED}")
    if bits > 8:
        raise InputError(f"{where} has {bits} bits a channel; {_ALLOWED}")
    remaining = 3
    while True:
        # The last byte is read, not skipped: skipping past the end would go unnoticed.
        with readable(where):
            file.seek(remaining + 3, io.SEEK_CUR)
        read_exactly(file, 1, where)
        if kind == b"IEND":
            break
        remaining, kind = _chunk_head(file, where)
        if kind == b"tRNS":
            raise InputError(f"{where} has a transparent colour; {_ALLOWED}")
        if kind == b"acTL":
            raise InputError(f"{where} is an animation; allowed: one picture a file")
    return (1 if colour == _GREY else 3, height, width)


def _chunk_head(file: IO[bytes], where: str) -> tuple[int, bytes]:
    length, kind = struct.unpack(">I4s", read_exactly(file, 8, where))
    return length, kind


def decode_image(data: bytes, where: str, formats: tuple[str, ...] = ("PNG",)) -> np.ndarray:
    """Decode one image.

    Returns:
        The image, uint8 (C, H, W). Pixels of 1, 2 or 4 bits are scaled to 0 to 255, so black and
        white are 0 and 255.

    Raises:
        InputError: The image has another format, is broken, or has a palette, transparency or
            more than 8 bits per channel.
    """
    import PIL.Image

    if data.startswith(PNG_START):
        png_shape(io.BytesIO(data), where)
    try:
        with PIL.Image.open(io.BytesIO(data), formats=formats) as image:
            image.verify()  # Compares checksums, which decoding ignores; closes the image.
        with PIL.Image.open(io.BytesIO(data), formats=formats) as image:
            image.load()
            mode = image.mode
            pixels = np.array(image)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        named = " or ".join(formats)
        raise InputError(f"{where} cannot be read as {named} ({reason_of(error)})") from error
    if mode not in _CHANNELS:
        raise InputError(f"{where} has Pillow's mode {mode}; {_ALLOWED}")
    if mode == "1":
        pixels = pixels * np.uint8(255)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


_SUFFIX = ".png"


def open_png_folder(folder: Path, field: str) -> ImageSource:
    """The images of a folder's PNG files, in the order of their names.

    Subfolders and hidden files are ignored. The chunks of every file are checked now; pixels are
    decoded when they are read.

    Raises:
        InputError: Pillow is missing; the folder holds no PNG file, or other files; or a file is
            truncated, is not 8-bit grey or RGB, or has another size than the first.
    """
    require_pillow(f"{field}: a folder of PNG files")
    with readable(f"{field}: {folder}"):
        paths = sorted(
            (path for path in folder.iterdir() if not path.name.startswith(".") and _is_file(path)),
            key=lambda path: path.name,
        )
    names: dict[str, Path] = {}
    for path in paths:
        if path.suffix.lower() != _SUFFIX:
            raise InputError(
                f"{field}: {folder} holds {path.name}; only PNG files are read from a folder"
            )
        if path.stem in names:
            raise InputError(
                f"{field}: {folder} holds {names[path.stem].name} and {path.name}; "
                "names must differ in more than the ending"
            )
        names[path.stem] = path
    if not paths:
        raise InputError(f"{field}: {folder} holds no PNG files; at least one is needed")
    shape = _shape(paths[0], field)
    for path in paths[1:]:
        other = _shape(path, field)
        if other != shape:
            raise InputError(
                f"{field}: {folder}: {paths[0].name} is {_described(shape)}, {path.name} is "
                f"{_described(other)}; all images must have one size and one number of channels"
            )
    read = partial(_decoded_batches, folder, tuple(path.name for path in paths), shape, field)
    return ImageSource(shape, len(paths), tuple(names), read)


def _is_file(path: Path) -> bool:
    return not path.is_dir()


def _shape(path: Path, field: str) -> tuple[int, int, int]:
    where = f"{field}: {path}"
    with readable(where), path.open("rb") as file:
        return png_shape(file, where)


def _described(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{width} x {height} {'grey' if channels == 1 else 'RGB'}"


def _decoded_batches(
    folder: Path, names: tuple[str, ...], shape: tuple[int, int, int], field: str, size: int
) -> Iterator[np.ndarray]:
    for start in range(0, len(names), size):
        chosen = names[start : start + size]
        batch_NCHW = np.empty((len(chosen), *shape), np.uint8)
        for index, name in enumerate(chosen):
            where = f"{field}: {folder / name}"
            with readable(where):
                data = (folder / name).read_bytes()
            image_CHW = decode_image(data, where)
            if image_CHW.shape != shape:
                raise InputError(f"{where} has changed while it was read")
            batch_NCHW[index] = image_CHW
        yield batch_NCHW
