"""Compression of images into a file.

Pixels of binary images are coded as 0 and 1, whether they are stored as 0 and 1 or as 0 and 255.
Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import modicum as md
from modicum_algorithms.vae.codec.coder import BitsBackCoder, Chunk, FileSettings
from modicum_algorithms.vae.codec.container import CHUNK_PIXELS_LIMIT, ContainerWriter, FileError
from modicum_algorithms.vae.codec.file_names import can_be_kept, pack_names
from modicum_algorithms.vae.codec.header import Environment, Header
from modicum_algorithms.vae.codec.stack import CorruptChunk
from modicum_algorithms.vae.config import CoderSettings
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import VAE
from modicum_algorithms.vae.saved_models import model_hash, pack_model

# The start of a chunk costs some hundred bits, and memory grows with its pixels.
_CHUNK_IMAGES, _CHUNK_PIXELS = 16384, 2**24


@dataclass(frozen=True)
class CompressionReport:
    """Results of a compression.

    Attributes:
        images: Number of images.
        dimensions: Numbers in an image: C × H × W.
        bytes: Length of the whole file.
        start_bits: Bits that the first latents of the chunks took from the fixed start of the
            stack; part of the file.
        seconds: Time, reading the images and verification included.
        embedded: True if the model is in the file.
    """

    images: int
    dimensions: int
    bytes: int
    start_bits: float
    seconds: float
    embedded: bool

    @property
    def bits_per_dimension(self) -> float:
        """Bits of the whole file for each channel of each pixel."""
        return 8 * self.bytes / (self.images * self.dimensions)

    @property
    def images_per_second(self) -> float:
        """Images compressed per second."""
        return self.images / self.seconds


def default_chunk_images(spec: ModelSpec) -> int:
    """Images in a chunk, few enough that some chunks fit in memory for images of any size."""
    return max(1, min(_CHUNK_IMAGES, _CHUNK_PIXELS // spec.dimensions))


def compress_images(
    source: md.data.ImageSource,
    model: VAE,
    out: Path,
    *,
    settings: CoderSettings,
    chunk_images: int | None = None,
    embed_model: bool = False,
    verify: bool = False,
    overwrite: bool = False,
) -> CompressionReport:
    """Write a file that decodes to exactly these images; memory holds one chunk of them.

    Args:
        source: The images; with pixels 0 and 1, or 0 and 255, for a Bernoulli model.
        model: A trained model.
        out: File to write, atomically.
        settings: Settings of the coder.
        chunk_images: Images in a chunk; None for `default_chunk_images`.
        embed_model: Puts the model into the file.
        verify: Decodes each chunk as soon as it is coded. Pinned mode always does.
        overwrite: Replaces `out` if it exists.

    Raises:
        InputError: Images and model do not fit, or the file cannot be written.
        FileError: A chunk did not decode to its images. No file is written.
    """
    started = time.perf_counter()
    spec = model.spec
    chunk_images = chunk_images or default_chunk_images(spec)
    _check(source, spec, chunk_images)
    agreed = FileSettings.here(settings)
    coder = BitsBackCoder(model, agreed)
    header = Header(
        settings=dataclasses.asdict(agreed),
        shape=spec.shape,
        levels=2 if spec.levels == 2 else 256,
        chunk_images=chunk_images,
        source="array" if source.names is None else "png",
        names=None if source.names is None else pack_names(source.names),
        embedded=embed_model,
        environment=Environment.here() if agreed.mode == "pinned" else None,
    )
    binary = BinaryPixels(source.names) if spec.levels == 2 else None
    start_bits = 0.0
    with md.whole_file(out, "--out", overwrite) as file:
        embedded = pack_model(model) if embed_model else None
        writer = ContainerWriter(file, header, model_hash(model), embedded)
        for number, batch_NCHW in enumerate(source.batches(chunk_images)):
            pixels_NCHW = batch_NCHW if binary is None else binary.read(batch_NCHW)
            chunk = coder.encode(pixels_NCHW)
            if verify or settings.mode == "pinned":
                _verify(coder, chunk, pixels_NCHW, out, number)
            writer.add(chunk.words, pixels_NCHW)
            start_bits += chunk.start_bits
        size = writer.finish(1 if binary is None else binary.one or 1)
    return CompressionReport(
        images=writer.images,
        dimensions=spec.dimensions,
        bytes=size,
        start_bits=start_bits,
        seconds=time.perf_counter() - started,
        embedded=embed_model,
    )


class BinaryPixels:
    """Reads images with pixels 0 and 1, or 0 and 255, piece by piece.

    Attributes:
        one: Pixel value that stands for 1; None until a pixel has it.
    """

    def __init__(self, names: tuple[str, ...] | None) -> None:
        """Start before the first image; `names` of all images, if they have any, are for errors."""
        self.one: int | None = None
        self._names = names
        self._seen = 0

    def read(self, images_NCHW: np.ndarray) -> np.ndarray:
        """The next images, with pixels 0 and 1.

        Raises:
            InputError: A pixel is neither 0 nor the value that stands for 1; the error names the
                first image with such a pixel.
        """
        set_NCHW = images_NCHW != 0
        if self.one is None and set_NCHW.any():
            first = int(images_NCHW.flat[int(set_NCHW.argmax())])
            self.one = first if first in (1, 255) else None
        wrong_NCHW = set_NCHW if self.one is None else set_NCHW & (images_NCHW != self.one)
        if wrong_NCHW.any():
            place = int(wrong_NCHW.argmax())
            raise self._error(place // wrong_NCHW[0].size, int(images_NCHW.flat[place]))
        self._seen += len(images_NCHW)
        return set_NCHW.view(np.uint8)

    def _error(self, place: int, value: int) -> md.InputError:
        number = self._seen + place
        name = f"image {number}" if self._names is None else f"image {self._names[number]!r}"
        earlier = "" if self.one is None else f" beside {self.one}"
        return md.InputError(
            f"images: {name} has a pixel of value {value}{earlier}; a Bernoulli model codes images "
            "whose pixels are all 0 and 1, or all 0 and 255"
        )


def _check(source: md.data.ImageSource, spec: ModelSpec, chunk_images: int) -> None:
    if source.shape != spec.shape:
        raise md.InputError(
            f"images: must have the model's shape {spec.shape} (channels, height, width), got "
            f"{source.shape}"
        )
    if source.count < 1:
        raise md.InputError("images: must be at least one")
    for name in source.names or ():
        if not can_be_kept(name):
            raise md.InputError(
                f"images: the name {name!r} cannot be kept; names must be valid text without "
                "slashes and backslashes"
            )
    limit = CHUNK_PIXELS_LIMIT // spec.dimensions
    if not 1 <= chunk_images <= limit:
        raise md.InputError(
            f"--chunk-images: for images of this size it must be 1 to {limit}, got {chunk_images}"
        )


def _verify(
    coder: BitsBackCoder, chunk: Chunk, pixels_NCHW: np.ndarray, out: Path, number: int
) -> None:
    try:
        same = np.array_equal(coder.decode(chunk.words, chunk.count), pixels_NCHW)
    except CorruptChunk:
        same = False
    if not same:
        raise FileError(
            out,
            f"chunk {number}: does not decode to the images that it was made from, so nothing was "
            "written; --mode portable does not depend on floating-point results",
        )
