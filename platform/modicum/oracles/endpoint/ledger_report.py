"""Looking at a ledger: spending, a table of everything, and whether it holds together.

All of it reads only, so a gate may write meanwhile.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modicum.atomic_files import whole_file
from modicum.errors import InputError
from modicum.oracles.endpoint.ledger import SPENT, open_to_read
from modicum.oracles.protocol import winner_of
from modicum.oracles.questions import Question
from modicum.oracles.verdicts import read_verdict

# One row for each request, with its question.
_EVERYTHING = """
SELECT r.id, r.run, r.state, r.reserved_at, r.settled_at, r.reserved_tokens, r.reserved_dollars,
    r.prompt_tokens, r.completion_tokens, r.dollars, r.latency, r.answer, r.verdict, r.rationale,
    r.error, q.key, q.prompt, q.first, q.second, q."order", q.model, q.temperature, q.template,
    q.repeat
FROM requests r JOIN questions q ON q.key = r.question ORDER BY r.id
"""
_BATCH = 10_000


@dataclass(frozen=True)
class Spending:
    """What was spent on one model by one run on one day.

    Attributes:
        run: The run's name.
        model: The model's name.
        day: Of the reservation, in UTC.
        judgements: Questions answered with a verdict.
        unreadable: Answers without one.
        refused: Requests that the endpoint refused, uncharged.
        lost: Requests without an answer, which count as spent in full.
        calls: Requests that count as spent.
        tokens: Tokens that count as spent.
        dollars: Dollars that count as spent.
    """

    run: str
    model: str
    day: str
    judgements: int
    unreadable: int
    refused: int
    lost: int
    calls: int
    tokens: int
    dollars: float


def spending(path: Path) -> list[Spending]:
    """Spending by run, model and day.

    Raises:
        InputError: As `open_to_read`.
    """
    with _reading(path) as connection:
        rows = connection.execute(
            "SELECT run, model, date(reserved_at, 'unixepoch') AS day, SUM(state = 'answered'), "
            "SUM(state = 'unreadable'), SUM(state = 'refused'), SUM(state IN ('lost', 'reserved')),"
            f" {SPENT} FROM requests JOIN questions ON key = question "
            "GROUP BY run, model, day ORDER BY day, run, model"
        )
        return [Spending(*row) for row in rows]


def asked_again(path: Path) -> int:
    """Charged requests that had no answer and whose question was asked again: the repeats.

    Raises:
        InputError: As `open_to_read`.
    """
    with _reading(path) as connection:
        (count,) = connection.execute(
            "SELECT COUNT(*) FROM requests lost WHERE state = 'lost' AND EXISTS ("
            "SELECT 1 FROM requests later WHERE later.question = lost.question "
            "AND later.id > lost.id AND later.state <> 'refused')"
        ).fetchone()
        return int(count)


def export(path: Path, out: Path) -> int:
    """Write every request with its question to a Parquet file.

    The column `winner` is the verdict with its order undone. The file is complete or is not there.

    Returns:
        The number of rows.

    Raises:
        InputError: As `open_to_read`, or the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet

    if out.suffix != ".parquet":
        raise InputError(f"--export: expected a file that ends in .parquet, got {str(out)!r}")
    texts = {"run", "state", "answer", "verdict", "rationale", "error", "key", "prompt", "first"}
    texts |= {"second", "order", "model", "template"}
    whole = {"id", "reserved_tokens", "prompt_tokens", "completion_tokens", "repeat"}
    count = 0
    with _reading(path) as connection:
        cursor = connection.execute(_EVERYTHING)
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
    """What is wrong with a ledger, one sentence each; empty where nothing is.

    Checked are SQLite's own structures, that every question's key is that of its texts, that
    every verdict is what its answer's text says, and that no question has two.

    Raises:
        InputError: As `open_to_read`.
    """
    problems: list[str] = []
    with _reading(path) as connection:
        problems += [
            f"SQLite: {text}"
            for (text,) in connection.execute("PRAGMA integrity_check")
            if text != "ok"
        ]
        problems += [
            f"row {row[1]} of {row[0]} refers to a question that is not there"
            for row in connection.execute("PRAGMA foreign_key_check")
        ]
        problems += [
            f"question {key[:12]} has {count} answers"
            for key, count in connection.execute(
                "SELECT question, COUNT(*) FROM requests WHERE state = 'answered' "
                "GROUP BY question HAVING COUNT(*) > 1"
            )
        ]
        cursor = connection.execute(_EVERYTHING)
        names = [column[0] for column in cursor.description]
        for row in cursor:
            problems += _problems(dict(zip(names, row, strict=True)))
    return problems


def _problems(record: dict[str, Any]) -> list[str]:
    question = Question(
        prompt=record["prompt"],
        first=record["first"],
        second=record["second"],
        order=record["order"],
        model=record["model"],
        temperature=record["temperature"],
        template=record["template"],
        repeat=record["repeat"],
    )
    found = []
    if question.key != record["key"]:
        found.append(f"request {record['id']}: the question's texts are not those of its key")
    if record["state"] == "answered" and record["answer"] is not None:  # A human has none.
        verdict = read_verdict(record["answer"])
        if verdict is None or verdict.letter != record["verdict"]:
            found.append(f"request {record['id']}: the answer does not say {record['verdict']}")
    return found


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that is closed afterwards; damage met on the way is the user's to know."""
    with contextlib.closing(open_to_read(path)) as connection:
        try:
            yield connection
        except sqlite3.DatabaseError as error:
            raise InputError(f"ledger: {path} is damaged ({error})") from error
