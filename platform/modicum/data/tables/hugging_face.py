"""Data sets of Hugging Face `datasets`, on the hub or in a folder that `save_to_disk` wrote.

`/folder`, `./folder` and `~/folder` are local; any other name is `NAME[:CONFIGURATION][@REVISION]`
on the hub. The splits are train, validation (or valid) and test; other splits are ignored. The
columns follow the conventions of `modicum.data.tables.columns`; a `ClassLabel` gives the names and
the order of the classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modicum.data.cache import find_data
from modicum.data.digest import digest_folder
from modicum.data.tables.columns import SPLIT_NAMES, VOTE_PREFIX, read_columns
from modicum.data.tables.files import split_table
from modicum.data.tables.weak_rows import WeakRows
from modicum.errors import InputError, reason_of


def huggingface_folder(name: str, field: str = "dataset") -> Path | None:
    """The folder of a data set; None for a data set on the hub.

    Raises:
        InputError: The name is empty, there is no such folder, or `save_to_disk` did not
            write it.
    """
    if not name:
        raise InputError(f"{field}: hf: needs a name on the hub or a folder behind it")
    if not (name.startswith((".", "~")) or Path(name).is_absolute()):
        return None
    folder = find_data(name, field=field)
    if not any((folder / file).is_file() for file in ("dataset_dict.json", "state.json")):
        raise InputError(
            f"{field}: {folder} was not written by save_to_disk of a DatasetDict; "
            "folders with CSV, parquet or JSONL files go without hf:"
        )
    return folder


def huggingface_digest(name: str, field: str = "dataset") -> str:
    """Identity of a data set: a digest of its files for a folder, else its name on the hub.

    A change on the hub goes unnoticed unless the name holds a revision.

    Raises:
        InputError: There is no such folder.
    """
    folder = huggingface_folder(name, field)
    return f"hub:{name}" if folder is None else digest_folder(folder)


def hub_arguments(name: str) -> dict[str, str | None]:
    """Arguments of `datasets.load_dataset` for `NAME[:CONFIGURATION][@REVISION]`."""
    rest, _, revision = name.partition("@")
    path, _, configuration = rest.partition(":")
    return {"path": path, "name": configuration or None, "revision": revision or None}


def load_huggingface(name: str, *, field: str, extra: str) -> Any:
    """Load a `Dataset` or a `DatasetDict`; errors name the extra that installs `datasets`.

    Raises:
        InputError: `datasets` is not installed, or the data set cannot be loaded.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise InputError(
            f"{field}: hf:{name} needs the package {error.name!r} (extra {extra!r})"
        ) from error
    folder = huggingface_folder(name, field)
    try:
        if folder is not None:
            return datasets.load_from_disk(folder)
        return datasets.load_dataset(**hub_arguments(name))
    except Exception as error:  # The errors have no common class.
        raise InputError(f"{field}: hf:{name} cannot be loaded ({reason_of(error)})") from error


def read_huggingface(name: str) -> WeakRows:
    """Read and check a data set.

    Raises:
        InputError: `datasets` is not installed, the data set cannot be loaded, or it breaks a
            convention of `modicum.data.tables.columns`.
    """
    loaded = load_huggingface(name, field="dataset", extra="weak")
    from datasets import Dataset

    where = f"hf:{name}"
    if isinstance(loaded, Dataset):
        classes = _classes(loaded.features, where)
        return read_columns(split_table(_table(loaded), where), where, classes)
    tables: dict[str, Any] = {}
    for given, dataset in loaded.items():
        split = SPLIT_NAMES.get(str(given))
        if split in tables:
            raise InputError(f"dataset: {where}: has the splits valid and validation; keep one")
        if split is not None:
            tables[split] = dataset
    named = {split: _classes(dataset.features, where) for split, dataset in tables.items()}
    if len(set(named.values())) > 1:
        raise InputError(f"dataset: {where}: splits differ in the classes of label: {named}")
    return read_columns(
        {split: _table(dataset) for split, dataset in tables.items()},
        where,
        next(iter(named.values()), None),
    )


def _table(dataset: Any) -> Any:
    return dataset.with_format("arrow")[:]


def _classes(features: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
    """Names of the classes if `label` is a ClassLabel; a ClassLabel of votes must be the same."""
    names = getattr(features.get("label"), "names", None)
    for column, feature in features.items():
        if column == "weak_labels" or column.startswith(VOTE_PREFIX):
            vote_names = getattr(getattr(feature, "feature", feature), "names", names)
            if vote_names != names:
                raise InputError(
                    f"dataset: {where}: {column} numbers the classes {vote_names}, label {names}; "
                    "they must be the same ClassLabel"
                )
    return None if names is None else tuple(names)
