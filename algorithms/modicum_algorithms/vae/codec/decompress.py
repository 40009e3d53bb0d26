"""Decompression of a file into images.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

import modicum as md
from modicum_algorithms.vae.codec.coder import BitsBackCoder, FileSettings
from modicum_algorithms.vae.codec.container import ContainerReader, StoredChunk
from modicum_algorithms.vae.codec.file_names import unpack_names
from modicum_algorithms.vae.codec.header import Environment
from modicum_algorithms.vae.codec.stack import CorruptChunk
from modicum_algorithms.vae.networks import VAE
from modicum_algorithms.vae.saved_models import model_hash, unpack_model

ImageFormat = Literal["png", "npy"]


@dataclass(frozen=True)
class DecompressionReport:
    """Results of a decompression.

    Attributes:
        images: Number of images.
        format: Format in which the images were written.
        bytes: Length of the compressed file.
        seconds: Time, writing the images included.
    """

    images: int
    format: ImageFormat
    bytes: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images decompressed per second."""
        return self.images / self.seconds


def decompress_file(
    file: Path,
    out: Path,
    model: VAE | None = None,
    *,
    image_format: ImageFormat | None = None,
) -> DecompressionReport:
    """Restore exactly the images of a file, or nothing; memory holds one chunk of them.

    A file of pinned mode that another kind of CPU or version of torch has written is decoded with a
    warning; its checksums detect results that differ.

    Args:
        file: A file written by `compress_images`.
        out: Folder to write atomically, which must not exist or be empty. It gets PNG files with
            their names if the images were PNG files, else `images.npy`, (N, H, W) for one channel
            and (N, H, W, C) for more.
        model: The model that compressed the file; None if the file has it embedded.
        image_format: Format of the images; None for the format that was compressed.

    Raises:
        FileError: The file is broken, or does not decode to its images here.
        InputError: The folder cannot be written.
    """
    started = time.perf_counter()
    with ContainerReader(file) as reader:
        header = reader.header
        chosen: ImageFormat = image_format or ("png" if header.source == "png" else "npy")
        if chosen == "png" and header.shape[0] not in (1, 3):
            raise md.InputError(
                f"--format: PNG files have 1 or 3 channels, these images have {header.shape[0]}; "
                "use npy"
            )
        names = _names(reader)
        coder = _coder(reader, _model(reader, model))
        _warn_of_differences(file, header.environment)
        with md.whole_folder(out, "--out") as folder:
            chunks = _decoded(reader, coder)
            if chosen == "png":
                _write_png_files(folder, names, chunks)
            else:
                _write_npy_file(folder / "images.npy", reader.images, header.shape, chunks)
        return DecompressionReport(
            reader.images, chosen, reader.size, time.perf_counter() - started
        )


def _write_png_files(folder: Path, names: Iterator[str], chunks: Iterator[np.ndarray]) -> None:
    """Write a PNG file for each image of one channel (grey) or three (RGB)."""
    from PIL import Image

    for images_NCHW in chunks:
        for image_CHW, name in zip(images_NCHW, names, strict=False):
            pixels = image_CHW[0] if len(image_CHW) == 1 else np.moveaxis(image_CHW, 0, -1)
            with (folder / f"{name}.png").open("xb") as file:
                Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")


def _write_npy_file(
    path: Path, count: int, shape: tuple[int, int, int], chunks: Iterator[np.ndarray]
) -> None:
    """Write one array: (N, H, W) for images of one channel, (N, H, W, C) for more."""
    channels, height, width = shape
    grey = channels == 1
    array_shape = (count, height, width) if grey else (count, height, width, channels)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": array_shape}
        )
        for images_NCHW in chunks:
            pixels = images_NCHW if grey else np.moveaxis(images_NCHW, 1, -1)
            file.write(np.ascontiguousarray(pixels).data)


def _decoded(reader: ContainerReader, coder: BitsBackCoder) -> Iterator[np.ndarray]:
    """The images (N, C, H, W) of each chunk, checked one by one, and at the end all together."""
    digest = hashlib.sha256()
    for chunk in reader.chunks():
        pixels_NCHW = _decode_chunk(reader, coder, chunk)
        digest.update(pixels_NCHW.data)
        yield pixels_NCHW * np.uint8(reader.one)
    if digest.digest() != reader.pixels_digest:
        raise reader.error("checksum of all pixels does not fit")


def _decode_chunk(reader: ContainerReader, coder: BitsBackCoder, chunk: StoredChunk) -> np.ndarray:
    try:
        pixels_NCHW = np.ascontiguousarray(coder.decode(chunk.words, chunk.count))
    except CorruptChunk as error:
        raise reader.error(_mismatch(reader, chunk, str(error))) from error
    if zlib.crc32(pixels_NCHW.data) != chunk.pixels_crc:
        raise reader.error(_mismatch(reader, chunk, "checksum of the pixels does not fit"))
    return pixels_NCHW


def _mismatch(reader: ContainerReader, chunk: StoredChunk, problem: str) -> str:
    there = reader.header.environment
    text = f"chunk {chunk.number}: {problem}"
    if there is not None:
        text += f"; it was written in pinned mode with {there}, this is {Environment.here()}"
    return text


def _warn_of_differences(file: Path, there: Environment | None) -> None:
    if there is not None and there != (here := Environment.here()):
        warnings.warn(
            f"{file} was written in pinned mode with {there}, this is {here}; if floating-point "
            "results differ, it is refused",
            stacklevel=3,
        )


def _names(reader: ContainerReader) -> Iterator[str]:
    """Names of the files to write: those in the header, or numbers."""
    if reader.header.names is None:
        width = max(5, len(str(reader.images - 1)))
        return (f"{number:0{width}d}" for number in range(reader.images))
    try:
        return unpack_names(reader.header.names, reader.images)
    except ValueError as error:
        raise reader.error(f"its header cannot be understood ({error})") from error


def _coder(reader: ContainerReader, model: VAE) -> BitsBackCoder:
    try:
        settings = TypeAdapter(FileSettings).validate_python(reader.header.settings)
    except ValidationError as error:
        raise reader.error("its settings are unknown to this program") from error
    if dataclasses.asdict(settings) != reader.header.settings:
        raise reader.error("its settings are unknown to this program")
    try:
        return BitsBackCoder(model, settings)
    except md.InputError as error:
        raise reader.error(f"its settings do not fit this program ({error})") from error


def _model(reader: ContainerReader, given: VAE | None) -> VAE:
    """The model that the file needs."""
    if given is not None:
        model, where = given, "--model"
    elif reader.embedded is not None:
        try:
            model, where = unpack_model(*reader.embedded), "the one in it"
        except ValueError as error:
            raise reader.error(f"its model cannot be understood ({error})") from error
    else:
        raise reader.error(
            f"needs the model with hash {_short(reader.model_hash)}; name it with --model"
        )
    found = model_hash(model)
    if found != reader.model_hash:
        raise reader.error(
            f"needs the model with hash {_short(reader.model_hash)}, {where} has {_short(found)}"
        )
    if (model.spec.shape, model.spec.levels) != (reader.header.shape, reader.header.levels):
        raise reader.error("its header contradicts its model")
    return model


def _short(digest: bytes) -> str:
    return f"{digest.hex()[:12]}…"
