"""A folder of PNG files.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from modicum.data.images.decoding import decode_image, png_shape, require_pillow
from modicum.data.images.source import ImageSource
from modicum.data.images.streams import readable
from modicum.errors import InputError

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
