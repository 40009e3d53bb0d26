"""Needs of a trial, from its settings: memory of a worker by part, tokens, judgements and time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import modicum as md
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.methods.acquisition import get_acquisition
from modicum_algorithms.preference.planning.model_size import Lengths, ModelSize

# Tokens a second that a worker fine-tunes on and that it samples, judgements a minute, if known.
Rates = tuple[float | None, float | None, float | None]

ALL: tuple[str, ...] = ("training", "update", "sampling")  # Phases.
_TRAINING, _UPDATE, _SAMPLING = ALL[:1], ALL[1:2], ALL[2:]
_FP32 = 4  # Bytes.
_LARGE_BUCKET = 500_000_000  # DeepSpeed's default, if gradients are reduced whole.
_GATHERED = 1_000_000_000  # DeepSpeed's stage3_max_live_parameters.
# Tensors (batch, vocabulary) while a token is sampled: log-probabilities, tempered probabilities,
# their cumulative sum, the output, a temporary.
_DRAWING = 5
# Further tensors of the logits' size at the peak of the backward pass: the gradients through the
# gathered logit and through the normaliser, and a temporary.
_LOGIT_GRADIENTS = 3
# Operations of a training pass per operation of a forward pass (Kaplan et al. 2020, section 2.1: 6
# and 2 for each weight and token).
_TRAINING_PER_FORWARD = 3


@dataclass(frozen=True)
class Part:
    """Part of a worker's memory in some phases: bytes on the device, or in main memory (`host`)."""

    name: str
    size: float
    phases: tuple[str, ...] = ALL
    host: bool = False


def peak(parts: Sequence[Part]) -> tuple[float, str]:
    """Bytes on the device in the phase that needs the most, and that phase."""
    on_device = [part for part in parts if not part.host]
    return max((sum(p.size for p in on_device if phase in p.phases), phase) for phase in ALL)


def worker_memory(config: PreferenceConfig, size: ModelSize, lengths: Lengths) -> list[Part]:
    """Memory of a training worker, which also samples unless a pool does."""
    training = config.training
    # DeepSpeed accumulates 16-bit gradients in fp32 from ZeRO stage 1 on.
    stage = max(training.zero_stage, 1 if training.workers and size.width < _FP32 else 0)
    parts = [*_states(config, size, stage), Part("activations and logits", size.kept, _TRAINING)]
    numbers = training.micro_batch_size * 2 * lengths.completion * size.vocabulary
    bytes_ = _LOGIT_GRADIENTS * _FP32 + (size.width if size.width < _FP32 else 0)
    parts.append(Part("gradients of the logits", bytes_ * numbers, _TRAINING))
    if stage == 3:
        gathered = size.width * min(size.parameters, _GATHERED)
        parts.append(Part("weights gathered for a layer", gathered, _TRAINING))
    if config.generation.where == "workers":
        if stage == 3 and (training.workers > 1 or training.offload == "parameters"):
            parts.append(Part("all weights gathered", size.width * size.parameters, _SAMPLING))
        batch = config.generation_batch
        cache = batch * (lengths.prompt + lengths.completion) * size.cached
        parts.append(Part("keys and values", cache, _SAMPLING))
        drawing = batch * size.vocabulary * _DRAWING * _FP32
        parts.append(Part("sampling of tokens", drawing, _SAMPLING))
    return [part for part in parts if part.size]


def _states(config: PreferenceConfig, size: ModelSize, stage: int) -> Iterator[Part]:
    """Weights, optimiser, gradients and reference (Rajbhandari et al. 2020, section 5).

    Modicum accumulates gradients in fp32. θ0 is no second model: only trained weights have a copy,
    which is exchanged with θ while θ0 is in use.
    """
    workers, trained = max(1, config.training.workers), size.trained
    in_16_bits, off = size.width < _FP32, config.training.offload != "none"
    share = trained / workers
    shard = share if stage >= 1 else trained
    weights = size.width * size.parameters / (workers if stage == 3 else 1)
    yield Part("weights", weights, host=config.training.offload == "parameters")
    # fp32 weights are their own master copies, but DeepSpeed's stages 1 and 2 make one.
    if in_16_bits or stage in {1, 2}:
        yield Part("optimizer: fp32 weights", _FP32 * shard, host=off)
    yield Part("optimizer: Adam's moments", 2 * _FP32 * shard, host=off)
    # In some stages DeepSpeed allocates gradients for good.
    phases = ALL if stage == 3 or (stage == 1 and in_16_bits) else _TRAINING + _UPDATE
    yield Part("gradients", _FP32 * (share if stage >= 2 or off else trained), phases, off)
    if stage <= 1 and in_16_bits:
        yield Part("gradients of a micro-batch", size.width * trained, _TRAINING)
    if stage >= 2 and not off:
        yield Part("gradients, flattened for the step", _FP32 * share, _UPDATE)
    if not config.training.workers:
        yield Part("reference: θ0", size.width * trained)
        return
    yield Part("reference: θ0, and θ while θ0 is in use", 2 * _FP32 * shard, host=True)
    if stage == 0 or (stage == 1 and in_16_bits):  # Gradients are reduced whole, at the end.
        numbers, bytes_ = min(trained, _LARGE_BUCKET), _FP32 + (size.width if in_16_bits else 0)
        yield Part("communication buckets", bytes_ * numbers, _UPDATE)
    else:
        buckets = 2 * size.width * min(trained, md.training.BUCKET)
        yield Part("communication buckets", buckets, _TRAINING)


@dataclass(frozen=True)
class Workload:
    """Work of a trial: an upper bound, as texts or training may end early.

    Attributes:
        sampled: Tokens of completions to sample.
        scored: Tokens of rows to score under θ0.
        trained: Tokens of rows to fine-tune on, over all epochs and rounds.
        judged: Judgements for training.
        evaluated: Judgements for evaluations.
    """

    sampled: int
    scored: int
    trained: int
    judged: int
    evaluated: int

    def hours(self, config: PreferenceConfig, rates: Rates) -> dict[str, float]:
        """Hours of each part whose throughput is known.

        Workers share the tokens, the actors of a pool those to sample.
        """
        trained, sampled, judged = rates
        workers, found = max(1, config.training.workers), {}
        samplers = config.generation.actors if config.generation.where == "pool" else workers
        if sampled is not None:
            found["sampling"] = self.sampled / (3600 * sampled * samplers)
        if trained is not None:
            found["scoring"] = self.scored / (3600 * (_TRAINING_PER_FORWARD * trained) * workers)
            found["training"] = self.trained / (3600 * trained * workers)
        if judged is not None:
            found["oracle"] = (self.judged + self.evaluated) / (60 * judged)
        return found


def workload(config: PreferenceConfig, lengths: Lengths) -> Workload:
    """The work of a trial of algorithm 2, for texts of the given lengths."""
    K, M, S = config.rounds, config.acquired_per_round, config.prompts_per_round
    acquisition = get_acquisition(config.acquisition)
    pairs = S if acquisition.needs_completions else M
    ranked = S if "entropy" in acquisition.pairs.needs else 0
    if acquisition.prompts is not None and "entropy" in acquisition.prompts.needs:
        ranked += config.entropy_factor * S
    evaluations = len({*config.evaluate_at, K * M}) if config.evaluate_at else K
    evaluations += len(config.epochs_evaluated(K))
    held_out = config.evaluation_prompts * (evaluations + (config.opponent == "start"))
    sampled = K * (2 * pairs + ranked * config.entropy_samples) + held_out
    # A refit in round k trains on k × M pairs.
    refitted = config.epochs * M * K * (K + 1) // 2
    return Workload(
        sampled=sampled * lengths.completion,
        # In the first round θ = θ0, and only judged pairs are scored.
        scored=(M + (K - 1) * pairs) * lengths.row,
        trained=(refitted if config.fine_tuning == "refit" else K * M) * lengths.row,
        judged=K * M,
        evaluated=2 * config.evaluation_prompts * evaluations,
    )
