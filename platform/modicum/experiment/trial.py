"""What a running experiment is handed: seeds, a checkpoint to resume from, scratch space."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from modicum.experiment.resources import Resources
from modicum.seeding import derive_seed

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Trial:
    """A running trial, as its experiment sees it.

    Attributes:
        id: The trial's identity.
        seed: The trial's seed; derive others from it with `seed_for`.
        scratch: An empty folder of this trial's own, removed when it ends.
        resources: What the trial was given.
        checkpoint: Folder of the last checkpoint, or None for a fresh start.
        records_done: Records that were yielded up to that checkpoint.
        storage: Place in the run folder (a path or URI) that every machine of the cluster reaches,
            for the state of long work between checkpoints: it outlives the trial's process and is
            removed when the trial has finished. None outside a study.
        log: Logger that writes to the trial's own log file.
    """

    id: str
    seed: int
    scratch: Path
    resources: Resources = field(default_factory=Resources)
    checkpoint: Path | None = None
    records_done: int = 0
    storage: str | None = None
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("modicum.trial"))

    def seed_for(self, purpose: str) -> int:
        """A seed for one purpose (`"split"`, `"initialisation"`, `"sampling"`, ...)."""
        return derive_seed(self.seed, purpose)

    def generator(self, purpose: str) -> np.random.Generator:
        """A NumPy generator seeded for one purpose."""
        import numpy as np

        return np.random.default_rng(self.seed_for(purpose))

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """The result of a step that is computed once, however often the trial is started again.

        Outside a study, where the trial has no storage, the step is computed.

        Args:
            name: Name of the step, unique in the trial, such as `round-002/labels`.
            compute: Returns what JSON can hold, and not None.
        """
        if self.storage is None:
            return compute()
        from modicum.experiment.journal import Journal

        journal = Journal(self.storage)
        found: T | None = journal.read(name)
        if found is None:
            found = compute()
            journal.write(name, found)
        return found
