"""The stack of bits: an ANS coder that starts from a fixed sequence of bits.

Bits back decodes the first latents from bits that no image has left yet. Encoder and decoder take
these bits from the same pseudorandom sequence. A chunk stores only the bits that were taken from
it, and the decoder checks that it gets exactly these bits back.
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


class CorruptChunk(ValueError):  # noqa: N818 - named for the finding, like the container's errors.
    """Words that no encoder with the same model and settings has made."""


def start_words(count: int) -> Words:
    """The first `count` words of the fixed start, top of the stack first (SHAKE-256)."""
    digest = hashlib.shake_256(_START).digest(4 * count)
    return np.frombuffer(digest, dtype="<u4").astype(np.uint32)


class Stack:
    """A stack of bits, last in, first out, made of words, top last."""

    def __init__(self, words: Words) -> None:
        self._coder = constriction.stream.stack.AnsCoder(words)
        self._filled = self._deepest = len(words)

    @classmethod
    def started(cls, most_bits: int) -> Stack:
        """The fixed start, long enough for taking `most_bits` bits."""
        return cls(start_words(most_bits // 32 + 1 + STATE_WORDS)[::-1].copy())

    @classmethod
    def received(cls, words: NDArray[Any]) -> Stack:
        """A stack that an encoder has filled.

        Raises:
            CorruptChunk: No encoder leaves these words.
        """
        if words.ndim != 1 or len(words) < STATE_WORDS or not words[-1]:
            raise CorruptChunk("the words are too few, or end in zero")
        return cls(np.ascontiguousarray(words, dtype=np.uint32))

    def push(self, symbols: NDArray[Any], model: Any, *parameters: NDArray[Any]) -> None:
        """Encode symbols, so that `pop` returns the first of them first."""
        self._coder.encode_reverse(symbols.astype(np.int32, copy=False), model, *parameters)

    def pop(self, model: Any, *parameters: Any) -> Symbols:
        """Decode symbols: a given number of them, or one for each parameter."""
        symbols: Symbols = self._coder.decode(model, *parameters)
        self._deepest = min(self._deepest, self._coder.pos()[0])
        return symbols

    def bits(self) -> int:
        """Number of bits on the stack."""
        bits: int = self._coder.num_valid_bits()
        return bits

    def taken(self) -> tuple[Words, float]:
        """All words but those of the start that `pop` never reached, and the bits taken from it."""
        words: Words = self._coder.get_compressed()
        untouched = min(self._deepest, self._filled - STATE_WORDS)
        return words[untouched:], 32.0 * (self._filled - untouched)

    def check_start(self) -> None:
        """Check that the stack is back at its start.

        Raises:
            CorruptChunk: The stack holds anything but the start.
        """
        words = self._coder.get_compressed()
        if len(words) < STATE_WORDS or (words[::-1] != start_words(len(words))).any():
            raise CorruptChunk("the stack does not return to its start")
