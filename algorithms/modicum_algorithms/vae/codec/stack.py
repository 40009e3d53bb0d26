"""The stack of bits: an ANS coder that starts with bits known to both sides.

Bits back draws the first latents from bits that no image has left yet. Both sides know the same
endless start; a chunk keeps only what was taken of it, and the receiver must get exactly that back.
"""

from __future__ import annotations

import hashlib
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Symbols = NDArray[np.int32]

_START = b"modicum: bits back, start of a stack"
# An ANS coder of 64 bits always holds two words.
STATE_WORDS = 2


class CorruptChunk(ValueError):  # noqa: N818 - says what was found, as the container's errors do.
    """These words are not what the encoder made with the same model and settings."""


def start_words(count: int) -> Words:
    """The first `count` words of the start, the top of the stack first (SHAKE-256)."""
    digest = hashlib.shake_256(_START).digest(4 * count)
    return np.frombuffer(digest, dtype="<u4").astype(np.uint32)


class Stack:
    """Last in, first out.

    Args:
        words: The top last.
    """

    def __init__(self, words: Words) -> None:
        self._coder = constriction.stream.stack.AnsCoder(words)
        self._filled = self._deepest = len(words)

    @classmethod
    def started(cls, most_bits: int) -> Stack:
        """A stack from whose start at most this many bits will be taken."""
        return cls(start_words(most_bits // 32 + 1 + STATE_WORDS)[::-1].copy())

    @classmethod
    def received(cls, words: NDArray[Any]) -> Stack:
        """A stack that another side has filled.

        Raises:
            CorruptChunk: No encoder leaves such words.
        """
        if words.ndim != 1 or len(words) < STATE_WORDS or not words[-1]:
            raise CorruptChunk("the words are too few, or end in zero")
        return cls(np.ascontiguousarray(words, dtype=np.uint32))

    def push(self, symbols: NDArray[Any], model: Any, *parameters: NDArray[Any]) -> None:
        """Encode symbols, so that `pop` finds the first of them first."""
        self._coder.encode_reverse(symbols.astype(np.int32, copy=False), model, *parameters)

    def pop(self, model: Any, *parameters: Any) -> Symbols:
        """Decode symbols: as many as said, or as there are parameters."""
        symbols: Symbols = self._coder.decode(model, *parameters)
        self._deepest = min(self._deepest, self._coder.pos()[0])
        return symbols

    def bits(self) -> int:
        """Its size."""
        bits: int = self._coder.num_valid_bits()
        return bits

    def taken(self) -> tuple[Words, float]:
        """All words but those of the start that `pop` never came down to.

        Returns:
            The words, and how many bits of them the start has given.
        """
        words: Words = self._coder.get_compressed()
        untouched = min(self._deepest, self._filled - STATE_WORDS)
        return words[untouched:], 32.0 * (self._filled - untouched)

    def check_start(self) -> None:
        """Make sure that nothing but the start is left.

        Raises:
            CorruptChunk: Something else is.
        """
        words = self._coder.get_compressed()
        if len(words) < STATE_WORDS or (words[::-1] != start_words(len(words))).any():
            raise CorruptChunk("the stack does not come back to its start")
