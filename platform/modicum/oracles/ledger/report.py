"""Reports on a ledger: spending, an export of all requests, and a check of its integrity.

All reports only read, so a gate may write meanwhile.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from modicum.atomic_files import whole_file
from modicum.errors import InputError
from modicum.oracles.ledger.database import SPENT, open_to_read
from modicum.oracles.protocol import winner_of
from modicum.oracles.questions import Question, read_verdict

# One row for each request, joined with its question.
_REQUESTS = """
SELECT r.id, r.run, r.state, r.reserved_at, r.settled_at, r.reserved_tokens, r.reserved_dollars,
    r.prompt_tokens, r.completion_tokens, r.dollars, r.latency, r.answer, r.verdict, r.rationale,
    r.error, q.key, q.prompt, q.first, q.second, q."order", q.model, q.temperature, q.template,
    q.repeat
FROM requests r JOIN questions q ON q.key = r.question ORDER BY r.id
"""
_BATCH = 10_000


@dataclass(frozen=True)
class Spending:
    """Spending of one run on one model on one day."""

    run: str
    model: str
    day: str  # Day of the reservations, in UTC.
    judgements: int  # Number of questions answered with a verdict.
    unreadable: int  # Number of answers without a verdict.
    refused: int  # Number of requests that the endpoint refused without a charge.
    lost: int  # Number of requests without an answer; they count as spent in full.
    calls: int  # Requests that count as spent.
    tokens: int  # Tokens that count as spent.
    dollars: float  # Dollars that count as spent.


def spending(path: Path) -> list[Spending]:
    """Spending by run, model and day."""
    with _reading(path) as connection:
        rows = connection.execute(
            "SELECT run, model, date(reserved_at, 'unixepoch') AS day, SUM(state = 'answered'), "
            "SUM(state = 'unreadable'), SUM(state = 'refused'), SUM(state IN ('lost', 'reserved')),"
            f" {SPENT} FROM requests JOIN questions ON key = question "
            "GROUP BY run, model, day ORDER BY day, run, model"
        )
        return [Spending(*row) for row in rows]


def asked_again(path: Path) -> int:
    """Number of lost requests, which may have been charged, whose question was asked again."""
    with _reading(path) as connection:
        (count,) = connection.execute(
            "SELECT COUNT(*) FROM requests lost WHERE state = 'lost' AND EXISTS ("
            "SELECT 1 FROM requests later WHERE later.question = lost.question "
            "AND later.id > lost.id AND later.state <> 'refused')"
        ).fetchone()
        return int(count)


def export(path: Path, out: Path) -> int:
    """Write every request with its question to a Parquet file.

    The column `winner` is the verdict as `first` or `second`. The write is atomic.

    Returns:
        The number of rows.

    Raises:
        InputError: The ledger cannot be read, or the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet

    if out.suffix != ".parquet":
        raise InputError(f"--export: expected a file name that ends in .parquet, got {str(out)!r}")
    texts = {"run", "state", "answer", "verdict", "rationale", "error", "key", "prompt", "first"}
    texts |= {"second", "order", "model", "template"}
    whole = {"id", "reserved_tokens", "prompt_tokens", "completion_tokens", "repeat"}
    count = 0
    with _reading(path) as connection:
        cursor = connection.execute(_REQUESTS)
        names = [column[0] for column in cursor.description]
        types = [
            pa.string() if n in texts else pa.int64() if n in whole else pa.float64() for n in names
        ]
        schema = pa.schema([*zip(names, types, strict=True), ("winner", pa.string())])
        with (
            whole_file(out, "--export", overwrite=True) as file,
            pyarrow.parquet.ParquetWriter(file, schema) as writer,
        ):
            while rows := cursor.fetchmany(_BATCH):
                records = [dict(zip(names, row, strict=True)) for row in rows]
                for record in records:
                    letter = record["verdict"]
                    record["winner"] = letter and winner_of(letter, record["order"])
                writer.write_table(pa.Table.from_pylist(records, schema=schema))
                count += len(rows)
    return count


def verify(path: Path) -> list[str]:
    """Find errors in a ledger; each problem is one sentence.

    The check covers SQLite's own structures, the key of every question (a digest of its texts),
    the verdict of every answer (as its text says it), and that no question has two answers.

    Raises:
        InputError: The ledger cannot be read; see `open_to_read`.
    """
    problems: list[str] = []
    with _reading(path) as connection:
        problems += [
            f"SQLite: {text}"
            for (text,) in connection.execute("PRAGMA integrity_check")
            if text != "ok"
        ]
        problems += [
            f"row {row[1]} of {row[0]} refers to a missing question"
            for row in connection.execute("PRAGMA foreign_key_check")
        ]
        problems += [
            f"question {key[:12]} has {count} answers"
            for key, count in connection.execute(
                "SELECT question, COUNT(*) FROM requests WHERE state = 'answered' "
                "GROUP BY question HAVING COUNT(*) > 1"
            )
        ]
        cursor = connection.execute(_REQUESTS)
        names = [column[0] for column in cursor.description]
        for row in cursor:
            problems += _problems(dict(zip(names, row, strict=True)))
    return problems


def _problems(record: dict[str, Any]) -> list[str]:
    question = Question(**{each.name: record[each.name] for each in fields(Question)})
    found = []
    if question.key != record["key"]:
        found.append(f"request {record['id']}: the key does not match the texts of the question")
    if record["state"] == "answered" and record["answer"] is not None:  # A human writes no text.
        verdict = read_verdict(record["answer"])
        if verdict is None or verdict.letter != record["verdict"]:
            found.append(f"request {record['id']}: the answer does not say {record['verdict']}")
    return found


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for the block; damage that is met in the block becomes an `InputError`."""
    with contextlib.closing(open_to_read(path)) as connection:
        try:
            yield connection
        except sqlite3.DatabaseError as error:
            raise InputError(f"ledger: {path} is damaged ({error})") from error
