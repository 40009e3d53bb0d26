"""Feature vectors of a data set: given ones, TF-IDF, those of a file, or an encoder's.

Shapes: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

import modicum as md


def features_digest(features: str, folder: Path) -> str:
    """Digest of the setting `features`, for data that have a digest already.

    Raises:
        InputError: There is no such file.
    """
    if features in {"auto", "tfidf"}:
        return features
    if features.endswith(".npz"):
        return md.data.digest_files([_file(features, folder)])
    return md.data.encoder_digest(features)


def load_features(rows: md.data.WeakRows, features: str, folder: Path) -> dict[str, np.ndarray]:
    """Feature vectors of every split by the setting `features`, float32.

    The path of a `.npz` file may be relative to the folder.

    Raises:
        InputError: Texts or a file are missing, or the vectors do not fit the rows or are not
            finite.
    """
    vectors = _vectors(rows, features, folder)
    arrays = {}
    for name, array_ND in zip(md.data.SPLITS, vectors, strict=True):
        count = len(rows.splits[name].labels_N)
        if len(array_ND) != count:
            raise md.InputError(
                f"features: {features!r} has {len(array_ND)} rows for {name}, the data {count}"
            )
        if not np.isfinite(array_ND).all():
            raise md.InputError(f"features: {features!r} has values for {name} that are not finite")
        arrays[name] = np.ascontiguousarray(array_ND, dtype=np.float32)
    return arrays


def _vectors(rows: md.data.WeakRows, features: str, folder: Path) -> Sequence[np.ndarray]:
    if features.endswith(".npz"):
        return _read(_file(features, folder))
    splits = [rows.splits[name] for name in md.data.SPLITS]
    given = [split.features_ND for split in splits if split.features_ND is not None]
    if features == "auto" and len(given) == len(md.data.SPLITS):
        return given
    texts = [split.texts for split in splits if split.texts is not None]
    if len(texts) < len(md.data.SPLITS):
        raise md.InputError(
            f"features: {features!r} needs texts, but the rows have features; use auto"
        )
    if features in {"auto", "tfidf"}:
        return md.data.tfidf_features(*texts)
    return [md.data.encode_texts(group, features) for group in texts]


def _file(features: str, folder: Path) -> Path:
    path = Path(features).expanduser()
    path = path if path.is_absolute() else folder / path
    if not path.is_file():
        raise md.InputError(f"features: no file {path}")
    return path


def _read(path: Path) -> list[np.ndarray]:
    try:
        # Values too large for float32 become infinite, and are refused as such.
        with np.load(path, allow_pickle=False) as arrays, np.errstate(over="ignore"):
            found = [arrays[split].astype(np.float32) for split in md.data.SPLITS]
    except (KeyError, ValueError, TypeError, EOFError, OSError, BadZipFile) as error:
        raise md.InputError(
            f"features: {path} must hold arrays train, valid and test ({error})"
        ) from error
    if any(array.ndim != 2 or array.shape[1] != found[0].shape[1] for array in found):
        raise md.InputError(f"features: {path}: arrays must be two-dimensional and equally wide")
    return found
