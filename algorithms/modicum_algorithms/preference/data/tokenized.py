"""Prompts as tokens, each with the length limit of its completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import modicum as md
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.data.prompts import Prompt, Split, read_prompts

Ids = tuple[int, ...]


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


def tokenized_prompts(
    config: PreferenceConfig, language: md.training.LanguageModel, split: Split, seed: int
) -> list[TokenizedPrompt]:
    """The prompts of one split, each with a random length limit for its completions.

    Args:
        config: Settings.
        language: Model whose tokenizer and context are used.
        split: Split to read.
        seed: Seed of the lengths of prompts and completions.

    Raises:
        InputError: The source has no prompts, or a prompt with its completion does not fit the
            context of the model.
    """
    prompts = read_prompts(config, split, language.tokenizer, seed)
    limits = np.random.default_rng(seed).integers(
        config.completion_tokens_min, config.completion_tokens_max, len(prompts), endpoint=True
    )
    encoded = encode(language.tokenizer, [prompt.text for prompt in prompts])
    found = []
    for prompt, ids, tokens in zip(prompts, encoded, limits.tolist(), strict=True):
        if language.context is not None and len(ids) + tokens > language.context:
            raise md.InputError(
                f"prompts: a prompt of {len(ids)} tokens with a completion of {tokens} must fit "
                f"the model's context of {language.context} tokens: {prompt.text[:60]!r}"
            )
        found.append(TokenizedPrompt(prompt, ids, tokens))
    return found


def encode(tokenizer: Any, texts: Sequence[str]) -> list[Ids]:
    """Tokens of texts that are to be continued: with a start token if the tokenizer adds one.

    Args:
        tokenizer: A tokenizer of the transformers library.
        texts: Texts, which may be empty.

    Returns:
        The tokens of each text, at least one, without a final end-of-text token.
    """
    start = tokenizer.bos_token_id
    alone = (tokenizer.pad_token_id if start is None else start,)
    found = []
    for ids in tokenizer(list(texts), verbose=False)["input_ids"]:
        ended = len(ids) > 1 and ids[-1] == tokenizer.eos_token_id
        found.append(tuple(ids[:-1] if ended else ids) or alone)
    return found


def read_splits(
    config: PreferenceConfig, language: md.training.LanguageModel, seed: int
) -> tuple[list[TokenizedPrompt], list[TokenizedPrompt]]:
    """The training prompts, and the held-out prompts of evaluations.

    Args:
        config: Settings.
        language: Model whose tokenizer and context are used.
        seed: Seed of the trial.

    Raises:
        InputError: A split has too few prompts, or a prompt does not fit the model's context.
    """
    training = tokenized_prompts(config, language, "train", md.derive_seed(seed, "train prompts"))
    test = tokenized_prompts(config, language, "test", md.derive_seed(seed, "test prompts"))
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
