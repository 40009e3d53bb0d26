"""The engine of one process, without DeepSpeed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modicum.training.engine import B, Update, learning_rate
from modicum.training.engine_checkpoint import (
    MOMENTS,
    WEIGHT,
    Counters,
    open_tensors,
    read_counters,
    tensor_name,
    write_counters,
    write_tensors,
)
from modicum.training.settings import TrainingSettings


class PlainEngine:
    """The engine of one process; see `Engine`.

    With bf16, the optimiser works on an fp32 copy of the weights, as DeepSpeed does.

    Args:
        module: Module on its device, in its precision.
        settings: Settings of the optimiser.
    """

    def __init__(self, module: nn.Module, settings: TrainingSettings) -> None:
        self._module = module
        self._settings = settings
        self._parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._start = {name: p.detach().clone() for name, p in self._parameters.items()}
        # fp32 weights are their own master copies.
        self._masters = {
            name: p if p.dtype == torch.float32 else p.detach().float().requires_grad_()
            for name, p in self._parameters.items()
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
        total = 0.0
        self._module.train()  # Activation checkpointing needs training mode.
        for batch in batches:
            value = loss(self._module(batch), batch)
            value.backward()  # type: ignore[no-untyped-call]
            total += float(value.detach())
            self._accumulate_gradients()
        limit = self._settings.gradient_clipping
        norm = nn.utils.clip_grad_norm_(
            list(self._masters.values()), float("inf") if limit is None else limit
        )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._settings, self._updates)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._updates += 1
        self._copy_masters_to_module()
        self._module.eval()
        return Update(total, float(norm))

    def reset(self) -> None:
        """See `Engine`."""
        with torch.no_grad():
            for name, start in self._start.items():
                self._parameters[name].copy_(start)
                self._masters[name].copy_(start)
        self._updates = 0
        self._optimizer = self._new_optimizer()

    @contextmanager
    def at_start(self) -> Iterator[None]:
        """See `Engine`."""
        trained = {name: p.data for name, p in self._parameters.items()}
        try:
            for name, start in self._start.items():
                self._parameters[name].data = start
            yield
        finally:
            for name, data in trained.items():
                self._parameters[name].data = data

    def whole(self) -> Any:
        """See `Engine`."""
        return nullcontext()

    def save(self, folder: Path) -> None:
        """See `Engine`."""
        tensors: dict[str, Tensor] = {}
        for name, p in self._masters.items():
            state = self._optimizer.state.get(p, {})
            tensors[tensor_name(WEIGHT, name)] = p
            tensors |= {tensor_name(moment, name): state[moment] for moment in MOMENTS if state}
        write_tensors(folder, 0, tensors)
        write_counters(folder, Counters(self._updates, steps=self._updates))

    def load(self, folder: Path) -> None:
        """See `Engine`."""
        counters = read_counters(folder)
        self._updates = counters.updates
        self._optimizer = self._new_optimizer()
        with torch.no_grad(), open_tensors(folder) as read:
            for name, p in self._masters.items():
                p.copy_(read(WEIGHT, name))
                if counters.steps:
                    state = {moment: read(moment, name).to(p.device) for moment in MOMENTS}
                    step = torch.tensor(float(counters.steps))
                    self._optimizer.state[p] = {"step": step, **state}
        self._copy_masters_to_module()

    def weights(self) -> dict[str, Tensor]:
        """See `Engine`."""
        return {name: p.detach().cpu().clone() for name, p in self._masters.items()}

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            list(self._masters.values()),
            lr=self._settings.learning_rate,
            weight_decay=self._settings.weight_decay,
            foreach=True,
        )

    def _accumulate_gradients(self) -> None:
        """Add the gradients of 16-bit weights to those of their master copies, in fp32."""
        for name, master in self._masters.items():
            p = self._parameters[name]
            if p is master or p.grad is None:
                continue
            gradient = p.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            p.grad = None

    def _copy_masters_to_module(self) -> None:
        with torch.no_grad():
            for name, master in self._masters.items():
                if self._parameters[name] is not master:
                    self._parameters[name].copy_(master)
