"""Texts: IMDB's reviews and TL;DR's posts under `MODICUM_DATA`, and packaged reviews.

The packaged reviews are of invented films, composed of sentences that come with the package, so
they need no download. The beginning of a review leaves its opinion open, so that it serves as a
prompt.
"""

from __future__ import annotations

import json
import lzma
import random
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import modicum as md

_BREAK = re.compile(r"<br\s*/?>")
_SLOT = re.compile(r"\{(\w+)\}")


def imdb_file(split: Literal["train", "test"], field: str = "imdb") -> Path:
    """The file with the reviews of one split of IMDB; an error names the setting `field`.

    Raises:
        InputError: The file is not under `MODICUM_DATA`.
    """
    return md.data.find_data(f"{split}.jsonl.xz", "imdb", field=field, file=True)


def imdb_reviews(split: Literal["train", "test"]) -> tuple[list[str], list[int]]:
    """The reviews of one split of IMDB with their labels: 1 positive, 0 negative.

    Raises:
        InputError: The file is not under `MODICUM_DATA`.
    """
    rows = json_lines(imdb_file(split))
    return [row["text"] for row in rows], [int(row["label"]) for row in rows]


def clean_review(text: str) -> str:
    """A review without markup, with single spaces."""
    return " ".join(_BREAK.sub(" ", text).split())


def tldr_file(field: str) -> Path:
    """The file with the posts of TL;DR and their summaries; an error names the setting `field`.

    Raises:
        InputError: The file is not under `MODICUM_DATA`.
    """
    return md.data.find_data("tldr.jsonl.xz", "tldr", field=field, file=True)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of an xz-compressed JSON-lines file."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def packaged_reviews(count: int, seed: int) -> list[str]:
    """Distinct reviews: an opening, one to three sentences of one opinion, an ending.

    Every second review is favourable.
    """
    sections = _sections()
    generator = random.Random(seed)
    reviews: dict[str, None] = {}
    while len(reviews) < count:
        opinion = ("good", "bad")[len(reviews) % 2]
        sentences = [generator.choice(sections["opening"])]
        sentences += generator.sample(sections[opinion], generator.randint(1, 3))
        sentences.append(generator.choice(sections[f"{opinion} ending"]))
        reviews[" ".join(_filled(sentence, sections, generator) for sentence in sentences)] = None
    return list(reviews)


def packaged_text() -> str:
    """The file with the sentences and names of the reviews."""
    return (resources.files(__package__) / "reviews.txt").read_text(encoding="utf-8")


def _sections() -> dict[str, list[str]]:
    """Lines by the heading above them; headings begin with `#`."""
    sections: dict[str, list[str]] = {}
    for line in filter(None, packaged_text().splitlines()):
        if line.startswith("# "):
            lines = sections.setdefault(line.removeprefix("# "), [])
        else:
            lines.append(line)
    return sections


def _filled(sentence: str, sections: Mapping[str, Sequence[str]], generator: random.Random) -> str:
    """A sentence with distinct names in its slots and a capital first letter."""
    used: set[str] = set()

    def name(slot: re.Match[str]) -> str:
        chosen = generator.choice([n for n in sections[slot[1]] if n not in used])
        used.add(chosen)
        return chosen

    filled = _SLOT.sub(name, sentence)
    return filled[0].upper() + filled[1:]
