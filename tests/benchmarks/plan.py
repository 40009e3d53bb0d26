"""What `modicum plan` calculates beside what a small model really takes, on one CPU.

A GPT-2 of 20 million parameters, fp32, in one process: bytes of weights, gradients and Adam's
moments; what autograd keeps of a preference loss; the most memory that an update holds; tokens a
second of training and of sampling. Predictions of speed take the machine's own matrix product and
copying as the arithmetic and bandwidth, all of it reached, so their ratio is the utilisation.

Run: python tests/benchmarks/plan.py [--threads 1] [--repeats 5]

Shapes: B pairs, T tokens of a row, P of the prompt, C of a completion, V vocabulary.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import accumulate

import torch
from torch.nn.functional import logsigmoid
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2Config, GPT2LMHeadModel

from modicum_algorithms.preference.model_shapes import shape_of
from modicum_algorithms.preference.planning import (
    GB,
    Layout,
    Texts,
    logits_bytes,
    memory,
    model_states,
)
from modicum_algorithms.preference.planning_time import Hardware, speed

MB = 1e6
FP32 = 4
CONFIG = GPT2Config(
    vocab_size=24_000,
    n_positions=128,
    n_embd=384,
    n_layer=6,
    n_head=6,
    resid_pdrop=0,
    embd_pdrop=0,
    attn_pdrop=0,
    bos_token_id=0,
    eos_token_id=0,
)
TEXTS = Texts(prompt=64, completion=32)
LAYOUT = Layout(precision="fp32", micro_batch_size=16, generation_batch=32)
SIDE = 2048  # of the matrices whose product is timed


def preference_loss(model: GPT2LMHeadModel, ids_BT: torch.Tensor) -> torch.Tensor:
    """Rows of a prompt and two completions that do not see each other; logits where scored."""
    P, C, T = TEXTS.prompt, TEXTS.completion, TEXTS.pair
    mask_TT = torch.ones(T, T, dtype=torch.bool).tril()
    mask_TT[P + C :, P : P + C] = False
    places_T = torch.cat([torch.arange(P + C), torch.arange(P, P + C)])
    hidden_BTD = model.transformer(
        input_ids=ids_BT,
        attention_mask=mask_TT.expand(len(ids_BT), 1, T, T).contiguous(),
        position_ids=places_T.expand(len(ids_BT), T),
        use_cache=False,
    ).last_hidden_state
    sources = torch.arange(P - 1, T - 1)
    sources[C] = P - 1
    logits_BCV = model.lm_head(hidden_BTD[:, sources])
    picked_BC = logits_BCV.gather(-1, ids_BT[:, P:, None])[..., 0] - logits_BCV.logsumexp(-1)
    first_B, second_B = picked_BC[:, :C].sum(1), picked_BC[:, C:].sum(1)
    return -logsigmoid(first_B - second_B).mean()


def kept_bytes(model: GPT2LMHeadModel, forward: Callable[[], object]) -> int:
    """Bytes of distinct storages, weights apart, that autograd keeps."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that torch had allocated at any moment of the work, more than before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    assert profiled.profiler is not None
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events))


def median_seconds(repeats: int, work: Callable[[], object]) -> float:
    """Of several turns; one more warms up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def machine(repeats: int) -> Hardware:
    """This machine's matrix product and copying."""
    a, b = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    product = median_seconds(repeats, lambda: a @ b)
    large = torch.rand(32_000_000)
    # A copy reads and writes.
    copying = median_seconds(repeats, lambda: large.clone())
    return Hardware(
        tflops=2 * SIDE**3 / product / 1e12,
        utilisation=1.0,
        memory_bandwidth=2 * large.nbytes / copying / GB,
    )


def show(name: str, unit: str, predicted: float, measured: float) -> None:
    """One line of the comparison."""
    ratio = measured / predicted
    print(f"{name:38} {predicted:10,.1f} {measured:10,.1f} {ratio:8.2f}  {unit}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    shape = shape_of(CONFIG, "GPT-2 of 20M")
    model = GPT2LMHeadModel(CONFIG).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    rows = (LAYOUT.micro_batch_size, TEXTS.pair)
    ids_BT = torch.randint(CONFIG.vocab_size, rows)

    def update() -> None:
        optimizer.zero_grad()
        preference_loss(model, ids_BT).backward()
        optimizer.step()

    def backward() -> None:
        preference_loss(model, ids_BT).backward()

    print(f"{shape.parameters:,} parameters, rows of {TEXTS.pair} tokens, {rows[0]} at once")
    print(f"{'':38} {'predicted':>10} {'measured':>10} {'ratio':>8}")
    states = model_states(shape.parameters, workers=1, zero=0, precision="fp32")
    parts = {part.name: part.gpu for part in memory(shape, LAYOUT, TEXTS).parts}
    logits = rows[0] * 2 * TEXTS.completion * CONFIG.vocab_size * FP32
    kept = kept_bytes(model, lambda: preference_loss(model, ids_BT))
    peak = peak_bytes(backward)
    update()
    parameters = list(model.parameters())
    show("weights", "MB", states.weights / MB, sum(p.nbytes for p in parameters) / MB)
    gradients = sum(p.grad.nbytes for p in parameters if p.grad is not None)
    show("gradients", "MB", states.gradients / MB, gradients / MB)
    moments = sum(t.nbytes for s in optimizer.state.values() for t in s.values() if t.ndim)
    show("Adam's moments", "MB", states.moments / MB, moments / MB)
    show(
        "kept for backward: layers and logits",
        "MB",
        (parts["activations"] + logits) / MB,
        kept / MB,
    )
    most = parts["activations"] + logits_bytes(shape, LAYOUT, TEXTS) + states.gradients
    show("peak of forward and backward", "MB", most / MB, peak / MB)

    prompts_BP = ids_BT[:1, : TEXTS.prompt].repeat(LAYOUT.generation_batch, 1)

    def sample() -> None:
        model.generate(
            prompts_BP,
            attention_mask=torch.ones_like(prompts_BP),
            do_sample=True,
            min_new_tokens=TEXTS.completion,
            max_new_tokens=TEXTS.completion,
            pad_token_id=0,
        )

    hardware = machine(arguments.repeats)
    expected = speed(shape, LAYOUT, TEXTS, hardware)
    training = rows[0] * rows[1] / median_seconds(arguments.repeats, update)
    show("training", "tokens/s", expected.training, training)
    model.eval()
    tokens = LAYOUT.generation_batch * TEXTS.completion
    sampling = tokens / median_seconds(arguments.repeats, sample)
    show("generation", "tokens/s", expected.generation, sampling)
    print(
        f"matrix product {hardware.tflops * 1000:.1f} GFLOP/s, copying "
        f"{hardware.memory_bandwidth:.1f} GB/s, {arguments.threads} threads"
    )


if __name__ == "__main__":
    main()
