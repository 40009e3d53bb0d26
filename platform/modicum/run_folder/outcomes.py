"""Outcomes of test rows of a trial: `trials/<id>/outcomes.npz`, an array for each metric."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from modicum.errors import InputError, reason_of
from modicum.storage import StorageFolder

if TYPE_CHECKING:
    import numpy as np

_FILE = "outcomes.npz"


def write_outcomes(
    folder: StorageFolder,
    place: tuple[str, ...],
    outcomes: Mapping[str, np.ndarray],
    durable: bool,
) -> None:
    """Write outcomes, by the metric of which they are, into the trial's folder `place`.

    Raises:
        StorageError: The run folder cannot be written.
    """
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **outcomes)
    folder.write_bytes(buffer.getvalue(), *place, _FILE, durable=durable)


def load_outcomes(folder: StorageFolder, place: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read the outcomes of a trial; empty if it recorded none.

    Raises:
        InputError: The file is damaged.
    """
    if not folder.exists(*place, _FILE):
        return {}
    import numpy as np

    content = io.BytesIO(folder.read_bytes(*place, _FILE))
    try:
        with np.load(content, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        if not all(array.ndim == 1 and array.dtype.kind in "bf" for array in found.values()):
            raise ValueError("an outcome has to be a number or a truth value for each row")
    except Exception as error:  # NumPy and zipfile raise errors of many kinds.
        raise InputError(
            f"{folder.display(*place, _FILE)}: broken outcomes ({reason_of(error)})"
        ) from error
    return found


def is_mean_of(outcomes: np.ndarray, value: object) -> bool:
    """Test if a metric's value is the mean of outcomes, to single precision."""
    mean = float(outcomes.mean(dtype=float))
    return isinstance(value, int | float) and math.isclose(mean, value, rel_tol=1e-5, abs_tol=1e-6)
