"""The interface of engines, which update, reset and save a model under training.

`plain_engine.py` implements it for one process, `deepspeed_engine.py` for a group of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from modicum.training.settings import TrainingSettings

if TYPE_CHECKING:
    from torch import Tensor

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


class Engine(Protocol):
    """A module under training, whole or sharded. All workers call each method together.

    The module is any whose `forward` takes a batch. Its trainable parameters are trained, saved and
    reset.
    """

    @property
    def updates(self) -> int:
        """Number of updates since the start or the last reset."""
        ...

    def __call__(self, batch: Any) -> Any:
        """Return the module's output."""
        ...

    def update(self, batches: Sequence[B], loss: Callable[[Any, B], Tensor]) -> Update:
        """Take one step of gradient descent.

        The objective is the mean over workers of the sum over `batches` of
        `loss(module(batch), batch)`. All workers must bring the same number of batches.

        Args:
            batches: Micro-batches of this worker.
            loss: Function of a module's output and its micro-batch that returns a scalar.
        """
        ...

    def reset(self) -> None:
        """Restore weights and optimiser as they were at the start."""
        ...

    def at_start(self) -> Any:
        """Context in which the module has its initial weights again.

        The trained weights are restored afterwards. No update is possible inside.
        """
        ...

    def whole(self) -> Any:
        """Context in which this worker holds all of the module's weights, for generation."""
        ...

    def save(self, folder: Path) -> None:
        """Write this worker's part of weights and optimiser, and the number of updates."""
        ...

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """All trained weights by name, fp32 on the CPU; empty on all workers but the first."""
        ...


def learning_rate(settings: TrainingSettings, updates: int) -> float:
    """Learning rate of the next update: linear warm-up, then constant.

    Args:
        settings: Settings with the rate and the length of the warm-up.
        updates: Number of updates so far.
    """
    if updates >= settings.warmup:
        return settings.learning_rate
    return settings.learning_rate * (updates + 1) / settings.warmup
