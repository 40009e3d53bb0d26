"""Files of pairs, and files of judgements.

Pairs are `.jsonl`, `.json` (a list of objects), `.csv` or `.parquet`, with these columns:

| column | content |
|---|---|
| `prompt` | the prompt; may be empty |
| `first`, `second` | the two completions |
| `preferred` | the winner if it is known, `first` or `second` |
| `seed` | optional integer, seed of the order shown; if empty, the texts determine the order |

Other columns are ignored. Judgements are `.jsonl` or `.parquet`, with a row for each pair.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, cast, get_args

from modicum.atomic_files import whole_file
from modicum.errors import InputError, reason_of
from modicum.oracles.protocol import Failure, Judgement, Pair, Winner

OUTPUT_SUFFIXES = (".jsonl", ".parquet")
PAIR_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_WHOLE = re.compile(r"[+-]?\d{1,20}")
_TEXTS = ("prompt", "first", "second")
_COLUMNS = (*_TEXTS, "seed", "preferred")
# Location of a row in its file, for messages, and the row's values by column.
_Row = tuple[str, Mapping[str, Any]]


def check_output(path: Path, field: str = "--out") -> None:
    """Check before judging that a file of judgements can be written.

    Raises:
        InputError: The ending is none of `OUTPUT_SUFFIXES`, or the folder does not exist.
    """
    if path.suffix not in OUTPUT_SUFFIXES:
        raise InputError(
            f"{field}: expected a file {' or '.join(OUTPUT_SUFFIXES)}, got {str(path)!r}"
        )
    if not path.parent.is_dir():
        raise InputError(f"{field}: no folder {str(path.parent)!r}")


def write_judgements(
    path: Path,
    pairs: Sequence[Pair],
    judgements: Sequence[Judgement | Failure],
    field: str = "--out",
) -> int:
    """Write judgements with their pairs; pairs without a judgement are left out.

    The columns are the fields of `Pair` and of `Judgement`. The write is atomic.

    Returns:
        The number of rows.

    Raises:
        InputError: The file cannot be written.
    """
    rows = [
        asdict(pair) | asdict(judgement)
        for pair, judgement in zip(pairs, judgements, strict=True)
        if isinstance(judgement, Judgement)
    ]
    with whole_file(path, field, overwrite=True) as file:
        if path.suffix == ".parquet":
            _write_parquet(file, rows)
        else:
            file.writelines(
                (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8") for row in rows
            )
    return len(rows)


def _write_parquet(file: IO[bytes], rows: list[dict[str, object]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    # An explicit schema: a column without any value keeps its type.
    texts = ("prompt", "first", "second", "winner", "rationale", "oracle", "version", "order_shown")
    schema = pa.schema(
        [
            *((name, pa.string()) for name in texts[:3]),
            ("seed", pa.int64()),
            *((name, pa.string()) for name in texts[3:]),
            ("prompt_tokens", pa.int64()),
            ("completion_tokens", pa.int64()),
            ("cost", pa.float64()),
            ("latency", pa.float64()),
            ("cached", pa.bool_()),
            ("consistent", pa.bool_()),
        ]
    )
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), file)


def read_pairs(path: Path) -> list[Pair]:
    """Read and check a file of pairs.

    Raises:
        InputError: The file does not exist, cannot be read, holds no pairs or lacks a column, or
            a value has a wrong type. The message names the file, the row (from 1; the line of a
            `.jsonl` file) and the column.
    """
    return [_pair(row, where) for where, row in _rows(path)]


def read_judged_pairs(path: Path) -> tuple[list[Pair], list[Winner]]:
    """Read and check a file of pairs whose winners are known.

    Raises:
        InputError: The file is not accepted by `read_pairs`, or a winner is missing or unknown.
    """
    rows = _rows(path)
    return (
        [_pair(row, where) for where, row in rows],
        [_winner(row.get("preferred"), where) for where, row in rows],
    )


def _rows(path: Path) -> list[_Row]:
    """All rows with their locations."""
    if path.suffix not in PAIR_SUFFIXES:
        raise InputError(f"pairs: expected a file {' or '.join(PAIR_SUFFIXES)}, got {str(path)!r}")
    if not path.is_file():
        raise InputError(f"pairs: no file at {str(path)!r}")
    reader = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}[path.suffix]
    try:
        rows = [(f"{path}, {place}", row) for place, row in reader(path)]
    except (ValueError, csv.Error, OSError) as error:
        # UnicodeDecodeError, JSONDecodeError and pyarrow's ArrowInvalid are ValueErrors.
        raise InputError(
            f"pairs: {path} is not readable {path.suffix[1:]} ({reason_of(error)})"
        ) from error
    if not rows:
        raise InputError(f"pairs: {path} holds no pairs")
    return rows


def _winner(value: object, where: str) -> Winner:
    if value not in get_args(Winner):
        raise InputError(f"pairs: {where}: preferred must be first or second, got {value!r}")
    return cast(Winner, value)


def _pair(row: Mapping[str, Any], where: str) -> Pair:
    prompt, first, second = (_text(row, column, where) for column in _TEXTS)
    return Pair(prompt, first, second, _seed(row.get("seed"), where))


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    if column not in row:
        there = ", ".join(map(str, row)) or "none"
        raise InputError(f"pairs: {where}: {column} is missing (there: {there})")
    value = row[column]
    if not isinstance(value, str):
        raise InputError(f"pairs: {where}: {column} must be text, got {value!r}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"pairs: {where}: {column} holds a lone surrogate ({value[error.start]!r} at "
            f"{error.start}), which is not valid text"
        ) from error
    return value


def _seed(value: Any, where: str) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise InputError(
            f"pairs: {where}: seed must be an integer of 64 bits or empty, got {value!r}"
        )
    return value


def _jsonl(path: Path) -> Iterator[_Row]:
    from modicum.data.tables.files import json_lines

    with path.open(encoding="utf-8-sig") as file:
        for number, row in json_lines(file):
            yield f"line {number}", row


def _json(path: Path) -> Iterator[_Row]:
    rows = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(rows, list):
        raise ValueError("expected a list of objects, one for each pair")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number}: expected an object with a value for each column")
        yield f"row {number}", row


def _csv(path: Path) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        names = next(reader, [])
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the column {twice!r} occurs twice")
        for number, values in enumerate((row for row in reader if row), 1):
            if len(values) != len(names):
                raise ValueError(
                    f"row {number} has {len(values)} values, the header {len(names)} columns"
                )
            yield f"row {number}", dict(zip(names, values, strict=True))


def _parquet(path: Path) -> Iterator[_Row]:
    import pyarrow.parquet

    # `read_table` would take names of folders for columns.
    file = pyarrow.parquet.ParquetFile(path)
    wanted = [name for name in file.schema_arrow.names if name in _COLUMNS]
    for number, row in enumerate(file.read(columns=wanted).to_pylist(), 1):
        yield f"row {number}", row
