"""Conventions for the columns of rows with votes, for table files and Hugging Face data sets.

| column | content |
|---|---|
| `label` | true class: a name, or a number from 0; empty or -1 for unknown, in train only |
| `text` | text |
| `feature_<name>` | number, one column for each feature, instead of or beside `text` |
| `feature` or `features` | all features as a list of numbers |
| `vote_<name>` | vote of one labeling function: name or number of a class; empty or -1 abstains |
| `weak_labels` | all votes as a list |

Other columns are ignored. Class names are numbered in alphabetical order over all splits; class
numbers must leave no gap. Every format is first read into a pyarrow table.

Shapes: N rows, D features, K labeling functions, C classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modicum.data.tables.weak_rows import ABSTAIN, SPLITS, WeakRows, WeakSplit, check_weak_rows
from modicum.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

VOTE_PREFIX = "vote_"
FEATURE_PREFIX = "feature_"
_VOTE_LIST = "weak_labels"
_FEATURE_LISTS = ("feature", "features")
SPLIT_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "test": "test"}
_SPELLED = re.compile(r"[+-]?\d+(\.\d*)?")
_SHOWN = 12


@dataclass(frozen=True)
class _Values:
    """A column as its distinct values, and the number of each row's value."""

    distinct: list[Any]
    codes_N: np.ndarray

    def first_row(self, value_number: int) -> int:
        return int(np.argmax(self.codes_N == value_number))


@dataclass(frozen=True)
class _Place:
    """Location of a value, for messages."""

    where: str
    split: str

    def mistake(self, column: str, problem: str, row: int | None = None) -> InputError:
        counted = "" if row is None else f", row {row}"
        return InputError(f"dataset: {self.where}, {self.split}{counted}: {column} {problem}")


def read_columns(
    tables: Mapping[str, pa.Table], where: str, classes: Sequence[str] | None = None
) -> WeakRows:
    """Read and check tables that follow the conventions of this module.

    Args:
        tables: Tables by split.
        where: File, folder or name, for messages.
        classes: Names of the classes in the order of their numbers, if the source gives them.

    Raises:
        InputError: A split, a column or a label is missing, a split is empty, a vote or label is
            no class, lists have different lengths, features are not finite numbers, or there are
            fewer than two classes. The message names split, column and row.
    """
    missing = [split for split in SPLITS if split not in tables]
    if missing:
        raise InputError(
            f"dataset: {where}: needs the splits train, valid (or validation) and test; "
            f"{' and '.join(missing)} missing (there: {', '.join(tables) or 'none'})"
        )
    places = {split: _Place(where, split) for split in SPLITS}
    for split in SPLITS:
        _check_names(places[split], tables[split].column_names)
        if tables[split].num_rows == 0:
            raise InputError(f"dataset: {where}: the split {split} holds no rows")
    labels = {s: _values(places[s], "label", tables[s].column("label")) for s in SPLITS}
    names = tuple(classes) if classes is not None else _classes(labels, places)
    vote_columns = [n for n in tables["train"].column_names if n.startswith(VOTE_PREFIX)]
    splits = {
        split: WeakSplit(
            labels_N=_numbers(places[split], "label", labels[split], names),
            votes_NK=_votes(places[split], tables[split], vote_columns, names),
            texts=_texts(places[split], tables[split]),
            features_ND=_features(places[split], tables[split], tables["train"].column_names),
        )
        for split in SPLITS
    }
    functions = [name.removeprefix(VOTE_PREFIX) for name in vote_columns]
    if not functions:
        functions = [str(k) for k in range(splits["train"].votes_NK.shape[1])]
    return check_weak_rows(WeakRows(names, tuple(functions), splits), where)


def _check_names(place: _Place, names: Sequence[str]) -> None:
    """Check that no column is missing, occurs twice, or repeats the content of another."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise place.mistake("column names", f"must be different; {twice[0]!r} stands twice")
    there = f"(there: {_listed(names)})"
    if "label" not in names:
        raise place.mistake("label", f"column is missing {there}")
    voting = any(name.startswith(VOTE_PREFIX) for name in names)
    if not voting and _VOTE_LIST not in names:
        raise place.mistake("vote_*", f"columns, or a column {_VOTE_LIST}, are missing {there}")
    if voting and _VOTE_LIST in names:
        raise place.mistake("votes", f"stand in vote_* or in {_VOTE_LIST}, not in both {there}")
    kinds = [name for name in _FEATURE_LISTS if name in names]
    kinds += ["feature_*"] * any(name.startswith(FEATURE_PREFIX) for name in names)
    if len(kinds) > 1:
        raise place.mistake("features", f"stand in one of {' or '.join(kinds)} {there}")
    if not kinds and "text" not in names:
        raise place.mistake(
            "text", f"column, feature_* columns, or a list column feature are missing {there}"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown}, ... {len(names)} in all" if len(names) > _SHOWN else shown


def _values(place: _Place, name: str, column: pa.ChunkedArray) -> _Values:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return _Values([None], np.zeros(len(column), dtype=np.int64))
    if pa.types.is_nested(column.type):
        raise place.mistake(name, f"must hold class names or numbers, not {column.type}")
    encoded = column.dictionary_encode().unify_dictionaries()
    distinct = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    codes = [chunk.indices.fill_null(len(distinct)).to_numpy() for chunk in encoded.chunks]
    codes_N = np.concatenate(codes) if codes else np.zeros(0)
    # A missing value is a null in some formats, and a distinct value in others.
    return _Values([*distinct, None], codes_N.astype(np.int64))


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or _text(value) == ""


def _text(value: Any) -> str | None:
    """The value as the name of a class; None if it cannot be one."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    """The value as a number; a text may spell it (`1.0`, as tools write columns with gaps)."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    spelled = isinstance(value, str) and _SPELLED.fullmatch(value.strip())
    return float(value) if spelled else None


def _classes(labels: Mapping[str, _Values], places: Mapping[str, _Place]) -> tuple[str, ...]:
    """Names of the classes, from the labels of all splits."""
    found: list[tuple[str | None, float | None]] = []
    for split, values in labels.items():
        for index in np.unique(values.codes_N):
            value = values.distinct[index]
            name, number = _text(value), _number(value)
            if _is_missing(value) or number == ABSTAIN:
                continue
            if number % 1 != 0 if number is not None else name is None:
                raise places[split].mistake(
                    "label",
                    f"{value!r} is neither a class name nor a whole number",
                    values.first_row(index),
                )
            found.append((name, number))
    numbers = {int(number) for _, number in found if number is not None}
    if any(number is None for _, number in found):
        return tuple(sorted({str(int(number or 0)) if n is None else n for n, number in found}))
    if numbers != set(range(len(numbers))):
        raise InputError(
            f"dataset: {places['train'].where}: label numbers must be 0, 1, ... without a gap, "
            f"got {_listed([str(number) for number in sorted(numbers)])}; or use class names"
        )
    return tuple(str(number) for number in sorted(numbers))


def _numbers(
    place: _Place, column: str, values: _Values, classes: Sequence[str], width: int = 1
) -> np.ndarray:
    """Class numbers of a column of names or numbers; -1 for missing values.

    A column of lists comes flattened, with `width` values to a row.
    """
    named = {name: number for number, name in enumerate(classes)}
    numbers = np.full(len(values.distinct), ABSTAIN, dtype=np.int64)
    for index in np.unique(values.codes_N):
        value = values.distinct[index]
        if _is_missing(value):
            continue
        name, number = _text(value), _number(value)
        if name in named:
            numbers[index] = named[name]
        elif number is not None and number % 1 == 0 and ABSTAIN <= number < len(classes):
            numbers[index] = int(number)
        else:
            shown = _listed(classes)
            raise place.mistake(
                column,
                f"{value!r} is outside the classes (by name: {shown}; by number: 0 to "
                f"{len(classes) - 1}; -1 or nothing for none)",
                values.first_row(index) // width,
            )
    numbers_N: np.ndarray = numbers[values.codes_N]
    return numbers_N


def _votes(
    place: _Place, table: pa.Table, vote_columns: Sequence[str], classes: Sequence[str]
) -> np.ndarray:
    if _VOTE_LIST in table.column_names:
        flat, width = _flat(place, _VOTE_LIST, table.column(_VOTE_LIST))
        values = _values(place, _VOTE_LIST, flat)
        return _numbers(place, _VOTE_LIST, values, classes, width).reshape(-1, width)
    _check_same(place, table.column_names, vote_columns, VOTE_PREFIX, "labeling functions")
    columns = [
        _numbers(place, name, _values(place, name, table.column(name)), classes)
        for name in vote_columns
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0), dtype=np.int64)


def _texts(place: _Place, table: pa.Table) -> list[str] | None:
    import pyarrow as pa

    if "text" not in table.column_names:
        return None
    column = table.column("text")
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise place.mistake("text", f"must hold texts, not {kind}")
    texts: list[Any] = column.to_pylist()
    if None in texts:
        raise place.mistake("text", "must be given in every row", texts.index(None))
    return texts


def _features(place: _Place, table: pa.Table, train_names: Sequence[str]) -> np.ndarray | None:
    for name in _FEATURE_LISTS:
        if name in table.column_names:
            flat, width = _flat(place, name, table.column(name))
            return _floats(place, name, flat, width).reshape(-1, width)
    columns = [name for name in train_names if name.startswith(FEATURE_PREFIX)]
    _check_same(place, table.column_names, columns, FEATURE_PREFIX, "features")
    if not columns:
        return None
    return np.stack([_floats(place, name, table.column(name)) for name in columns], axis=1)


def _check_same(
    place: _Place, names: Sequence[str], train_names: Sequence[str], prefix: str, what: str
) -> None:
    here = {name for name in names if name.startswith(prefix)}
    differing = sorted(here ^ set(train_names))
    if differing:
        raise place.mistake(
            f"{prefix}*", f"columns must be those of train: splits differ in {what}: {differing[0]}"
        )


def _flat(place: _Place, name: str, column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, int]:
    """A list column flattened, and the length of its lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(kind) for is_kind in lists):
        raise place.mistake(name, f"must hold a list in every row, not {kind}")
    lengths_N = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    width = int(lengths_N[0])
    wrong = lengths_N != max(width, 1)
    if wrong.any():
        raise place.mistake(
            name, f"must be lists of equal length, {width} as in row 0", int(np.argmax(wrong))
        )
    return pc.list_flatten(column), width


def _floats(place: _Place, name: str, column: pa.ChunkedArray, width: int = 1) -> np.ndarray:
    """A column as float32; texts that spell numbers, as in CSV files, are accepted."""
    import pyarrow as pa

    try:
        array = column.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        array = np.array([_finite(value) for value in column.to_pylist()])
    except pa.ArrowNotImplementedError as error:
        raise place.mistake(name, f"must hold finite numbers, not {column.type}") from error
    with np.errstate(over="ignore"):
        floats: np.ndarray = array.astype(np.float32)
    if not np.isfinite(floats).all():
        row = int(np.argmin(np.isfinite(floats)))
        value = column[row].as_py()
        raise place.mistake(name, f"must hold finite numbers, got {value!r}", row // width)
    return floats


def _finite(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
