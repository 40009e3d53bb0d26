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
from modicum_algorithms.weak.data.features import features_digest, load_features

HUGGING_FACE = "hf:"

_LAYOUT = 2  # version of the cached arrays: raised when their names or meaning change


@dataclass(frozen=True)
class Split:
    """A split of a data set.

    Attributes:
        features_ND: float32.
        votes_NK: int64, -1 is an abstain.
        labels_N: int64, -1 where unknown.
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
        train: Training split; methods see only the labels that an experiment declares strong.
        valid: Validation split, for early stopping.
        test: Test split, for the reported numbers.
        labeling_functions: Names of the K labeling functions.
    """

    classes: tuple[str, ...]
    train: Split
    valid: Split
    test: Split
    labeling_functions: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """Source of a data set; paths of features are relative to its folder."""

    digest: Callable[[], str]
    read: Callable[[], md.data.WeakRows]
    folder: Path


def _find(dataset: str) -> _Source:
    """The source of a data set.

    Raises:
        InputError: There is no data set of that name, or it cannot be read.
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
            f"with one of {', '.join(md.data.TABLE_SUFFIXES)}; write {HUGGING_FACE}{place} for a "
            "folder of save_to_disk"
        )
    return _Source(
        lambda: md.data.digest_files(files), lambda: md.data.read_table(place), files[0].parent
    )


def data_digests(dataset: str, features: str) -> dict[str, str]:
    """Digests of a data set and its features, for a trial's identity.

    Raises:
        InputError: The data or the features cannot be found.
    """
    if dataset == EMBEDDED:
        if features != "auto":
            raise md.InputError(
                f"features: {EMBEDDED} carries its own features (allowed: auto), got {features!r}"
            )
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
    """Load the data set of the setting `dataset` with the features of the setting `features`.

    Raises:
        InputError: Data or features are missing or do not fit together.
    """
    return _load(tuple(sorted(data_digests(dataset, features).items())), dataset, features)


def read_rows(dataset: str) -> md.data.WeakRows:
    """Read votes, labels, and texts or given features; no features are computed.

    Raises:
        InputError: The data set cannot be found or read.
    """
    if dataset != EMBEDDED:
        return _find(dataset).read()
    arrays = breast_cancer.load_arrays()
    splits = {
        s: md.data.WeakSplit(
            arrays[f"{s}_labels"], arrays[f"{s}_votes"], None, arrays[f"{s}_features"]
        )
        for s in md.data.SPLITS
    }
    return md.data.WeakRows(breast_cancer.CLASSES, breast_cancer.LABELING_FUNCTIONS, splits)


@lru_cache(maxsize=8)
def _load(digests: tuple[tuple[str, str], ...], dataset: str, features: str) -> WeakData:
    """Load once per process; features are computed once per machine."""
    if dataset == EMBEDDED:
        arrays = breast_cancer.load_arrays()
        return _assemble(breast_cancer.CLASSES, breast_cancer.LABELING_FUNCTIONS, arrays)
    key = f"weak-{_LAYOUT}-" + "-".join(f"{name}-{value}" for name, value in digests)
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in key)
    arrays = md.data.cached_arrays(safe, lambda: _compute(_find(dataset), features))
    names = tuple(str(name) for name in arrays["labeling_functions"])
    return _assemble(tuple(str(name) for name in arrays["classes"]), names, arrays)


def _assemble(
    classes: tuple[str, ...], names: tuple[str, ...], arrays: dict[str, np.ndarray]
) -> WeakData:
    train, valid, test = (
        Split(arrays[f"{s}_features"], arrays[f"{s}_votes"], arrays[f"{s}_labels"])
        for s in md.data.SPLITS
    )
    return WeakData(classes, train, valid, test, names)


def _compute(source: _Source, features: str) -> dict[str, np.ndarray]:
    rows = source.read()
    vectors = load_features(rows, features, source.folder)
    arrays = {
        "classes": np.array(rows.classes),
        "labeling_functions": np.array(rows.labeling_functions),
    }
    for name in md.data.SPLITS:
        arrays[f"{name}_features"] = vectors[name]
        arrays[f"{name}_votes"] = rows.splits[name].votes_NK
        arrays[f"{name}_labels"] = rows.splits[name].labels_N
    return arrays
