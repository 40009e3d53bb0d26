"""How long rounds of active preference learning take, before anything starts.

From stated throughputs, or from the arithmetic of a GPU: 2 floating-point operations for each
parameter and token forward, 6 with the backward pass (Kaplan et al. 2020, section 2.1). The
sampling of completions reads all weights for every token, and is slower than either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import modicum as md
from modicum_algorithms.preference.model_shapes import ModelShape
from modicum_algorithms.preference.planning import (
    GB,
    Acquisition,
    Layout,
    Texts,
    above_zero,
    at_least,
)

_TERA = 1e12
_MINUTE = 60.0


@dataclass(frozen=True)
class Hardware:
    """What a GPU and the connections do.

    Attributes:
        tflops: Arithmetic of a GPU in the precision of training, 10^12 operations a second.
        utilisation: Part of the arithmetic and of the memory's bandwidth that is reached.
        memory_bandwidth: Of a GPU's memory, GB/s.
        gpu_bandwidth: Between the GPUs of one machine, GB/s for each in each direction.
        node_bandwidth: Between machines, GB/s for each machine in each direction.
        training_throughput: Measured tokens of pairs a second and GPU, communication included;
            calculated if None.
        generation_throughput: Measured tokens of completions a second and GPU; calculated if
            None.
    """

    tflops: float = 989.0
    utilisation: float = 0.4
    memory_bandwidth: float = 3350.0
    gpu_bandwidth: float = 450.0
    node_bandwidth: float = 50.0
    training_throughput: float | None = None
    generation_throughput: float | None = None

    def __post_init__(self) -> None:
        above_zero(tflops=self.tflops, memory_bandwidth=self.memory_bandwidth)
        above_zero(gpu_bandwidth=self.gpu_bandwidth, node_bandwidth=self.node_bandwidth)
        above_zero(training_throughput=self.training_throughput)
        above_zero(generation_throughput=self.generation_throughput)
        if not 0 < self.utilisation <= 1:
            raise md.InputError(f"utilisation: must be above 0, up to 1, got {self.utilisation:g}")


@dataclass(frozen=True)
class Rounds:
    """What each round of algorithm 2 does; pairs of an evaluation are judged in both orders.

    Attributes:
        acquisition: How pairs are chosen.
        prompts: S: prompts that are sampled in each round.
        acquired: M: pairs that the oracle judges in each round.
        oracle_calls: B: pairs that it judges in all, for training.
        samples: N: completions from which a prompt's entropy is estimated.
        entropy_factor: J: entropy and certainty together rank J × S prompts by entropy first.
        epochs: Of fine-tuning from θ0 on everything acquired so far.
        batch_size: Pairs of an update.
        oracle_rate: Pairs that the oracle judges in a minute.
        evaluation_prompts: Prompts on which each round is evaluated; 0 evaluates none.
    """

    acquisition: Acquisition = "certainty"
    prompts: int = 2048
    acquired: int = 128
    oracle_calls: int = 768
    samples: int = 8
    entropy_factor: int = 4
    epochs: int = 70
    batch_size: int = 64
    oracle_rate: float = 60.0
    evaluation_prompts: int = 1024

    def __post_init__(self) -> None:
        md.require_choice("acquisition", self.acquisition, Acquisition)
        at_least(1, prompts=self.prompts, acquired=self.acquired, samples=self.samples)
        at_least(1, entropy_factor=self.entropy_factor, epochs=self.epochs)
        at_least(1, batch_size=self.batch_size)
        at_least(0, evaluation_prompts=self.evaluation_prompts)
        above_zero(oracle_rate=self.oracle_rate)
        if self.acquired > self.prompts:
            raise md.InputError(
                f"acquired: must be at most prompts ({self.prompts}), got {self.acquired}"
            )
        if self.oracle_calls < self.acquired:
            raise md.InputError(
                f"oracle_calls: must be at least acquired ({self.acquired}), "
                f"got {self.oracle_calls}"
            )

    @property
    def count(self) -> int:
        """K = ⌊B / M⌋."""
        return self.oracle_calls // self.acquired

    @property
    def completions_for_entropy(self) -> int:
        """Completions of a round whose only use is the estimate of equation 6.8."""
        ranked = {"entropy": self.prompts, "entropy_certainty": self.entropy_factor * self.prompts}
        return self.samples * ranked.get(self.acquisition, 0)

    @property
    def candidates(self) -> int:
        """Pairs of completions that are sampled: of all prompts only if pairs are compared."""
        return self.prompts if "certainty" in self.acquisition else self.acquired


@dataclass(frozen=True)
class Speed:
    """Tokens a second and GPU.

    Attributes:
        training: Of pairs, forward and backward.
        forward: Of pairs.
        generation: Of completions, with full batches.
    """

    training: float
    forward: float
    generation: float


def speed(shape: ModelShape, layout: Layout, texts: Texts, hardware: Hardware) -> Speed:
    """Throughputs as stated, or as the arithmetic and the memory's bandwidth allow."""
    reached = hardware.tflops * _TERA * hardware.utilisation
    operations = training_operations(shape, layout)
    size = layout.generation_batch
    generation = hardware.generation_throughput or (
        size * texts.completion / generation_seconds(shape, layout, texts, hardware, size)
    )
    return Speed(
        training=hardware.training_throughput or reached / operations,
        forward=reached / (2 * shape.parameters),
        generation=generation,
    )


def training_operations(shape: ModelShape, layout: Layout) -> int:
    """Floating-point operations for a token of training.

    Forward 2Ψ, backward to activations 2Ψ and to trained weights 2Ψ_t; checkpoints compute
    forward twice. Attention's own T² is left out: it matters from thousands of tokens on.
    """
    forwards = 2 if layout.checkpointing else 1
    return (2 * forwards + 2) * shape.parameters + 2 * layout.trained(shape)


def generation_seconds(
    shape: ModelShape, layout: Layout, texts: Texts, hardware: Hardware, size: int
) -> float:
    """Seconds in which one GPU samples a batch of completions.

    The prompts are read at once. Then each token waits for the arithmetic, or for all weights,
    keys and values to come out of the GPU's memory, whichever takes longer.
    """
    reached = hardware.tflops * _TERA * hardware.utilisation
    operations = 2 * shape.parameters * size
    read = layout.width * shape.parameters
    in_mean = texts.prompt + texts.completion / 2
    read += round(size * in_mean * shape.cached_per_token(layout.width))
    reading = read / (hardware.memory_bandwidth * GB * hardware.utilisation)
    token = max(operations / reached, reading)
    return texts.prompt * operations / reached + texts.completion * token


@dataclass(frozen=True)
class Communication:
    """What one update sends.

    Attributes:
        accumulated: Micro-batches of each worker in an update.
        sent: Bytes that each worker sends.
        seconds: If nothing else is done meanwhile.
    """

    accumulated: int
    sent: float
    seconds: float


def communication(
    shape: ModelShape, layout: Layout, hardware: Hardware, batch_size: int
) -> Communication:
    """Traffic of an update by ring collectives: (N_d − 1) / N_d of each collective's numbers.

    Rajbhandari et al. 2020, section 7: an all-reduce of gradients moves 2 Ψ_t, reducing them to
    shards Ψ_t, gathering weights Ψ_t. DeepSpeed's stage 1 does an all-reduce and gathers; stage 2
    reduces to shards after every micro-batch; stage 3 gathers all Ψ for each forward and each
    backward pass, too. A ring crosses each machine's border once, so the border carries what one
    worker sends.
    """
    workers = layout.workers
    accumulated = math.ceil(batch_size / (workers * layout.micro_batch_size))
    trained = layout.trained(shape)
    numbers = {
        0: 2 * trained,
        1: 3 * trained,
        2: (accumulated + 1) * trained,
        3: accumulated * (2 * shape.parameters + trained),
    }[layout.stage]
    sent = layout.width * numbers * (workers - 1) / workers
    return Communication(accumulated, sent, sent / _bandwidth(layout, hardware))


def _bandwidth(layout: Layout, hardware: Hardware) -> float:
    """Bytes a second through the slowest connection of the ring."""
    within, across = hardware.gpu_bandwidth, hardware.node_bandwidth
    return GB * (within if layout.nodes == 1 else min(within, across))


@dataclass(frozen=True)
class Step:
    """One step of a round.

    Attributes:
        name: What is done.
        amount: How much of it in the first round, for people.
        first: Seconds in the first round.
        last: Seconds in the last round.
        total: Seconds in all rounds.
        busy: Whether GPUs work meanwhile.
    """

    name: str
    amount: str
    first: float
    last: float
    total: float
    busy: bool = True


def steps(
    shape: ModelShape, layout: Layout, texts: Texts, hardware: Hardware, rounds: Rounds
) -> tuple[Step, ...]:
    """Time of each step of algorithm 2, over all rounds; completions have their full length."""
    M, E = rounds.acquired, rounds.evaluation_prompts
    sampling = partial(_sampling_seconds, shape, layout, texts, hardware)
    forward = speed(shape, layout, texts, hardware).forward * layout.workers

    def judging(pairs: int) -> float:
        return pairs / rounds.oracle_rate * _MINUTE

    def step(name: str, amount: str, seconds: Callable[[int], float], busy: bool = True) -> Step:
        each = [seconds(k) for k in range(1, rounds.count + 1)]
        return Step(name, amount, each[0], each[-1], sum(each), busy)

    def referred(k: int) -> int:
        # log p_θ comes with the sampling; log p_θ0 is asked of all candidates, but in the first
        # round, in which θ = θ0, only of those that are trained on.
        return M if k == 1 else rounds.candidates

    n, pairs = rounds.completions_for_entropy, 2 * rounds.candidates
    found = [
        step("samples for the entropy", f"{n:,} completions", lambda _: sampling(n)),
        step("completions of pairs", f"{pairs:,} completions", lambda _: sampling(pairs)),
        step("reference", f"{M:,} pairs", lambda k: referred(k) * texts.pair / forward),
        step("oracle", f"{M:,} pairs", lambda _: judging(M), busy=False),
        step(
            "fine-tuning",
            f"{rounds.epochs} epochs of {M:,} pairs",
            partial(_fine_tuning_seconds, shape, layout, texts, hardware, rounds),
        ),
        # θ0's own completions are sampled once; each pair is judged in both orders.
        step(
            "evaluation: completions",
            f"{2 * E:,} completions",
            lambda k: sampling(E) * (2 if k == 1 else 1),
        ),
        step("evaluation: oracle", f"{2 * E:,} pairs", lambda _: judging(2 * E), busy=False),
    ]
    return tuple(one for one in found if one.total)


def _sampling_seconds(
    shape: ModelShape, layout: Layout, texts: Texts, hardware: Hardware, completions: int
) -> float:
    if completions == 0:
        return 0.0
    each = math.ceil(completions / layout.workers)
    if hardware.generation_throughput is not None:
        return each * texts.completion / hardware.generation_throughput
    batches = math.ceil(each / layout.generation_batch)
    size = math.ceil(each / batches)
    gathering = 0.0
    if layout.stage == 3:
        others = (layout.workers - 1) / layout.workers
        gathering = layout.width * shape.parameters * others / _bandwidth(layout, hardware)
    return gathering + batches * generation_seconds(shape, layout, texts, hardware, size)


def _fine_tuning_seconds(
    shape: ModelShape,
    layout: Layout,
    texts: Texts,
    hardware: Hardware,
    rounds: Rounds,
    k: int,
) -> float:
    """Round k trains on k × M pairs: what was acquired so far, again from θ0.

    The pairs of an update are shared out whole, so GPUs beyond their number are idle.
    """
    rate = speed(shape, layout, texts, hardware).training
    sending = communication(shape, layout, hardware, rounds.batch_size).seconds
    if hardware.training_throughput is not None:
        sending = 0.0
    full, rest = divmod(k * rounds.acquired, rounds.batch_size)
    share = full * math.ceil(rounds.batch_size / layout.workers) + math.ceil(rest / layout.workers)
    updates = full + (rest > 0)
    return rounds.epochs * (share * texts.pair / rate + updates * sending)
