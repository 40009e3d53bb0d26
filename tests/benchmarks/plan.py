"""Memory that `modicum plan` calculates beside the memory that training takes, and throughputs.

A GPT-2 of 20 million parameters in one process without DeepSpeed, on a GPU if there is one: bytes
of weights, gradients and Adam's moments, bytes that autograd keeps, and the peak of forward and
backward pass. The tokens per second of fine-tuning and sampling are what `modicum plan` asks for
(`--tokens-per-second`, `--sampled-per-second`).

Run: python tests/benchmarks/plan.py [--threads 1] [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import accumulate
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2Config, GPT2LMHeadModel

from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.methods.dpo import dpo_loss
from modicum_algorithms.preference.planning.model_size import Lengths, model_size
from modicum_algorithms.preference.planning.needs import worker_memory
from modicum_algorithms.preference.sampling.in_process import Request, generate
from modicum_algorithms.preference.scoring import CompletionScorer, Example

MB = 1e6
LENGTHS = Lengths(prompt=64, completion=32)
PAIRS, COMPLETIONS = 16, 32
MODEL = GPT2Config(
    vocab_size=24_000, n_positions=128, n_embd=384, n_layer=6, n_head=6,
    resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def predictions() -> dict[str, float]:
    """Bytes of each part, by the plan."""
    with TemporaryDirectory() as folder:
        MODEL.save_pretrained(folder)
        config = PreferenceConfig.model_validate(
            {
                "language_model": folder,
                "generation_batch": COMPLETIONS,
                "training": {"micro_batch_size": PAIRS},
            }
        )
        size = model_size(config, LENGTHS)
    return {part.name: part.device for part in worker_memory(config, size, LENGTHS)}


def peak_bytes(work: Callable[[], object]) -> int:
    """Largest increase of the allocated memory during the work."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    assert profiled.profiler is not None
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events))


def median_seconds(repeats: int, work: Callable[[], object]) -> float:
    """Median time after one run to warm up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def show(name: str, predicted: float, measured: float) -> None:
    """Print a line of the comparison."""
    ratio = measured / predicted
    print(f"{name:34} {predicted / MB:10,.1f} {measured / MB:10,.1f} {ratio:8.2f}  MB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(MODEL).to(DEVICE)
    scorer = CompletionScorer(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    ids = torch.randint(1, MODEL.vocab_size, (PAIRS, LENGTHS.row)).tolist()
    first, second = LENGTHS.prompt, LENGTHS.prompt + LENGTHS.completion
    examples = [
        Example(tuple(row[:first]), tuple(row[first:second]), tuple(row[second:])) for row in ids
    ]
    reference_B2 = torch.zeros(PAIRS, 2, device=DEVICE)

    def backward() -> None:
        policy_B2 = scorer(examples)[:, :2]
        dpo_loss(policy_B2, reference_B2, beta=0.2, label_smoothing=0.0).mean().backward()

    def update() -> None:
        optimizer.zero_grad()
        backward()
        optimizer.step()

    def sample() -> None:
        requests = [Request(examples[0].prompt, LENGTHS.completion, n) for n in range(COMPLETIONS)]
        generate(model, requests, temperature=1, end=None, padding=0, batch_size=COMPLETIONS)

    parts = predictions()
    peak = peak_bytes(backward)
    update()
    parameters = list(model.parameters())
    moments = sum(t.nbytes for s in optimizer.state.values() for t in s.values() if t.ndim)
    print(f"{DEVICE}: rows of {LENGTHS.row} tokens, {PAIRS} at once\n")
    print(f"{'':34} {'predicted':>10} {'measured':>10} {'ratio':>8}")
    show("weights", parts["weights"], sum(p.nbytes for p in parameters))
    show("gradients", parts["gradients"], sum(p.grad.nbytes for p in parameters))  # type: ignore[union-attr]
    show("Adam's moments", parts["optimizer: Adam's moments"], moments)
    names = ("activations and logits", "gradients of the logits", "gradients")
    show("peak of forward and backward pass", sum(parts[name] for name in names), peak)
    trained = PAIRS * LENGTHS.row / median_seconds(arguments.repeats, update)
    sampled = COMPLETIONS * LENGTHS.completion / median_seconds(arguments.repeats, sample)
    print(f"\nfine-tuning: {trained:,.0f} tokens/s, sampling: {sampled:,.0f} tokens/s")


if __name__ == "__main__":
    main()
