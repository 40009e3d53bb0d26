"""Outcomes of test rows of a trial: `trials/<id>/outcomes.npz`, an array for each metric."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from modicum.storage import StorageFolder

if TYPE_CHECKING:
    import numpy as np

_FILE = "outcomes.npz"


def write_outcomes(
    folder: StorageFolder, place: tuple[str, ...], outcomes: Mapping[str, np.ndarray]
) -> None:
    """Write outcomes, by the metric of which they are, into the trial's folder `place`.

    Raises:
        StorageError: The run folder cannot be written.
    """
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **outcomes)
    folder.write_bytes(buffer.getvalue(), *place, _FILE)


def load_outcomes(folder: StorageFolder, place: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read the outcomes of a trial; empty if it recorded none."""
    if not folder.exists(*place, _FILE):
        return {}
    import numpy as np

    with np.load(io.BytesIO(folder.read_bytes(*place, _FILE)), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def is_mean_of(outcomes: np.ndarray, value: object) -> bool:
    """Test if a metric's value is the mean of outcomes, to single precision."""
    mean = float(outcomes.mean(dtype=float))
    return isinstance(value, int | float) and math.isclose(mean, value, rel_tol=1e-5, abs_tol=1e-6)
