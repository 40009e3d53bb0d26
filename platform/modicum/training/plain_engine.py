"""The engine of one process, without DeepSpeed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modicum.training.engine import (
    MOMENTS,
    WEIGHT,
    B,
    Counters,
    Engine,
    Update,
    adamw,
    open_tensors,
    read_counters,
    tensor_name,
    write_part,
)
from modicum.training.settings import TrainingSettings


class PlainEngine(Engine):
    """The engine of one process; see `Engine`.

    With bf16, the optimiser works on an fp32 copy of the weights, as DeepSpeed does.

    Args:
        module: Module on its device, in its precision.
        settings: Settings of the optimiser.
    """

    def __init__(self, module: nn.Module, settings: TrainingSettings) -> None:
        super().__init__(module, settings)
        self._module = module
        self._start = {name: p.detach().clone() for name, p in self._parameters.items()}
        # fp32 weights are their own master copies.
        self._masters = {
            name: p if p.dtype == torch.float32 else p.detach().float().requires_grad_()
            for name, p in self._parameters.items()
        }
        self._optimizer = adamw(self._masters.values(), settings)

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
        norm = self._clip_gradients(self._masters.values())
        self._set_learning_rate(self._optimizer)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.updates += 1
        self._copy_masters_to_module()
        self._module.eval()
        return Update(total, norm)

    def reset(self) -> None:
        """See `Engine`."""
        with torch.no_grad():
            for name, start in self._start.items():
                self._parameters[name].copy_(start)
                self._masters[name].copy_(start)
        self.updates = 0
        self._optimizer = adamw(self._masters.values(), self._settings)

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

    def save(self, folder: Path) -> None:
        """See `Engine`."""
        tensors: dict[str, Tensor] = {}
        for name, p in self._masters.items():
            state = self._optimizer.state.get(p, {})
            tensors[tensor_name(WEIGHT, name)] = p
            tensors |= {tensor_name(moment, name): state[moment] for moment in MOMENTS if state}
        write_part(folder, 0, tensors, Counters(self.updates, steps=self.updates))

    def load(self, folder: Path) -> None:
        """See `Engine`."""
        counters = read_counters(folder)
        self.updates = counters.updates
        self._optimizer = adamw(self._masters.values(), self._settings)
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
