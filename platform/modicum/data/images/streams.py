"""Reading files piece by piece, with every way in which they can be broken told as one."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from modicum.errors import InputError, reason_of

# What gzip, zipfile and the file system raise; zipfile's RuntimeError is an encrypted member,
# its UnicodeDecodeError a broken name.
_BROKEN = (
    OSError,
    EOFError,
    RuntimeError,
    UnicodeDecodeError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)

_PIECE = 2**20  # bytes


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Turn what reading a file can raise into an `InputError`.

    Args:
        where: Setting and file, for the message.
    """
    try:
        yield
    except _BROKEN as error:
        raise InputError(f"{where} cannot be read ({reason_of(error)})") from error


def read_exactly(file: IO[bytes], length: int, where: str) -> bytearray:
    """So many bytes.

    Raises:
        InputError: The file ends before, or is broken.
    """
    data = bytearray()
    while len(data) < length:
        # A broken header may announce more than memory holds.
        with readable(where):
            piece = file.read(min(length - len(data), _PIECE))
        if not piece:
            break
        data += piece
    if len(data) != length:
        raise InputError(f"{where} is truncated: its header announces more data than there is")
    return data


def require_end(file: IO[bytes], where: str) -> None:
    """Check that nothing follows; this also has gzip and zip compare their checksums.

    Raises:
        InputError: Something follows, or the data is broken.
    """
    with readable(where):
        more = file.read(1)
    if more:
        raise InputError(f"{where} is broken: it holds more data than its header announces")
