"""Table files (`.csv`, `.parquet` or `.jsonl`): one file for each split, or one for all.

A folder holds the files `train`, `valid` (or `validation`) and `test`, each with one of the
endings. A single file names each row's split in its column `split`. The other columns follow the
conventions of `modicum.data.tables.columns`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modicum.data.tables.columns import SPLIT_NAMES, read_columns
from modicum.data.tables.weak_rows import WeakRows
from modicum.errors import InputError, reason_of

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES = (".csv", ".parquet", ".jsonl")


def table_files(path: Path) -> list[Path]:
    """The table files of a folder, one for each split; for a file, the file itself.

    The list is empty if the folder has no table files.

    Raises:
        InputError: A split has two files.
    """
    if path.is_file():
        return [path]
    found = [path / f"{stem}{suffix}" for stem in SPLIT_NAMES for suffix in TABLE_SUFFIXES]
    found = [file for file in found if file.is_file()]
    splits = [SPLIT_NAMES[file.stem] for file in found]
    for file, split in zip(found, splits, strict=True):
        if splits.count(split) > 1:
            raise InputError(f"dataset: {path}: {split} stands in two files, one is {file.name}")
    return found


def read_table(path: Path) -> WeakRows:
    """Read and check a table file, or a folder with a file for each split.

    Raises:
        InputError: A file cannot be read, or breaks a convention of `modicum.data.tables.columns`.
    """
    if path.is_dir():
        tables = {SPLIT_NAMES[file.stem]: _load(file) for file in table_files(path)}
        return read_columns(tables, str(path))
    return read_columns(split_table(_load(path), str(path)), str(path))


def split_table(table: pa.Table, where: str) -> dict[str, pa.Table]:
    """Divide a table by its column `split`.

    Raises:
        InputError: The column is missing, or names an unknown split.
    """
    import pyarrow as pa

    if "split" not in table.column_names:
        raise InputError(
            f"dataset: {where}: a single table needs a column split with train, valid and test; "
            "or give a folder with one file for each"
        )
    names = table.column("split").to_pylist()
    splits = [SPLIT_NAMES.get(name) if isinstance(name, str) else None for name in names]
    if None in splits:
        row = splits.index(None)
        raise InputError(
            f"dataset: {where}, row {row}: split must be train, valid (or validation) or test, "
            f"got {names[row]!r}"
        )
    return {
        str(split): table.filter(pa.array([other == split for other in splits]))
        for split in dict.fromkeys(splits)
    }


def _load(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            # Not read_table, which would take a folder's name for a column.
            return pyarrow.parquet.ParquetFile(path).read()
        return _load_csv(path) if path.suffix == ".csv" else _load_jsonl(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"dataset: {path} is not readable {path.suffix[1:]} ({reason_of(error)})"
        ) from error


def _load_csv(path: Path) -> pa.Table:
    """Read every column as text: a number or an empty value may be the name of a class."""
    import pyarrow as pa
    import pyarrow.csv as csv

    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    parse = csv.ParseOptions(newlines_in_values=True)
    # A single block, because a text with line breaks must not be divided between two.
    size = min(path.stat().st_size + 1, 2**31 - 1)
    read = csv.ReadOptions(use_threads=False, block_size=size)
    with csv.open_csv(path, read_options=read, parse_options=parse) as reader:
        names = reader.schema.names
    convert = csv.ConvertOptions(column_types={name: pa.string() for name in names})
    return csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)


def _load_jsonl(path: Path) -> pa.Table:
    import pyarrow as pa

    with path.open(encoding="utf-8") as file:
        rows = [row for _, row in json_lines(file)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _array([row.get(name) for row in rows]) for name in names})


def json_lines(file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the numbers, from 1, and the objects of a file's lines; empty lines are skipped.

    Raises:
        ValueError: A line is broken or no object; names the line.
    """
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number}: expected an object with a value for each column")
        yield number, row


def _array(values: list[Any]) -> pa.Array:
    """A column. A mix of texts and numbers (names, and -1 to abstain) becomes texts."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        if not all(value is None or isinstance(value, str | int | float) for value in values):
            raise
        return pa.array([None if value is None else str(value) for value in values])
