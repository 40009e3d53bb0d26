"""The ledger: every request from its reservation to its answer, durable before anybody acts on it.

An SQLite file in WAL mode with synchronous=FULL, opened for writing by one process at a time
(an operating system lock beside it, which dies with its holder); others may read. A row is a
request. Its states:

    reserved    written before the request was sent; counts as spent in full
    answered    with a verdict; at most one such row for a question
    unreadable  answered without a verdict; at most two are asked for
    refused     the endpoint said no (rate limit, error, too long); nothing was charged
    lost        sent, and no answer came back (dropped, timed out, killed); counts as spent in full
    withdrawn   an answer that a human took back
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from modicum.errors import InputError
from modicum.oracles.endpoint.budget import Amount
from modicum.oracles.protocol import Letter
from modicum.oracles.questions import Question

State = Literal["reserved", "answered", "unreadable", "refused", "lost", "withdrawn"]

_FORMAT = "1"
_CHUNK = 500  # Bound variables of one statement.
_PATIENCE = 10.0  # Seconds to wait for another program that has the file locked.

_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE questions (
    key TEXT PRIMARY KEY,
    prompt TEXT NOT NULL,
    first TEXT NOT NULL,
    second TEXT NOT NULL,
    "order" TEXT NOT NULL CHECK ("order" IN ('given', 'swapped')),
    model TEXT NOT NULL,
    temperature REAL NOT NULL,
    template TEXT NOT NULL,
    repeat INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    question TEXT NOT NULL REFERENCES questions (key),
    run TEXT NOT NULL,
    state TEXT NOT NULL CHECK (
        state IN ('reserved', 'answered', 'unreadable', 'refused', 'lost', 'withdrawn')),
    reserved_at REAL NOT NULL,
    settled_at REAL,
    reserved_tokens INTEGER NOT NULL,
    reserved_dollars REAL NOT NULL,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    dollars REAL NOT NULL DEFAULT 0,
    latency REAL NOT NULL DEFAULT 0,
    answer TEXT,
    verdict TEXT CHECK (verdict IN ('A', 'B')),
    rationale TEXT,
    error TEXT,
    CHECK ((state = 'answered') <= (verdict IS NOT NULL))
);
CREATE INDEX requests_by_question ON requests (question);
CREATE UNIQUE INDEX one_answer ON requests (question) WHERE state = 'answered';
INSERT INTO meta VALUES ('format', '{_FORMAT}');
"""

# What a row counts as spent: (calls, tokens, dollars).
SPENT = """
    SUM(state <> 'refused'),
    SUM(CASE WHEN state IN ('reserved', 'lost') THEN reserved_tokens
        ELSE prompt_tokens + completion_tokens END),
    SUM(CASE WHEN state IN ('reserved', 'lost') THEN reserved_dollars ELSE dollars END)
"""


@dataclass(frozen=True)
class Reservation:
    """A request that is about to be sent, with the most that it can cost."""

    question: Question
    run: str
    most: Amount


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What became of a request."""

    request: int
    state: State
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    latency: float = 0.0
    answer: str | None = None
    verdict: Letter | None = None
    rationale: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Remembered:
    """What the ledger knows of a question.

    Attributes:
        verdict: The letter that was answered, or None if there is none yet.
        rationale: The reason given with it.
        unreadable: Answers without a verdict.
    """

    verdict: Letter | None = None
    rationale: str | None = None
    unreadable: int = 0


class Ledger:
    """A ledger that is open for writing. Use it from one thread at a time.

    Args:
        path: The file; made, with its folders, if it does not exist.

    Raises:
        InputError: Another process has it open, it is damaged, or it is no ledger.
    """

    def __init__(self, path: Path) -> None:
        # One lock for one file, by whichever name it is reached.
        self.path = path = path.resolve()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # One thread takes it and another gives it back.
            self._lock = FileLock(f"{path}.lock", timeout=0, thread_local=False)
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"ledger: {path} is in use{_holder(path)}; two cannot share it"
            ) from None
        except OSError as error:
            raise InputError(f"ledger: {path} cannot be written ({error})") from error
        try:
            holder = f"process {os.getpid()} on {socket.gethostname()}"
            Path(f"{path}.holder").write_text(holder, encoding="utf-8")
            self._connection = _open(path)
            self.orphans = self._lose_what_was_under_way()
        except (OSError, sqlite3.Error) as error:
            self._lock.release()
            raise InputError(f"ledger: {path} cannot be written ({error})") from error
        except BaseException:
            self._lock.release()
            raise

    def _lose_what_was_under_way(self) -> int:
        """Requests that a killed process had sent may have been charged, so they were spent."""
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
        """Settle and reserve in one transaction, durable when this returns.

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
                [_question_row(r.question) for r in reservations],
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

    def recall(self, keys: Iterable[str]) -> dict[str, Remembered]:
        """What is known of questions, by key; those never answered are left out."""
        return recall(self._connection, keys)

    def withdraw(self, key: str) -> bool:
        """Take a question's answer back; whether there was one."""
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
        """What was spent by a run, or by all of them."""
        condition, values = ("", ()) if run is None else (" WHERE run = ?", (run,))
        row = self._connection.execute(f"SELECT {SPENT} FROM requests{condition}", values)
        calls, tokens, dollars = row.fetchone()
        return Amount(calls or 0, tokens or 0, dollars or 0.0)

    def close(self) -> None:
        """Close the file and let others have it."""
        self._connection.close()
        self._lock.release()


def _question_row(question: Question) -> tuple[object, ...]:
    return (
        *(question.key, question.prompt, question.first, question.second, question.order),
        *(question.model, question.temperature, question.template, question.repeat),
    )


def recall(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, Remembered]:
    """As `Ledger.recall`, from any connection to a ledger."""
    wanted = list(keys)
    found: dict[str, Remembered] = {}
    for start in range(0, len(wanted), _CHUNK):
        chunk = wanted[start : start + _CHUNK]
        marks = ", ".join("?" * len(chunk))
        rows = connection.execute(
            "SELECT question, MAX(CASE WHEN state = 'answered' THEN verdict END), "
            "MAX(CASE WHEN state = 'answered' THEN rationale END), SUM(state = 'unreadable') "
            f"FROM requests WHERE question IN ({marks}) AND state IN ('answered', 'unreadable') "
            "GROUP BY question",
            chunk,
        )
        found.update({key: Remembered(*values) for key, *values in rows})
    return found


def open_to_read(path: Path) -> sqlite3.Connection:
    """A ledger to look at, whoever writes to it meanwhile.

    Raises:
        InputError: There is no such file, it is damaged, or it is no ledger.
    """
    if not path.is_file():
        raise InputError(f"ledger: no file at {str(path)!r}")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        _check(connection, path)
    except sqlite3.Error as error:
        raise InputError(f"ledger: {path} cannot be read ({error})") from error
    return connection


def _open(path: Path) -> sqlite3.Connection:
    # The gate's event loop hands the connection to one writing thread and back.
    connection = sqlite3.connect(
        path, isolation_level=None, timeout=_PATIENCE, check_same_thread=False
    )
    try:
        # A process that was killed while it made the file has left it without a table.
        new = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (0,)
        if not new:
            _check(connection, path)  # Before anything changes what may be somebody else's file.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        if new:
            connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        damage = connection.execute("PRAGMA quick_check").fetchone()[0]
        if damage != "ok":
            raise InputError(_damaged(path, damage))
    except sqlite3.OperationalError as error:
        connection.close()
        if "locked" in str(error):
            raise InputError(f"ledger: {path} is locked by another program") from error
        raise InputError(f"ledger: {path} cannot be opened ({error})") from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise InputError(_damaged(path, str(error))) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    try:
        row = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        row = None
    if row is None:
        raise InputError(f"ledger: {path} is no ledger of judgements")
    if row[0] != _FORMAT:
        raise InputError(
            f"ledger: {path} has format {row[0]}, this version of modicum reads format {_FORMAT}"
        )


def _damaged(path: Path, why: str) -> str:
    return (
        f"ledger: {path} is damaged ({why}); it was left as it is: copy it away, "
        "or recover it with `sqlite3 FILE .recover`"
    )


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return f" by {Path(f'{path}.holder').read_text(encoding='utf-8')}"
    return ""
