"""A model under training: updates, the weights it started from, checkpoints, export.

The first implementation is one process without DeepSpeed; `sharded.py` has the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from modicum.training.settings import TrainingSettings
from modicum.training.states import (
    MOMENTS,
    WEIGHT,
    Counts,
    key,
    open_parts,
    read_counts,
    write_counts,
    write_part,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

B = TypeVar("B")


@dataclass(frozen=True)
class Update:
    """What one update did.

    Attributes:
        loss: The loss over the whole batch, before the update.
        gradient_norm: Norm of the whole gradient, before clipping.
    """

    loss: float
    gradient_norm: float


class Engine(Protocol):
    """A module under training, whole or sharded. Workers call every method together.

    The module is a family's own: its `forward` takes a batch and holds the language model. Its
    trainable parameters are what is trained, saved and reset.
    """

    @property
    def updates(self) -> int:
        """Updates since the start or the last reset."""
        ...

    def __call__(self, batch: Any) -> Any:
        """The module's output."""
        ...

    def update(self, batches: Sequence[B], loss: Callable[[Any, B], Tensor]) -> Update:
        """Descend the gradient once.

        What is minimised is the mean over workers of the sum over `batches` of
        `loss(module(batch), batch)`. Every worker must bring as many batches.

        Args:
            batches: This worker's micro-batches.
            loss: A scalar for one of them.
        """
        ...

    def reset(self) -> None:
        """Weights and optimiser as they were at the start."""
        ...

    def at_start(self) -> Any:
        """Context in which the module has the weights that it started from.

        The weights trained so far are back afterwards. No update is possible inside.
        """
        ...

    def whole(self) -> Any:
        """Context in which the module's weights are all on this worker, for generation."""
        ...

    def save(self, folder: Path) -> None:
        """Write this worker's part of weights, optimiser and count of updates."""
        ...

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """All trained weights by name, fp32 on the CPU; empty on all workers but the first."""
        ...


class PlainEngine:
    """One process, without DeepSpeed.

    With bf16, the optimiser works on an fp32 copy of the weights, as DeepSpeed does.

    Args:
        module: On its device, in its precision.
        settings: Of training.
    """

    def __init__(self, module: nn.Module, settings: TrainingSettings) -> None:
        import torch

        self._module = module
        self._settings = settings
        self._named = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._start = {name: p.detach().clone() for name, p in self._named.items()}
        # fp32 weights are their own master copies.
        self._masters = {
            name: p if p.dtype == torch.float32 else p.detach().float().requires_grad_()
            for name, p in self._named.items()
        }
        self._updates = 0
        self._optimizer = self._new_optimizer()

    @property
    def updates(self) -> int:
        """See `Engine`."""
        return self._updates

    def __call__(self, batch: Any) -> Any:
        """See `Engine`."""
        return self._module(batch)

    def update(self, batches: Sequence[B], loss: Callable[[Any, B], Tensor]) -> Update:
        """See `Engine`."""
        import torch

        total = 0.0
        self._module.train()  # Activation checkpointing works in this mode alone.
        for batch in batches:
            value = loss(self._module(batch), batch)
            value.backward()  # type: ignore[no-untyped-call]
            total += float(value.detach())
            self._collect_gradients()
        limit = self._settings.gradient_clipping
        norm = torch.nn.utils.clip_grad_norm_(
            list(self._masters.values()), float("inf") if limit is None else limit
        )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._settings, self._updates)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._updates += 1
        self._publish()
        self._module.eval()
        return Update(total, float(norm))

    def reset(self) -> None:
        """See `Engine`."""
        import torch

        with torch.no_grad():
            for name, start in self._start.items():
                self._named[name].copy_(start)
                self._masters[name].copy_(start)
        self._updates = 0
        self._optimizer = self._new_optimizer()

    @contextmanager
    def at_start(self) -> Iterator[None]:
        """See `Engine`."""
        trained = {name: p.data for name, p in self._named.items()}
        try:
            for name, start in self._start.items():
                self._named[name].data = start
            yield
        finally:
            for name, data in trained.items():
                self._named[name].data = data

    def whole(self) -> Any:
        """See `Engine`."""
        return nullcontext()

    def save(self, folder: Path) -> None:
        """See `Engine`."""
        tensors: dict[str, Tensor] = {}
        for name, p in self._masters.items():
            state = self._optimizer.state.get(p, {})
            tensors[key(WEIGHT, name)] = p
            tensors |= {key(moment, name): state[moment] for moment in MOMENTS if state}
        write_part(folder, 0, tensors)
        write_counts(folder, Counts(self._updates, steps=self._updates))

    def load(self, folder: Path) -> None:
        """See `Engine`."""
        import torch

        counts = read_counts(folder)
        self._updates = counts.updates
        self._optimizer = self._new_optimizer()
        with torch.no_grad(), open_parts(folder) as read:
            for name, p in self._masters.items():
                p.copy_(read(WEIGHT, name))
                if counts.steps:
                    state = {moment: read(moment, name).to(p.device) for moment in MOMENTS}
                    self._optimizer.state[p] = {"step": torch.tensor(float(counts.steps)), **state}
        self._publish()

    def weights(self) -> dict[str, Tensor]:
        """See `Engine`."""
        return {name: p.detach().cpu().clone() for name, p in self._masters.items()}

    def _new_optimizer(self) -> torch.optim.Optimizer:
        import torch

        return torch.optim.AdamW(
            list(self._masters.values()),
            lr=self._settings.learning_rate,
            weight_decay=self._settings.weight_decay,
            foreach=True,
        )

    def _collect_gradients(self) -> None:
        """Add up gradients in fp32."""
        for name, master in self._masters.items():
            p = self._named[name]
            if p is master or p.grad is None:
                continue
            gradient = p.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            p.grad = None

    def _publish(self) -> None:
        """Weights from their master copies."""
        import torch

        with torch.no_grad():
            for name, master in self._masters.items():
                if self._named[name] is not master:
                    self._named[name].copy_(master)


def learning_rate(settings: TrainingSettings, updates: int) -> float:
    """Of the update after so many: rising over the warm-up, then constant."""
    if updates >= settings.warmup:
        return settings.learning_rate
    return settings.learning_rate * (updates + 1) / settings.warmup
