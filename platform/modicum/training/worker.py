"""A worker: one of the processes that train a model together, as the computation sees it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from modicum.experiment.journal import Journal

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_PADDING: Any = object()


class Collectives:
    """Collective communication of Python objects: that of a single process, which others override.

    All workers must call each method together.
    """

    def broadcast(self, value: Any) -> Any:
        """Return the first worker's value on all workers."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all workers, by rank, on all workers."""
        return [value]


@dataclass(frozen=True)
class Worker:
    """One of the processes that train a model together.

    All workers run the same computation in step. Work of one worker only (asking an oracle, writing
    a file) goes through `alone` or `broadcast`, so that the others wait for it.

    Attributes:
        rank: Number of this worker, from 0.
        size: Number of workers.
        device: Torch device of the model.
        journal: Results of finished steps, the same for all workers.
        scratch: Folder of this process only, removed when the process ends.
        collectives: Communication with the other workers.
        log: Logger of the trial.
    """

    rank: int
    size: int
    device: torch.device
    journal: Journal
    scratch: Path
    collectives: Collectives = field(default_factory=Collectives)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("modicum.trial"))

    @property
    def first(self) -> bool:
        """True for the worker of rank 0, which writes files and whose values are yielded."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """Return the first worker's value on all workers."""
        return self.collectives.broadcast(value if self.first else None)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all workers, by rank, on all workers."""
        return self.collectives.gather(value)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Share of this worker in some items: every `size`-th."""
        return items[self.rank :: self.size]

    def collect(self, results: Sequence[T]) -> list[T]:
        """Results of all workers' shares, in the order of the items before `share`."""
        columns = zip_longest(*self.gather(list(results)), fillvalue=_PADDING)
        return [result for result in chain.from_iterable(columns) if result is not _PADDING]

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """Return a step's result from the journal, or compute it and write it there.

        Args:
            name: Name of the step in the journal.
            compute: Function that all workers call; it returns the same on all of them, a value
                that JSON can hold.
        """
        found = self.broadcast(self.journal.read(name) if self.first else None)
        if found is not None:
            return found  # type: ignore[no-any-return]
        result = compute()
        if self.first:
            self.journal.write(name, result)
        return result

    def alone(self, compute: Callable[[], T]) -> T:
        """Compute on the first worker only; return its result, or raise its error, on all."""
        result, error = None, None
        if self.first:
            try:
                result = compute()
            except Exception as raised:  # Raised here, it would leave the others waiting.
                error = raised
        result, error = self.broadcast((result, error))
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def keep_state(self, name: str, write: Callable[[Path], None]) -> None:
        """Keep a state: files that all workers write, in place of earlier ones of the same name.

        `write` writes this worker's files into an empty folder. The files of all workers end up in
        one folder, so their names must differ between workers. `kept_state` finds the earlier files
        until all workers have written.

        Raises:
            InputError: Workers are on machines that do not share the run folder.
        """
        slot = self.alone(lambda: self.journal.free_slot(name))
        with self.journal.part(name, slot, self.scratch) as folder:
            write(folder)
            names = [str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()]
        written = list(chain.from_iterable(self.gather(names)))
        self.alone(lambda: self.journal.publish(name, slot, written))

    @contextmanager
    def kept_state(self, name: str) -> Iterator[Path | None]:
        """Local folder with all workers' files of a state for a block; None if nothing is kept."""
        slot = self.alone(lambda: self.journal.slot(name))
        if slot is None:
            yield None
            return
        with self.journal.folder(name, self.scratch, slot) as folder:
            yield folder


# A function that all workers of a group call with the same arguments, and whose values the first
# worker's caller gets.
Computation = Callable[[Worker, Any], Iterator[Any]]
