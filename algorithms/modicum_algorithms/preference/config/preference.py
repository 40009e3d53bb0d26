"""Settings of the experiment `preference`."""

from __future__ import annotations

from typing import Literal

import modicum as md
from modicum_algorithms.preference.config.generation import GenerationSettings
from modicum_algorithms.preference.config.oracle import OracleConfig

_ENTROPY = {"acquisition": ("entropy", "entropy_certainty")}
_REFIT = {"fine_tuning": ("refit",)}


class PreferenceConfig(OracleConfig):
    """Settings of algorithm 2 (section 6.3); with the defaults, a trial takes about a minute.

    The thesis's settings are in `tune_configs/preference/`. Where its text and the authors' code
    differ, both values can be set.
    """

    acquisition: str = md.setting(
        "certainty",
        description="Acquisition function: random, entropy, certainty, entropy_certainty (the "
        "thesis's four), low_certainty, diverse_certainty, certainty_per_cost, or one of your own.",
    )
    language_model: str = md.setting(
        "packaged",
        description="θ0: a causal language model by its name on the hub, a folder or a GGUF file; "
        "imdb for a small GPT-2 that is pretrained on IMDB's reviews first; packaged for a tiny "
        "one.",
    )
    prompts: str = md.setting(
        "packaged",
        description="Source of the prompts: imdb or tldr under MODICUM_DATA, packaged, a text, "
        "JSONL or parquet file of your own, or hf:NAME.",
        identity=False,
    )
    prompts_column: str = md.setting(
        "prompt",
        description="Column with the prompts in a JSONL or parquet file, or in hf:NAME.",
        min_length=1,
        identity=False,
    )
    prompts_split: str | None = md.setting(
        None,
        description="Split of hf:NAME to read; all splits by default. Held-out prompts are drawn "
        "from the same split.",
        identity=False,
    )
    prompt_tokens_min: int = md.setting(
        8,
        description="Minimum length of a prompt cut from a review (imdb, packaged).",
        unit="tokens",
        ge=1,
    )
    prompt_tokens_max: int = md.setting(
        16,
        description="Maximum length of a prompt cut from a review; lengths are drawn uniformly.",
        unit="tokens",
        ge=1,
    )
    post_characters_min: int = md.setting(
        200, description="Minimum length of a post (tldr).", unit="characters", ge=0
    )
    post_characters_max: int = md.setting(
        1000, description="Maximum length of a post (tldr).", unit="characters", ge=1
    )
    counted_characters: Literal["post", "prompt"] = md.setting(
        "post",
        description="Text that the limits on posts count: the post alone, or the whole prompt "
        "with title and subreddit.",
    )
    completion_tokens_min: int = md.setting(
        16, description="Minimum of the length limit of completions.", unit="tokens", ge=1
    )
    completion_tokens_max: int = md.setting(
        24,
        description="Maximum of the length limit of completions; the limit of each prompt is "
        "drawn uniformly.",
        unit="tokens",
        ge=1,
    )
    oracle_calls: int = md.setting(
        64, description="B: judgements to acquire in all rounds.", unit="pairs", ge=1
    )
    acquired_per_round: int = md.setting(
        32,
        description="M: judgements to acquire in each round; the thesis has 128 and 64.",
        unit="pairs",
        ge=1,
    )
    prompts_per_round: int = md.setting(
        128, description="S: prompts to draw and score in each round.", unit="prompts", ge=1
    )
    entropy_factor: int = md.setting(
        4,
        description="J: entropy_certainty draws J times S prompts, or as many as are left.",
        ge=1,
        used_by={"acquisition": ("entropy_certainty",)},
    )
    entropy_samples: int = md.setting(
        8,
        description="N of equation 6.8: completions that estimate the entropy of a prompt.",
        unit="completions",
        ge=1,
        used_by=_ENTROPY,
    )
    entropy_temperature: float = md.setting(
        1.0,
        description="Sampling temperature of these completions; equation 6.8 is unbiased at 1.",
        gt=0,
        used_by=_ENTROPY,
    )
    removed_prompts: Literal["acquired", "drawn"] = md.setting(
        "acquired", description="Prompts of a round that later rounds do not draw again."
    )
    sampling_temperature: float = md.setting(
        0.7, description="Sampling temperature of the pairs acquired for training.", ge=0
    )
    beta: float = md.setting(0.2, description="β of equation 6.4.", gt=0)
    label_smoothing: float = md.setting(
        0.0,
        description="Assumed probability that a label is flipped (conservative DPO).",
        ge=0,
        lt=0.5,
    )
    rationale_weight: float = md.setting(
        0.0,
        description="Weight of the likelihood of the oracle's rationale (section 6.6).",
        ge=0,
    )
    fine_tuning: Literal["refit", "online"] = md.setting(
        "refit",
        description="Fine-tuning in each round: refit trains from θ0 on all pairs; online (D.4) "
        "continues from the previous round with one update on the newest pairs.",
    )
    epochs: int = md.setting(
        4, description="Epochs of each refit.", unit="epochs", ge=1, used_by=_REFIT
    )
    batch_size: int = md.setting(
        16, description="Pairs of an update, over all workers.", unit="pairs", ge=1, used_by=_REFIT
    )
    patience: int | None = md.setting(
        None,
        description="Early stopping: end a refit after this many epochs without a lower loss on "
        "held-back pairs.",
        unit="epochs",
        ge=1,
        used_by=_REFIT,
    )
    held_back: float = md.setting(
        0.1,
        description="Share of the acquired pairs that early stopping holds back.",
        gt=0,
        lt=1,
        used_by=_REFIT,
    )
    opponent: Literal["start", "human"] = md.setting(
        "start",
        description="Opponent in evaluations: the completions of θ0, or those of humans.",
    )
    evaluation_prompts: int = md.setting(
        64, description="Held-out prompts of an evaluation.", unit="prompts", ge=1
    )
    evaluation_temperature: float = md.setting(
        0.2,
        description="Sampling temperature of both sides' completions in evaluations; the authors' "
        "code has 0.25.",
        ge=0,
    )
    evaluate_at: tuple[int, ...] = md.setting(
        (),
        description="Numbers of requested judgements at which to evaluate; by default after every "
        "round. The last round is always evaluated.",
    )
    evaluate_epochs: int = md.setting(
        0,
        description="Also evaluate within the last round, every so many epochs (figure D.1); 0 "
        "for not at all.",
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
    def rounds(self) -> int:
        """K = ⌊B / M⌋, the number of rounds (line 3 of algorithm 2)."""
        return self.oracle_calls // self.acquired_per_round

    def epochs_evaluated(self, i: int) -> range:
        """Epochs of round i after which it is evaluated besides the last one (figure D.1)."""
        every = self.evaluate_epochs
        return range(every, self.epochs, every) if every and i == self.rounds else range(0)
