"""What codecs that know nothing of the images need for them."""

from __future__ import annotations

import io
import lzma

import numpy as np
import PIL
import pyarrow as pa
from PIL import Image

import modicum as md

_VERSION = 1  # part of the cache's key: more when the same images would give other sizes


def general_codecs(images_NCHW: np.ndarray, levels: int) -> dict[str, float]:
    """Bits per dimension of lossless codecs on images.

    PNG and WebP once as a file for each image, whose headers weigh much on small images, and once
    with all images in one tall picture (`_all`; WebP in pieces, for it has at most 16,383 rows);
    zstd and xz at their highest levels over the pixels of all images. Binary images are stored with
    one bit a pixel in PNG and in the input of zstd and xz, whichever of bits and bytes is shorter.

    They take minutes where there are many images, so they are kept in the cache: every method of
    inference is compared on the same images.

    Args:
        images_NCHW: uint8.
        levels: Values that a pixel can have.
    """
    versions = f"{PIL.__version__}-{pa.__version__}"
    digest = md.data.digest_arrays({"images": images_NCHW})
    key = f"codecs-{_VERSION}-{versions}-{levels}-{digest}"
    sizes = md.data.cached_arrays(key, lambda: _sizes(images_NCHW, levels))
    return {name: 8 * int(size) / images_NCHW.size for name, size in sizes.items()}


def _sizes(images_NCHW: np.ndarray, levels: int) -> dict[str, np.ndarray]:
    """Bytes of each codec."""
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
