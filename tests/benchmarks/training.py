"""Effects of sharding: differences of loss curves, and memory of workers.

Tables: the largest difference of a loss curve to that of one process without DeepSpeed, by ZeRO
stage and number of workers; the same with gradients accumulated over single examples; a run whose
worker was killed; memory of each worker. All on worker groups of Ray Train on this machine.
Run: python tests/benchmarks/training.py [--layers 8] [--width 448]

Memory is the growth of a worker's process since before the model was created, between updates and
at the peak of one, as the kernel counts it. Libraries that the first update loads do not count: a
small model is updated first. The C library is told to return freed memory (MALLOC_MMAP_THRESHOLD_),
since otherwise the figures would be those of its allocator. They include each worker's part of the
copy of the initial weights.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from modicum.errors import InputError
from modicum.experiment.trial import Trial
from modicum.ray_support.connection import connected
from modicum.training import Journal, TrainingSettings, Worker, build_engine, run_on_workers

HELPERS = str(Path(__file__).parents[1] / "support")
sys.path.insert(0, HELPERS)

import sharded_training  # noqa: E402
from sharded_training import SETTINGS  # noqa: E402

CASES: list[dict[str, Any]] = [
    {"zero_stage": 0},
    {"zero_stage": 1},
    {"zero_stage": 2},
    {"zero_stage": 3},
    {"zero_stage": 2, "precision": "bf16"},
]
MIB = 2**20


def memory(worker: Worker, arguments: dict[str, Any]) -> Iterator[list[tuple[int, int]]]:
    """Yield each worker's memory in bytes, between updates and at the peak."""
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = TrainingSettings(**SETTINGS, **arguments["case"])
    sharded_training.train(build_engine(sharded_training.build(settings), settings, worker), worker)
    gc.collect()
    before = _resident("VmRSS")
    config = GPT2Config(
        vocab_size=8192, n_positions=64, n_embd=arguments["width"], n_layer=arguments["layers"],
        n_head=7, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0,
    )  # fmt: skip
    engine = build_engine(sharded_training.Scorer(GPT2LMHeadModel(config)), settings, worker)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # The high-water mark starts again.
    for step in range(3):
        sharded_training.train(engine, worker, steps=[step])
        gc.collect()
    yield worker.gather((_resident("VmRSS") - before, _resident("VmHWM") - before))


def _resident(which: str) -> int:
    """Resident memory of this process in bytes: current (VmRSS) or peak (VmHWM)."""
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def on_group(computation: Any, arguments: Any, settings: TrainingSettings, folder: Path) -> Any:
    """Values of a computation on a worker group; an InputError may end it."""
    scratch = Path(tempfile.mkdtemp(dir=folder))
    trial = Trial("benchmark", 0, scratch, storage=str(folder / "storage"))
    seen = []
    with suppress(InputError):
        for value in run_on_workers(computation, arguments, settings, trial):
            seen.append(value)
    return seen


def unsharded(folder: Path, precision: str) -> list[float]:
    worker = Worker(0, 1, torch.device("cpu"), Journal(folder / precision), folder)
    settings = TrainingSettings(**SETTINGS, precision=precision)  # type: ignore[arg-type]
    engine = build_engine(sharded_training.build(settings), settings, worker)
    return [update.loss for update in sharded_training.train(engine, worker)]


def largest(updates: list[tuple[float, float]], losses: list[float]) -> float:
    return max(abs(update[0] - other) for update, other in zip(updates, losses, strict=True))


def curves(folder: Path) -> None:
    print("Largest difference of a loss to one process without DeepSpeed, over 5 updates of a")
    print("GPT-2 of 2 layers and 32 dimensions (losses about 4.1, learning rate 0.01):\n")
    print("| ZeRO | precision | workers | same micro-batches | single examples | reset | resumed |")
    print("|---|---|---|---|---|---|---|")
    for size in (1, 2):
        seen = on_group(
            sharded_training.check_engines,
            {"cases": CASES},
            TrainingSettings(workers=size),
            folder / str(size),
        )
        for case, found in zip(CASES, seen, strict=True):
            precision = case.get("precision", "fp32")
            losses = unsharded(folder, precision)
            print(
                f"| {case['zero_stage']} | {precision} | {size} "
                f"| {largest(found['trained'], losses):.1e} "
                f"| {largest(found['accumulated'], losses):.1e} "
                f"| {'equal' if found['trained_again'] == found['trained'] else 'DIFFERS'} "
                f"| {'equal' if found['went_on_elsewhere'] == found['went_on'] else 'DIFFERS'} |",
                flush=True,
            )
        if size == 2:
            killed(folder, [update[0] for update in seen[2]["trained"]])


def killed(folder: Path, losses: list[float]) -> None:
    started = time.perf_counter()
    arguments, settings = {"zero_stage": 2}, TrainingSettings(workers=2, restarts=1)
    found = on_group(sharded_training.killed_once, arguments, settings, folder / "killed")
    seconds = time.perf_counter() - started
    same = "equal to" if found == losses else "NOT those of"
    print(
        f"\nA worker killed after update 4 of 5 (ZeRO 2, two workers, state kept after 3): "
        f"{len(found)} losses, {same} the undisturbed run's; {seconds:.0f} s with both starts.\n"
    )


def memories(folder: Path, width: int, layers: int) -> None:
    print("Memory of a worker in MiB, fp32, Adam:\n")
    print("| | workers | between updates | at most |\n|---|---|---|---|")
    for name, size, case in (
        ("one process", 1, {"workers": 0}),
        *((f"ZeRO {stage}", 2, {"workers": 2, "zero_stage": stage}) for stage in range(4)),
    ):
        place = Path(tempfile.mkdtemp(dir=folder))
        arguments = {"case": case, "width": width, "layers": layers}
        (seen,) = on_group(memory, arguments, TrainingSettings(workers=size), place)
        between, most = (max(sizes) / MIB for sizes in zip(*seen, strict=True))
        print(f"| {name} | {size} | {between:.0f} | {most:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--width", type=int, default=448, help="width of the model whose memory is measured"
    )
    parser.add_argument("--layers", type=int, default=8, help="layers of the same model")
    chosen = parser.parse_args()
    # Workers import the computations from the helpers of the tests.
    paths = [HELPERS, str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(128 * 1024)
    with tempfile.TemporaryDirectory() as folder, connected(cpus=2):
        for name in ("1", "2", "killed"):
            (Path(folder) / name).mkdir()
        curves(Path(folder))
        memories(Path(folder), chosen.width, chosen.layers)


if __name__ == "__main__":
    main()
