"""The ledger: every request, from its reservation to its answer, is durable before it takes effect.

A ledger is an SQLite file in WAL mode with synchronous=FULL. One process at a time may write to it,
which holds an operating system lock beside the file; the lock ends with its holder. Other processes
may read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from modicum.errors import InputError
from modicum.oracles.ledger.database import SPENT, open_to_write, recall
from modicum.oracles.ledger.records import Amount, Remembered, Reservation, Settlement
from modicum.oracles.questions import Question, Verdict

T = TypeVar("T")


class Ledger:
    """A ledger that is open for writing. Use it from one thread at a time.

    Args:
        path: The file; the file and its folders are created if missing.

    Attributes:
        path: The file, with links resolved.
        orphans: Number of requests that were under way when the ledger was last left.

    Raises:
        InputError: Another process has the ledger open, or the file is damaged or no ledger.
    """

    def __init__(self, path: Path) -> None:
        # One lock for one file, by whichever name it is reached.
        self.path = path = path.resolve()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # One thread may acquire the lock and another release it.
            self._lock = FileLock(f"{path}.lock", timeout=0, thread_local=False)
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"ledger: {path} is in use{_holder(path)}; two processes cannot write to it"
            ) from None
        except OSError as error:
            raise InputError(f"ledger: {path} cannot be written ({error})") from error
        try:
            holder = f"process {os.getpid()} on {socket.gethostname()}"
            Path(f"{path}.holder").write_text(holder, encoding="utf-8")
            self._connection = open_to_write(path)
            self.orphans = self._settle_orphans()
        except (OSError, sqlite3.Error) as error:
            self._lock.release()
            raise InputError(f"ledger: {path} cannot be written ({error})") from error
        except BaseException:
            self._lock.release()
            raise

    def _settle_orphans(self) -> int:
        """Count requests of a killed process as spent: they may have been charged."""
        with self._transaction() as connection:
            return connection.execute(
                "UPDATE requests SET state = 'lost', settled_at = ?, "
                "error = 'the process that sent it ended' WHERE state = 'reserved'",
                (time.time(),),
            ).rowcount

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            # On a full disk, SQLite has rolled back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def write(
        self, reservations: Sequence[Reservation], settlements: Sequence[Settlement]
    ) -> list[int]:
        """Settle and reserve requests in one transaction, durable when this returns.

        Returns:
            The numbers of the reserved requests.

        Raises:
            sqlite3.Error: Nothing was written (disk full, locked by another program).
        """
        now = time.time()
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE requests SET state = ?, settled_at = ?, prompt_tokens = ?, "
                "completion_tokens = ?, dollars = ?, latency = ?, answer = ?, verdict = ?, "
                "rationale = ?, error = ? WHERE id = ?",
                [
                    (
                        *(s.state, now, s.prompt_tokens, s.completion_tokens, s.dollars),
                        *(s.latency, s.answer, s.verdict, s.rationale, s.error, s.request),
                    )
                    for s in settlements
                ],
            )
            connection.executemany(
                "INSERT OR IGNORE INTO questions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(r.question.key, *astuple(r.question)) for r in reservations],
            )
            numbers = []
            for r in reservations:
                cursor = connection.execute(
                    "INSERT INTO requests "
                    "(question, run, state, reserved_at, reserved_tokens, reserved_dollars) "
                    "VALUES (?, ?, 'reserved', ?, ?, ?)",
                    (r.question.key, r.run, now, r.most.tokens, r.most.dollars),
                )
                assert cursor.lastrowid is not None
                numbers.append(cursor.lastrowid)
        return numbers

    def record(self, question: Question, verdict: Verdict, latency: float) -> None:
        """Write an answer that costs nothing, such as a human's; the latency is in seconds.

        Raises:
            sqlite3.Error: The answer was not written.
        """
        [request] = self.write([Reservation(question, "", Amount())], [])
        answered = Settlement(
            request=request,
            state="answered",
            latency=latency,
            verdict=verdict.letter,
            rationale=verdict.rationale,
        )
        self.write([], [answered])

    def recall(self, keys: Iterable[str]) -> dict[str, Remembered]:
        """Look questions up by their keys; the result leaves out questions never answered."""
        return recall(self._connection, keys)

    def withdraw(self, key: str) -> bool:
        """Take the answer to a question back; False if the question had none."""
        with self._transaction() as connection:
            return (
                connection.execute(
                    "UPDATE requests SET state = 'withdrawn' "
                    "WHERE question = ? AND state = 'answered'",
                    (key,),
                ).rowcount
                > 0
            )

    def spent(self, run: str | None = None) -> Amount:
        """Spending of a run, or of all runs."""
        condition, values = ("", ()) if run is None else (" WHERE run = ?", (run,))
        row = self._connection.execute(f"SELECT {SPENT} FROM requests{condition}", values)
        calls, tokens, dollars = row.fetchone()
        return Amount(calls or 0, tokens or 0, dollars or 0.0)

    def close(self) -> None:
        """Close the file and release its lock."""
        self._connection.close()
        self._lock.release()


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return f" by {Path(f'{path}.holder').read_text(encoding='utf-8')}"
    return ""


class LedgerWriter:
    """A ledger for an event loop: written by one background thread, many changes to a commit."""

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
