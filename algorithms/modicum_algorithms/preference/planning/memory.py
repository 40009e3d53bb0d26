"""Memory by part, calculated from a configuration and the size of its model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.planning.model_size import Lengths, ModelSize

Phase = Literal["training", "update", "sampling"]

_TRAINING: tuple[Phase, ...] = ("training",)
_UPDATE: tuple[Phase, ...] = ("update",)
_SAMPLING: tuple[Phase, ...] = ("sampling",)
_LEARNING = (*_TRAINING, *_UPDATE)
ALL = (*_LEARNING, *_SAMPLING)
_FP32 = 4  # Bytes.
_MOMENTS = 2 * _FP32  # Adam's, for each trained weight.
_BUCKET = 50_000_000  # Numbers: the platform's setting of DeepSpeed's reduce_bucket_size.
_LARGE_BUCKET = 500_000_000  # DeepSpeed's default, if gradients are reduced whole.
_GATHERED = 1_000_000_000  # DeepSpeed's stage3_max_live_parameters.
# Tensors (batch, vocabulary) while a token is sampled: log-probabilities, tempered probabilities,
# their cumulative sum, the output, a temporary.
_DRAWING = 5
# Further tensors of the logits' size at the peak of the backward pass: the gradients through the
# gathered logit and through the normaliser, and a temporary.
_LOGIT_GRADIENTS = 3


@dataclass(frozen=True)
class Part:
    """A part of the memory of a worker.

    Attributes:
        name: Name of the part.
        device: Bytes on the device.
        host: Bytes in main memory, if DeepSpeed keeps the part there.
        phases: Phases during which the part exists.
    """

    name: str
    device: float
    host: float = 0.0
    phases: tuple[Phase, ...] = ALL


def peak(parts: Sequence[Part]) -> tuple[float, Phase]:
    """Bytes on the device in the phase that needs the most, and that phase."""
    return max((sum(p.device for p in parts if phase in p.phases), phase) for phase in ALL)


def worker_memory(config: PreferenceConfig, size: ModelSize, lengths: Lengths) -> list[Part]:
    """Memory of a training worker, which also samples unless a pool does."""
    parts = [*_states(config, size), *_activations(config, size, lengths)]
    if config.generation.where == "workers":
        parts += _sampling(config, size, lengths)
    return [part for part in parts if part.device or part.host]


def _stage(config: PreferenceConfig, size: ModelSize) -> int:
    """ZeRO stage in force: DeepSpeed accumulates 16-bit gradients in fp32 from stage 1 on."""
    least = 1 if config.training.workers and size.width < _FP32 else 0
    return max(config.training.zero_stage, least)


def _states(config: PreferenceConfig, size: ModelSize) -> Iterator[Part]:
    """Weights, optimiser, gradients and reference (Rajbhandari et al. 2020, section 5).

    Modicum accumulates gradients in fp32. θ0 is no second model: only trained weights have a copy,
    which is exchanged with θ while θ0 is in use.
    """
    workers, stage, trained = max(1, config.training.workers), _stage(config, size), size.trained
    in_16_bits, off = size.width < _FP32, config.training.offload != "none"
    share = trained / workers
    shard = share if stage >= 1 else trained
    weights = size.width * size.parameters / (workers if stage == 3 else 1)
    yield _placed("weights", weights, off=config.training.offload == "parameters")
    # fp32 weights are their own master copies, but DeepSpeed's stages 1 and 2 make one.
    if in_16_bits or stage in {1, 2}:
        yield _placed("optimizer: fp32 weights", _FP32 * shard, off=off)
    yield _placed("optimizer: Adam's moments", _MOMENTS * shard, off=off)
    # In some stages DeepSpeed allocates gradients for good.
    phases = ALL if stage == 3 or (stage == 1 and in_16_bits) else _LEARNING
    yield _placed("gradients", _FP32 * (share if stage >= 2 or off else trained), phases, off=off)
    if stage <= 1 and in_16_bits:
        yield Part("gradients of a micro-batch", size.width * trained, phases=_TRAINING)
    if stage >= 2 and not off:
        yield Part("gradients, flattened for the step", _FP32 * share, phases=_UPDATE)
    if not config.training.workers:
        yield Part("reference: θ0", size.width * trained)
        return
    yield Part("reference: θ0, and θ while θ0 is in use", 0, 2 * _FP32 * shard)
    if stage == 0 or (stage == 1 and in_16_bits):  # Gradients are reduced whole, at the end.
        numbers, bytes_ = min(trained, _LARGE_BUCKET), _FP32 + (size.width if in_16_bits else 0)
        yield Part("communication buckets", bytes_ * numbers, phases=_UPDATE)
    else:
        buckets = 2 * size.width * min(trained, _BUCKET)
        yield Part("communication buckets", buckets, phases=_TRAINING)


def _activations(config: PreferenceConfig, size: ModelSize, lengths: Lengths) -> Iterator[Part]:
    yield Part("activations and logits", size.kept, phases=_TRAINING)
    numbers = config.training.micro_batch_size * 2 * lengths.completion * size.vocabulary
    bytes_ = _LOGIT_GRADIENTS * _FP32 + (size.width if size.width < _FP32 else 0)
    yield Part("gradients of the logits", bytes_ * numbers, phases=_TRAINING)
    if _stage(config, size) == 3:
        gathered = size.width * min(size.parameters, _GATHERED)
        yield Part("weights gathered for a layer", gathered, phases=_TRAINING)


def _sampling(config: PreferenceConfig, size: ModelSize, lengths: Lengths) -> Iterator[Part]:
    shared = config.training.workers > 1 or config.training.offload == "parameters"
    if _stage(config, size) == 3 and shared:
        yield Part("all weights gathered", size.width * size.parameters, phases=_SAMPLING)
    batch = config.generation_batch
    cache = batch * (lengths.prompt + lengths.completion) * size.cached
    yield Part("keys and values", cache, phases=_SAMPLING)
    drawing = batch * size.vocabulary * _DRAWING * _FP32
    yield Part("sampling of tokens", drawing, phases=_SAMPLING)


def _placed(name: str, size: float, phases: tuple[Phase, ...] = ALL, *, off: bool) -> Part:
    return Part(name, 0, size, phases) if off else Part(name, size, 0, phases)
