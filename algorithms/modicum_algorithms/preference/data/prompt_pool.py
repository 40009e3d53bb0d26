"""The pool of prompts that rounds draw from (line 6 of algorithm 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class PromptPool:
    """Prompts that have not been used, by their index; sampling is without replacement.

    Attributes:
        size: Number of prompts at the start.
        removes: Prompts that a round uses up: those it acquired, or all that it drew.
        gone: Prompts that were used up.
    """

    size: int
    removes: Literal["acquired", "drawn"]
    gone: frozenset[int] = frozenset()

    @property
    def left(self) -> int:
        """Number of prompts in the pool."""
        return self.size - len(self.gone)

    def draw(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Distinct prompts at random, all if there are fewer; the pool stays as it is."""
        left = np.array([place for place in range(self.size) if place not in self.gone], np.int64)
        return generator.permutation(left)[:count]

    def after(self, drawn: Iterable[int], acquired: Iterable[int]) -> PromptPool:
        """The pool after a round.

        Args:
            drawn: Prompts that the round drew.
            acquired: Drawn prompts whose pairs were judged.

        Raises:
            ValueError: A prompt was not in the pool, or was acquired without being drawn.
        """
        drawn, acquired = frozenset(map(int, drawn)), frozenset(map(int, acquired))
        if not (drawn.isdisjoint(self.gone) and drawn <= frozenset(range(self.size))):
            raise ValueError("drawn: all prompts must be in the pool")
        if not acquired <= drawn:
            raise ValueError("acquired: all prompts must have been drawn")
        return replace(self, gone=self.gone | (acquired if self.removes == "acquired" else drawn))
