"""The folder format of the WRENCH benchmark (Zhang et al. 2021).

`label.json` names the classes; `train.json`, `valid.json` and `test.json` (plain or `.xz`) map
an id to `{"label": 2, "weak_labels": [-1, 2, ...], "data": {"text": ...} or {"feature": [...]}}`.
A vote of -1 is an abstention.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np

from modicum.data.tables.weak_rows import SPLITS, WeakRows, WeakSplit, check_weak_rows
from modicum.errors import InputError

_PACKED = ("", ".xz")


def wrench_files(folder: Path) -> list[Path]:
    """The files of a WRENCH folder.

    Raises:
        InputError: A file is missing.
    """
    return [_file(folder, "label"), *(_file(folder, split) for split in SPLITS)]


def _file(folder: Path, stem: str) -> Path:
    for packed in _PACKED:
        if (folder / f"{stem}.json{packed}").is_file():
            return folder / f"{stem}.json{packed}"
    raise InputError(f"dataset: {folder} has no {stem}.json or {stem}.json.xz")


def is_wrench_folder(folder: Path) -> bool:
    """True if a folder has any file of this format."""
    stems = ("label", *SPLITS)
    return any((folder / f"{stem}.json{packed}").is_file() for stem in stems for packed in _PACKED)


def read_wrench(folder: Path) -> WeakRows:
    """Read and check a WRENCH folder.

    Raises:
        InputError: A file is missing or broken, a split is empty, rows differ in their number of
            votes, a vote is no class, a label is missing outside the training split, rows have
            neither text nor features, or features are not finite.
    """
    names = _load(_file(folder, "label"))
    if not isinstance(names, dict) or sorted(names) != sorted(str(i) for i in range(len(names))):
        raise InputError(f"dataset: {folder}/label.json must map 0, 1, ... to class names")
    classes = tuple(str(names[str(index)]) for index in range(len(names)))
    if len(classes) < 2:
        raise InputError(f"dataset: {folder}/label.json names {len(classes)} class; two are needed")
    splits = {split: _read_split(_file(folder, split), len(classes)) for split in SPLITS}
    functions = tuple(str(k) for k in range(splits["train"].votes_NK.shape[1]))
    return check_weak_rows(WeakRows(classes, functions, splits), str(folder))


def _load(path: Path) -> Any:
    try:
        content = path.read_bytes()
        return json.loads(lzma.decompress(content) if path.suffix == ".xz" else content)
    except (ValueError, lzma.LZMAError, OSError) as error:
        raise InputError(f"dataset: {path} is not readable JSON ({error})") from error


def _read_split(path: Path, classes: int) -> WeakSplit:
    rows = _load(path)
    if not isinstance(rows, dict) or not rows:
        raise InputError(f"dataset: {path} holds no rows")
    for key, row in rows.items():
        if not isinstance(row, dict) or not {"weak_labels", "data"} <= row.keys():
            raise InputError(f"dataset: {path}, row {key!r}: needs weak_labels and data")
    listed = list(rows.values())
    votes = _votes(path, list(rows), [row["weak_labels"] for row in listed], classes)
    labels = np.array([_label(path, key, row, classes) for key, row in rows.items()])
    carried = [row["data"] for row in listed]
    if all(isinstance(data, dict) and isinstance(data.get("text"), str) for data in carried):
        return WeakSplit(labels, votes, [data["text"] for data in carried], None)
    if all(isinstance(data, dict) and "feature" in data for data in carried):
        features = _features(path, [data["feature"] for data in carried])
        return WeakSplit(labels, votes, None, features)
    raise InputError(f"dataset: {path}: every row's data needs a text, or every one a feature")


def _label(path: Path, key: str, row: dict[str, Any], classes: int) -> int:
    label = row.get("label", -1)
    label = -1 if label is None else label
    if isinstance(label, bool) or not isinstance(label, int) or not -1 <= label < classes:
        raise InputError(
            f"dataset: {path}, row {key!r}: label {label!r} is not a class (0 to {classes - 1})"
        )
    return label


def _votes(path: Path, keys: list[str], votes: list[Any], classes: int) -> np.ndarray:
    width = len(votes[0]) if isinstance(votes[0], list) else 0
    for key, row in zip(keys, votes, strict=True):
        if not isinstance(row, list) or len(row) != width or not row:
            raise InputError(
                f"dataset: {path}, row {key!r}: weak_labels must be a list of {width or 'some'} "
                "votes, as in the first row"
            )
    array = np.array(votes)
    if array.dtype.kind != "i":
        raise InputError(f"dataset: {path}: votes must be whole numbers")
    wrong = np.argwhere((array < -1) | (array >= classes))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(
            f"dataset: {path}, row {keys[row]!r}: vote {array[row, column]} of labeling function "
            f"{column} is outside the classes (0 to {classes - 1}, or -1 to abstain)"
        )
    return array.astype(np.int64)


def _features(path: Path, rows: list[Any]) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # Too large for float32: infinite, and refused below.
            array = np.array(rows, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"dataset: {path}: features must be lists of equal length") from error
    if array.ndim != 2 or not np.isfinite(array).all():
        raise InputError(f"dataset: {path}: features must be finite numbers, one list a row")
    return array
