"""Opening images in any supported format."""

from __future__ import annotations

from pathlib import Path

from modicum.data.images.idx import GZIP_START, IDX_START, open_idx
from modicum.data.images.numpy_files import NPY_START, NPZ_STARTS, open_npy, open_npz
from modicum.data.images.png_folder import open_png_folder
from modicum.data.images.source import ImageSource
from modicum.data.images.streams import readable
from modicum.errors import InputError


def open_images(path: str | Path, field: str = "images") -> ImageSource:
    """Open images that are read in batches. The format is recognised by content, not by name.

    Args:
        path: A folder of PNG files (without its subfolders); a `.npy` file; a `.npz` file with one
            array or an array `images`; or an idx file (MNIST's format), with or without gzip.
            Arrays are uint8 or bool (which becomes 0 and 1), of shape (N, H, W), (N, H, W, C) or
            (N, C, H, W) with 1 or 3 channels. PNG files are grey or RGB with at most 8 bits per
            channel; fewer bits are scaled to 0 to 255, so black and white are 0 and 255.
        field: Setting to name in an error.

    Raises:
        InputError: The path does not exist, has another format, holds no image, or breaks a rule
            of its format. Errors that only decoding can find are raised by `batches`.
    """
    place = Path(path).expanduser().absolute()
    where = f"{field}: {place}"
    if place.is_dir():
        return open_png_folder(place, field)
    if not place.is_file():
        raise InputError(f"{field}: no file or folder at {str(path)!r}")
    with readable(where), place.open("rb") as file:
        start = file.read(8)
    if start.startswith(NPY_START):
        return open_npy(place, field)
    if start.startswith(NPZ_STARTS):
        return open_npz(place, field)
    if start.startswith((GZIP_START, IDX_START)):
        return open_idx(place, field)
    raise InputError(
        f"{where} is none of: a folder of PNG files, a .npy file, a .npz file, an idx file"
    )
