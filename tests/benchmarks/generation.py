"""Sampling completions beside the transformers library's `generate`.

Ours samples each completion from its own seed, returns its log-probability, and batches requests
by length. The library's takes the requests in their given, random order, padded on the left, with
its multinomial sampling, and returns only tokens. Both have the same prompts, limits, batch size,
temperature, threads and model (seeded random weights).

The two sides take turns in one process, so that other load affects both; medians are shown. Only
tokens up to the end of the text or the limit of the request are counted.

Run: python tests/benchmarks/generation.py [--workload short|mixed ...]
     [--precision fp32|bf16 ...] [--repeats 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modicum_algorithms.preference.sampling.in_process import Request, generate

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from random_language_models import small_gpt2, small_llama

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
TEMPERATURE = 0.7
END = PADDING = 0


@dataclass(frozen=True)
class Workload:
    """Requests to sample.

    Attributes:
        prompt: Minimum and maximum length of a prompt in tokens.
        limit: Minimum and maximum of a completion's length limit in tokens.
        requests: Number of requests.
        batch: Requests that are sampled at once.
        model: Function that builds the model.
    """

    prompt: tuple[int, int]
    limit: tuple[int, int]
    requests: int
    batch: int
    model: Callable[[], Any]


WORKLOADS = {
    "short": Workload((8, 16), (16, 24), requests=256, batch=64, model=small_gpt2),
    "mixed": Workload((5, 300), (10, 100), requests=48, batch=16, model=small_llama),
}


@dataclass(frozen=True)
class Turn:
    """A turn of one side.

    Attributes:
        tokens: Tokens that were kept.
        seconds: Wall-clock time.
        processor: Processor time over all threads, in seconds.
    """

    tokens: int
    seconds: float
    processor: float


def random_requests(workload: Workload, vocabulary: int, seed: int = 0) -> list[Request]:
    """Requests of random tokens, in random order."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(*workload.prompt, workload.requests, endpoint=True)
    limits = generator.integers(*workload.limit, workload.requests, endpoint=True)
    return [
        Request(tuple(generator.integers(1, vocabulary, length).tolist()), int(limit), seed)
        for seed, (length, limit) in enumerate(zip(lengths, limits, strict=True))
    ]


def sample_ours(model: Any, requests: Sequence[Request], batch: int) -> int:
    """Number of tokens that ours sampled."""
    completions = generate(
        model, requests, temperature=TEMPERATURE, end=END, padding=PADDING, batch_size=batch
    )
    return sum(len(completion.ids) for completion in completions)


def sample_theirs(model: Any, requests: Sequence[Request], batch: int) -> int:
    """Number of the library's sampled tokens that are kept."""
    kept = 0
    for start in range(0, len(requests), batch):
        some = requests[start : start + batch]
        width = max(len(request.prompt) for request in some)
        ids_BT = torch.full((len(some), width), PADDING)
        mask_BT = torch.zeros_like(ids_BT)
        for row, request in enumerate(some):
            ids_BT[row, width - len(request.prompt) :] = torch.tensor(request.prompt)
            mask_BT[row, width - len(request.prompt) :] = 1
        found_BT = model.generate(
            ids_BT,
            attention_mask=mask_BT,
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            top_p=1.0,
            max_new_tokens=max(request.tokens for request in some),
            eos_token_id=END,
            pad_token_id=PADDING,
        )[:, width:]
        for request, tokens_T in zip(some, found_BT.numpy(), strict=True):
            ends = np.flatnonzero(tokens_T[: request.tokens] == END)
            kept += int(ends[0]) + 1 if len(ends) else request.tokens
    return kept


def take_turns(workload: Workload, precision: str, repeats: int) -> dict[str, list[Turn]]:
    """Turns of both sides, `repeats` each, after one turn to warm up."""
    model = workload.model().eval().to(PRECISIONS[precision])
    requests = random_requests(workload, model.config.vocab_size)
    torch.manual_seed(0)
    sides = {"ours": sample_ours, "transformers": sample_theirs}
    turns: dict[str, list[Turn]] = {side: [] for side in sides}
    for repeat in range(repeats + 1):
        for side, sample in sides.items():
            some = requests if repeat else requests[: workload.batch]
            started, processor = time.perf_counter(), time.process_time()
            tokens = sample(model, some, workload.batch)
            seconds = time.perf_counter() - started
            if repeat:
                turns[side].append(Turn(tokens, seconds, time.process_time() - processor))
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads; load of the last minute: {os.getloadavg()[0]:.1f}\n")
    print("| workload | precision | ours tokens/s | transformers tokens/s | ours / transformers |")
    print("| --- | --- | --- | --- | --- |")
    for name in options.workload:
        for precision in options.precision:
            turns = take_turns(WORKLOADS[name], precision, options.repeats)
            print(f"| {name} | {precision} | {row(turns['ours'], turns['transformers'])} |")
    print(f"\nload of the last minute: {os.getloadavg()[0]:.1f}")


def row(ours: Sequence[Turn], theirs: Sequence[Turn]) -> str:
    """Rates and their ratio, overall and by turn, in wall-clock and in processor time."""

    def median_rate(turns: Sequence[Turn]) -> float:
        return statistics.median(turn.tokens / turn.seconds for turn in turns)

    pairs = list(zip(ours, theirs, strict=True))
    ratios = [(a.tokens / a.seconds) / (b.tokens / b.seconds) for a, b in pairs]
    busy = [(a.tokens / a.processor) / (b.tokens / b.processor) for a, b in pairs]
    return (
        f"{median_rate(ours):,.0f} | {median_rate(theirs):,.0f} | {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}; in processor time {statistics.median(busy):.2f})"
    )


if __name__ == "__main__":
    main()
