"""The language model θ0 that a trial starts from: one by name, or a small pretrained GPT-2."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import modicum as md
from modicum_algorithms.preference.config import RECIPES
from modicum_algorithms.preference.data.corpora import imdb_file, packaged_text

# Reviews that the packaged model is pretrained on.
PACKAGED_REVIEWS = 4000


def check_model(name: str) -> None:
    """Refuse a model that does not exist, as far as that can be known without loading it.

    Raises:
        InputError: The model does not exist, or the reviews to pretrain it on are missing.
    """
    if name == "imdb":
        imdb_file("train", "language_model")
    elif name not in RECIPES:
        md.training.check_language_model(name, field="language_model")


def model_digests(name: str) -> Mapping[str, str]:
    """Digest of θ0 for a trial's identity: of a local model's files, or of the recipe.

    Raises:
        InputError: IMDB is not under `MODICUM_DATA`.
    """
    if name in RECIPES:
        return {"language_model": pretrained_key(name)}
    path = Path(name).expanduser()
    if path.is_dir():
        return {"language_model": md.data.digest_folder(path)}
    if path.is_file():
        return {"language_model": md.data.digest_files([path])}
    return {}


def pretrained_key(name: str) -> str:
    """Cache key of a pretrained model; it changes with the texts and the recipe.

    Raises:
        InputError: IMDB is not under `MODICUM_DATA`.
    """
    texts = md.data.digest_files([imdb_file("train")]) + "-" if name == "imdb" else ""
    parts = [] if name == "imdb" else [PACKAGED_REVIEWS, packaged_text()]
    described = json.dumps([asdict(RECIPES[name]), *parts], sort_keys=True)
    return f"{name}-model-{texts}{hashlib.sha256(described.encode()).hexdigest()[:16]}"
