"""The published corpora under `MODICUM_DATA`: IMDB's reviews and TL;DR's posts."""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path
from typing import Any, Literal

import modicum as md

_BREAK = re.compile(r"<br\s*/?>")


def imdb_file(split: Literal["train", "test"], field: str = "imdb") -> Path:
    """The file with the reviews of one split of IMDB.

    Args:
        split: Split of the corpus.
        field: Setting that an error names.

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
    """The file with the posts of TL;DR and their summaries.

    Args:
        field: Setting that an error names.

    Raises:
        InputError: The file is not under `MODICUM_DATA`.
    """
    return md.data.find_data("tldr.jsonl.xz", "tldr", field=field, file=True)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of an xz-compressed JSON-lines file."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
