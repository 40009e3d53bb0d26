"""The SQLite database of a ledger: its place, its tables, opening it, and queries that only read.

Each row of `requests` is a request in one of these states:

    reserved    written before the request was sent; counts as spent in full
    answered    answered with a verdict; at most one such row for each question
    unreadable  answered without a verdict; a question has at most two such rows
    refused     rejected by the endpoint (rate limit, error, too long); not charged
    lost        sent without an answer (dropped, timed out, killed); counts as spent in full
    withdrawn   an answer that its human author took back
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from modicum.errors import InputError
from modicum.oracles.ledger.records import Remembered
from modicum.oracles.protocol import digest

LEDGERS_VARIABLE = "MODICUM_LEDGERS"
_FORMAT = "1"
_MOST_VARIABLES = 500  # Bound variables in one SQL statement.
_BUSY_SECONDS = 10.0  # Wait while another program has the file locked.
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
# SQL columns for the sums that rows count as spent: calls, tokens, dollars.
SPENT = """
    SUM(state <> 'refused'),
    SUM(CASE WHEN state IN ('reserved', 'lost') THEN reserved_tokens
        ELSE prompt_tokens + completion_tokens END),
    SUM(CASE WHEN state IN ('reserved', 'lost') THEN reserved_dollars ELSE dollars END)
"""


def ledgers_folder() -> Path:
    """The folder of ledgers: `MODICUM_LEDGERS`, or `~/.local/share/modicum/ledgers`."""
    named = os.environ.get(LEDGERS_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    return Path.home() / ".local" / "share" / "modicum" / "ledgers"


def default_ledger(owner: str, prefix: str = "") -> Path:
    """The ledger file of an owner who names none; different owners have different files."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", owner).strip("-")[:60]
    return ledgers_folder() / f"{prefix}{words}-{digest(owner)[:8]}.sqlite"


def recall(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, Remembered]:
    """Look questions up by their keys; the result leaves out questions that were never answered."""
    wanted = list(keys)
    found: dict[str, Remembered] = {}
    for start in range(0, len(wanted), _MOST_VARIABLES):
        chunk = wanted[start : start + _MOST_VARIABLES]
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
    """Open a ledger to read it; another process may write to it meanwhile.

    Raises:
        InputError: The file does not exist, is damaged, or is no ledger.
    """
    if not path.is_file():
        raise InputError(f"ledger: no file at {str(path)!r}")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        _check_format(connection, path)
    except sqlite3.Error as error:
        raise InputError(f"ledger: {path} cannot be read ({error})") from error
    return connection


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open a ledger to write to it; the tables are created if the file is new.

    Raises:
        InputError: The file is locked by another program, damaged, or no ledger.
    """
    # An event loop hands the connection to one writing thread and back.
    connection = sqlite3.connect(
        path, isolation_level=None, timeout=_BUSY_SECONDS, check_same_thread=False
    )
    try:
        # A process that was killed while it created the file has left it without tables.
        new = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (0,)
        if not new:
            _check_format(connection, path)  # Nothing may change in another program's database.
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


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    try:
        row = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        row = None
    if row is None:
        raise InputError(f"ledger: {path} is not a ledger of judgements")
    if row[0] != _FORMAT:
        raise InputError(
            f"ledger: {path} has format {row[0]}, this version of modicum reads format {_FORMAT}"
        )


def _damaged(path: Path, why: str) -> str:
    return (
        f"ledger: {path} is damaged ({why}); it was left unchanged: copy it away, "
        "or recover it with `sqlite3 FILE .recover`"
    )
