"""The header of a compressed file: a description of its images, packed as compressed JSON."""

from __future__ import annotations

import platform
import zlib
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import modicum as md
from modicum_algorithms.vae.codec.file_names import PackedNames

# Largest unpacked header (with the names of about a million files), a limit of what a file can make
# its reader allocate.
_HEADER_LIMIT = 2**26

# Part of the format: text of the header that is also in the dictionary takes hardly any bytes.
_DICTIONARY = (
    b'"environment":{"torch":"2.13.0","machine":"x86_64","instructions":"AVX512"}'
    b'"names":{"runs":[["",0,5,10000,""]],"sorted":false}"embedded":true'
    b'"levels":256,[3,32,32]"mode":"pinned"'
    b'"inference_learning_rate":0.005,"threads":2'
    b'{"settings":{"mode":"portable","inference_steps":0,"inference_learning_rate":0.005,'
    b'"batch_size":512,"threads":null,"version":1},"shape":[1,28,28],"levels":2,'
    b'"chunk_images":16384,"source":"array","names":null,"embedded":false,"environment":null}'
)


class Environment(BaseModel):
    """Version of torch, architecture of the CPU, and the widest instructions that torch uses on it.

    Networks evaluated in floating point (pinned mode) depend on them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    torch: str
    machine: str
    instructions: str

    @classmethod
    def here(cls) -> Environment:
        """The environment of this process."""
        return cls(
            torch=torch.__version__.split("+")[0],
            machine=platform.machine(),
            instructions=torch.backends.cpu.get_cpu_capability(),
        )

    def __str__(self) -> str:
        return f"torch {self.torch} on {self.machine} with {self.instructions}"


class Header(BaseModel):
    """A file's description of its images.

    Attributes:
        settings: Settings of the coder.
        shape: Channels, height and width of an image.
        levels: Number of values that a pixel can have: 2 or 256.
        chunk_images: Images in a chunk, at most.
        source: Source of the images: PNG files of a folder, or an array.
        names: Names of the PNG files; None for an array.
        embedded: True if the model is in the file.
        environment: Environment of the encoder in pinned mode; None in portable mode.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: dict[str, Any]
    shape: tuple[
        Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]
    ]
    levels: Literal[2, 256]
    chunk_images: int = Field(ge=1)
    source: Literal["png", "array"]
    names: PackedNames | None
    embedded: bool
    environment: Environment | None

    @property
    def dimensions(self) -> int:
        """Numbers in an image: C × H × W."""
        channels, height, width = self.shape
        return channels * height * width


def pack_header(header: Header) -> bytes:
    """A header as JSON in a raw DEFLATE stream with `_DICTIONARY`.

    Raises:
        InputError: The names of the images take too much space.
    """
    deflate = zlib.compressobj(9, wbits=-15, zdict=_DICTIONARY)
    text = header.model_dump_json().encode()
    if len(text) > _HEADER_LIMIT:
        raise md.InputError(
            f"names: the header with the names of the images takes {len(text)} bytes, more than "
            f"{_HEADER_LIMIT}"
        )
    return deflate.compress(text) + deflate.flush()


def unpack_header(packed: bytes) -> Header:
    """A packed header; nothing beyond the limit is allocated.

    Raises:
        ValueError: The bytes are no header.
        zlib.error: The bytes are no DEFLATE stream.
    """
    inflate = zlib.decompressobj(wbits=-15, zdict=_DICTIONARY)
    text = inflate.decompress(packed, _HEADER_LIMIT)
    if not inflate.eof or inflate.unused_data:
        raise ValueError("the header is not one stream")
    try:
        return Header.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(str(error)) from error
