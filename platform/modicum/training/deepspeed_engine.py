"""The engine of a group of workers that share a model by DeepSpeed.

DeepSpeed's optimiser steps on fp32 weights that are partitioned over the workers, and updates the
weights that the model computes with from them. Resetting, saving and loading work on these
partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modicum.training.deepspeed_partitions import partitions_of
from modicum.training.deepspeed_setup import (
    adam_optimizer,
    deepspeed_config,
    effective_zero_stage,
    init_deepspeed,
    quiet_deepspeed,
)
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
from modicum.training.worker import Worker

_LOSS_SCALE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class DeepSpeedEngine:
    """The engine of a worker group; see `Engine`.

    With bf16 and fp16, ZeRO 0 is ZeRO 1: DeepSpeed has no unsharded 16-bit optimiser that
    accumulates gradients in fp32.

    Args:
        module: Module in its precision, the same on all workers, loaded inside `loading`.
        settings: Settings of training.
        worker: Worker of a group whose `torch.distributed` is initialised.

    Raises:
        InputError: fp16 without GPUs.
    """

    def __init__(self, module: nn.Module, settings: TrainingSettings, worker: Worker) -> None:
        init_deepspeed(settings, worker)
        import deepspeed  # Reads the device that `init_deepspeed` has set.

        self._settings = settings
        self._worker = worker
        self._parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        trained = list(self._parameters.values())
        with quiet_deepspeed():
            self._engine, *_ = deepspeed.initialize(
                model=module,
                model_parameters=trained,
                optimizer=adam_optimizer(trained, settings, worker),
                config=deepspeed_config(settings, worker, trained),
            )
        self._stage = effective_zero_stage(settings)
        self._adam: torch.optim.Optimizer = self._engine.basic_optimizer
        self._partitions = partitions_of(self._engine, self._parameters, self._stage)
        self._start = [part.detach().to("cpu", copy=True) for part in self._partitions.local]
        self._updates = 0
        self._norm = 0.0
        if self._stage == 0:
            self._adam.register_step_pre_hook(self._clip_gradients)
        self._loss_scale_at_start = self._loss_scale()

    @property
    def updates(self) -> int:
        """See `Engine`."""
        return self._updates

    def __call__(self, batch: Any) -> Any:
        """See `Engine`."""
        return self._engine(batch)

    def update(self, batches: Sequence[B], loss: Callable[[Any, B], Tensor]) -> Update:
        """See `Engine`."""
        total = 0.0
        for number, batch in enumerate(batches, start=1):
            self._engine.set_gradient_accumulation_boundary(number == len(batches))
            value = loss(self._engine(batch), batch)
            # Gradients are averaged over workers, and summed over micro-batches.
            self._engine.backward(value, scale_wrt_gas=False)
            total += float(value.detach())
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate(self._settings, self._updates)
        self._engine.step()
        self._updates += 1
        if self._stage:
            self._norm = float(self._engine.get_global_grad_norm())
        totals = self._worker.gather(total)
        return Update(sum(totals) / len(totals), self._norm)

    def reset(self) -> None:
        """See `Engine`."""
        self._set_weights(self._start)
        for part in self._partitions.local:
            state = self._adam.state.get(part)
            if state:
                for moment in MOMENTS:
                    state[moment].zero_()
                _set_adam_steps(state, 0)
        self._set_loss_scale(self._loss_scale_at_start)
        self._updates = 0

    @contextmanager
    def at_start(self) -> Iterator[None]:
        """See `Engine`."""
        trained = [part.detach().to("cpu", copy=True) for part in self._partitions.local]
        self._set_weights(self._start)
        try:
            yield
        finally:
            self._set_weights(trained)

    def whole(self) -> AbstractContextManager[None]:
        """See `Engine`."""
        return _unsharded(self._engine) if self._stage == 3 else nullcontext()

    def save(self, folder: Path) -> None:
        """See `Engine`."""
        kinds = (WEIGHT, *MOMENTS) if self._adam_steps() else (WEIGHT,)
        tensors = {}
        for number, (name, p) in enumerate(self._parameters.items()):
            for kind in kinds:
                # All workers gather it; one keeps it.
                full = self._partitions.full(p, kind)
                if number % self._worker.size == self._worker.rank:
                    tensors[tensor_name(kind, name)] = full.to("cpu", copy=True)
        write_tensors(folder, self._worker.rank, tensors)
        if self._worker.first:
            counters = Counters(self._updates, self._adam_steps(), self._loss_scale())
            write_counters(folder, counters)

    def load(self, folder: Path) -> None:
        """See `Engine`."""
        counters = read_counters(folder)
        kinds = (WEIGHT, *MOMENTS) if counters.steps else (WEIGHT,)
        self._create_moments()
        with open_tensors(folder) as read:
            for name, p in self._parameters.items():
                for kind in kinds:
                    self._partitions.put(p, kind, read(kind, name))
        for part in self._partitions.local:
            _set_adam_steps(self._adam.state[part], counters.steps)
        self._partitions.copy_to_model()
        self._set_loss_scale(counters.loss_scale)
        self._updates = counters.updates

    def weights(self) -> dict[str, Tensor]:
        """See `Engine`."""
        found = {}
        for name, p in self._parameters.items():
            full = self._partitions.full(p, WEIGHT)
            if self._worker.first:
                found[name] = full.to("cpu", copy=True)
        return found

    def _set_weights(self, values: Sequence[Tensor]) -> None:
        for part, value in zip(self._partitions.local, values, strict=True):
            part.data.copy_(value)
        self._partitions.copy_to_model()

    def _clip_gradients(self, *_: Any) -> None:
        """Clip the gradient in ZeRO 0, where DeepSpeed would clip without reporting the norm."""
        limit = self._settings.gradient_clipping
        self._norm = float(
            nn.utils.clip_grad_norm_(
                list(self._parameters.values()), float("inf") if limit is None else limit
            )
        )

    def _adam_steps(self) -> int:
        state = self._adam.state.get(self._partitions.local[0])
        return int(state["step"]) if state else 0

    def _create_moments(self) -> None:
        """Create the state that Adam would create in its first step."""
        for part in self._partitions.local:
            state = self._adam.state[part]
            if not state:
                state["step"] = torch.tensor(0.0)
                for moment in MOMENTS:
                    state[moment] = torch.zeros_like(part, requires_grad=False)
        self._partitions.link_moments()

    def _loss_scale(self) -> dict[str, Any]:
        scaler = getattr(self._engine.optimizer, "loss_scaler", None)
        return {name: getattr(scaler, name) for name in _LOSS_SCALE if hasattr(scaler, name)}

    def _set_loss_scale(self, values: Any) -> None:
        for name in self._loss_scale():
            if name in values:
                setattr(self._engine.optimizer.loss_scaler, name, values[name])


def _set_adam_steps(state: dict[str, Any], steps: int) -> None:
    """Set Adam's step count, which is a tensor in torch and a number in DeepSpeed's own Adam."""
    if isinstance(state["step"], int):
        state["step"] = steps
    else:
        state["step"].fill_(steps)


@contextmanager
def _unsharded(engine: Any) -> Iterator[None]:
    """ZeRO 3: gather all weights, and remove the hooks that would shard them layer by layer."""
    from deepspeed.runtime.zero import GatheredParameters

    sharding = engine.optimizer.parameter_offload
    module = engine.module
    with GatheredParameters(list(module.parameters())):
        for p in module.parameters():
            p.ds_active_sub_modules.clear()
        for hook in (*sharding.forward_hooks, *sharding.backward_hooks):
            hook.remove()
        sharding.forward_hooks, sharding.backward_hooks = [], []
        try:
            yield
        finally:
            # The order in which layers are used was recorded with the old hooks.
            coordinator = sharding.get_param_coordinator()
            if not coordinator.is_invalid_trace():
                coordinator._invalidate_trace()
            sharding._register_deepspeed_module(module)
