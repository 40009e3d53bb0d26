"""Prompts to complete and their tokens: reviews, posts, or a user's own (sections 6.5.1, D.1)."""

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
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.data.corpora import (
    clean_review,
    imdb_file,
    imdb_reviews,
    json_lines,
    packaged_reviews,
    packaged_text,
    tldr_file,
)

Split = Literal["train", "test"]
Ids = tuple[int, ...]

# Reviews up to this length are left out, as in the authors' code.
_LEAST_CHARACTERS = 200
# Subreddits that the thesis left out for their explicit content (D.1).
_LEFT_OUT = frozenset({"offmychest", "tifu"})
_PACKAGED = 2000
# Sources without a split of their own hold out every fifth prompt.
_HELD_OUT = 5
_SUFFIXES = (".txt", ".jsonl", ".parquet")
_COLUMN: str = PreferenceConfig.model_fields["prompts_column"].default
_POST = re.compile(r"POST: (.*)\nTL;DR:", re.DOTALL)
_SUBREDDIT = re.compile(r"SUBREDDIT: r/(\w+)")


@dataclass(frozen=True)
class Prompt:
    """A text to complete.

    Attributes:
        text: The text.
        human: A human's completion to compare with, if there is one.
    """

    text: str
    human: str | None = None


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as text and as tokens.

    Attributes:
        prompt: Text, perhaps with a human's completion.
        ids: Tokens of the text, at least one.
        tokens: Maximum length of its completions in tokens.
    """

    prompt: Prompt
    ids: Ids
    tokens: int


def read_splits(
    config: PreferenceConfig, language: md.training.LanguageModel, seed: int
) -> tuple[list[TokenizedPrompt], list[TokenizedPrompt]]:
    """The training prompts, and the held-out prompts of evaluations, for a trial's seed.

    Raises:
        InputError: A split has too few prompts, or a prompt does not fit the model's context.
    """
    training = _tokenized(config, language, "train", md.derive_seed(seed, "train prompts"))
    test = _tokenized(config, language, "test", md.derive_seed(seed, "test prompts"))
    order = np.random.default_rng(md.derive_seed(seed, "held out")).permutation(len(test))
    for name, asked, kind, there in (
        ("evaluation_prompts", config.evaluation_prompts, "held-out", test),
        ("oracle_calls", config.oracle_calls, "training", training),
    ):
        if len(there) < asked:
            raise md.InputError(
                f"{name}: must be at most {len(there)}, the {kind} prompts of {config.prompts}, "
                f"got {asked}"
            )
    return training, [test[place] for place in order[: config.evaluation_prompts]]


def _tokenized(
    config: PreferenceConfig, language: md.training.LanguageModel, split: Split, seed: int
) -> list[TokenizedPrompt]:
    """The prompts of one split, each with a random length limit for its completions."""
    prompts = read_prompts(config, split, language.tokenizer, seed)
    limits = np.random.default_rng(seed).integers(
        config.completion_tokens_min, config.completion_tokens_max, len(prompts), endpoint=True
    )
    encoded = _encoded(language.tokenizer, [prompt.text for prompt in prompts])
    found = []
    for prompt, ids, tokens in zip(prompts, encoded, limits.tolist(), strict=True):
        if language.context is not None and len(ids) + tokens > language.context:
            raise md.InputError(
                f"prompts: a prompt of {len(ids)} tokens with a completion of {tokens} must fit "
                f"the model's context of {language.context} tokens: {prompt.text[:60]!r}"
            )
        found.append(TokenizedPrompt(prompt, ids, tokens))
    return found


def _encoded(tokenizer: Any, texts: Sequence[str]) -> list[Ids]:
    """Tokens of texts to continue, without a final end-of-text token.

    An empty text becomes the start token, or padding if the tokenizer has no start token.
    """
    start = tokenizer.bos_token_id
    alone = (tokenizer.pad_token_id if start is None else start,)
    found = []
    for ids in tokenizer(list(texts), verbose=False)["input_ids"]:
        ended = len(ids) > 1 and ids[-1] == tokenizer.eos_token_id
        found.append(tuple(ids[:-1] if ended else ids) or alone)
    return found


def read_prompts(config: PreferenceConfig, split: Split, tokenizer: Any, seed: int) -> list[Prompt]:
    """The distinct prompts of one split, in a fixed order.

    Sources without a split of their own are split by a hash of the prompt, so that the splits
    share no prompt. IMDB has a split; reviews of its two parts may begin alike.

    Args:
        config: Source and limits of the prompts: the settings `prompts…`, `prompt_tokens_…`,
            `post_characters_…` and `counted_characters`.
        split: Split to read.
        tokenizer: Tokenizer that counts the tokens to which reviews are cut.
        seed: Seed of these lengths.

    Raises:
        InputError: The source does not exist or has no prompts.
    """
    source = config.prompts
    if source == "imdb":
        reviews = [clean_review(text) for text in imdb_reviews(split)[0]]
        long = [text for text in reviews if len(text) > _LEAST_CHARACTERS]
        prompts = _beginnings(long, tokenizer, seed, config)
    else:
        if source == "packaged":
            whole = _beginnings(packaged_reviews(_PACKAGED, seed=1), tokenizer, seed, config)
        else:
            whole = list(_posts(config)) if source == "tldr" else _users_prompts(config)
        prompts = [prompt for prompt in whole if _split_of(prompt.text) == split]
    unique = list({prompt.text: prompt for prompt in prompts if prompt.text}.values())
    if not unique:
        raise md.InputError(f"prompts: {source!r} must hold prompts to {split} with, it has none")
    return unique


def check_prompts(config: PreferenceConfig) -> None:
    """Refuse a source that cannot have what the settings ask of it.

    Raises:
        InputError: The source does not exist, or has no splits, columns or human completions.
    """
    source = config.prompts
    prompt_digests(config)
    if config.prompts_split is not None and not source.startswith("hf:"):
        raise md.InputError(
            f"prompts_split: {source!r} has no splits, got {config.prompts_split!r}"
        )
    if config.prompts_column != _COLUMN and (
        source in {"imdb", "packaged", "tldr"} or source.endswith(".txt")
    ):
        raise md.InputError(
            f"prompts_column: {source!r} has no columns, got {config.prompts_column!r}"
        )
    if config.opponent == "human" and (source in {"imdb", "packaged"} or source.endswith(".txt")):
        raise md.InputError(f"opponent: human needs human completions, which {source!r} has not")


def prompt_digests(config: PreferenceConfig) -> Mapping[str, str]:
    """Digest of the prompts' source, for a trial's identity.

    Raises:
        InputError: The source does not exist.
    """
    source = config.prompts
    if source == "imdb":
        files = [imdb_file(split, "prompts") for split in ("train", "test")]
        return {"prompts": md.data.digest_files(files)}
    if source == "tldr":
        return {"prompts": md.data.digest_files([tldr_file("prompts")])}
    if source == "packaged":
        return {"prompts": hashlib.sha256(packaged_text().encode()).hexdigest()}
    if source.startswith("hf:"):
        digest = md.data.huggingface_digest(source.removeprefix("hf:"), "prompts")
    else:
        digest = md.data.digest_files([_file(source)])
    chosen = {
        "prompts_column": config.prompts_column if config.prompts_column != _COLUMN else None,
        "prompts_split": config.prompts_split,
    }
    return {"prompts": digest, **{name: value for name, value in chosen.items() if value}}


def _beginnings(
    reviews: Sequence[str], tokenizer: Any, seed: int, config: PreferenceConfig
) -> list[Prompt]:
    """Reviews cut to random numbers of tokens (D.1)."""
    longest = config.prompt_tokens_max
    lengths = np.random.default_rng(seed).integers(
        config.prompt_tokens_min, longest, len(reviews), endpoint=True
    )
    # Characters enough for the longest cut: tokenizing whole reviews would take a minute.
    heads = [text[: 20 * longest] for text in reviews]
    ids = tokenizer(heads, add_special_tokens=False, verbose=False)["input_ids"]
    return [
        # A cut within a letter of several bytes leaves a replacement character.
        Prompt(tokenizer.decode(tokens[:length]).rstrip("\ufffd").strip())
        for tokens, length in zip(ids, lengths.tolist(), strict=True)
    ]


def _posts(config: PreferenceConfig) -> Iterator[Prompt]:
    """Reddit posts with human summaries."""
    least, greatest = config.post_characters_min, config.post_characters_max
    for row in json_lines(tldr_file("prompts")):
        subreddit = _SUBREDDIT.search(row["prompt"])
        post = _POST.search(row["prompt"])
        if subreddit is None or post is None or subreddit[1].lower() in _LEFT_OUT:
            continue
        counted = post[1] if config.counted_characters == "post" else row["prompt"]
        if least <= len(counted) <= greatest:
            yield Prompt(row["prompt"].rstrip(), " " + row["human_summary"].strip())


def _users_prompts(config: PreferenceConfig) -> list[Prompt]:
    """Lines of text, or rows with a prompt and perhaps `human`."""
    source, column = config.prompts, config.prompts_column
    if source.startswith("hf:"):
        found = _hub_rows(source, config.prompts_split)
        return [_prompt(row, source, n, column) for n, row in enumerate(found, 1)]
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
    return [_prompt(row, source, n, column) for n, row in enumerate(rows, 1)]


def _hub_rows(source: str, split: str | None) -> Sequence[Any]:
    loaded = md.data.load_huggingface(source.removeprefix("hf:"), field="prompts", extra="llm")
    named = dict(loaded) if hasattr(loaded, "values") else {}
    if split is not None and split not in named:
        there = f"splits {', '.join(map(str, named))}" if named else "no splits"
        raise md.InputError(f"prompts_split: {source!r} has {there}, got {split!r}")
    parts = [named[split]] if split is not None else list(named.values()) or [loaded]
    return [row for part in parts for row in part]


def _prompt(row: Any, source: str, number: int, column: str) -> Prompt:
    if isinstance(row, dict) and column != _COLUMN and column not in row:
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
    """The split of a prompt, which depends on its text alone."""
    return (
        "test" if int(hashlib.sha256(text.encode()).hexdigest(), 16) % _HELD_OUT == 0 else "train"
    )
