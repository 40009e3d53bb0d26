"""Prompts to complete: reviews, posts, or a user's own (sections 6.5.1 and D.1)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import modicum as md
from modicum_algorithms.preference import pair_sources
from modicum_algorithms.preference.packaged_reviews import packaged_reviews, packaged_text
from modicum_algorithms.preference.prompt_rows import PromptRows

Split = Literal["train", "test"]

# Reviews of no more than this are left out, as in the authors' code.
_LEAST_CHARACTERS = 200
# Broad categories that the thesis left out for their explicit content (D.1).
_LEFT_OUT = frozenset({"offmychest", "tifu"})
_PACKAGED = 2000
# Of a source without a split of its own, every fifth prompt is held out.
_HELD_OUT = 5
_SUFFIXES = (".txt", ".jsonl", ".parquet")
_ROWS = PromptRows()
_POST = re.compile(r"POST: (.*)\nTL;DR:", re.DOTALL)
_SUBREDDIT = re.compile(r"SUBREDDIT: r/(\w+)")


@dataclass(frozen=True)
class Prompt:
    """A text to be completed.

    Attributes:
        text: The text.
        human: A human's completion, to compare with; None if there is none.
    """

    text: str
    human: str | None = None


@dataclass(frozen=True)
class PromptLimits:
    """What is taken of a source.

    Attributes:
        tokens_min: Least length that a review is cut to.
        tokens_max: Greatest such length; lengths are drawn uniformly.
        characters_min: Least length of a post (TL;DR).
        characters_max: Greatest.
        characters_of: What these limits count: the post, or the whole prompt.
    """

    tokens_min: int = 8
    tokens_max: int = 16
    characters_min: int = 200
    characters_max: int = 1000
    characters_of: Literal["post", "prompt"] = "post"


def read_prompts(
    source: str,
    split: Split,
    tokenizer: Any,
    seed: int,
    limits: PromptLimits,
    rows: PromptRows = _ROWS,
) -> list[Prompt]:
    """Different prompts of a source, in a fixed order.

    Args:
        source: `imdb`, `tldr`, `packaged`, a file, or `hf:NAME`.
        split: Which part. Sources without parts of their own are split by a hash of the prompt, so
            that the two share none; reviews of IMDB's two parts may begin alike.
        tokenizer: Counts the tokens that reviews are cut to.
        seed: Of these lengths.
        limits: What is taken.
        rows: Where the prompts of a data set or a file of one's own are.

    Raises:
        InputError: There is no such source, or it holds no prompt.
    """
    if source == "imdb":
        reviews = [pair_sources.clean_review(text) for text in pair_sources.imdb_reviews(split)[0]]
        long = [text for text in reviews if len(text) > _LEAST_CHARACTERS]
        prompts = _beginnings(long, tokenizer, seed, limits)
    elif source == "packaged":
        whole = _beginnings(packaged_reviews(_PACKAGED, seed=1), tokenizer, seed, limits)
        prompts = [p for p in whole if _split_of(p.text) == split]
    elif source == "tldr":
        prompts = [p for p in _posts(limits) if _split_of(p.text) == split]
    else:
        prompts = [p for p in _rows(source, rows) if _split_of(p.text) == split]
    unique = list({prompt.text: prompt for prompt in prompts if prompt.text}.values())
    if not unique:
        raise md.InputError(f"prompts: {source!r} must hold prompts to {split} with, it has none")
    return unique


def check_prompts(source: str, *, human: bool, rows: PromptRows = _ROWS) -> None:
    """Find mistakes that cost nothing to find.

    Args:
        source: As in `read_prompts`.
        human: Whether prompts must have a human's completion.
        rows: Where the prompts of a data set or a file of one's own are.

    Raises:
        InputError: There is no such source, or it is known to have no human completions.
    """
    prompt_digests(source, rows)
    if rows.split is not None and not source.startswith("hf:"):
        raise md.InputError(f"prompts_split: {source!r} has no splits, got {rows.split!r}")
    if rows.column != _ROWS.column and (
        source in {"imdb", "packaged", "tldr"} or source.endswith(".txt")
    ):
        raise md.InputError(f"prompts_column: {source!r} has no columns, got {rows.column!r}")
    if human and (source in {"imdb", "packaged"} or source.endswith(".txt")):
        raise md.InputError(f"opponent: human needs human completions, which {source!r} has not")


def prompt_digests(source: str, rows: PromptRows = _ROWS) -> Mapping[str, str]:
    """Digest of what is read, for a trial's identity.

    Args:
        source: As in `read_prompts`.
        rows: Where the prompts of a data set or a file of one's own are.

    Raises:
        InputError: There is no such source.
    """
    if source == "imdb":
        files = [pair_sources.imdb_file(split, "prompts") for split in ("train", "test")]
        return {"prompts": md.data.digest_files(files)}
    if source == "tldr":
        return {"prompts": md.data.digest_files(pair_sources.source_files("tldr", "prompts"))}
    if source == "packaged":
        return {"prompts": hashlib.sha256(packaged_text().encode()).hexdigest()}
    if source.startswith("hf:"):
        digest = md.data.huggingface_digest(source.removeprefix("hf:"), "prompts")
    else:
        digest = md.data.digest_files([_file(source)])
    chosen = {
        "prompts_column": rows.column if rows.column != _ROWS.column else None,
        "prompts_split": rows.split,
    }
    return {"prompts": digest, **{name: value for name, value in chosen.items() if value}}


def _beginnings(
    reviews: Sequence[str], tokenizer: Any, seed: int, limits: PromptLimits
) -> list[Prompt]:
    """Reviews cut to so many tokens (D.1)."""
    lengths = np.random.default_rng(seed).integers(
        limits.tokens_min, limits.tokens_max, len(reviews), endpoint=True
    )
    # Characters enough for the longest cut: tokenizing whole reviews would take a minute.
    heads = [text[: 20 * limits.tokens_max] for text in reviews]
    ids = tokenizer(heads, add_special_tokens=False, verbose=False)["input_ids"]
    return [
        # A cut within a letter of several bytes leaves a replacement character.
        Prompt(tokenizer.decode(tokens[:length]).rstrip("\ufffd").strip())
        for tokens, length in zip(ids, lengths.tolist(), strict=True)
    ]


def _posts(limits: PromptLimits) -> Iterator[Prompt]:
    """Reddit posts with human summaries."""
    (path,) = pair_sources.source_files("tldr")
    for row in pair_sources.json_lines(path):
        subreddit = _SUBREDDIT.search(row["prompt"])
        post = _POST.search(row["prompt"])
        if subreddit is None or post is None or subreddit[1].lower() in _LEFT_OUT:
            continue
        counted = post[1] if limits.characters_of == "post" else row["prompt"]
        if limits.characters_min <= len(counted) <= limits.characters_max:
            yield Prompt(row["prompt"].rstrip(), " " + row["human_summary"].strip())


def _rows(source: str, where: PromptRows) -> list[Prompt]:
    """A user's prompts: lines of text, or rows with a prompt and perhaps `human`."""
    if source.startswith("hf:"):
        found = _hub_rows(source, where.split)
        return [_prompt(row, source, n, where.column) for n, row in enumerate(found, 1)]
    path = _file(source)
    try:
        if path.suffix == ".txt":
            lines = path.read_text(encoding="utf-8").splitlines()
            return [Prompt(line.rstrip()) for line in lines if line.strip()]
        if path.suffix == ".parquet":
            import pyarrow.parquet

            rows: Sequence[Any] = pyarrow.parquet.ParquetFile(path).read().to_pylist()
        else:
            with path.open(encoding="utf-8") as file:
                rows = [json.loads(line) for line in file if line.strip()]
    except (OSError, ValueError) as error:
        raise md.InputError(
            f"prompts: {source!r} cannot be read ({md.reason_of(error)})"
        ) from error
    return [_prompt(row, source, n, where.column) for n, row in enumerate(rows, 1)]


def _hub_rows(source: str, split: str | None) -> Sequence[Any]:
    loaded = md.data.load_huggingface(source.removeprefix("hf:"), field="prompts", extra="llm")
    named = dict(loaded) if hasattr(loaded, "values") else {}
    if split is not None and split not in named:
        there = f"splits {', '.join(map(str, named))}" if named else "no splits"
        raise md.InputError(f"prompts_split: {source!r} has {there}, got {split!r}")
    parts = [named[split]] if split is not None else list(named.values()) or [loaded]
    return [row for part in parts for row in part]


def _prompt(row: Any, source: str, number: int, column: str) -> Prompt:
    if isinstance(row, dict) and column != _ROWS.column and column not in row:
        raise md.InputError(
            f"prompts_column: {source!r}, row {number}, has the columns {', '.join(row)}, got "
            f"{column!r}"
        )
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        raise md.InputError(f"prompts: {source!r}, row {number}: must have a text as {column}")
    human = row.get("human")
    if human is not None and not isinstance(human, str):
        raise md.InputError(f"prompts: {source!r}, row {number}: human must be a text")
    return Prompt(row[column].rstrip(), human)


def _file(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.is_file() or path.suffix not in _SUFFIXES:
        raise md.InputError(
            "prompts: must be imdb, tldr, packaged, hf:NAME or a file ending in "
            f"{', '.join(_SUFFIXES)}, got {source!r}"
        )
    return path


def _split_of(text: str) -> Split:
    """The same for a text wherever it stands."""
    return (
        "test" if int(hashlib.sha256(text.encode()).hexdigest(), 16) % _HELD_OUT == 0 else "train"
    )
