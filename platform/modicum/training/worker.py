"""One of the processes that train a model together, as the computation sees it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from modicum.experiment.journal import Journal

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_NOTHING: Any = object()


class Collectives(Protocol):
    """How workers exchange Python objects; every worker must call."""

    def broadcast(self, value: Any) -> Any:
        """The first worker's value, on all."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, by rank, on all."""
        ...


class Alone:
    """The collectives of a single process."""

    def broadcast(self, value: Any) -> Any:
        """See `Collectives`."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """See `Collectives`."""
        return [value]


@dataclass(frozen=True)
class Worker:
    """One of the processes that train a model together.

    All of them run the same computation in step. What one of them alone does (asking an oracle,
    writing a file) goes through `alone` or `broadcast`, so that the others wait for it.

    Attributes:
        rank: From 0.
        size: How many there are.
        device: Torch device of the model.
        journal: Steps that are done; the same for all workers.
        scratch: Folder of this process's own, removed when it ends.
        collectives: How workers exchange objects.
        log: Logger of the trial.
    """

    rank: int
    size: int
    device: torch.device
    journal: Journal
    scratch: Path
    collectives: Collectives = field(default_factory=Alone)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("modicum.trial"))

    @property
    def first(self) -> bool:
        """Whether this is the worker that writes and speaks for all."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """The first worker's value, on all."""
        return self.collectives.broadcast(value if self.first else None)

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, by rank, on all."""
        return self.collectives.gather(value)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This worker's part of some items: every `size`-th."""
        return items[self.rank :: self.size]

    def collect(self, results: Sequence[T]) -> list[T]:
        """The results of all workers' parts, in the order of the items that were shared."""
        columns = zip_longest(*self.gather(list(results)), fillvalue=_NOTHING)
        return [result for result in chain.from_iterable(columns) if result is not _NOTHING]

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """The result of a step, computed unless an earlier attempt has done so.

        Args:
            name: Name of the step in the journal.
            compute: Returns what JSON can hold, the same on all workers; they all call it.
        """
        found = self.broadcast(self.journal.read(name) if self.first else None)
        if found is not None:
            return found  # type: ignore[no-any-return]
        result = compute()
        if self.first:
            self.journal.write(name, result)
        return result

    def alone(self, compute: Callable[[], T]) -> T:
        """What the first worker alone computes, on all; an error of its own is raised on all."""
        result, error = None, None
        if self.first:
            try:
                result = compute()
            except Exception as raised:  # The others would wait for ever.
                error = raised
        result, error = self.broadcast((result, error))
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def keep_state(self, name: str, write: Callable[[Path], None]) -> None:
        """Keep what the workers write, in the place of what had this name before.

        Until all have written, `kept_state` finds what was there before.

        Args:
            name: Name of the state in the journal.
            write: Writes this worker's part into an empty folder. All parts end up in one folder,
                so names of files must differ between workers.

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
        """A local folder with what all workers wrote, for a while, or None where nothing is kept.

        Args:
            name: As in `keep_state`.
        """
        slot = self.alone(lambda: self.journal.slot(name))
        if slot is None:
            yield None
            return
        with self.journal.folder(name, self.scratch, slot) as folder:
            yield folder
