"""A running trial: its seeds, its checkpoint to resume from, its folders."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from modicum.experiment.journal import Journal
from modicum.experiment.resources import Resources
from modicum.seeding import derive_seed

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Trial:
    """A running trial, as its experiment sees it.

    Attributes:
        id: Hash of the trial's identity.
        seed: Seed of the trial; derive others from it with `seed_for`.
        scratch: An empty folder for this trial alone, removed when the trial ends.
        resources: Resources that the trial was given.
        checkpoint: Folder of the last checkpoint; None for a fresh start.
        records_done: Number of records that the trial had yielded when it saved the checkpoint.
        storage: Path or URI of a folder that every machine of the cluster reaches, for the state
            of long work between checkpoints. It outlives the trial's process and is removed when
            the trial has finished. None outside a study.
        log: Logger that writes to the trial's log file.
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
        """The result of a step that a restarted trial does not compute again.

        The result is kept in the trial's storage; without storage (outside a study) every call
        computes it.

        Args:
            name: Name of the step, unique in the trial, such as `round-002/labels`.
            compute: Computes the result: a value that JSON can hold, except None.
        """
        if self.storage is None:
            return compute()
        journal = Journal(self.storage)
        found: T | None = journal.read(name)
        if found is None:
            found = compute()
            journal.write(name, found)
        return found
