"""Labelling in tests: pairs, sessions that answer by their texts, files of pairs, a full disk."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from modicum.oracles.labelling.session import Asking, Session
from modicum.oracles.protocol import Pair

# Both orders occur; a test below says so.
PAIRS = [Pair(f"prompt {i}", f"good {i}", f"bad {i}") for i in range(6)]


def session_on(ledger, pairs=PAIRS, **asking):
    return Session(pairs, ledger, Asking("ada", **asking))


def letter_of(question, word):
    """The letter under which a text that starts with a word is shown."""
    return "AB"[[text.startswith(word) for text in question.shown].index(True)]


def answer_all(session, word="good"):
    while (question := session.show()) is not None:
        assert session.judge(question.key, letter_of(question, word))


def write(path, rows):
    """A file of pairs in the format of its ending."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        quoted = [
            [str("" if v is None else v).replace('"', '""') for v in r.values()] for r in rows
        ]
        lines = [",".join(rows[0]), *(",".join(f'"{v}"' for v in values) for values in quoted)]
        path.write_text("\r\n".join(lines) + "\r\n")
    return path


def fill_up(ledger):
    """Let the ledger's file grow no further, as a full disk would."""
    connection = ledger._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
