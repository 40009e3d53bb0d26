"""API keys: read on the machine that uses them, and removed from every text that comes back."""

from __future__ import annotations

import os

from modicum.errors import InputError
from modicum.oracles.endpoint.settings import Endpoint

# Length of the shortest part of a key that is recognised in a text.
_SHORTEST = 8


def read_key(endpoint: Endpoint) -> str | None:
    """Read the endpoint's key on this machine; None if the endpoint needs none.

    Raises:
        InputError: The variable is unset here, or the file cannot be read. No key is ever quoted.
    """
    if endpoint.key_file is not None:
        # The path is not quoted: it may be a key, put there by mistake.
        path = endpoint.key_file.expanduser()
        try:
            key = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            kind = getattr(error, "strerror", None) or "it is not text"
            raise InputError(f"key_file: the file cannot be read ({kind})") from None
        if not _is_a_key(key):
            raise InputError("key_file: the file must hold one key and nothing else")
        return key
    if endpoint.key_name is None:
        return None
    key = os.environ.get(endpoint.key_name, "").strip()
    if not key:
        raise InputError(
            f"key_variable: {endpoint.key_name} is not set on the machine that sends requests; set "
            "it before Ray is started there, or name a key_file"
        )
    if not _is_a_key(key):
        raise InputError(f"key_variable: {endpoint.key_name} must hold one key and nothing else")
    return key


def _is_a_key(text: str) -> bool:
    """True for a single word that an HTTP header can hold."""
    return len(text.split()) == 1 and text.isascii() and text.isprintable()


def without_key(text: str, key: str) -> str:
    """Replace every recognisable part of a key in a text by `[key]`."""
    parts = {key[start : start + _SHORTEST] for start in range(len(key) - _SHORTEST + 1)}
    hidden: list[tuple[int, int]] = []
    for start in range(len(text) - _SHORTEST + 1):
        if text[start : start + _SHORTEST] in parts:
            first = hidden.pop()[0] if hidden and hidden[-1][1] >= start else start
            hidden.append((first, start + _SHORTEST))
    for first, end in reversed(hidden):
        text = f"{text[:first]}[key]{text[end:]}"
    return text
