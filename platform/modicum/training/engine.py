"""The interface of engines, which update, reset and save a model under training, and its files.

`plain_engine.py` implements it for one process, `deepspeed_engine.py` for a group of workers. A
checkpoint holds whole tensors by name, in one file per worker. The files do not depend on how the
model was sharded, so any number of workers can load them, in any ZeRO stage.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from modicum.training.settings import TrainingSettings

WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")
_COUNTERS = "counts.json"

B = TypeVar("B")


@dataclass(frozen=True)
class Update:
    """Loss and gradient norm of one update.

    Attributes:
        loss: Loss over the whole batch, before the update.
        gradient_norm: Norm of the whole gradient, before clipping.
    """

    loss: float
    gradient_norm: float


class Engine(ABC):
    """A module under training, whole or sharded. All workers call each method together.

    The module is any whose `forward` takes a batch. Its trainable parameters are trained, saved and
    reset.

    Attributes:
        updates: Number of updates since the start or the last reset.
    """

    def __init__(self, module: nn.Module, settings: TrainingSettings) -> None:
        self.updates = 0
        self._settings = settings
        self._parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}

    @abstractmethod
    def __call__(self, batch: Any) -> Any:
        """Return the module's output."""

    @abstractmethod
    def update(self, batches: Sequence[B], loss: Callable[[Any, B], Tensor]) -> Update:
        """Take one step of gradient descent.

        The objective is the mean over workers of the sum over `batches` of
        `loss(module(batch), batch)`. All workers must bring the same number of batches.

        Args:
            batches: Micro-batches of this worker.
            loss: Function of a module's output and its micro-batch that returns a scalar.
        """

    @abstractmethod
    def reset(self) -> None:
        """Restore weights and optimiser as they were at the start."""

    @abstractmethod
    def at_start(self) -> AbstractContextManager[None]:
        """Context in which the module has its initial weights again.

        The trained weights are restored afterwards. No update is possible inside.
        """

    def whole(self) -> AbstractContextManager[None]:
        """Context in which this worker holds all of the module's weights, for generation."""
        return nullcontext()

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write this worker's part of weights and optimiser, and the number of updates."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """All trained weights by name, fp32 on the CPU; empty on all workers but the first."""

    def _set_learning_rate(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the rate of the next update: linear warm-up, then constant."""
        rate = self._settings.learning_rate
        if self.updates < self._settings.warmup:
            rate = rate * (self.updates + 1) / self._settings.warmup
        for group in optimizer.param_groups:
            group["lr"] = rate

    def _clip_gradients(self, parameters: Iterable[Tensor]) -> float:
        """Clip the whole gradient; return its norm before."""
        limit = self._settings.gradient_clipping
        return float(
            nn.utils.clip_grad_norm_(list(parameters), float("inf") if limit is None else limit)
        )


def adamw(parameters: Iterable[Tensor], settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW of torch."""
    return torch.optim.AdamW(
        list(parameters),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        foreach=True,
    )


@dataclass(frozen=True)
class Counters:
    """Counters of an engine, in its checkpoints.

    Attributes:
        updates: Updates since the start or the last reset.
        steps: Updates in which Adam took a step; with fp16, fewer where gradients overflowed.
        loss_scale: State of fp16's loss scale, by DeepSpeed's names.
    """

    updates: int
    steps: int
    loss_scale: Mapping[str, Any] = field(default_factory=dict)


def tensor_name(kind: str, name: str) -> str:
    """Name of a parameter's weight or moment in the files."""
    return f"{kind}:{name}"


def write_part(folder: Path, rank: int, tensors: Mapping[str, Tensor], counters: Counters) -> None:
    """Write one worker's tensors, each named by `tensor_name`; the first writes the counters."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / f"part-{rank:05d}.safetensors")
    if rank == 0:
        (folder / _COUNTERS).write_text(json.dumps(asdict(counters)))


def read_counters(folder: Path) -> Counters:
    """Read the counters of a checkpoint."""
    return Counters(**json.loads((folder / _COUNTERS).read_text()))


@contextmanager
def open_tensors(folder: Path) -> Iterator[Callable[[str, str], Tensor]]:
    """Yield a function that reads a parameter's weight or moment by kind and name."""
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for path in sorted(folder.glob("part-*.safetensors")):
            file = stack.enter_context(safe_open(path, framework="pt"))
            files.update(dict.fromkeys(file.keys(), file))
        yield lambda kind, name: files[tensor_name(kind, name)].get_tensor(tensor_name(kind, name))
