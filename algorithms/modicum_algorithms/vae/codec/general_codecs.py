"""Code lengths of general codecs, for comparison: PNG, WebP, zstd and xz."""

from __future__ import annotations

import io
import lzma

import numpy as np
import PIL
import pyarrow as pa
from PIL import Image

import modicum as md

_VERSION = 1  # Part of the cache's key: change it when the same images would give other sizes.


def general_codecs(images_NCHW: np.ndarray, levels: int) -> dict[str, float]:
    """Bits per dimension of lossless codecs on images, by the codec's name.

    PNG and WebP code each image as a file (`png`, `webp`), whose headers weigh much on small
    images, and all images as one tall picture (`png_all`, `webp_all`; WebP in pieces, because its
    pictures have at most 16,383 rows). `zstd` and `xz` code the pixels of all images at their
    highest levels. Binary images have one bit per pixel in PNG; for zstd and xz the shorter of one
    bit and one byte per pixel counts.

    Many images take minutes, so results are kept in the data cache: methods of inference are
    compared on the same images.

    Args:
        images_NCHW: Images, uint8.
        levels: Number of values that a pixel can have.
    """
    versions = f"{PIL.__version__}-{pa.__version__}"
    digest = md.data.digest_arrays({"images": images_NCHW})
    key = f"codecs-{_VERSION}-{versions}-{levels}-{digest}"
    sizes = md.data.cached_arrays(key, lambda: _sizes(images_NCHW, levels))
    return {name: 8 * int(size) / images_NCHW.size for name, size in sizes.items()}


def _sizes(images_NCHW: np.ndarray, levels: int) -> dict[str, np.ndarray]:
    """Bytes that each codec takes, by name."""
    raw = [images_NCHW.tobytes()]
    if levels == 2:
        raw.append(np.packbits(images_NCHW).tobytes())
    tall = np.concatenate(list(images_NCHW), axis=1)
    pieces = [tall[:, start : start + 16_000] for start in range(0, tall.shape[1], 16_000)]
    sizes = {
        "png": sum(_picture_bytes(image, levels, "PNG") for image in images_NCHW),
        "png_all": _picture_bytes(tall, levels, "PNG"),
        "webp": sum(_picture_bytes(image, levels, "WEBP") for image in images_NCHW),
        "webp_all": sum(_picture_bytes(piece, levels, "WEBP") for piece in pieces),
        "zstd": min(len(pa.Codec("zstd", 22).compress(data, asbytes=True)) for data in raw),
        "xz": min(len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) for data in raw),
    }
    return {name: np.array(size) for name, size in sizes.items()}


def _picture_bytes(image_CHW: np.ndarray, levels: int, kind: str) -> int:
    scaled = image_CHW * np.uint8(255) if levels == 2 else image_CHW
    pixels = scaled[0] if len(scaled) == 1 else np.moveaxis(scaled, 0, 2)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    file = io.BytesIO()
    if kind == "PNG":
        (picture.convert("1") if levels == 2 else picture).save(file, "PNG", optimize=True)
    else:
        picture.convert("RGB").save(file, "WEBP", lossless=True, quality=100, method=6)
    return file.tell()
