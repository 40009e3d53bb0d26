"""Data sets for weak supervision: features, votes and labels of three splits.

Shapes: N rows, D features, K labeling functions, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

import modicum as md
from modicum_algorithms.weak.config import EMBEDDED
from modicum_algorithms.weak.data import breast_cancer
from modicum_algorithms.weak.data.features import SPLITS, features_digest, load_features

HUGGING_FACE = "hf:"

_LAYOUT = 2  # of the cached arrays: more when their names or meaning change


@dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
        features_ND: float32.
        votes_NK: int64, -1 is an abstain.
        labels_N: int64.
    """

    features_ND: np.ndarray
    votes_NK: np.ndarray
    labels_N: np.ndarray

    def __len__(self) -> int:
        return len(self.labels_N)


@dataclass(frozen=True)
class WeakData:
    """A data set.

    Attributes:
        classes: Names of the C classes.
        train: Its labels are used only where an experiment declares them strong.
        valid: For early stopping.
        test: For the reported numbers.
        labeling_functions: Names of the K labeling functions; "0", "1", ... if not given.
    """

    classes: tuple[str, ...]
    train: Split
    valid: Split
    test: Split
    labeling_functions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.labeling_functions:
            numbered = tuple(str(k) for k in range(self.train.votes_NK.shape[1]))
            object.__setattr__(self, "labeling_functions", numbered)


@dataclass(frozen=True)
class _Source:
    """Where a data set comes from.

    Attributes:
        digest: Digest of its contents.
        read: Reads and checks it.
        folder: Where files named beside it lie.
    """

    digest: Callable[[], str]
    read: Callable[[], md.data.WeakRows]
    folder: Path


def _find(dataset: str) -> _Source:
    """The source that a name means.

    Raises:
        InputError: There is nothing of that name, or nothing that can be read.
    """
    if dataset.startswith(HUGGING_FACE):
        name = dataset.removeprefix(HUGGING_FACE)
        return _Source(
            lambda: md.data.huggingface_digest(name),
            lambda: md.data.read_huggingface(name),
            md.data.huggingface_folder(name) or Path.cwd(),
        )
    if dataset.endswith(md.data.TABLE_SUFFIXES):
        place = md.data.find_data(dataset, file=True)
    else:
        place = md.data.find_data(dataset, under="wrench")
        if md.data.is_wrench_folder(place):
            return _Source(
                lambda: md.data.digest_files(md.data.wrench_files(place)),
                lambda: md.data.read_wrench(place),
                place,
            )
    files = md.data.table_files(place)
    if not files:
        raise md.InputError(
            f"dataset: {place} has neither label.json (WRENCH's format) nor train, valid and test "
            f"with one of {', '.join(md.data.TABLE_SUFFIXES)}; what save_to_disk wrote is named "
            f"{HUGGING_FACE}{place}"
        )
    return _Source(
        lambda: md.data.digest_files(files), lambda: md.data.read_table(place), files[0].parent
    )


def data_digests(dataset: str, features: str) -> dict[str, str]:
    """Digests of a data set and of its features, for a trial's identity.

    Raises:
        InputError: The data or the features cannot be found.
    """
    if dataset == EMBEDDED:
        _require_given(features)
        return {"dataset": _embedded_digest()}
    source = _find(dataset)
    return {
        "dataset": source.digest(),
        "features": features_digest(features, source.folder),
    }


@cache
def _embedded_digest() -> str:
    return md.data.digest_arrays(breast_cancer.load_arrays())


def load(dataset: str, features: str) -> WeakData:
    """A data set with its features.

    Args:
        dataset: `breast_cancer`; a name under `MODICUM_DATA/wrench` or a path to a folder, in
            WRENCH's format or with a table file for each split; a path to a `.csv`, `.parquet`
            or `.jsonl` file with a column `split`; or `hf:` and a data set of Hugging Face, by
            its name on the hub or a folder that `save_to_disk` wrote. The columns of tables
            are those of `modicum.data.tables.columns`.
        features: `auto` (given features if the rows carry them, else `tfidf`), `tfidf`, a
            `.npz` file with arrays `train`, `valid` and `test` (relative to the folder or
            absolute), or a Hugging Face encoder (name or folder) for mean pooling.

    Raises:
        InputError: Something is missing or does not fit together.
    """
    return _load(tuple(sorted(data_digests(dataset, features).items())), dataset, features)


def read_rows(dataset: str) -> md.data.WeakRows:
    """A data set's votes, labels and texts or given features, without computing any features.

    Args:
        dataset: As in `load`.

    Raises:
        InputError: It cannot be found or read.
    """
    if dataset != EMBEDDED:
        return _find(dataset).read()
    arrays = breast_cancer.load_arrays()
    splits = {
        s: md.data.WeakSplit(
            arrays[f"{s}_labels"], arrays[f"{s}_votes"], None, arrays[f"{s}_features"]
        )
        for s in SPLITS
    }
    return md.data.WeakRows(breast_cancer.CLASSES, _embedded_names(), splits)


def _embedded_names() -> tuple[str, ...]:
    return tuple(rule.measurement for rule in breast_cancer.RULES)


@lru_cache(maxsize=8)
def _load(digests: tuple[tuple[str, str], ...], dataset: str, features: str) -> WeakData:
    """Loaded once per process; computed once per machine."""
    if dataset == EMBEDDED:
        return _assemble(breast_cancer.CLASSES, _embedded_names(), breast_cancer.load_arrays())
    key = f"weak-{_LAYOUT}-" + "-".join(f"{name}-{value}" for name, value in digests)
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in key)
    arrays = md.data.cached_arrays(safe, lambda: _compute(_find(dataset), features))
    names = tuple(str(name) for name in arrays["labeling_functions"])
    return _assemble(tuple(str(name) for name in arrays["classes"]), names, arrays)


def _assemble(
    classes: tuple[str, ...], names: tuple[str, ...], arrays: dict[str, np.ndarray]
) -> WeakData:
    train, valid, test = (
        Split(arrays[f"{s}_features"], arrays[f"{s}_votes"], arrays[f"{s}_labels"]) for s in SPLITS
    )
    return WeakData(classes, train, valid, test, names)


def _compute(source: _Source, features: str) -> dict[str, np.ndarray]:
    rows = source.read()
    vectors = load_features(rows, features, source.folder)
    arrays = {
        "classes": np.array(rows.classes),
        "labeling_functions": np.array(rows.labeling_functions),
    }
    for name in SPLITS:
        arrays[f"{name}_features"] = vectors[name]
        arrays[f"{name}_votes"] = rows.splits[name].votes_NK
        arrays[f"{name}_labels"] = rows.splits[name].labels_N
    return arrays


def _require_given(features: str) -> None:
    if features != "auto":
        raise md.InputError(
            f"features: {EMBEDDED} carries its own features (allowed: auto), got {features!r}"
        )
