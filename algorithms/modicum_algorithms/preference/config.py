"""Every setting of the family, with its default, limits and description."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

import modicum as md

_ENDPOINT = {"oracle": ("endpoint",)}
_POOL = {"generation.where": ("pool",)}
_ENTROPY = {"acquisition": ("entropy", "entropy_certainty")}
_REFIT = {"fine_tuning": ("refit",)}


class OracleConfig(md.Config):
    """Settings of an experiment that asks an oracle for judgements."""

    oracle: Literal["endpoint", "sentiment", "vader", "classifier"] = md.setting(
        "vader",
        description="Oracle: a language model behind an endpoint, the sentiment classifier "
        "trained on IMDB's training reviews, the VADER lexicon, or a Hugging Face classifier.",
    )
    model: str | None = md.setting(
        None,
        description="The model's name at the endpoint, the name or folder of a classifier, or "
        "the folder of a saved sentiment oracle to use instead of the one trained on IMDB.",
        used_by={"oracle": ("endpoint", "classifier", "sentiment")},
    )
    label: str | None = md.setting(
        None,
        description="Class whose probability decides, for a classifier with several classes.",
        used_by={"oracle": ("classifier",)},
    )
    template: str = md.setting(
        "summarisation",
        description="Prompt template: sentiment, summarisation, or a file of your own (.yaml).",
        used_by=_ENDPOINT,
    )
    temperature: float = md.setting(
        0.0, description="Sampling temperature of the oracle's model.", ge=0, le=2,
        used_by=_ENDPOINT,
    )  # fmt: skip
    max_tokens: int = md.setting(
        256, description="Maximum length of an answer in tokens.", ge=1, used_by=_ENDPOINT
    )
    both_orders: bool = md.setting(
        False,
        description="Ask about each pair in both orders and report how often the winner agrees.",
        used_by=_ENDPOINT,
    )
    error_rate: float = md.setting(
        0.0, description="Share of the judgements that are flipped at random.", ge=0, le=1
    )
    endpoint: md.oracles.Endpoint = md.oracles.Endpoint()


class JudgedPairsConfig(OracleConfig):
    """Settings of an experiment on pairs whose winner is known."""

    pairs: str = md.setting(
        "tldr",
        description="Pairs: tldr (posts with a model's and a human's summary, judged by GPT-4) or "
        "imdb (extracts of a positive and a negative review), both under MODICUM_DATA; or a file "
        "with the columns prompt, first, second and preferred.",
        identity=False,
    )


class OracleAgreementConfig(JudgedPairsConfig):
    """Settings of `oracle_agreement`."""

    count: int = md.setting(
        1000, description="Number of pairs, drawn at random.", unit="pairs", ge=1
    )
    extract_words: int = md.setting(
        32, description="Length of the extracts from IMDB's reviews.", unit="words", ge=1
    )


class OracleConsistencyConfig(JudgedPairsConfig):
    """Settings of `oracle_consistency`."""

    count: int = md.setting(50, description="Number of pairs, drawn at random.", unit="pairs", ge=1)
    opinions: int = md.setting(2, description="Judgements of each pair.", ge=2)
    order: Literal["same", "drawn"] = md.setting(
        "same",
        description="Order in which the repeated judgements see a pair: always the same, or drawn "
        "anew for each judgement, so that a position bias counts too.",
    )


class GenerationSettings(md.Config):
    """Settings of the processes that sample completions."""

    where: Literal["workers", "pool"] = md.setting(
        "workers",
        description="Processes that sample completions: the training workers, or a separate pool "
        "of Ray Data actors with CPUs and GPUs of its own.",
        identity=False,
    )
    engine: Literal["transformers", "vllm"] = md.setting(
        "transformers",
        description="Engine of the pool: transformers samples the same completions as the "
        "workers; vllm (an extra, GPUs only) samples others from the same distribution, faster.",
        used_by=_POOL,
    )
    actors: int = md.setting(
        0,
        description="Actors of the pool; each holds the whole model.",
        ge=0,
        le=1024,
        identity=False,
        used_by=_POOL,
    )
    cpus: float = md.setting(
        1.0,
        description="CPU cores of each actor.",
        unit="CPUs",
        gt=0,
        identity=False,
        used_by=_POOL,
    )
    gpus: float = md.setting(
        0.0,
        description="GPUs of each actor; vllm splits the model over them (tensor parallelism).",
        unit="GPUs",
        ge=0,
        identity=False,
        used_by=_POOL,
    )
    start_timeout: float = md.setting(
        600.0,
        description="Time limit for the start of all actors.",
        unit="s",
        gt=0,
        identity=False,
        used_by=_POOL,
    )

    @property
    def bundles(self) -> tuple[md.Bundle, ...]:
        """Resources that the pool occupies while it samples."""
        if self.where == "workers":
            return ()
        return (md.Bundle(cpus=self.cpus, gpus=self.gpus),) * self.actors

    def check(self) -> None:
        """Refuse settings that are valid one by one and cannot work together.

        Raises:
            InputError: Naming the setting.
        """
        if self.where == "workers":
            return
        vllm = self.engine == "vllm"
        whole = self.gpus >= 1 and self.gpus % 1 == 0
        for name, holds, allowed in (
            ("actors", self.actors >= 1, "1 or more with generation.where pool"),
            ("gpus", vllm or self.gpus <= 1, "at most 1 with generation.engine transformers"),
            ("gpus", not vllm or whole, "a whole number, 1 or more, with generation.engine vllm"),
            ("cpus", not vllm or self.cpus >= 1, "1 or more with generation.engine vllm"),
        ):
            if not holds:
                raise md.InputError(
                    f"generation.{name}: must be {allowed}, got {getattr(self, name):g}"
                )
        if vllm and importlib.util.find_spec("vllm") is None:
            raise md.InputError(
                "generation.engine: vllm needs the package 'vllm' (extra 'vllm', on machines with "
                "GPUs)"
            )


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


@dataclass(frozen=True)
class Recipe:
    """Settings of the pretraining of a GPT-2.

    The embeddings and vectors are trained with AdamW, the matrices of the blocks with Muon. Both
    learning rates rise linearly during the warm-up and then decay by a cosine.

    Attributes:
        vocabulary: Maximum size of the byte-level BPE vocabulary.
        context: Context length of the model in tokens, and the length of a training row.
        width: Width of the hidden states.
        layers: Number of blocks.
        heads: Attention heads of each block.
        passes: Passes over the texts; each text is cut to one row.
        batch_size: Rows of an update.
        learning_rate: Peak learning rate of AdamW.
        matrix_learning_rate: Peak learning rate of Muon.
        weight_decay: Weight decay of the matrices.
        warmup: Share of the updates that the warm-up takes.
        held_out: Share of the texts that is held out for validation.
        seed: Seed of the initial weights and the order of the texts.

    Raises:
        InputError: The width is not a multiple of the heads.
    """

    vocabulary: int = 4096
    context: int = 128
    width: int = 224
    layers: int = 4
    heads: int = 4
    passes: int = 1
    batch_size: int = 16
    learning_rate: float = 3e-3
    matrix_learning_rate: float = 0.02
    weight_decay: float = 0.05
    warmup: float = 0.05
    held_out: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise md.InputError(f"heads: must divide the width of {self.width}, got {self.heads}")


# By `language_model`. A recipe is part of the identity of trials that start from its model.
RECIPES = {
    "imdb": Recipe(),
    "packaged": Recipe(
        vocabulary=1024,
        width=96,
        layers=2,
        heads=4,
        passes=3,
        batch_size=8,
        learning_rate=1e-2,
        matrix_learning_rate=0.05,
    ),
}
