"""Data sets of Hugging Face in parquet files, with encoded images and labels.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modicum.data.images.encoded import decode_image, require_pillow
from modicum.data.images.source import ImageSplits, checked_splits
from modicum.errors import InputError, reason_of

TRAIN_PATTERN = "train*.parquet"
TEST_PATTERN = "test*.parquet"
_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMN = "label"
_FORMATS = ("PNG", "JPEG")
_ROWS = 1000  # Number of rows to decode at once.


def parquet_split_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files for training and the files for test, each in the order of their names.

    Raises:
        InputError: A split has no files.
    """
    found = []
    for pattern in (TRAIN_PATTERN, TEST_PATTERN):
        files = sorted(folder.glob(pattern), key=lambda path: path.name)
        if not files:
            raise InputError(f"dataset: {folder} has no {pattern}")
        found.append(files)
    return found[0], found[1]


def read_image_parquet(folder: Path) -> ImageSplits:
    """Read a folder of `train*.parquet` and `test*.parquet`.

    A column `img` or `image` holds structs of `bytes` (a PNG or JPEG file) and `path`, which is
    ignored. An optional column `label` holds integers.

    Raises:
        InputError: Pillow is missing, a file is missing or broken, a column is missing or has
            another type, or the images differ in size or channels.
    """
    require_pillow(f"dataset: {folder}: decoding images")
    train_files, test_files = parquet_split_files(folder)
    train, train_labels = _read_split(train_files)
    test, test_labels = _read_split(test_files)
    return checked_splits(train, test, train_labels, test_labels, where=str(folder))


def _read_split(paths: list[Path]) -> tuple[np.ndarray, np.ndarray | None]:
    parts = [_read_file(path) for path in paths]
    images = [part for part, _ in parts if len(part)] or [parts[0][0]]
    labels = [part for _, part in parts if part is not None]
    shapes = sorted({part.shape[1:] for part in images})
    names = ", ".join(path.name for path in paths)
    if len(shapes) > 1:
        raise InputError(
            f"dataset: images in {names} have the shapes {' and '.join(map(str, shapes))} "
            "(channels, height, width); they must be the same"
        )
    if labels and len(labels) < len(paths):
        raise InputError(f"dataset: only some of {names} have the column {_LABEL_COLUMN}")
    return np.concatenate(images), np.concatenate(labels) if labels else None


def _read_file(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    import pyarrow as pa
    import pyarrow.parquet

    where = f"dataset: {path}"
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            image_column, has_labels = _columns(file.schema_arrow, where)
            columns = [image_column, *([_LABEL_COLUMN] if has_labels else [])]
            images_NCHW: np.ndarray | None = None
            labels: list[int | None] = []
            start = 0
            for batch in file.iter_batches(_ROWS, columns=columns):
                for row, value in enumerate(batch.column(image_column).to_pylist(), start):
                    image_CHW = _decode(value, f"{where}, row {row}")
                    if images_NCHW is None:
                        shape = (file.metadata.num_rows, *image_CHW.shape)
                        images_NCHW = np.empty(shape, np.uint8)
                    if image_CHW.shape != images_NCHW.shape[1:]:
                        raise InputError(
                            f"{where}, row {row}: the image has the shape {image_CHW.shape} "
                            f"(channels, height, width), row 0 {images_NCHW.shape[1:]}; "
                            "they must be the same"
                        )
                    images_NCHW[row] = image_CHW
                if has_labels:
                    labels += batch.column(_LABEL_COLUMN).to_pylist()
                start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{where} is not readable parquet ({reason_of(error)})") from error
    if None in labels:
        raise InputError(f"{where}, row {labels.index(None)}: {_LABEL_COLUMN} is missing")
    images = np.empty((0, 1, 1, 1), np.uint8) if images_NCHW is None else images_NCHW
    return images, np.array(labels, np.int64) if has_labels else None


def _columns(schema: Any, where: str) -> tuple[str, bool]:
    """The name of the image column, and whether there are labels."""
    import pyarrow as pa

    found = [name for name in _IMAGE_COLUMNS if name in schema.names]
    if len(found) != 1:
        raise InputError(
            f"{where} has the columns {', '.join(schema.names)}; "
            f"one of {' and '.join(_IMAGE_COLUMNS)} is needed"
        )
    kind = schema.field(found[0]).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise InputError(f"{where}: {found[0]} is {kind}; a struct of bytes and path is needed")
    has_labels = _LABEL_COLUMN in schema.names
    if has_labels and not pa.types.is_integer(schema.field(_LABEL_COLUMN).type):
        raise InputError(
            f"{where}: {_LABEL_COLUMN} is {schema.field(_LABEL_COLUMN).type}; "
            "whole numbers are needed"
        )
    return found[0], has_labels


def _decode(value: dict[str, Any] | None, where: str) -> np.ndarray:
    data = None if value is None else value["bytes"]
    if not isinstance(data, bytes):
        raise InputError(f"{where}: the image has no bytes; images kept elsewhere are not read")
    return decode_image(data, f"{where}: the image", _FORMATS)
