"""The fp32 weights that DeepSpeed's optimiser steps on, partitioned over workers by ZeRO stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from modicum.training.engine_checkpoint import WEIGHT


class Partitions(Protocol):
    """The fp32 weights and Adam moments of one ZeRO stage."""

    @property
    def local(self) -> Sequence[Tensor]:
        """Partitions of this worker, on which its optimiser steps."""
        ...

    def full(self, p: nn.Parameter, kind: str) -> Tensor:
        """Return a parameter's whole weight or moment; all workers call."""
        ...

    def put(self, p: nn.Parameter, kind: str, value: Tensor) -> None:
        """Set this worker's part of a whole weight or moment."""
        ...

    def copy_to_model(self) -> None:
        """Update the model's weights from the partitions; all workers call."""
        ...

    def link_moments(self) -> None:
        """Tell DeepSpeed of moments that were created outside of an optimiser step."""
        ...


def partitions_of(engine: Any, parameters: Mapping[str, nn.Parameter], stage: int) -> Partitions:
    """Partitions of a DeepSpeed engine.

    Args:
        engine: The engine that `deepspeed.initialize` returned.
        parameters: Trained parameters by name.
        stage: Effective ZeRO stage.
    """
    if stage == 0:
        return _Unsharded(engine.basic_optimizer, list(parameters.values()))
    if stage == 3:
        return _PerParameter(engine.optimizer, engine.global_rank)
    return _Flat(engine.optimizer)


class _Unsharded:
    """ZeRO 0 in fp32: the weights themselves."""

    def __init__(self, adam: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> None:
        self._adam = adam
        self.local: Sequence[Tensor] = parameters

    def full(self, p: nn.Parameter, kind: str) -> Tensor:
        return p.detach() if kind == WEIGHT else self._adam.state[p][kind]

    def put(self, p: nn.Parameter, kind: str, value: Tensor) -> None:
        self.full(p, kind).copy_(value)

    def copy_to_model(self) -> None:
        pass

    def link_moments(self) -> None:
        pass


class _Flat:
    """ZeRO 1 and 2: all weights flattened into one row, split into one partition per worker."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        # ZeRO 1 with bf16 is another class, with another name for them.
        name = "single_partition_of_fp32_groups"
        name = name if hasattr(optimizer, name) else "fp32_groups_flat_partition"
        self.local: Sequence[Tensor] = getattr(optimizer, name)

    def full(self, p: Any, kind: str) -> Tensor:
        found: Tensor = p.get_full_hp_param(None if kind == WEIGHT else kind)
        return found

    def put(self, p: Any, kind: str, value: Tensor) -> None:
        p.set_full_hp_param(value, None if kind == WEIGHT else kind)

    def copy_to_model(self) -> None:
        self._optimizer.update_lp_params()

    def link_moments(self) -> None:
        self._optimizer._lazy_init_hp_params_optimizer_state()


class _PerParameter:
    """ZeRO 3: each weight split into one partition per worker, the last one padded."""

    def __init__(self, optimizer: Any, worker_rank: int) -> None:
        self._optimizer = optimizer
        self._rank = worker_rank
        self.local: Sequence[Tensor] = optimizer.fp32_partitioned_groups_flat

    def full(self, p: nn.Parameter, kind: str) -> Tensor:
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

    def link_moments(self) -> None:
        pass
