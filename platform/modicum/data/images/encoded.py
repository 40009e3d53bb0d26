"""Encoded images: decoding with Pillow, folders of PNG files, and parquet files of Hugging Face.

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
from typing import IO, Any

import numpy as np

from modicum.data.images.source import (
    ImageSource,
    ImageSplits,
    checked_splits,
    read_exactly,
    readable,
)
from modicum.errors import InputError, reason_of

PNG_START = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2  # Colour types of PNG.
_REFUSED = {3: "a palette", 4: "an alpha channel", 6: "an alpha channel"}
_CHANNELS = {"1": 1, "L": 1, "RGB": 3}  # By Pillow's mode.
_ALLOWED = "allowed: grey or RGB, at most 8 bits a channel, without transparency"
_SUFFIX = ".png"
TRAIN_PATTERN = "train*.parquet"
TEST_PATTERN = "test*.parquet"
_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMN = "label"
_FORMATS = ("PNG", "JPEG")
_ROWS = 1000  # Number of rows to decode at once.


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
    """Decode one image, uint8 (C, H, W).

    Pixels of 1, 2 or 4 bits are scaled to 0 to 255, so black and white are 0 and 255.

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
            (path for path in folder.iterdir() if not (path.name.startswith(".") or path.is_dir())),
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


def parquet_split_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files for training and the files for test, each in the order of their names.

    Raises:
        InputError: A split has no files.
    """
    found = []
    for pattern in (TRAIN_PATTERN, TEST_PATTERN):
        files = sorted(folder.glob(pattern), key=lambda path: path.name)
        if not files:
            raise InputError(f"dataset: {folder} has no {pattern}")
        found.append(files)
    return found[0], found[1]


def read_image_parquet(folder: Path) -> ImageSplits:
    """Read a folder of `train*.parquet` and `test*.parquet`.

    A column `img` or `image` holds structs of `bytes` (a PNG or JPEG file) and `path`, which is
    ignored. An optional column `label` holds integers.

    Raises:
        InputError: Pillow is missing, a file is missing or broken, a column is missing or has
            another type, or the images differ in size or channels.
    """
    require_pillow(f"dataset: {folder}: decoding images")
    train_files, test_files = parquet_split_files(folder)
    train, train_labels = _read_split(train_files)
    test, test_labels = _read_split(test_files)
    return checked_splits(train, test, train_labels, test_labels, where=str(folder))


def _read_split(paths: list[Path]) -> tuple[np.ndarray, np.ndarray | None]:
    parts = [_read_file(path) for path in paths]
    images = [part for part, _ in parts if len(part)] or [parts[0][0]]
    labels = [part for _, part in parts if part is not None]
    shapes = sorted({part.shape[1:] for part in images})
    names = ", ".join(path.name for path in paths)
    if len(shapes) > 1:
        raise InputError(
            f"dataset: images in {names} have the shapes {' and '.join(map(str, shapes))} "
            "(channels, height, width); they must be the same"
        )
    if labels and len(labels) < len(paths):
        raise InputError(f"dataset: only some of {names} have the column {_LABEL_COLUMN}")
    return np.concatenate(images), np.concatenate(labels) if labels else None


def _read_file(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    import pyarrow as pa
    import pyarrow.parquet

    where = f"dataset: {path}"
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            image_column, has_labels = _columns(file.schema_arrow, where)
            columns = [image_column, *([_LABEL_COLUMN] if has_labels else [])]
            images_NCHW: np.ndarray | None = None
            labels: list[int | None] = []
            start = 0
            for batch in file.iter_batches(_ROWS, columns=columns):
                for row, value in enumerate(batch.column(image_column).to_pylist(), start):
                    image_CHW = _decode(value, f"{where}, row {row}")
                    if images_NCHW is None:
                        shape = (file.metadata.num_rows, *image_CHW.shape)
                        images_NCHW = np.empty(shape, np.uint8)
                    if image_CHW.shape != images_NCHW.shape[1:]:
                        raise InputError(
                            f"{where}, row {row}: the image has the shape {image_CHW.shape} "
                            f"(channels, height, width), row 0 {images_NCHW.shape[1:]}; "
                            "they must be the same"
                        )
                    images_NCHW[row] = image_CHW
                if has_labels:
                    labels += batch.column(_LABEL_COLUMN).to_pylist()
                start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{where} is not readable parquet ({reason_of(error)})") from error
    if None in labels:
        raise InputError(f"{where}, row {labels.index(None)}: {_LABEL_COLUMN} is missing")
    images = np.empty((0, 1, 1, 1), np.uint8) if images_NCHW is None else images_NCHW
    return images, np.array(labels, np.int64) if has_labels else None


def _columns(schema: Any, where: str) -> tuple[str, bool]:
    """The name of the image column, and whether there are labels."""
    import pyarrow as pa

    found = [name for name in _IMAGE_COLUMNS if name in schema.names]
    if len(found) != 1:
        raise InputError(
            f"{where} has the columns {', '.join(schema.names)}; "
            f"one of {' and '.join(_IMAGE_COLUMNS)} is needed"
        )
    kind = schema.field(found[0]).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise InputError(f"{where}: {found[0]} is {kind}; a struct of bytes and path is needed")
    has_labels = _LABEL_COLUMN in schema.names
    if has_labels and not pa.types.is_integer(schema.field(_LABEL_COLUMN).type):
        raise InputError(
            f"{where}: {_LABEL_COLUMN} is {schema.field(_LABEL_COLUMN).type}; "
            "whole numbers are needed"
        )
    return found[0], has_labels


def _decode(value: dict[str, Any] | None, where: str) -> np.ndarray:
    data = None if value is None else value["bytes"]
    if not isinstance(data, bytes):
        raise InputError(f"{where}: the image has no bytes; images kept elsewhere are not read")
    return decode_image(data, f"{where}: the image", _FORMATS)
