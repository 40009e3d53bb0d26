"""Settings of the experiment `preference`."""

from __future__ import annotations

from typing import Literal

import modicum as md
from modicum_algorithms.preference.generation_settings import GenerationSettings
from modicum_algorithms.preference.oracle_settings import OracleConfig
from modicum_algorithms.preference.prompt_rows import PromptRows

_ENTROPY = {"acquisition": ("entropy", "entropy_certainty")}
_REFIT = {"fine_tuning": ("refit",)}


class PreferenceConfig(OracleConfig):
    """Settings of algorithm 2 (section 6.3). The defaults go round its loop in a minute.

    The thesis's settings are in `tune_configs/preference/`; where its text and the authors' code
    differ, both can be set.
    """

    acquisition: str = md.setting(
        "certainty",
        description="Which pairs are judged: random, entropy, certainty, entropy_certainty (the "
        "thesis's four), low_certainty, diverse_certainty, certainty_per_cost, or one of your own.",
    )
    language_model: str = md.setting(
        "packaged",
        description="θ0: a causal language model by name on the hub, folder or GGUF file; imdb for "
        "a small GPT-2 that is trained on IMDB's reviews first; packaged for a tiny one.",
    )
    prompts: str = md.setting(
        "packaged",
        description="What is completed: imdb or tldr under MODICUM_DATA, packaged, a text, JSONL "
        "or parquet file of your own, or hf:NAME.",
        identity=False,
    )
    prompts_column: str = md.setting(
        "prompt",
        description="Column with the prompts of a JSONL or parquet file, or of hf:NAME.",
        min_length=1,
        identity=False,
    )
    prompts_split: str | None = md.setting(
        None,
        description="Split of hf:NAME to take; all of them by default. Held-out prompts are drawn "
        "from the same.",
        identity=False,
    )
    prompt_tokens_min: int = md.setting(
        8,
        description="Least length that a review is cut to (imdb, packaged).",
        unit="tokens",
        ge=1,
    )
    prompt_tokens_max: int = md.setting(
        16, description="Greatest such length; drawn uniformly.", unit="tokens", ge=1
    )
    post_characters_min: int = md.setting(
        200, description="Least length of a post (tldr).", unit="characters", ge=0
    )
    post_characters_max: int = md.setting(
        1000, description="Greatest length of a post (tldr).", unit="characters", ge=1
    )
    counted_characters: Literal["post", "prompt"] = md.setting(
        "post", description="What these limits count: the post alone, or with title and subreddit."
    )
    completion_tokens_min: int = md.setting(
        16, description="Least number of tokens that a completion may have.", unit="tokens", ge=1
    )
    completion_tokens_max: int = md.setting(
        24,
        description="Greatest such number; each prompt's is drawn uniformly.",
        unit="tokens",
        ge=1,
    )
    oracle_calls: int = md.setting(
        64, description="B: judgements to acquire in all.", unit="pairs", ge=1
    )
    acquired_per_round: int = md.setting(
        32,
        description="M: judgements acquired in a round; the thesis has 128 and 64.",
        unit="pairs",
        ge=1,
    )
    prompts_per_round: int = md.setting(
        128, description="S: prompts drawn in a round and scored.", unit="prompts", ge=1
    )
    entropy_factor: int = md.setting(
        4,
        description="J: entropy_certainty draws J times S prompts, or as many as are left.",
        ge=1,
        used_by={"acquisition": ("entropy_certainty",)},
    )
    entropy_samples: int = md.setting(
        8, description="N of equation 6.8.", unit="completions", ge=1, used_by=_ENTROPY
    )
    entropy_temperature: float = md.setting(
        1.0,
        description="Of these samples; equation 6.8 is unbiased at 1.",
        gt=0,
        used_by=_ENTROPY,
    )
    removed_prompts: Literal["acquired", "drawn"] = md.setting(
        "acquired", description="Which prompts of a round are not drawn again."
    )
    sampling_temperature: float = md.setting(
        0.7, description="Of the completions to be judged for training.", ge=0
    )
    beta: float = md.setting(0.2, description="β of equation 6.4.", gt=0)
    label_smoothing: float = md.setting(
        0.0, description="Probability at which labels are taken to be flipped.", ge=0, lt=0.5
    )
    rationale_weight: float = md.setting(
        0.0,
        description="Weight of the likelihood of the oracle's rationale (section 6.6).",
        ge=0,
    )
    fine_tuning: Literal["refit", "online"] = md.setting(
        "refit",
        description="Each round: from θ0 on all pairs, or (D.4) on from the round before, one "
        "update on the newest pairs.",
    )
    epochs: int = md.setting(4, description="Of each refit.", unit="epochs", ge=1, used_by=_REFIT)
    batch_size: int = md.setting(
        16, description="Pairs of one update, over all workers.", unit="pairs", ge=1, used_by=_REFIT
    )
    patience: int | None = md.setting(
        None,
        description="Stop a refit after so many epochs without a lower loss on held-back pairs.",
        unit="epochs",
        ge=1,
        used_by=_REFIT,
    )
    held_back: float = md.setting(
        0.1,
        description="Share of the acquired pairs that is held back for it.",
        gt=0,
        lt=1,
        used_by=_REFIT,
    )
    opponent: Literal["start", "human"] = md.setting(
        "start", description="Whose completions are to be won against: θ0's, or the humans'."
    )
    evaluation_prompts: int = md.setting(
        64, description="Held-out prompts of an evaluation.", unit="prompts", ge=1
    )
    evaluation_temperature: float = md.setting(
        0.2, description="Of both sides' completions; the authors' code has 0.25.", ge=0
    )
    evaluate_at: tuple[int, ...] = md.setting(
        (),
        description="Judgements asked for so far at which to evaluate; after every round if none "
        "are given, and always at the end.",
    )
    evaluate_epochs: int = md.setting(
        0,
        description="Evaluate after so many epochs within the last round, too (figure D.1).",
        unit="epochs",
        ge=0,
        used_by=_REFIT,
    )
    generation_batch: int = md.setting(
        128,
        description="Completions that a worker, or an actor of a pool, samples at once.",
        unit="completions",
        ge=1,
        identity=False,
    )
    generation: GenerationSettings = GenerationSettings()
    training: md.training.TrainingSettings = md.training.TrainingSettings(learning_rate=5e-4)

    @property
    def prompt_rows(self) -> PromptRows:
        """Where the prompts of a data set or a file of one's own are."""
        return PromptRows(self.prompts_split, self.prompts_column)
