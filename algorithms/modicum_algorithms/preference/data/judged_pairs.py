"""Pairs with a known winner, to compare oracles with: TL;DR, IMDB, or a user's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import modicum as md
from modicum_algorithms.preference.data.corpora import (
    clean_review,
    imdb_file,
    imdb_reviews,
    json_lines,
    tldr_file,
)


@dataclass(frozen=True)
class KnownWinners:
    """Pairs of completions and the completion of each that is known to be preferred.

    Attributes:
        pairs: The pairs.
        winners: The preferred completions, one for each pair.
    """

    pairs: Sequence[md.oracles.Pair]
    winners: Sequence[md.oracles.Winner]

    def draw(self, count: int, generator: np.random.Generator) -> KnownWinners:
        """A random subset of `count` pairs without replacement; all pairs if there are fewer."""
        chosen = generator.permutation(len(self.pairs))[:count]
        return KnownWinners([self.pairs[i] for i in chosen], [self.winners[i] for i in chosen])


def pairs_file(source: str) -> Path:
    """The file that the pairs of a source are read from: `tldr`, `imdb`, or a file.

    Raises:
        InputError: The file does not exist.
    """
    if source == "tldr":
        return tldr_file("pairs")
    if source == "imdb":
        return imdb_file("test", "pairs")
    path = Path(source).expanduser()
    if not path.is_file():
        raise md.InputError(f"pairs: must be tldr, imdb or a file, got {source!r}")
    return path


def read_known_winners(source: str, extract_words: int) -> KnownWinners:
    """Pairs with a known winner; extracts of reviews (imdb) have `extract_words` words.

    Raises:
        InputError: The file does not exist, or one of its rows names no winner.
    """
    path = pairs_file(source)
    if source == "tldr":
        return _tldr(path)
    if source == "imdb":
        return _imdb(extract_words)
    return KnownWinners(*md.oracles.read_judged_pairs(path))


def _tldr(path: Path) -> KnownWinners:
    """A model's summary first, a human's second; GPT-4 judged which is preferred."""
    rows = [row for row in json_lines(path) if row.get("preferred")]
    pairs = [md.oracles.Pair(r["prompt"], r["model_summary"], r["human_summary"]) for r in rows]
    return KnownWinners(pairs, ["first" if r["preferred"] == "ours" else "second" for r in rows])


def _imdb(extract_words: int) -> KnownWinners:
    """The beginnings of a positive and a negative test review, in random order."""
    texts, labels = imdb_reviews("test")
    extracts = [" ".join(clean_review(text).split()[:extract_words]) for text in texts]
    positive = [text for text, label in zip(extracts, labels, strict=True) if label == 1]
    negative = [text for text, label in zip(extracts, labels, strict=True) if label == 0]
    generator = np.random.default_rng(0)
    pairs: list[md.oracles.Pair] = []
    winners: list[md.oracles.Winner] = []
    for good, bad in zip(
        generator.permutation(positive), generator.permutation(negative), strict=False
    ):
        first_wins = bool(generator.integers(2))
        first, second = (good, bad) if first_wins else (bad, good)
        pairs.append(md.oracles.Pair("", str(first), str(second)))
        winners.append("first" if first_wins else "second")
    return KnownWinners(pairs, winners)
