"""A model that several workers share by DeepSpeed.

DeepSpeed takes the optimiser's steps on pieces of the weights in fp32, of which each worker has
some; the weights that the model computes with are made from them. All else here (going back to
the start, saving, loading) works on these pieces.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modicum.errors import InputError
from modicum.library_logging import quiet_loggers
from modicum.training.engine import B, Update, learning_rate
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
from modicum.training.worker import Worker

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# Gradients and weights are exchanged in buckets of at most so many numbers, and of at most such a
# part of all; with ZeRO 3, a worker has about two buckets of whole weights at a time.
_BUCKET = 50_000_000
_BUCKETS = 8

_LOSS_SCALE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class DeepSpeedEngine:
    """The engine of a worker group; see `Engine`.

    With bf16 and fp16, ZeRO 0 is ZeRO 1: DeepSpeed has no optimiser for 16 bits that adds up
    gradients in fp32 and shards nothing.

    Args:
        module: The same on all workers, in its precision; loaded under `loading`.
        settings: Of training.
        worker: One of a group whose `torch.distributed` is up.

    Raises:
        InputError: fp16 without GPUs.
    """

    def __init__(self, module: nn.Module, settings: TrainingSettings, worker: Worker) -> None:
        import deepspeed

        self._settings = settings
        self._worker = worker
        self._named = {n: p for n, p in module.named_parameters() if p.requires_grad}
        trained = list(self._named.values())
        _prepare(settings, worker)
        with _quiet():
            self._engine, *_ = deepspeed.initialize(
                model=module,
                model_parameters=trained,
                optimizer=_adam(trained, settings, worker),
                config=_config(settings, worker, trained),
            )
        self._adam: torch.optim.Optimizer = self._engine.basic_optimizer
        self._pieces = _pieces(self._engine, self._named, _stage(settings))
        self._start = [piece.detach().to("cpu", copy=True) for piece in self._pieces.all]
        self._updates = 0
        self._norm = 0.0
        if _stage(settings) == 0:
            self._adam.register_step_pre_hook(self._clip)
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
        if _stage(self._settings):
            self._norm = float(self._engine.get_global_grad_norm())
        totals = self._worker.gather(total)
        return Update(sum(totals) / len(totals), self._norm)

    def reset(self) -> None:
        """See `Engine`."""
        self._put(self._start)
        for piece in self._pieces.all:
            state = self._adam.state.get(piece)
            if state:
                for moment in MOMENTS:
                    state[moment].zero_()
                _set_steps(state, 0)
        self._set_loss_scale(self._loss_scale_at_start)
        self._updates = 0

    @contextmanager
    def at_start(self) -> Iterator[None]:
        """See `Engine`."""
        trained = [piece.detach().to("cpu", copy=True) for piece in self._pieces.all]
        self._put(self._start)
        try:
            yield
        finally:
            self._put(trained)

    def whole(self) -> AbstractContextManager[None]:
        """See `Engine`."""
        return self._gathered() if _stage(self._settings) == 3 else nullcontext()

    def save(self, folder: Path) -> None:
        """See `Engine`."""
        kinds = (WEIGHT, *MOMENTS) if self._steps() else (WEIGHT,)
        tensors = {}
        for number, (name, p) in enumerate(self._named.items()):
            for kind in kinds:
                # All workers take part; one keeps it.
                full = self._pieces.full(p, kind)
                if number % self._worker.size == self._worker.rank:
                    tensors[key(kind, name)] = full.to("cpu", copy=True)
        write_part(folder, self._worker.rank, tensors)
        if self._worker.first:
            write_counts(folder, Counts(self._updates, self._steps(), self._loss_scale()))

    def load(self, folder: Path) -> None:
        """See `Engine`."""
        counts = read_counts(folder)
        kinds = (WEIGHT, *MOMENTS) if counts.steps else (WEIGHT,)
        self._prepare_moments()
        with open_parts(folder) as read:
            for name, p in self._named.items():
                for kind in kinds:
                    self._pieces.put(p, kind, read(kind, name))
        for piece in self._pieces.all:
            _set_steps(self._adam.state[piece], counts.steps)
        self._pieces.publish()
        self._set_loss_scale(counts.loss_scale)
        self._updates = counts.updates

    def weights(self) -> dict[str, Tensor]:
        """See `Engine`."""
        found = {}
        for name, p in self._named.items():
            full = self._pieces.full(p, WEIGHT)
            if self._worker.first:
                found[name] = full.to("cpu", copy=True)
        return found

    def _put(self, pieces: Sequence[Tensor]) -> None:
        for piece, value in zip(self._pieces.all, pieces, strict=True):
            piece.data.copy_(value)
        self._pieces.publish()

    def _clip(self, *_: Any) -> None:
        """Clip whole gradients, which DeepSpeed would do without saying what their norm was."""
        from torch.nn.utils import clip_grad_norm_

        limit = self._settings.gradient_clipping
        parameters = list(self._named.values())
        self._norm = float(clip_grad_norm_(parameters, float("inf") if limit is None else limit))

    def _steps(self) -> int:
        """Steps that Adam has taken."""
        state = self._adam.state.get(self._pieces.all[0])
        return int(state["step"]) if state else 0

    def _prepare_moments(self) -> None:
        """Make what Adam makes at its first step."""
        import torch

        for piece in self._pieces.all:
            state = self._adam.state[piece]
            if not state:
                state["step"] = torch.tensor(0.0)
                for moment in MOMENTS:
                    state[moment] = torch.zeros_like(piece, requires_grad=False)
        self._pieces.link()

    def _loss_scale(self) -> dict[str, Any]:
        scaler = getattr(self._engine.optimizer, "loss_scaler", None)
        return {name: getattr(scaler, name) for name in _LOSS_SCALE if hasattr(scaler, name)}

    def _set_loss_scale(self, values: Any) -> None:
        for name in self._loss_scale():
            if name in values:
                setattr(self._engine.optimizer.loss_scaler, name, values[name])

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        """Weights whole, and without the hooks that would fetch and drop them layer by layer."""
        from deepspeed.runtime.zero import GatheredParameters

        sharding = self._engine.optimizer.parameter_offload
        module = self._engine.module
        with GatheredParameters(list(module.parameters())):
            for p in module.parameters():
                p.ds_active_sub_modules.clear()
            for hook in (*sharding.forward_hooks, *sharding.backward_hooks):
                hook.remove()
            sharding.forward_hooks, sharding.backward_hooks = [], []
            try:
                yield
            finally:
                # What order layers are used in was recorded with the hooks.
                coordinator = sharding.get_param_coordinator()
                if not coordinator.is_invalid_trace():
                    coordinator._invalidate_trace()
                sharding._register_deepspeed_module(module)


@contextmanager
def loading(settings: TrainingSettings, worker: Worker) -> Iterator[None]:
    """Context in which `from_pretrained` gives each worker its part of the weights (ZeRO 3).

    Raises:
        InputError: fp16 without GPUs.
    """
    if settings.workers == 0 or _stage(settings) < 3:
        yield
        return
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    _prepare(settings, worker)
    # Transformers holds it weakly.
    kept = HfDeepSpeedConfig(_config(settings, worker, []))  # type: ignore[no-untyped-call]
    try:
        with _quiet():
            yield
    finally:
        del kept
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]


class _Pieces(Protocol):
    """Where a stage of DeepSpeed's has its fp32 weights and their moments."""

    @property
    def all(self) -> Sequence[Tensor]:
        """What this worker's optimiser steps on."""
        ...

    def full(self, p: nn.Parameter, kind: str) -> Tensor:
        """A parameter's whole weight or moment; all workers call."""
        ...

    def put(self, p: nn.Parameter, kind: str, value: Tensor) -> None:
        """Set this worker's share of a whole weight or moment."""
        ...

    def publish(self) -> None:
        """Make the model's weights from the pieces; all workers call."""
        ...

    def link(self) -> None:
        """Let DeepSpeed know of moments that have been made."""
        ...


class _Unsharded:
    """ZeRO 0 in fp32: the weights themselves."""

    def __init__(self, adam: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> None:
        self._adam = adam
        self.all: Sequence[Tensor] = parameters

    def full(self, p: nn.Parameter, kind: str) -> Tensor:
        return p.detach() if kind == WEIGHT else self._adam.state[p][kind]

    def put(self, p: nn.Parameter, kind: str, value: Tensor) -> None:
        self.full(p, kind).copy_(value)

    def publish(self) -> None:
        pass

    def link(self) -> None:
        pass


class _Flat:
    """ZeRO 1 and 2: all weights in one row, cut into as many pieces as there are workers."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        # In bf16 ZeRO 1 is another class.
        name = "single_partition_of_fp32_groups"
        name = name if hasattr(optimizer, name) else "fp32_groups_flat_partition"
        self.all: Sequence[Tensor] = getattr(optimizer, name)

    def full(self, p: Any, kind: str) -> Tensor:
        found: Tensor = p.get_full_hp_param(None if kind == WEIGHT else kind)
        return found

    def put(self, p: Any, kind: str, value: Tensor) -> None:
        p.set_full_hp_param(value, None if kind == WEIGHT else kind)

    def publish(self) -> None:
        self._optimizer.update_lp_params()

    def link(self) -> None:
        self._optimizer._lazy_init_hp_params_optimizer_state()


class _Split:
    """ZeRO 3: each weight cut into as many pieces as there are workers, the last one padded."""

    def __init__(self, optimizer: Any, worker_rank: int) -> None:
        self._optimizer = optimizer
        self._rank = worker_rank
        self.all: Sequence[Tensor] = optimizer.fp32_partitioned_groups_flat

    def full(self, p: nn.Parameter, kind: str) -> Tensor:
        found: Tensor = self._optimizer.get_full_hp_param(p, None if kind == WEIGHT else kind)
        return found

    def put(self, p: Any, kind: str, value: Tensor) -> None:
        size = p.partition_numel()
        mine = value.flatten()[self._rank * size : (self._rank + 1) * size]
        padded = value.new_zeros(size)
        padded[: mine.numel()] = mine
        self._optimizer.set_local_hp_param(padded, p, None if kind == WEIGHT else kind)

    def publish(self) -> None:
        # As at the end of DeepSpeed's own step.
        self._optimizer._partition_all_parameters()
        for group in range(len(self.all)):
            self._optimizer._reassign_or_swap_out_partitioned_parameters(group)

    def link(self) -> None:
        pass


def _pieces(engine: Any, named: dict[str, nn.Parameter], stage: int) -> _Pieces:
    if stage == 0:
        return _Unsharded(engine.basic_optimizer, list(named.values()))
    if stage == 3:
        return _Split(engine.optimizer, engine.global_rank)
    return _Flat(engine.optimizer)


def _set_steps(state: dict[str, Any], steps: int) -> None:
    """Adam's count of steps: a tensor of torch's, a number of DeepSpeed's own Adam."""
    if isinstance(state["step"], int):
        state["step"] = steps
    else:
        state["step"].fill_(steps)


def _prepare(settings: TrainingSettings, worker: Worker) -> None:
    """Let DeepSpeed know the process group and the device.

    Raises:
        InputError: fp16 without GPUs.
    """
    if settings.precision == "fp16" and worker.device.type == "cpu":
        raise InputError("training.precision: fp16 needs GPUs; fp32 and bf16 do not, got 'fp16'")
    # It would look for hardware that this worker has not been given.
    os.environ["DS_ACCELERATOR"] = worker.device.type
    import deepspeed

    # On processors, DeepSpeed would compile its exchange through shared memory: a minute, and a
    # compiler, for what gloo does.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    with _quiet():
        deepspeed.init_distributed(
            dist_backend="nccl" if worker.device.type == "cuda" else "gloo",
            auto_mpi_discovery=False,
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """DeepSpeed logs and prints what it has started with."""
    with quiet_loggers("DeepSpeed"), redirect_stdout(io.StringIO()):
        yield


def _stage(settings: TrainingSettings) -> int:
    return max(settings.zero_stage, 0 if settings.precision == "fp32" else 1)


def _adam(
    parameters: Sequence[nn.Parameter], settings: TrainingSettings, worker: Worker
) -> torch.optim.Optimizer:
    import torch

    if settings.offload != "none" and worker.device.type == "cuda":
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        found: torch.optim.Optimizer = DeepSpeedCPUAdam(
            parameters,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            adamw_mode=True,
        )
        return found
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
    )


def _config(
    settings: TrainingSettings, worker: Worker, trained: Sequence[nn.Parameter]
) -> dict[str, Any]:
    """DeepSpeed's configuration."""
    stage = _stage(settings)
    numbers = sum(getattr(p, "ds_numel", p.numel()) for p in trained)
    bucket = min(_BUCKET, numbers // _BUCKETS + 1)
    on_cpu = {"device": "cpu", "pin_memory": worker.device.type == "cuda"}
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": worker.device.type == "cuda",
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": _BUCKET,
        "stage3_prefetch_bucket_size": bucket,
        "stage3_max_live_parameters": 2 * bucket,
        "stage3_max_reuse_distance": 2 * bucket,
        "stage3_param_persistence_threshold": 0,  # Every weight is sharded.
    }
    if settings.offload != "none":
        zero["offload_optimizer"] = on_cpu
    if settings.offload == "parameters":
        zero["offload_param"] = on_cpu
    return {
        # How many there are is said update by update.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": (settings.gradient_clipping or 0.0) if stage else 0.0,
        "bf16": {"enabled": settings.precision == "bf16"},
        "fp16": {"enabled": settings.precision == "fp16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
