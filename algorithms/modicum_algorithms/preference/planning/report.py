"""The text that `modicum plan` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple

from rich import box
from rich.table import Table

import modicum as md
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.planning import needs
from modicum_algorithms.preference.planning.model_size import Lengths, model_size

_GB = 1e9
# Share of a GPU's memory that is left to CUDA, its libraries and fragmentation.
_HEADROOM = 0.1


def plan_report(
    study: md.Study, gpu_memory: float | None, prompt_tokens: int | None, rates: needs.Rates
) -> str:
    """Memory by part, tokens and time of a study's trials, on GPUs with `gpu_memory` GB.

    Raises:
        InputError: The study is of another experiment, or a model cannot be counted.
    """
    configs = [c for c in study.configurations if isinstance(c, PreferenceConfig)]
    if not configs:
        raise md.InputError(f"experiment: must be preference, got {study.experiment.name!r}")
    cases = [(config, _lengths(config, prompt_tokens)) for config in configs]
    # Most configurations differ in nothing that takes memory.
    memory = dict.fromkeys("\n".join(_memory(*case, gpu_memory)) for case in cases)
    work = _work(cases, rates, len(study.spec.seed_list))
    last = "calculated from the settings and the model's configuration; nothing was run"
    return "\n\n".join([*memory, work, last])


def _lengths(config: PreferenceConfig, prompt_tokens: int | None) -> Lengths:
    """The longest prompt and completion."""
    if config.prompts in {"imdb", "packaged"}:  # Cut to a length from the settings.
        prompt_tokens = config.prompt_tokens_max
    if prompt_tokens is None:
        raise md.InputError(
            f"--prompt-tokens: needed for {config.prompts!r}, as no setting limits the length of "
            "its prompts in tokens"
        )
    return Lengths(prompt_tokens, config.completion_tokens_max)


def _memory(config: PreferenceConfig, lengths: Lengths, gpu_memory: float | None) -> Iterator[str]:
    size, training = model_size(config, lengths), config.training
    yield f"{config.language_model}: {size.parameters:,} parameters, {size.trained:,} trained"
    layout = f"workers: {training.workers}, ZeRO {training.zero_stage}"
    layout = layout if training.workers else "one process without DeepSpeed"
    yield f"{layout}, {training.precision}, rows of {lengths.row} tokens"
    parts = needs.worker_memory(config, size, lengths)
    rows = []
    for part in parts:
        gigabytes = f"{part.size / _GB:,.2f}"
        during = "all" if part.phases == needs.ALL else ", ".join(part.phases)
        rows.append((part.name, *(("", gigabytes) if part.host else (gigabytes, "")), during))
    yield _table(("memory of a worker, GB", "device", "main memory", "during"), rows)
    most, phase = needs.peak(parts)
    text = f"{most / _GB:.2f} GB during {phase}"
    if gpu_memory is None:
        yield f"needs {text}"
        return
    usable = (1 - _HEADROOM) * gpu_memory
    verdict = "fits" if most / _GB <= usable else "does not fit"
    yield f"{verdict}: {text} of {usable:g} GB ({gpu_memory:g} GB less {_HEADROOM:.0%} for CUDA)"


def _work(cases: Sequence[tuple[PreferenceConfig, Lengths]], rates: needs.Rates, seeds: int) -> str:
    values = [config.model_dump() for config, _ in cases]
    varied = [name for name in values[0] if any(v[name] != values[0][name] for v in values)]
    header = [*varied, "tokens sampled", "scored", "trained", "pairs judged", "evaluated"]
    works = [needs.workload(*case) for case in cases]
    hours = [work.hours(config, rates) for work, (config, _) in zip(works, cases, strict=True)]
    rows = [
        [
            *(str(value[name]) for name in varied),
            *(f"{number:,}" for number in astuple(work)),
            *(f"{time:.2f}" for time in parts.values()),
        ]
        for value, work, parts in zip(values, works, hours, strict=True)
    ]
    text = _table([*header, *(f"{part}, h" for part in hours[0])], rows)
    total = seeds * sum(sum(parts.values()) for parts in hours)
    last = f"{len(cases) * seeds} trials: {total:,.1f} h of {', '.join(hours[0])}"
    return f"{text}\n{last}" if hours[0] else text


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place == 0 or name == "during" else "right")
    for row in rows:
        table.add_row(*row)
    return "\n".join(line for line in md.rendered(table).splitlines() if line)
