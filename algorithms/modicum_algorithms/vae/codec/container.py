"""The format of compressed files: a header, chunks, a table of the chunks and an end record.

Numbers are little endian. Sizes are in bytes.

File header
    4   magic, 8F 4D 42 42 ("MBB" after a byte that is not text)
    2   format version, 1
    4   length of the packed header
    4   CRC-32 of the 32 bytes of the hash and of the packed header
    32  SHA-256 of the model (`saved_models.model_hash`)
    ..  packed header (`header.pack_header`)

Embedded model, if the header has `embedded`
    4   length of the specification
    8   length of the weights
    4   CRC-32 of both
    ..  specification, JSON
    ..  weights, safetensors

Chunks, each of which can be decoded on its own
    4   number of images
    4   number of words
    4   CRC-32 of the words
    4   CRC-32 of the pixels: one byte each, images after images, channels, rows, columns
    4n  words of the entropy coder's stack

Table of the chunks
    8   offset of each chunk from the file's start

End record
    8   number of images
    1   pixel value that a model of two levels codes as 1 (1 or 255), else 1
    32  SHA-256 of all pixels as they were coded
    8   offset of the table
    4   CRC-32 of the file header, the 16 bytes before an embedded model and before every chunk's
        words, the table, and the end record so far
    4   end magic, 42 42 4D 8F

Every byte is checked by a checksum before anything is decoded. Chunks that change places or come
from another file break the last checksum. The file ends where the end record ends.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

import modicum as md
from modicum_algorithms.vae.codec.header import Header, pack_header, unpack_header

VERSION = 1
MAGIC, END_MAGIC = b"\x8fMBB", b"BBM\x8f"

_START = struct.Struct("<4sHII32s")
_MODEL = struct.Struct("<IQI")
_CHUNK = struct.Struct("<IIII")
_OFFSET = struct.Struct("<Q")
_END = struct.Struct("<QB32sQ")
_END_CHECK = struct.Struct("<I4s")
_END_SIZE = _END.size + _END_CHECK.size

# Largest chunk in pixels, a limit of what a file can make its reader allocate.
CHUNK_PIXELS_LIMIT = 2**30


class FileError(md.InputError):
    """A compressed file that cannot be decoded to the images that were compressed."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class ContainerWriter:
    """Writes a file chunk by chunk, with one chunk in memory."""

    def __init__(
        self,
        file: IO[bytes],
        header: Header,
        model_hash: bytes,
        embedded: tuple[bytes, bytes] | None,
    ) -> None:
        """Write the file header, and the model's specification and weights if it is embedded."""
        self._file = file
        self._position = self._check = self.images = 0
        self._offsets: list[int] = []
        self._pixels = hashlib.sha256()
        packed = pack_header(header)
        crc = zlib.crc32(packed, zlib.crc32(model_hash))
        start = _START.pack(MAGIC, VERSION, len(packed), crc, model_hash)
        self._write_checked(start + packed)
        if embedded is not None:
            spec, weights = embedded
            crc = zlib.crc32(weights, zlib.crc32(spec))
            self._write_checked(_MODEL.pack(len(spec), len(weights), crc))
            self._write(spec)
            self._write(weights)

    def add(self, words: np.ndarray, images_NCHW: np.ndarray) -> None:
        """Append a chunk: words of the entropy coder, and the pixels to which they decode."""
        content = np.ascontiguousarray(words, "<u4").data
        pixels = np.ascontiguousarray(images_NCHW, np.uint8).data
        self._pixels.update(pixels)
        self._offsets.append(self._position)
        self.images += len(images_NCHW)
        crcs = zlib.crc32(content), zlib.crc32(pixels)
        self._write_checked(_CHUNK.pack(len(images_NCHW), len(words), *crcs))
        self._write(content)

    def finish(self, one: int) -> int:
        """Write the table and the end record; returns the length of the file in bytes."""
        table = self._position
        self._write_checked(b"".join(map(_OFFSET.pack, self._offsets)))
        self._write_checked(_END.pack(self.images, one, self._pixels.digest(), table))
        self._write(_END_CHECK.pack(self._check, END_MAGIC))
        return self._position

    def _write_checked(self, data: bytes) -> None:
        self._check = zlib.crc32(data, self._check)
        self._write(data)

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._position += memoryview(data).nbytes


@dataclass(frozen=True)
class StoredChunk:
    """A chunk of `count` images, numbered from 0, whose words have passed their checksum."""

    number: int
    count: int
    words: np.ndarray
    pixels_crc: int


class ContainerReader:
    """Reads a file chunk by chunk, after its structure and checksums have been checked.

    Attributes:
        model_hash: SHA-256 of the model that decoding needs.
        embedded: Specification (JSON) and weights (safetensors) of the embedded model, or None.
        images: Number of images.
        one: Pixel value that a model of two levels codes as 1.
        pixels_digest: SHA-256 of all pixels.
        size: Length of the file in bytes.
    """

    embedded: tuple[bytes, bytes] | None = None

    def __init__(self, path: Path) -> None:
        """Open a file and check everything that can be checked without decoding.

        Raises:
            FileError: The file has another format, or is broken.
            InputError: The file cannot be read.
        """
        self.path = path
        self._check = 0
        with self._readable():
            self._file = path.open("rb")
            self.size = os.fstat(self._file.fileno()).st_size
        try:
            self._read_start()
            self._read_chunk_heads(*self._read_end())
            # The checksum of the end record has covered the lengths; here follow the words.
            for _ in self.chunks():
                pass
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ContainerReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def chunks(self) -> Iterator[StoredChunk]:
        """The chunks in order.

        Raises:
            FileError: The words of a chunk are not those that were written.
        """
        for number, (offset, head) in enumerate(zip(self._offsets, self._heads, strict=True)):
            count, length, words_crc, pixels_crc = head
            content = self._read(offset + _CHUNK.size, 4 * length)
            if zlib.crc32(content) != words_crc:
                raise self.error(f"chunk {number}: checksum of the words does not fit")
            yield StoredChunk(number, count, np.frombuffer(content, "<u4"), pixels_crc)

    def error(self, problem: str) -> FileError:
        """An error that names the file."""
        return FileError(self.path, problem)

    def _read_start(self) -> None:
        head = self._read(0, min(_START.size, self.size))
        if not head or not head.startswith(MAGIC[: len(head)]):
            raise self.error("is not a file of modicum compress")
        if len(head) >= 6:
            version = int.from_bytes(head[4:6], "little")
            if version != VERSION:
                raise self.error(
                    f"was written by format version {version}, this program reads {VERSION}"
                )
        if self.size < _START.size + _END_SIZE:
            raise self.error("truncated")
        _, _, length, crc, self.model_hash = _START.unpack(head)
        packed = self._read(_START.size, length)
        if zlib.crc32(packed, zlib.crc32(self.model_hash)) != crc:
            raise self.error("checksum of the header does not fit")
        self._check = zlib.crc32(head + packed)
        self._chunks_start = _START.size + length
        try:
            self.header = unpack_header(packed)
        except (zlib.error, ValueError) as error:
            raise self.error("its header cannot be understood") from error
        if self.header.chunk_images * self.header.dimensions > CHUNK_PIXELS_LIMIT:
            raise self.error("its header announces chunks that are too large")
        if self.header.embedded:
            self._read_model()

    def _read_model(self) -> None:
        head = self._read(self._chunks_start, _MODEL.size)
        spec_length, weights_length, crc = _MODEL.unpack(head)
        start = self._chunks_start + _MODEL.size
        spec = self._read(start, spec_length)
        weights = self._read(start + spec_length, weights_length)
        if zlib.crc32(weights, zlib.crc32(spec)) != crc:
            raise self.error("checksum of the model does not fit")
        self.embedded = spec, weights
        self._check = zlib.crc32(head, self._check)
        self._chunks_start = start + spec_length + weights_length

    def _read_end(self) -> tuple[int, bytes, bytes]:
        """Offset of the table, the table, and the part of the end record under the checksum."""
        end = self._read(self.size - _END_SIZE, _END_SIZE)
        self._expected_check, magic = _END_CHECK.unpack(end[_END.size :])
        if magic != END_MAGIC:
            raise self.error("truncated, or with something after its end")
        self.images, self.one, self.pixels_digest, table = _END.unpack(end[: _END.size])
        length = self.size - _END_SIZE - table
        if table < self._chunks_start or length <= 0 or length % _OFFSET.size:
            raise self.error("its table of chunks is not where its end record says")
        return table, self._read(table, length), end[: _END.size]

    def _read_chunk_heads(self, table_start: int, table: bytes, end: bytes) -> None:
        self._offsets = [offset for (offset,) in _OFFSET.iter_unpack(table)]
        self._heads: list[tuple[int, int, int, int]] = []
        position = self._chunks_start
        for number, offset in enumerate(self._offsets):
            if offset != position:
                raise self.error(f"chunk {number} is not where its table says")
            head = self._read(offset, _CHUNK.size)
            self._check = zlib.crc32(head, self._check)
            self._heads.append(_CHUNK.unpack(head))
            count, length, _, _ = self._heads[-1]
            position = offset + _CHUNK.size + 4 * length
            if not 1 <= count <= self.header.chunk_images or position > table_start:
                raise self.error(f"chunk {number} has an impossible length")
        if position != table_start:
            raise self.error("its table of chunks leaves some of it out")
        if zlib.crc32(table + end, self._check) != self._expected_check:
            raise self.error("checksum of its table of chunks does not fit")
        if self.images != sum(head[0] for head in self._heads) or self.one not in (1, 255):
            raise self.error("its end record contradicts its chunks")

    def _read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, allocated only if the file has them."""
        if offset + length > self.size:
            raise self.error("truncated")
        with self._readable():
            self._file.seek(offset)
            data = self._file.read(length)
        if len(data) != length:
            raise self.error("truncated")
        return data

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn an OSError into an error that names the file."""
        try:
            yield
        except OSError as error:
            raise md.InputError(f"{self.path}: cannot be read ({error.strerror})") from error
