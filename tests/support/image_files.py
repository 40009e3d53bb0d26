"""Image files in tests: their bytes by the specifications, and reading all of a source."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

import modicum as md


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(array, dimensions=None):
    dimensions = dimensions or array.shape
    head = struct.pack(f">I{len(dimensions)}I", 0x800 + len(dimensions), *dimensions)
    return head + array.astype(np.uint8).tobytes()


def whole(source, size=3):
    """All images, having checked what is promised of batches."""
    batches = list(source.batches(size))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= size
    for batch in batches:
        assert batch.dtype == np.uint8
        assert type(batch) is np.ndarray
        assert batch.flags.c_contiguous
        assert batch.flags.writeable
        assert batch.shape[1:] == source.shape
    images = np.concatenate(batches)
    assert len(images) == source.count
    return images


def write_pngs(folder, images, mode=None):
    """Save (N, H, W) or (N, H, W, 3) as 00.png, 01.png, ..."""
    folder.mkdir()
    for number, image in enumerate(images):
        picture = Image.fromarray(image)
        (picture if mode is None else picture.convert(mode)).save(folder / f"{number:02}.png")
    return folder


def exhaust(path):
    return list(md.data.open_images(path).batches(2))


def read_or_message(path):
    """All images, or what the error says."""
    try:
        return np.concatenate(exhaust(path))
    except md.InputError as error:
        return str(error)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, width, height, bits, colour, extra=b""):
    """A PNG file from packed rows, written by the specification."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    packed = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + packed + chunk(b"IEND", b"")


def saved(image, form="PNG"):
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()
