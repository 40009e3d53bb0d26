"""Group commit: changes that arrive while the ledger is writing share its next transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from modicum.oracles.ledger.ledger import Ledger
from modicum.oracles.ledger.records import Reservation, Settlement

T = TypeVar("T")


class LedgerWriter:
    """A ledger for an event loop: written by one background thread, many changes to a commit.

    Args:
        path: The ledger's file.

    Raises:
        InputError: The ledger cannot be opened; see `Ledger`.
    """

    def __init__(self, path: Path) -> None:
        self._ledger = Ledger(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._reservations: list[Reservation] = []
        self._settlements: list[Settlement] = []
        self._next: asyncio.Future[list[int]] | None = None
        self._committing: asyncio.Task[None] | None = None

    @property
    def orphans(self) -> int:
        """Number of requests that were under way when the ledger was last left."""
        return self._ledger.orphans

    async def reserve(self, reservations: Sequence[Reservation]) -> list[int]:
        """Reserve requests; return their numbers once the reservations are durable."""
        start = len(self._reservations)
        self._reservations.extend(reservations)
        numbers = await self._committed()
        return numbers[start : start + len(reservations)]

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Settle requests; return once the settlements are durable."""
        self._settlements.extend(settlements)
        await self._committed()

    async def run(self, read: Callable[[Ledger], T]) -> T:
        """Call a reading function in the ledger's thread, after pending writes."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, read, self._ledger)

    def _committed(self) -> asyncio.Future[list[int]]:
        """The next commit, which holds everything added until now."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        if self._committing is None:
            self._committing = asyncio.ensure_future(self._commit())
        return self._next

    async def _commit(self) -> None:
        loop = asyncio.get_running_loop()
        while self._next is not None:
            done, self._next = self._next, None
            reservations, self._reservations = self._reservations, []
            settlements, self._settlements = self._settlements, []
            try:
                numbers = await loop.run_in_executor(
                    self._thread, self._ledger.write, reservations, settlements
                )
            except Exception as error:
                done.set_exception(error)
            else:
                done.set_result(numbers)
        self._committing = None

    def close(self) -> None:
        """Close the ledger."""
        self._thread.submit(self._ledger.close).result()
        self._thread.shutdown()
