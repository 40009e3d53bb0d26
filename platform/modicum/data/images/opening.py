"""Opening images, whatever they are kept in."""

from __future__ import annotations

from pathlib import Path

from modicum.data.images.idx import GZIP_START, IDX_START, open_idx
from modicum.data.images.numpy_files import NPY_START, NPZ_STARTS, open_npy, open_npz
from modicum.data.images.png_folder import open_png_folder
from modicum.data.images.source import ImageSource
from modicum.data.images.streams import readable
from modicum.errors import InputError


def open_images(path: str | Path, field: str = "images") -> ImageSource:
    """Images to be read a few at a time; what a file is shows from its content, not its name.

    Args:
        path: A folder of PNG files (not searched deeper); a `.npy` file; a `.npz` file with one
            array or one named `images`; or an idx file (MNIST's format), packed by gzip or not.
            Arrays are uint8 or bool (which becomes 0 and 1), of shape (N, H, W), (N, H, W, C) or
            (N, C, H, W) with 1 or 3 channels. PNG files are grey or RGB of at most 8 bits;
            fewer are spread over 0 to 255, so black and white are 0 and 255.
        field: Setting to name in an error.

    Raises:
        InputError: It does not exist, is none of these, holds no image, or breaks a rule of
            its format. What only shows when pixels are decoded is raised by `batches`.
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
