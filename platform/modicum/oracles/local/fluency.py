"""Fluency of texts: the mean log-probability of a token under a language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from modicum.oracles.local.scoring import NoScore


class Fluency(Protocol):
    """A language model that measures the fluency of texts.

    Attributes:
        kind: Name of the class in a saved oracle.
    """

    kind: ClassVar[str]

    @property
    def version(self) -> str:
        """Identity of the model: the same version gives the same numbers."""
        ...

    def mean_log_probabilities(self, texts: Sequence[str]) -> list[float | NoScore]:
        """Mean log-probability of a token (natural logarithm), for each text."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files that `load` needs to an existing folder."""
        ...
