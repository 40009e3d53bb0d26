"""Reading files in pieces; every error of a broken file becomes an `InputError`."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from modicum.errors import InputError, reason_of

# Errors of gzip, zipfile and the file system. zipfile raises RuntimeError for an encrypted member
# and UnicodeDecodeError for a broken name.
_BROKEN = (
    OSError,
    EOFError,
    RuntimeError,
    UnicodeDecodeError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)

_PIECE = 2**20  # Bytes.


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Turn errors of reading a file in the block into an `InputError`.

    Args:
        where: Setting and file, for the message.
    """
    try:
        yield
    except _BROKEN as error:
        raise InputError(f"{where} cannot be read ({reason_of(error)})") from error


def read_exactly(file: IO[bytes], length: int, where: str) -> bytearray:
    """Read a number of bytes.

    Raises:
        InputError: The file ends too early, or is broken.
    """
    data = bytearray()
    while len(data) < length:
        # A broken header may announce more data than fits in memory.
        with readable(where):
            piece = file.read(min(length - len(data), _PIECE))
        if not piece:
            break
        data += piece
    if len(data) != length:
        raise InputError(f"{where} is truncated: its header announces more data than there is")
    return data


def require_end(file: IO[bytes], where: str) -> None:
    """Check that the file ends here; reading the end makes gzip and zip compare their checksums.

    Raises:
        InputError: More data follows, or the data is broken.
    """
    with readable(where):
        more = file.read(1)
    if more:
        raise InputError(f"{where} is broken: it holds more data than its header announces")
