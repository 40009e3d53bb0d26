"""What active preference learning needs, before anything starts: memory of GPUs and machines.

Pure arithmetic on a model's shape; 1 GB is 10^9 bytes. `planning_time.py` has the time.
Ψ: parameters, Ψ_t: trained parameters, N_d: workers, as in Rajbhandari et al. 2020 (ZeRO).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import modicum as md
from modicum_algorithms.preference.model_shapes import ModelShape

Precision = Literal["fp32", "bf16", "fp16"]
Offload = Literal["none", "optimizer", "parameters"]
Acquisition = Literal["random", "entropy", "certainty", "entropy_certainty"]
Phase = Literal["fine-tuning", "update", "generation"]

PHASES: tuple[Phase, ...] = get_args(Phase)
_LEARNING: tuple[Phase, ...] = ("fine-tuning", "update")
GB = 1e9
_FP32 = 4  # bytes
_MOMENTS = 2 * _FP32  # Adam's, of each trained weight
_BUCKET = 50_000_000  # Numbers: the platform's setting of DeepSpeed's reduce_bucket_size.
_LARGE_BUCKET = 500_000_000  # DeepSpeed's own, where gradients are reduced whole.
_GATHERED = 1_000_000_000  # DeepSpeed's stage3_max_live_parameters
# While a token is drawn: log-probabilities, tempered, their sums, what is shown, a temporary.
_SAMPLING = 5
# While logits are differentiated: themselves, gradients through the chosen one and through the sum
# of all, and what is computed on the way.
_LOGITS = 4
_SMALL_GENERATION_BATCH = 16
_SMALL_RANK = 16


def at_least(smallest: float, **values: float | None) -> None:
    """Refuse a number that is too small; None passes.

    Raises:
        md.InputError: Naming the first such field.
    """
    for name, value in values.items():
        if value is not None and not value >= smallest:
            raise md.InputError(f"{name}: must be {smallest:g} or more, got {value:g}")


def above_zero(**values: float | None) -> None:
    """Refuse a number that is not above zero; None passes.

    Raises:
        md.InputError: Naming the first such field.
    """
    for name, value in values.items():
        if value is not None and not value > 0:
            raise md.InputError(f"{name}: must be above 0, got {value:g}")


@dataclass(frozen=True)
class Layout:
    """Where the model lies, and how it is trained; one worker on each GPU.

    Attributes:
        nodes: Machines.
        gpus: GPUs of each.
        zero: Stage: shards nothing (0), optimiser states (1), gradients (2), weights (3).
        precision: Of weights and activations.
        offload: What is in the machines' memory instead: the optimiser, or the weights, too.
        lora_rank: Of adapters; 0 trains all weights.
        checkpointing: Whether activations are computed again, rather than kept.
        micro_batch_size: Pairs that a GPU takes at once.
        generation_batch: Completions that a GPU samples at once.
        gpu_memory: Of one GPU, GB.
        host_memory: Of one machine, GB.
        headroom: Part of a GPU's memory that is left to CUDA, its libraries and fragmentation.
    """

    nodes: int = 1
    gpus: int = 1
    zero: int = 0
    precision: Precision = "bf16"
    offload: Offload = "none"
    lora_rank: int = 0
    checkpointing: bool = False
    micro_batch_size: int = 4
    generation_batch: int = 128
    gpu_memory: float = 80.0
    host_memory: float = 1000.0
    headroom: float = 0.1

    def __post_init__(self) -> None:
        md.require_choice("precision", self.precision, Precision)
        md.require_choice("offload", self.offload, Offload)
        at_least(1, nodes=self.nodes, gpus=self.gpus, micro_batch_size=self.micro_batch_size)
        at_least(1, generation_batch=self.generation_batch)
        at_least(0, lora_rank=self.lora_rank)
        above_zero(gpu_memory=self.gpu_memory, host_memory=self.host_memory)
        if self.zero not in {0, 1, 2, 3}:
            raise md.InputError(f"zero: must be one of 0, 1, 2, 3, got {self.zero}")
        if not 0 <= self.headroom < 1:
            raise md.InputError(f"headroom: must be from 0 to below 1, got {self.headroom:g}")
        if self.offload == "optimizer" and self.stage == 0:
            raise md.InputError("offload: the optimizer's needs zero 1, 2 or 3, got zero 0")
        if self.offload == "parameters" and self.zero != 3:
            raise md.InputError(f"offload: that of parameters needs zero 3, got zero {self.zero}")

    @property
    def workers(self) -> int:
        """N_d: GPUs of all machines."""
        return self.nodes * self.gpus

    @property
    def width(self) -> int:
        """Bytes of a weight."""
        return _FP32 if self.precision == "fp32" else 2

    @property
    def sharded_by_deepspeed(self) -> bool:
        """One GPU without ZeRO is trained in the trial's own process, without DeepSpeed."""
        return self.workers > 1 or self.zero > 0

    @property
    def stage(self) -> int:
        """Of ZeRO, as it is: DeepSpeed adds up gradients of 16 bits in fp32 from stage 1 on."""
        least = 1 if self.sharded_by_deepspeed and self.width < _FP32 else 0
        return max(self.zero, least)

    def trained(self, shape: ModelShape) -> int:
        """Ψ_t: all weights, or the adapters'."""
        return shape.adapter_parameters(self.lora_rank) if self.lora_rank else shape.parameters


@dataclass(frozen=True)
class Texts:
    """Lengths of what the model reads and writes.

    Attributes:
        prompt: Tokens of a prompt.
        completion: Tokens of a completion.
    """

    prompt: int = 256
    completion: int = 128

    def __post_init__(self) -> None:
        at_least(1, prompt_tokens=self.prompt, completion_tokens=self.completion)

    @property
    def pair(self) -> int:
        """Tokens of a pair's row: the prompt once, and both completions."""
        return self.prompt + 2 * self.completion


@dataclass(frozen=True)
class Part:
    """One part of the memory.

    Attributes:
        name: What it is.
        gpu: Bytes on each GPU.
        host: Bytes in the memory of each machine.
        phases: When it is there.
    """

    name: str
    gpu: float
    host: float
    phases: tuple[Phase, ...] = PHASES


@dataclass(frozen=True)
class Memory:
    """Parts of the memory, and whether they fit.

    Attributes:
        parts: Everything that is counted.
        gpu_memory: Of one GPU, bytes.
        host_memory: Of one machine, bytes.
    """

    parts: tuple[Part, ...]
    gpu_memory: float
    host_memory: float

    def during(self, phase: Phase) -> float:
        """Bytes on a GPU while one phase runs."""
        return sum(part.gpu for part in self.parts if phase in part.phases)

    @property
    def peak(self) -> float:
        """Bytes on a GPU in the phase that needs most."""
        return max(map(self.during, PHASES))

    @property
    def host(self) -> float:
        """Bytes in the memory of each machine."""
        return sum(part.host for part in self.parts)

    @property
    def fits(self) -> bool:
        """Whether the memory of GPUs and of machines is enough."""
        return self.peak <= self.gpu_memory and self.host <= self.host_memory


@dataclass(frozen=True)
class ModelStates:
    """Bytes that each worker holds of the model and its optimiser.

    Attributes:
        weights: In the precision of training.
        gradients: In the precision of training.
        masters: The optimiser's own copy of the weights, in fp32.
        moments: Adam's, in fp32.
    """

    weights: float
    gradients: float
    masters: float
    moments: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.gradients + self.masters + self.moments


def model_states(
    parameters: float,
    *,
    workers: int,
    zero: int,
    trained: float | None = None,
    precision: Precision = "bf16",
) -> ModelStates:
    """Bytes of a worker with ZeRO: (2 + 2 + K)Ψ, K = 12, with more and more of it over N_d.

    Rajbhandari et al. 2020, section 5 and figure 1. In fp32 weights are their own master copies,
    but DeepSpeed's stages 1 and 2 make one nevertheless.

    Args:
        parameters: Ψ.
        workers: N_d.
        zero: Stage.
        trained: Ψ_t; all if None.
        precision: Of weights and gradients.
    """
    trained = parameters if trained is None else trained
    width = _FP32 if precision == "fp32" else 2
    has_masters = width < _FP32 or zero in {1, 2}
    optimizer_shards = workers if zero >= 1 else 1
    return ModelStates(
        weights=width * parameters / (workers if zero >= 3 else 1),
        gradients=width * trained / (workers if zero >= 2 else 1),
        masters=_FP32 * trained / optimizer_shards if has_masters else 0.0,
        moments=_MOMENTS * trained / optimizer_shards,
    )


def memory(shape: ModelShape, layout: Layout, texts: Texts) -> Memory:
    """What lies where, and when.

    Fine-tuning is the forward and backward pass, update the optimiser's step, generation the
    sampling of completions.

    Args:
        shape: Of the model.
        layout: Machines, and how the model is shared by them.
        texts: Lengths in tokens.
    """
    parts = (
        *_of_states(shape, layout),
        *_of_fine_tuning(shape, layout, texts),
        *_of_generation(shape, layout, texts),
        Part("left to CUDA", layout.headroom * layout.gpu_memory * GB, 0),
    )
    counted = tuple(part for part in parts if part.gpu or part.host)
    return Memory(counted, layout.gpu_memory * GB, layout.host_memory * GB)


def _of_states(shape: ModelShape, layout: Layout) -> Iterator[Part]:
    trained = layout.trained(shape)
    states = model_states(
        shape.parameters,
        workers=layout.workers,
        zero=layout.stage,
        trained=trained,
        precision=layout.precision,
    )
    off = layout.offload != "none"
    yield _placed(layout, "weights", states.weights, off=layout.offload == "parameters")
    yield _placed(layout, "optimizer: fp32 weights", states.masters, off=off)
    yield _placed(layout, "optimizer: Adam's moments", states.moments, off=off)
    yield from _of_gradients(layout, trained)
    yield from _of_reference(layout, trained)


def _of_gradients(layout: Layout, trained: int) -> Iterator[Part]:
    """Gradients add up in fp32, where the paper has those of 16 bits alone."""
    b, stage, off = layout.width, layout.stage, layout.offload != "none"
    share = _FP32 * trained / layout.workers
    each = share if stage >= 2 or off else _FP32 * trained
    # Some of DeepSpeed's stages make room for them once and for all.
    for_good = stage == 3 or (stage == 1 and b < _FP32)
    yield _placed(layout, "gradients", each, PHASES if for_good else _LEARNING, off=off)
    if stage <= 1 and b < _FP32:
        yield Part("gradients of a micro-batch", b * trained, 0, ("fine-tuning",))
    if stage >= 2 and not off:
        yield Part("gradients in a row for the step", share, 0, ("update",))


def _of_reference(layout: Layout, trained: int) -> Iterator[Part]:
    """θ0 lies in the machines' memory and changes places with θ: no second model on the GPU.

    It is what the optimiser works on, in fp32. Without DeepSpeed it is a copy of the weights
    beside them.
    """
    if not layout.sharded_by_deepspeed:
        yield Part("reference: starting weights", layout.width * trained, 0)
        return
    each = _FP32 * trained / (layout.workers if layout.stage >= 1 else 1)
    yield _placed(layout, "reference: starting weights", each, off=True)
    yield _placed(layout, "reference: θ while θ0 is in use", each, off=True)


def _of_fine_tuning(shape: ModelShape, layout: Layout, texts: Texts) -> Iterator[Part]:
    b = layout.width
    rows_of_tokens = layout.micro_batch_size * texts.pair
    kept = shape.kept_per_token(b, texts.pair)
    # With checkpoints: every layer's input, and one layer at a time in full.
    layers = shape.layers * b * shape.hidden + kept if layout.checkpointing else shape.layers * kept
    yield Part("activations", rows_of_tokens * layers, 0, ("fine-tuning",))
    yield Part("logits", logits_bytes(shape, layout, texts), 0, ("fine-tuning",))
    if layout.sharded_by_deepspeed:
        yield _buckets(layout, layout.trained(shape))
    if layout.stage == 3:
        gathered = b * min(shape.parameters, _GATHERED)
        yield Part("weights gathered for a layer", gathered, 0, ("fine-tuning",))


def _buckets(layout: Layout, trained: int) -> Part:
    """Room to exchange gradients: all at the end, or bucket by bucket while they arise."""
    name, b = "communication buckets", layout.width
    if layout.stage == 0 or (layout.stage == 1 and b < _FP32):
        in_16_bits = b if b < _FP32 else 0
        return Part(name, (_FP32 + in_16_bits) * min(trained, _LARGE_BUCKET), 0, ("update",))
    return Part(name, 2 * b * min(trained, _BUCKET), 0, ("fine-tuning",))


def logits_bytes(shape: ModelShape, layout: Layout, texts: Texts) -> int:
    """Bytes of logits and their gradients at the height of the backward pass.

    Logits are computed where a completion's token is scored and nowhere else, and are fp32:
    V is large.
    """
    scored = layout.micro_batch_size * 2 * texts.completion
    in_16_bits = layout.width if layout.width < _FP32 else 0
    return scored * shape.vocabulary * (_LOGITS * _FP32 + in_16_bits)


def _of_generation(shape: ModelShape, layout: Layout, texts: Texts) -> Iterator[Part]:
    size = layout.generation_batch
    if layout.stage == 3 and (layout.workers > 1 or layout.offload == "parameters"):
        whole = layout.width * shape.parameters
        yield Part("all weights gathered", whole, 0, ("generation",))
    cache = size * (texts.prompt + texts.completion) * shape.cached_per_token(layout.width)
    yield Part("keys and values", cache, 0, ("generation",))
    yield Part("drawing tokens", size * shape.vocabulary * _SAMPLING * _FP32, 0, ("generation",))


def _placed(
    layout: Layout, name: str, each: float, phases: tuple[Phase, ...] = PHASES, *, off: bool
) -> Part:
    """What each worker holds: on its GPU, or off it, in the memory of its machine."""
    return Part(name, 0, each * layout.gpus, phases) if off else Part(name, each, 0, phases)


_Step = dict[str, int | bool | str]


@dataclass(frozen=True)
class Advice:
    """A layout that fits, near one that does not.

    Attributes:
        options: What to change, as it is typed.
        layout: With these changes.
    """

    options: tuple[str, ...]
    layout: Layout


def advice(shape: ModelShape, layout: Layout, texts: Texts) -> Advice | None:
    """The cheapest changes with which the model fits; None if it does not fit by any.

    Later changes cost more: stages of ZeRO some traffic, smaller batches and checkpoints time,
    offloading much time, more nodes money; adapters change what is learned. Those that turn out
    not to be needed are left out again.
    """
    ladder = _ladder(layout)
    for length in range(len(ladder) + 1):
        if _fits(shape, layout, texts, ladder[:length]):
            needed = _needed(shape, layout, texts, ladder[:length])
            return Advice(_typed(needed), _changed(layout, needed))
    return None


def _needed(shape: ModelShape, layout: Layout, texts: Texts, chosen: list[_Step]) -> list[_Step]:
    """What is left once nothing more can be left out, the costliest first."""
    for step in reversed(chosen):
        fewer = [other for other in chosen if other is not step]
        if _fits(shape, layout, texts, fewer):
            return _needed(shape, layout, texts, fewer)
    return chosen


def _ladder(layout: Layout) -> list[_Step]:
    steps: list[_Step] = [{"zero": stage} for stage in range(layout.zero + 1, 4)]
    if not layout.checkpointing:
        steps.append({"checkpointing": True})
    if layout.micro_batch_size > 1:
        steps.append({"micro_batch_size": 1})
    if layout.generation_batch > _SMALL_GENERATION_BATCH:
        steps.append({"generation_batch": _SMALL_GENERATION_BATCH})
    if layout.offload == "none":
        steps.append({"offload": "optimizer"})
    if layout.offload != "parameters":
        steps.append({"offload": "parameters"})
    steps += [{"nodes": layout.nodes * factor} for factor in (2, 4, 8)]
    if not layout.lora_rank:
        steps.append({"lora_rank": _SMALL_RANK})
    return steps


def _changed(layout: Layout, steps: list[_Step]) -> Layout:
    merged = {name: value for step in steps for name, value in step.items()}
    return replace(layout, **merged)  # type: ignore[arg-type]


def _fits(shape: ModelShape, layout: Layout, texts: Texts, steps: list[_Step]) -> bool:
    try:
        changed = _changed(layout, steps)
    except md.InputError:  # Offloading without the stage that it needs.
        return False
    return memory(shape, changed, texts).fits


def _typed(steps: list[_Step]) -> tuple[str, ...]:
    merged = {name: value for step in steps for name, value in step.items()}
    names = {"checkpointing": "--activation-checkpointing"}
    return tuple(
        names.get(name, f"--{name.replace('_', '-')}") + ("" if value is True else f" {value}")
        for name, value in merged.items()
    )
