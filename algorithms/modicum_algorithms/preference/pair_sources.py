"""Pairs with a known winner, to compare oracles with: TL;DR, IMDB, or a file of one's own."""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import modicum as md

SOURCES_DESCRIPTION = (
    "Pairs: tldr (posts with a model's and a human's summary, judged by GPT-4) or imdb (extracts "
    "of a positive and a negative review), under MODICUM_DATA; or a file with the columns prompt, "
    "first, second and preferred."
)

_BREAK = re.compile(r"<br\s*/?>")


@dataclass(frozen=True)
class JudgedPairs:
    """Pairs, and which completion somebody preferred.

    Attributes:
        pairs: The pairs.
        winners: The preferred completions.
    """

    pairs: Sequence[md.oracles.Pair]
    winners: Sequence[md.oracles.Winner]

    def draw(self, count: int, generator: np.random.Generator) -> JudgedPairs:
        """So many of them, drawn without replacement; all if there are no more."""
        chosen = generator.permutation(len(self.pairs))[:count]
        return JudgedPairs([self.pairs[i] for i in chosen], [self.winners[i] for i in chosen])


def source_files(source: str, field: str = "pairs") -> list[Path]:
    """The files that pairs are read from.

    Args:
        source: `tldr`, `imdb`, or a file.
        field: Setting to name in an error.

    Raises:
        InputError: They are not there.
    """
    if source == "tldr":
        return [md.data.find_data("tldr.jsonl.xz", "tldr", field=field, file=True)]
    if source == "imdb":
        return [imdb_file("test", field)]
    path = Path(source).expanduser()
    if not path.is_file():
        raise md.InputError(f"{field}: must be tldr, imdb or a file, got {source!r}")
    return [path]


def read_judged_pairs(source: str, *, extract_words: int = 32) -> JudgedPairs:
    """Pairs with a known winner.

    Args:
        source: `tldr`, `imdb`, or a file.
        extract_words: Words of each extract of a review.

    Raises:
        InputError: There are no such pairs, or a row has no winner.
    """
    if source == "tldr":
        return _tldr(source_files(source)[0])
    if source == "imdb":
        return _imdb(extract_words)
    return JudgedPairs(*md.oracles.read_judged_pairs(source_files(source)[0]))


def _tldr(path: Path) -> JudgedPairs:
    """The model's summary stands first; who preferred which was GPT-4's judgement."""
    rows = [row for row in json_lines(path) if row.get("preferred")]
    pairs = [md.oracles.Pair(r["prompt"], r["model_summary"], r["human_summary"]) for r in rows]
    return JudgedPairs(pairs, ["first" if r["preferred"] == "ours" else "second" for r in rows])


def _imdb(extract_words: int) -> JudgedPairs:
    """The beginnings of two test reviews, one positive and one negative, in a random order."""
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
    return JudgedPairs(pairs, winners)


def clean_review(text: str) -> str:
    """A review of IMDB without markup, its white space single."""
    return " ".join(_BREAK.sub(" ", text).split())


def imdb_file(split: Literal["train", "test"], field: str = "imdb") -> Path:
    """The file of IMDB's reviews.

    Args:
        split: Which part.
        field: Setting to name in an error.

    Raises:
        InputError: It is not under `MODICUM_DATA`.
    """
    return md.data.find_data(f"{split}.jsonl.xz", "imdb", field=field, file=True)


def imdb_reviews(split: Literal["train", "test"]) -> tuple[list[str], list[int]]:
    """IMDB's reviews, and 1 for the positive ones.

    Raises:
        InputError: They are not under `MODICUM_DATA`.
    """
    rows = json_lines(imdb_file(split))
    return [row["text"] for row in rows], [int(row["label"]) for row in rows]


def json_lines(path: Path) -> list[dict[str, str]]:
    """Rows of a compressed JSON-lines file."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
