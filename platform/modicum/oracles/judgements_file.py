"""Files of judgements, `.jsonl` or `.parquet`, with one row for each pair."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from modicum.atomic_files import whole_file
from modicum.errors import InputError
from modicum.oracles.protocol import Failure, Judgement, Pair

OUTPUT_SUFFIXES = (".jsonl", ".parquet")


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
