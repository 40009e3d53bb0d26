"""`modicum plan`: what active preference learning will need, before anything starts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

import modicum as md
from modicum_algorithms.preference.model_shapes import ModelShape, model_shape
from modicum_algorithms.preference.planning import (
    GB,
    PHASES,
    Advice,
    Layout,
    Memory,
    Texts,
    advice,
    memory,
)
from modicum_algorithms.preference.planning_time import (
    Communication,
    Hardware,
    Rounds,
    Speed,
    Step,
    communication,
    speed,
    steps,
)

_HOUR = 3600.0


@dataclass(frozen=True)
class Plan:
    """Everything that `modicum plan` says.

    Attributes:
        shape: Of the model.
        layout: Where it lies.
        texts: Their lengths.
        hardware: What was assumed of it.
        rounds: What was planned.
        memory: What lies where.
        advice: A layout that fits, if this one does not and there is one.
        speed: Throughputs.
        communication: Of one update.
        steps: Time of each step.
    """

    shape: ModelShape
    layout: Layout
    texts: Texts
    hardware: Hardware
    rounds: Rounds
    memory: Memory
    advice: Advice | None
    speed: Speed
    communication: Communication
    steps: tuple[Step, ...]

    @classmethod
    def of(
        cls, shape: ModelShape, layout: Layout, texts: Texts, hardware: Hardware, rounds: Rounds
    ) -> Plan:
        """Work it out."""
        needed = memory(shape, layout, texts)
        return cls(
            shape=shape,
            layout=layout,
            texts=texts,
            hardware=hardware,
            rounds=rounds,
            memory=needed,
            advice=None if needed.fits else advice(shape, layout, texts),
            speed=speed(shape, layout, texts, hardware),
            communication=communication(shape, layout, hardware, rounds.batch_size),
            steps=steps(shape, layout, texts, hardware, rounds),
        )

    @property
    def seconds(self) -> float:
        """Time of all rounds."""
        return sum(step.total for step in self.steps)

    def to_json(self) -> str:
        """All of it, in bytes and seconds."""
        document = asdict(self)
        document["shape"]["parameters"] = self.shape.parameters
        document["trained"] = self.layout.trained(self.shape)
        document["memory"] |= {
            "during": {phase: self.memory.during(phase) for phase in PHASES},
            "host": self.memory.host,
            "fits": self.memory.fits,
        }
        document["seconds"] = self.seconds
        return json.dumps(document, indent=2, ensure_ascii=False)


def plan(
    model: Annotated[
        str,
        typer.Option(
            help="1b, 7b or 70b (shapes of Pythia-1B, Llama-2-7B, Llama-2-70B), a model's folder, "
            "or its name on the Hugging Face hub.",
            show_default=False,
        ),
    ],
    nodes: Annotated[int, typer.Option(help="Machines.")] = Layout.nodes,
    gpus: Annotated[int, typer.Option(help="GPUs of each machine.")] = Layout.gpus,
    zero: Annotated[
        int,
        typer.Option(help="Stage of ZeRO: shards nothing (0), optimiser (1), gradients (2), all."),
    ] = Layout.zero,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = Layout.precision,
    offload: Annotated[str, typer.Option(help="none, optimizer or parameters.")] = Layout.offload,
    lora_rank: Annotated[
        int, typer.Option(help="Of LoRA's adapters; 0 trains all weights.")
    ] = Layout.lora_rank,
    activation_checkpointing: Annotated[
        bool, typer.Option("--activation-checkpointing", help="Compute activations again.")
    ] = False,
    micro_batch_size: Annotated[
        int, typer.Option(help="Pairs that a GPU takes at once.")
    ] = Layout.micro_batch_size,
    generation_batch: Annotated[
        int, typer.Option(help="Completions that a GPU samples at once.")
    ] = Layout.generation_batch,
    gpu_memory: Annotated[float, typer.Option(help="GB of one GPU.")] = Layout.gpu_memory,
    host_memory: Annotated[float, typer.Option(help="GB of one machine.")] = Layout.host_memory,
    headroom: Annotated[
        float, typer.Option(help="Part of a GPU's memory left to CUDA and fragmentation.")
    ] = Layout.headroom,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of a prompt.")] = Texts.prompt,
    completion_tokens: Annotated[
        int, typer.Option(help="Tokens of a completion.")
    ] = Texts.completion,
    acquisition: Annotated[
        str, typer.Option(help="random, entropy, certainty or entropy_certainty.")
    ] = Rounds.acquisition,
    prompts: Annotated[int, typer.Option(help="S: prompts of a round.")] = Rounds.prompts,
    acquired: Annotated[int, typer.Option(help="M: judged pairs of a round.")] = Rounds.acquired,
    oracle_calls: Annotated[
        int, typer.Option(help="B: judged pairs in all rounds.")
    ] = Rounds.oracle_calls,
    samples: Annotated[
        int, typer.Option(help="N: completions for a prompt's entropy.")
    ] = Rounds.samples,
    entropy_factor: Annotated[
        int, typer.Option(help="J: entropy_certainty ranks J × S prompts by entropy.")
    ] = Rounds.entropy_factor,
    epochs: Annotated[int, typer.Option(help="Of fine-tuning in a round.")] = Rounds.epochs,
    batch_size: Annotated[int, typer.Option(help="Pairs of an update.")] = Rounds.batch_size,
    oracle_rate: Annotated[
        float, typer.Option(help="Pairs that the oracle judges in a minute.")
    ] = Rounds.oracle_rate,
    evaluation_prompts: Annotated[
        int, typer.Option(help="Prompts of a round's evaluation; 0 for none.")
    ] = Rounds.evaluation_prompts,
    tflops: Annotated[
        float, typer.Option(help="Arithmetic of a GPU, 10^12 operations a second.")
    ] = Hardware.tflops,
    utilisation: Annotated[
        float, typer.Option(help="Part of arithmetic and memory bandwidth that is reached.")
    ] = Hardware.utilisation,
    memory_bandwidth: Annotated[
        float, typer.Option(help="GB/s of a GPU's memory.")
    ] = Hardware.memory_bandwidth,
    gpu_bandwidth: Annotated[
        float, typer.Option(help="GB/s between GPUs of a machine.")
    ] = Hardware.gpu_bandwidth,
    node_bandwidth: Annotated[
        float, typer.Option(help="GB/s between machines.")
    ] = Hardware.node_bandwidth,
    training_throughput: Annotated[
        float | None, typer.Option(help="Measured tokens/s of a GPU in training.")
    ] = None,
    generation_throughput: Annotated[
        float | None, typer.Option(help="Measured tokens/s of a GPU in generation.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Say what active preference learning of a model needs: memory, time, traffic."""
    layout = Layout(
        nodes=nodes,
        gpus=gpus,
        zero=zero,
        precision=precision,  # type: ignore[arg-type]
        offload=offload,  # type: ignore[arg-type]
        lora_rank=lora_rank,
        checkpointing=activation_checkpointing,
        micro_batch_size=micro_batch_size,
        generation_batch=generation_batch,
        gpu_memory=gpu_memory,
        host_memory=host_memory,
        headroom=headroom,
    )
    rounds = Rounds(
        acquisition=acquisition,  # type: ignore[arg-type]
        prompts=prompts,
        acquired=acquired,
        oracle_calls=oracle_calls,
        samples=samples,
        entropy_factor=entropy_factor,
        epochs=epochs,
        batch_size=batch_size,
        oracle_rate=oracle_rate,
        evaluation_prompts=evaluation_prompts,
    )
    hardware = Hardware(
        tflops=tflops,
        utilisation=utilisation,
        memory_bandwidth=memory_bandwidth,
        gpu_bandwidth=gpu_bandwidth,
        node_bandwidth=node_bandwidth,
        training_throughput=training_throughput,
        generation_throughput=generation_throughput,
    )
    texts = Texts(prompt_tokens, completion_tokens)
    made = Plan.of(model_shape(model), layout, texts, hardware, rounds)
    print(made.to_json() if as_json else "\n".join(_lines(made)))


def _lines(made: Plan) -> Iterator[str]:
    layout = made.layout
    trained = layout.trained(made.shape)
    share = f"{trained:,} of them trained (LoRA)" if layout.lora_rank else "all trained"
    zero = f"ZeRO {layout.stage}"
    if layout.stage != layout.zero:
        zero += " (there is no 0 in 16 bits)"
    yield f"{made.shape.name}: {made.shape.parameters:,} parameters, {share}"
    yield (
        f"machines: {layout.nodes}, GPUs of each: {layout.gpus}, {zero}, {layout.precision}, "
        f"rows of {made.texts.pair} tokens"
    )
    yield ""
    yield _memory_table(made.memory)
    yield from _verdict(made)
    yield ""
    yield from _speeds(made)
    yield ""
    yield _time_table(made)
    yield "calculated from the model's shape; nothing was run"


def _memory_table(needed: Memory) -> str:
    table = _table("memory, GB", "each GPU", "each machine", "during")
    for part in needed.parts:
        during = "all" if part.phases == PHASES else ", ".join(part.phases)
        table.add_row(part.name, _gb(part.gpu), _gb(part.host), during)
    table.add_section()
    for phase in PHASES:
        table.add_row(f"in all during {phase}", _gb(needed.during(phase)), "", "")
    table.add_row("in all", "", _gb(needed.host), "")
    return _rendered(table)


def _verdict(made: Plan) -> Iterator[str]:
    needed = made.memory
    worst = max(PHASES, key=needed.during)
    sizes = f"{worst} takes {needed.peak / GB:.1f} of {needed.gpu_memory / GB:g} GB of a GPU"
    sizes += f", {needed.host / GB:.1f} of {needed.host_memory / GB:g} GB of a machine"
    if needed.fits:
        yield f"fits: {sizes}"
        return
    yield f"does not fit: {sizes}"
    if made.advice is not None:
        yield f"it would fit with {' '.join(made.advice.options)}"
        return
    whole = made.layout.width * made.shape.parameters
    yield (
        "no stage of ZeRO, offloading, adapters or eight times the machines would do; every GPU "
        f"holds all weights ({whole / GB:.1f} GB) while it generates: take GPUs with more memory, "
        "or leave generation to a pool of others (generation.engine vllm)"
    )


def _speeds(made: Plan) -> Iterator[str]:
    hardware = made.hardware
    for name, rate, stated in (
        ("training", made.speed.training, hardware.training_throughput),
        ("forward", made.speed.forward, None),
        ("generation", made.speed.generation, hardware.generation_throughput),
    ):
        source = "calculated" if stated is None else "as stated"
        yield f"{name}: {rate:,.0f} tokens/s of a GPU, {source}"
    yield (
        f"assumed: {hardware.tflops:g} TFLOP/s and {hardware.memory_bandwidth:g} GB/s of a GPU, "
        f"{hardware.utilisation:.0%} of both reached"
    )
    if made.layout.workers > 1:
        sent = made.communication
        slowest = (
            f"{hardware.gpu_bandwidth:g} GB/s within the machine"
            if made.layout.nodes == 1
            else f"{min(hardware.node_bandwidth, hardware.gpu_bandwidth):g} GB/s between machines"
        )
        yield (
            f"an update: each GPU sends {sent.sent / GB:.1f} GB, gradients accumulated over "
            f"{sent.accumulated}: {_duration(sent.seconds)} at {slowest}, none of it hidden"
        )
    if made.layout.offload != "none":
        yield "not counted: the time that offloading takes"


def _time_table(made: Plan) -> str:
    rounds = made.rounds.count
    table = _table("time", "in round 1", "round 1", f"round {rounds}", f"all {rounds} rounds")
    for step in made.steps:
        times = map(_duration, (step.first, step.last, step.total))
        table.add_row(step.name, step.amount, *times)
    sums = [sum(getattr(step, key) for step in made.steps) for key in ("first", "last", "total")]
    table.add_section()
    table.add_row("in all", "", *map(_duration, sums))
    idle = sum(step.total for step in made.steps if not step.busy)
    hours = made.layout.workers / _HOUR
    waiting = f"{idle * hours:,.1f} of them wait for the oracle"
    return f"{_rendered(table)}\n{made.seconds * hours:,.1f} GPU hours, {waiting}"


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(columns[0])
    for name in columns[1:]:
        table.add_column(name, justify="left" if name == "during" else "right")
    return table


def _rendered(table: Any) -> str:
    return "\n".join(line for line in md.rendered(table).splitlines() if line)


def _gb(size: float) -> str:
    return f"{size / GB:,.2f}" if size else ""


def _duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
