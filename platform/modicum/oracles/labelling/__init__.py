"""A human as an oracle: one page in the browser, or the keyboard of a terminal."""

from __future__ import annotations

from modicum.oracles.labelling.human import Human
from modicum.oracles.pairs_file import read_pairs

__all__ = ["Human", "read_pairs"]
