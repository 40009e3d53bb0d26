"""Experiments whose trials change their process, and print in every way."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import modicum as md

COUNT = 0
SEEN: list[int] = []


def _torch() -> Any:
    import torch

    return torch


def _count() -> None:
    global COUNT
    COUNT += 1


def _handlers(name: str) -> int:
    return len(logging.getLogger(name or None).handlers)


# By kind: what a trial sees of the state, and how it changes it.
KINDS: dict[str, tuple[Callable[[], object], Callable[[md.Trial], object]]] = {
    "environment": (
        lambda: [os.environ.get("LEAKY"), os.environ.get("OMP_NUM_THREADS")],
        lambda trial: os.environ.update(LEAKY="1", OMP_NUM_THREADS="7"),
    ),
    "folder": (os.getcwd, lambda trial: os.chdir(trial.scratch)),
    "warnings": (
        lambda: [str(found) for found in warnings.filters],
        lambda trial: warnings.simplefilter("error"),
    ),
    "root_level": (
        lambda: [logging.root.level, logging.root.manager.disable],
        lambda trial: (logging.root.setLevel(1), logging.disable(30)),
    ),
    "root_handlers": (
        lambda: _handlers(""),
        lambda trial: logging.root.addHandler(logging.FileHandler(trial.scratch / "own.log")),
    ),
    "new_logger": (
        lambda: [_handlers("leaky.new"), logging.getLogger("leaky.new").level],
        lambda trial: (
            logging.getLogger("leaky.new").addHandler(logging.StreamHandler()),
            logging.getLogger("leaky.new").setLevel(10),
        ),
    ),
    "numpy": (np.geterr, lambda trial: np.seterr(all="raise")),
    "dtype": (
        lambda: str(_torch().get_default_dtype()),
        lambda trial: _torch().set_default_dtype(_torch().float64),
    ),
    "device": (
        lambda: str(_torch().empty(1).device),
        lambda trial: _torch().set_default_device("meta"),
    ),
    "deterministic": (
        lambda: _torch().get_deterministic_debug_mode(),
        lambda trial: _torch().use_deterministic_algorithms(True, warn_only=True),
    ),
    "benchmark": (
        lambda: _torch().backends.cudnn.benchmark,
        lambda trial: setattr(_torch().backends.cudnn, "benchmark", True),
    ),
    "precision": (
        lambda: _torch().get_float32_matmul_precision(),
        lambda trial: _torch().set_float32_matmul_precision("medium"),
    ),
    "gradients": (
        lambda: _torch().is_grad_enabled(),
        lambda trial: _torch().set_grad_enabled(False),
    ),
    "global": (lambda: COUNT, lambda trial: _count()),
    "global_list": (lambda: list(SEEN), lambda trial: SEEN.append(trial.seed)),
}


class LeakyConfig(md.Config):
    kind: str = md.setting(description="What a trial changes.")
    steps: int = md.setting(1, description="Number of records.", ge=1)


class Leaky(md.Experiment[LeakyConfig]):
    """Reports what it finds of a state, and the process that it has, then changes the state."""

    name = "leaky"
    version = "1"
    budget_unit = "samples"
    Config = LeakyConfig
    metrics = {  # noqa: RUF012
        "found": md.Metric("State before the trial's change."),
        "changed": md.Metric("Whether the change shows.", goal="max"),
        "process": md.Metric("Process.", timing=True),
    }

    def run(self, config: LeakyConfig, trial: md.Trial) -> Iterator[md.Record]:
        look, change = KINDS[config.kind]
        found = str(look())
        change(trial)
        changed = str(look()) != found
        for step in range(config.steps):
            yield md.Record(
                budget=step,
                metrics={"found": found, "changed": changed, "process": os.getpid()},
            )


class LeakyAlone(Leaky):
    """`Leaky`, with a process for each trial."""

    isolation = "process"


class PrintingConfig(md.Config):
    megabytes: int = md.setting(0, description="Size of the output.", unit="MB", ge=0)


class Printing(md.Experiment[PrintingConfig]):
    """Prints its seed in every way."""

    name = "printing"
    version = "1"
    budget_unit = "samples"
    Config = PrintingConfig
    metrics = {"loss": md.Metric("Zero.", goal="min")}  # noqa: RUF012

    def run(self, config: PrintingConfig, trial: md.Trial) -> Iterator[md.Record]:
        import leaky_library

        print(f"stdout {trial.seed}")
        print(f"stderr {trial.seed}", file=sys.stderr)
        logging.basicConfig(level=logging.INFO, format="root: %(message)s")
        logging.info("seed %d", trial.seed)
        leaky_library.say(f"library {trial.seed}")
        os.write(1, f"descriptor {trial.seed}\n".encode() + b"\xff\n")
        ctypes.CDLL(None).puts(f"c {trial.seed}".encode())
        command = f"import sys; print('child {trial.seed}'); print('sad', file=sys.stderr)"
        subprocess.run([sys.executable, "-S", "-c", command], check=True)
        warnings.warn(f"warned {trial.seed}", stacklevel=1)
        trial.log.info("logged %d", trial.seed)
        yield md.Record(budget=0, metrics={"loss": 0.0})
        for _ in range(config.megabytes):
            print("x" * 999_999)
        print(f"unfinished {trial.seed}", end="")


def lines(seed: int) -> list[str]:
    """The lines of a trial of `Printing`, those of its logger without the time."""
    return [
        *(f"stdout {seed}", f"stderr {seed}", f"root: seed {seed}", f"library {seed}"),
        *(f"descriptor {seed}", "\ufffd", f"c {seed}", f"child {seed}", "sad"),
        *(f"INFO logged {seed}", f"unfinished {seed}"),
    ]
