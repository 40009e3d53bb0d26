"""The engine of a group of workers that share a model by DeepSpeed.

DeepSpeed's optimiser steps on fp32 weights that are partitioned over the workers by ZeRO stage, and
updates the weights that the model computes with from them. Resetting, saving and loading work on
these partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modicum.training.deepspeed_setup import (
    adam_optimizer,
    deepspeed_config,
    effective_zero_stage,
    init_deepspeed,
    quiet_deepspeed,
)
from modicum.training.engine import (
    MOMENTS,
    WEIGHT,
    B,
    Counters,
    Engine,
    Update,
    open_tensors,
    read_counters,
    tensor_name,
    write_part,
)
from modicum.training.settings import TrainingSettings
from modicum.training.worker import Worker

_LOSS_SCALE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class DeepSpeedEngine(Engine):
    """The engine of a worker group; see `Engine`.

    With bf16 and fp16, ZeRO 0 is ZeRO 1: DeepSpeed has no unsharded 16-bit optimiser that
    accumulates gradients in fp32. The module is the same on all workers, loaded inside `loading`;
    `torch.distributed` is initialised.

    Raises:
        InputError: fp16 without GPUs.
    """

    def __init__(self, module: nn.Module, settings: TrainingSettings, worker: Worker) -> None:
        init_deepspeed(settings, worker)
        import deepspeed  # Reads the device that `init_deepspeed` has set.

        super().__init__(module, settings)
        self._worker = worker
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
        self._partitions = self._make_partitions()
        self._start = [part.detach().to("cpu", copy=True) for part in self._partitions.local]
        self._norm = 0.0
        if self._stage == 0:
            self._adam.register_step_pre_hook(self._clip_before_step)
        self._loss_scale_at_start = self._loss_scale()

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
        self._set_learning_rate(self._engine.optimizer)
        self._engine.step()
        self.updates += 1
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
        self.updates = 0

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
        return _gathered(self._engine) if self._stage == 3 else nullcontext()

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
        counters = Counters(self.updates, self._adam_steps(), self._loss_scale())
        write_part(folder, self._worker.rank, tensors, counters)

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
        self.updates = counters.updates

    def weights(self) -> dict[str, Tensor]:
        """See `Engine`."""
        found = {}
        for name, p in self._parameters.items():
            full = self._partitions.full(p, WEIGHT)
            if self._worker.first:
                found[name] = full.to("cpu", copy=True)
        return found

    def _make_partitions(self) -> _Partitions:
        if self._stage == 0:
            return _Partitions(self._adam, list(self._parameters.values()))
        if self._stage == 3:
            return _ParameterPartitions(self._engine.optimizer, self._engine.global_rank)
        return _FlatPartitions(self._engine.optimizer)

    def _set_weights(self, values: Sequence[Tensor]) -> None:
        for part, value in zip(self._partitions.local, values, strict=True):
            part.data.copy_(value)
        self._partitions.copy_to_model()

    def _clip_before_step(self, *_: Any) -> None:
        """Clip the gradient in ZeRO 0, where DeepSpeed would clip without reporting the norm."""
        self._norm = self._clip_gradients(self._parameters.values())

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
def _gathered(engine: Any) -> Iterator[None]:
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


class _Partitions:
    """The fp32 weights and Adam moments in ZeRO 0: the weights themselves. Other stages partition.

    Attributes:
        local: Partitions of this worker, on which its optimiser steps.
    """

    def __init__(self, optimizer: Any, local: Sequence[Tensor]) -> None:
        self.local = local
        self._optimizer = optimizer

    def full(self, p: Any, kind: str) -> Tensor:
        """Return a parameter's whole weight or moment; all workers call."""
        found: Tensor = p.detach() if kind == WEIGHT else self._optimizer.state[p][kind]
        return found

    def put(self, p: Any, kind: str, value: Tensor) -> None:
        """Set this worker's part of a whole weight or moment."""
        self.full(p, kind).copy_(value)

    def copy_to_model(self) -> None:
        """Update the model's weights from the partitions; all workers call."""

    def link_moments(self) -> None:
        """Tell DeepSpeed of moments that were created outside of an optimiser step."""


class _FlatPartitions(_Partitions):
    """ZeRO 1 and 2: all weights flattened into one row, split into one partition per worker."""

    def __init__(self, optimizer: Any) -> None:
        # ZeRO 1 with bf16 is another class, with another name for them.
        name = "single_partition_of_fp32_groups"
        name = name if hasattr(optimizer, name) else "fp32_groups_flat_partition"
        super().__init__(optimizer, getattr(optimizer, name))

    def full(self, p: Any, kind: str) -> Tensor:
        found: Tensor = p.get_full_hp_param(None if kind == WEIGHT else kind)
        return found

    def put(self, p: Any, kind: str, value: Tensor) -> None:
        p.set_full_hp_param(value, None if kind == WEIGHT else kind)

    def copy_to_model(self) -> None:
        self._optimizer.update_lp_params()

    def link_moments(self) -> None:
        self._optimizer._lazy_init_hp_params_optimizer_state()


class _ParameterPartitions(_Partitions):
    """ZeRO 3: each weight split into one partition per worker, the last one padded."""

    def __init__(self, optimizer: Any, worker_rank: int) -> None:
        super().__init__(optimizer, optimizer.fp32_partitioned_groups_flat)
        self._rank = worker_rank

    def full(self, p: Any, kind: str) -> Tensor:
        found: Tensor = self._optimizer.get_full_hp_param(p, None if kind == WEIGHT else kind)
        return found

    def put(self, p: Any, kind: str, value: Tensor) -> None:
        size = p.partition_numel()
        mine = value.flatten()[self._rank * size : (self._rank + 1) * size]
        padded = value.new_zeros(size)
        padded[: mine.numel()] = mine
        self._optimizer.set_local_hp_param(padded, p, None if kind == WEIGHT else kind)

    def copy_to_model(self) -> None:
        # As at the end of DeepSpeed's own step.
        self._optimizer._partition_all_parameters()
        for group in range(len(self.local)):
            self._optimizer._reassign_or_swap_out_partitioned_parameters(group)
