"""Which language model θ0 is: one by name, or a small one that is trained first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import modicum as md
from modicum_algorithms.preference import pair_sources

IMDB, PACKAGED = "imdb", "packaged"


def check_model(name: str) -> None:
    """Find mistakes that cost nothing to find.

    Raises:
        InputError: There is no such model, or the reviews to train it on are missing.
    """
    if name == IMDB:
        pair_sources.imdb_file("train", "language_model")
    elif name != PACKAGED:
        md.training.check_language_model(name, field="language_model")


def model_location(name: str) -> str:
    """Hub name, folder or file of θ0; `imdb` and `packaged` are trained on this machine first.

    They are the same on every machine of one kind only, so a study's trials should find them in a
    cache that all machines share, or run on one.
    """
    from modicum_algorithms.preference import base_model

    if name == IMDB:
        return str(base_model.imdb_model())
    if name == PACKAGED:
        return str(base_model.packaged_model())
    return name


def model_digests(name: str) -> Mapping[str, str]:
    """Digest of a local model's files, for a trial's identity; of a trained one's recipe."""
    from modicum_algorithms.preference import base_model

    if name == IMDB:
        return {"language_model": base_model.imdb_model_key()}
    if name == PACKAGED:
        return {"language_model": base_model.packaged_model_key()}
    path = Path(name).expanduser()
    if path.is_dir():
        return {"language_model": md.data.digest_folder(path)}
    if path.is_file():
        return {"language_model": md.data.digest_files([path])}
    return {}
