"""Data sets for weak supervision: features, votes and labels of three splits.

Shapes: N rows, D features, K labeling functions, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

import modicum as md
from modicum_algorithms.weak import breast_cancer

EMBEDDED = "breast_cancer"
ABSTAIN = -1
SPLITS = ("train", "valid", "test")


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
        classes: Names of the classes.
        train: Its labels are used only where an experiment declares them strong.
        valid: For early stopping.
        test: For the reported numbers.
    """

    classes: tuple[str, ...]
    train: Split
    valid: Split
    test: Split


def data_digests(dataset: str, features: str) -> dict[str, str]:
    """Digests of a data set and of its features, for a trial's identity.

    Raises:
        InputError: The data or the features cannot be found.
    """
    if dataset == EMBEDDED:
        _require_given(features)
        return {"dataset": _embedded_digest()}
    folder = md.data.find_data(dataset, under="wrench")
    digests = {"dataset": md.data.digest_files(md.data.wrench_files(folder))}
    kind = _feature_kind(folder, features)
    if kind == "file":
        digests["features"] = md.data.digest_files([_feature_file(folder, features)])
    elif kind == "encoder":
        digests["features"] = md.data.encoder_digest(features)
    else:
        digests["features"] = kind
    return digests


@cache
def _embedded_digest() -> str:
    return md.data.digest_arrays(breast_cancer.load_arrays())


def load(dataset: str, features: str) -> WeakData:
    """A data set with its features.

    Args:
        dataset: `breast_cancer`, a name under `MODICUM_DATA/wrench`, or a path to a folder in
            WRENCH's format.
        features: `auto` (given features if the rows carry them, else `tfidf`), `tfidf`, a
            `.npz` file with arrays `train`, `valid` and `test` (relative to the folder or
            absolute), or a Hugging Face encoder (name or folder) for mean pooling.

    Raises:
        InputError: Something is missing or does not fit together.
    """
    return _load(tuple(sorted(data_digests(dataset, features).items())), dataset, features)


@lru_cache(maxsize=8)
def _load(digests: tuple[tuple[str, str], ...], dataset: str, features: str) -> WeakData:
    """Loaded once per process; computed once per machine."""
    if dataset == EMBEDDED:
        return _assemble(breast_cancer.CLASSES, breast_cancer.load_arrays())
    folder = md.data.find_data(dataset, under="wrench")
    key = "weak-" + "-".join(f"{name}-{value}" for name, value in digests)
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in key)
    arrays = md.data.cached_arrays(safe, lambda: _compute(folder, features))
    classes = tuple(str(name) for name in arrays["classes"])
    return _assemble(classes, arrays)


def _assemble(classes: tuple[str, ...], arrays: dict[str, np.ndarray]) -> WeakData:
    splits = [
        Split(arrays[f"{s}_features"], arrays[f"{s}_votes"], arrays[f"{s}_labels"]) for s in SPLITS
    ]
    return WeakData(classes, *splits)


def _compute(folder: Path, features: str) -> dict[str, np.ndarray]:
    classes, splits = md.data.read_wrench(folder)
    vectors = _vectors(folder, features, [splits[s].texts for s in SPLITS])
    arrays = {"classes": np.array(classes)}
    for index, name in enumerate(SPLITS):
        split = splits[name]
        given = split.features_ND if vectors is None else vectors[index]
        if given is None or len(given) != len(split.labels_N):
            have = 0 if given is None else len(given)
            raise md.InputError(
                f"features: {features!r} has {have} rows for {name}, the data {len(split.labels_N)}"
            )
        if not np.isfinite(given).all():
            raise md.InputError(f"features: {features!r} has values for {name} that are not finite")
        if name != "train" and (split.labels_N < 0).any():
            raise md.InputError(f"dataset: {folder}: every row of {name} needs a label")
        arrays[f"{name}_features"] = np.ascontiguousarray(given, dtype=np.float32)
        arrays[f"{name}_votes"] = split.votes_NK
        arrays[f"{name}_labels"] = split.labels_N
    return arrays


def _vectors(folder: Path, features: str, texts: list[list[str] | None]) -> list[np.ndarray] | None:
    """Feature arrays of the three splits; None to take those that the rows carry."""
    kind = _feature_kind(folder, features)
    if kind == "file":
        return _read_features(_feature_file(folder, features))
    carried = [t for t in texts if t is not None]
    if features == "auto" and len(carried) < len(SPLITS):
        return None
    if len(carried) < len(SPLITS):
        raise md.InputError(
            f"features: {features!r} needs texts, but the rows of {folder} carry features; use auto"
        )
    if kind == "encoder":
        return [md.data.encode_texts(group, features) for group in carried]
    return md.data.tfidf_features(carried[0], carried[1], carried[2])


def _feature_kind(folder: Path, features: str) -> str:
    if features in {"auto", "tfidf"}:
        return features
    if features.endswith(".npz"):
        _feature_file(folder, features)
        return "file"
    return "encoder"


def _feature_file(folder: Path, features: str) -> Path:
    path = Path(features).expanduser()
    path = path if path.is_absolute() else folder / path
    if not path.is_file():
        raise md.InputError(f"features: no file {path}")
    return path


def _read_features(path: Path) -> list[np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = [arrays[split].astype(np.float32) for split in SPLITS]
    except (KeyError, ValueError, TypeError, EOFError, OSError, BadZipFile) as error:
        raise md.InputError(
            f"features: {path} must hold arrays train, valid and test ({error})"
        ) from error
    if any(array.ndim != 2 or array.shape[1] != found[0].shape[1] for array in found):
        raise md.InputError(f"features: {path}: arrays must be two-dimensional and equally wide")
    return found


def _require_given(features: str) -> None:
    if features != "auto":
        raise md.InputError(
            f"features: {EMBEDDED} carries its own features (allowed: auto), got {features!r}"
        )
