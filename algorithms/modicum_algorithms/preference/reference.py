"""Cache of the log-probabilities of completions under the reference model θ0."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from modicum_algorithms.preference.data.prompts import Ids

_WAIT_SECONDS = 120.0
_AT_ONCE = 500  # SQLite takes at least this many parameters.
PromptAndCompletion = tuple[Ids, Ids]


class ReferenceCache:
    """A file of log p_θ0(y|x) by prompt, completion and reference model.

    The key is the single completion, not the data set: later rounds and other runs on the same
    data find the values. The processes of a machine share the file, one for each identity of a
    reference model. `passes` counts the log-probabilities that this process stored.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.sqlite"
        self.passes = 0
        with closing(self._connected()) as connection, connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS reference"
                " (key BLOB PRIMARY KEY, log_probability REAL NOT NULL) WITHOUT ROWID"
            )

    def missing(self, wanted: Sequence[PromptAndCompletion]) -> list[int]:
        """Indices of the entries that are not in the file, each prompt and completion once."""
        keys = [_key(prompt, completion) for prompt, completion in wanted]
        known = self._found(keys)
        first: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in known:
                first.setdefault(key, place)
        return list(first.values())

    def read(self, wanted: Sequence[PromptAndCompletion]) -> list[float]:
        """Log p_θ0(y|x) of each entry; all must be in the file."""
        keys = [_key(prompt, completion) for prompt, completion in wanted]
        known = self._found(keys)
        return [known[key] for key in keys]

    def store(self, new: Sequence[PromptAndCompletion], log_probabilities: Sequence[float]) -> None:
        """Add values to the file; values that it already has stay."""
        self.passes += len(new)
        keys = [_key(prompt, completion) for prompt, completion in new]
        rows = zip(keys, map(float, log_probabilities), strict=True)
        with closing(self._connected()) as connection, connection:
            connection.executemany("INSERT OR IGNORE INTO reference VALUES (?, ?)", rows)

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_WAIT_SECONDS)

    def _found(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        found: dict[bytes, float] = {}
        with closing(self._connected()) as connection:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                found |= dict(
                    connection.execute(
                        f"SELECT key, log_probability FROM reference WHERE key IN ({marks})", some
                    )
                )
        return found


def _key(prompt: Ids, completion: Ids) -> bytes:
    lengths = np.array([len(prompt), len(completion)], dtype="<i8").tobytes()
    tokens = np.array([*prompt, *completion], dtype="<i8").tobytes()
    return hashlib.sha256(lengths + tokens).digest()[:16]
