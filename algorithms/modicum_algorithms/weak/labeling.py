"""Labeling functions, plain Python functions that vote on rows: votes, majority, statistics.

Shapes: N rows, K labeling functions, C classes.
"""

from __future__ import annotations

import numbers
import pickle
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import modicum as md

if TYPE_CHECKING:
    import pandas as pd

_NEVER = np.iinfo(np.int64).max  # above every class number

LabelingFunction = Callable[[Any], int | None]


def labeling_function_names(functions: Sequence[LabelingFunction]) -> tuple[str, ...]:
    """Names of the functions (`__name__`); a repeated name gets a number.

    Args:
        functions: K functions.
    """
    seen: Counter[str] = Counter()
    names = []
    for function in functions:
        name = getattr(function, "__name__", type(function).__name__)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(names)


@dataclass(frozen=True)
class _Failure:
    """Reason of a missing vote: a sentence for the user, and the exception if there was one."""

    message: str
    cause: Exception | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Failure, (self.message, self.cause and _portable(self.cause))


def apply_labeling_functions(
    functions: Sequence[LabelingFunction],
    rows: Iterable[Any] | pd.DataFrame,
    *,
    classes: int | Sequence[str] | None = None,
    workers: int = 0,
) -> np.ndarray:
    """Votes of labeling functions on rows.

    Args:
        functions: Functions of one row that return a class number, or -1 or None to abstain;
            lambdas and closures are allowed.
        rows: Texts, dicts, or any values that the functions take; rows of a pandas DataFrame
            are passed as dicts by column name.
        classes: Number of classes or their names, to check the votes against.
        workers: Number of parallel Ray tasks (through Ray Data); 0 works in this process, which
            is faster for small input. The votes are the same.

    Returns:
        votes_NK, int64, -1 is an abstain; rows and columns have the given order.

    Raises:
        InputError: There is no function, a function failed (chained from the exception), or a
            vote is not a class number; the message names the function and the row.
    """
    import pandas as pd

    names = labeling_function_names(functions)
    if not names:
        raise md.InputError("functions: at least one labeling function is needed")
    if isinstance(rows, str | bytes):
        raise md.InputError("rows: expected a list of rows, got a single text")
    if isinstance(rows, pd.DataFrame):
        # A Series would turn whole numbers beside fractions into fractions.
        rows = rows.to_dict("records")
    count = classes if classes is None or isinstance(classes, int) else len(classes)

    def vote(start: int, chunk: list[Any]) -> np.ndarray | _Failure:
        return _votes(functions, names, start, chunk, count)

    parts: list[np.ndarray] = []
    for part in md.data.map_chunks(vote, list(rows), workers):
        if isinstance(part, _Failure):
            raise md.InputError(part.message) from part.cause
        parts.append(part)
    return np.concatenate(parts)


def _votes(
    functions: Sequence[LabelingFunction],
    names: Sequence[str],
    start: int,
    rows: list[Any],
    classes: int | None,
) -> np.ndarray | _Failure:
    """Votes on one chunk; failures are returned, because Ray wraps raised exceptions."""
    votes_NK = np.full((len(rows), len(functions)), md.data.ABSTAIN, dtype=np.int64)
    for n, row in enumerate(rows):
        for k, function in enumerate(functions):
            place = f"functions: {names[k]!r}, row {start + n}"
            try:
                vote = function(row)
            except Exception as error:
                return _Failure(f"{place}: raised {type(error).__name__}: {error}", error)
            if vote is None:
                continue
            if not _is_vote(vote, classes):
                top = "0 and up" if classes is None else f"0 to {classes - 1}"
                return _Failure(
                    f"{place}: returned {vote!r}; a vote is a class number ({top}), or -1 or "
                    "None to abstain"
                )
            votes_NK[n, k] = vote
    return votes_NK


def _is_vote(vote: Any, classes: int | None) -> bool:
    """Accept whole numbers only; a boolean is most likely a condition without a class."""
    whole = isinstance(vote, numbers.Integral) and not isinstance(vote, bool)
    return whole and bool(md.data.ABSTAIN <= vote < (_NEVER if classes is None else classes))


def _portable(error: Exception) -> Exception:
    """A copy of the exception that can be pickled, with the traceback as a note."""
    portable: Exception = RuntimeError(f"{type(error).__name__}: {error}")
    # Exceptions with further constructor arguments often fail to unpickle.
    with suppress(Exception):
        portable = pickle.loads(pickle.dumps(error))
    portable.add_note("".join(traceback.format_exception(error)))
    return portable


def majority_vote(votes_NK: np.ndarray, classes: int) -> np.ndarray:
    """Normalised vote counts, (N, C), float32; uniform where every labeling function abstains."""
    rows = np.arange(len(votes_NK))[:, None]
    # Abstains (-1) fall into the bin before the row's first class and are cut off.
    bins = (rows * (classes + 1) + votes_NK + 1).ravel()
    counts = np.bincount(bins, minlength=len(votes_NK) * (classes + 1))
    counts_NC = counts.reshape(len(votes_NK), classes + 1)[:, 1:]
    totals_N1 = counts_NC.sum(1, keepdims=True)
    uniform = np.full_like(counts_NC, 1 / classes, dtype=np.float64)
    return np.divide(counts_NC, totals_N1, out=uniform, where=totals_N1 > 0).astype(np.float32)


def conflicts(votes_NK: np.ndarray) -> np.ndarray:
    """Share of rows on which a function votes and another one votes for another class, (K,).

    Args:
        votes_NK: Votes, -1 is an abstain.
    """
    voted_NK = votes_NK != md.data.ABSTAIN
    # If a row's votes differ, every vote has another one against it.
    lowest_N1 = votes_NK.min(1, keepdims=True, where=voted_NK, initial=_NEVER)
    highest_N1 = votes_NK.max(1, keepdims=True, initial=md.data.ABSTAIN)
    return np.asarray((voted_NK & (highest_N1 > lowest_N1)).mean(0))


def labeling_function_table(
    votes_NK: np.ndarray,
    labels_N: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    classes: int | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Statistics of labeling functions as in Snorkel's `LFAnalysis` (Ratner et al. 2017).

    Args:
        votes_NK: Class numbers, -1 is an abstain.
        labels_N: True classes, -1 where unknown; unknown rows do not enter the accuracy.
        names: Names of the functions; None for 0, 1, ...
        classes: Number of classes or their names, to check against; with names, the polarity
            consists of names.

    Returns:
        One row per labeling function: `polarity` (the classes that the function votes for),
        `coverage` (share of rows with its vote), `overlap` (share of rows with its vote and
        another one), `conflict` (share of rows with its vote and one for another class), and with
        labels `correct` and `incorrect` (numbers of votes) and `empirical_accuracy` (accuracy of
        the votes on labelled rows; NaN without any).

    Raises:
        InputError: The arguments do not fit together.
    """
    import pandas as pd

    votes_NK = _checked(votes_NK, "votes_NK", 2, classes)
    rows, functions = votes_NK.shape
    index = [str(k) for k in range(functions)] if names is None else list(names)
    if len(index) != functions:
        raise md.InputError(
            f"names: {len(index)} names for votes of {functions} labeling functions"
        )
    if rows == 0:
        raise md.InputError("votes_NK: at least one row is needed")
    voted_NK = votes_NK != md.data.ABSTAIN
    several_N = voted_NK.sum(axis=1) > 1
    columns: dict[str, Any] = {
        "polarity": [_polarity(votes_N, classes) for votes_N in votes_NK.T],
        "coverage": voted_NK.mean(axis=0),
        "overlap": (voted_NK & several_N[:, None]).mean(axis=0),
        "conflict": conflicts(votes_NK),
    }
    if labels_N is not None:
        labels_N = _checked(labels_N, "labels_N", 1, classes)
        if len(labels_N) != rows:
            raise md.InputError(f"labels_N: {len(labels_N)} labels for {rows} rows of votes")
        judged_NK = voted_NK & (labels_N != md.data.UNKNOWN)[:, None]
        correct_K = (judged_NK & (votes_NK == labels_N[:, None])).sum(axis=0)
        judged_K = judged_NK.sum(axis=0)
        columns["correct"] = correct_K
        columns["incorrect"] = judged_K - correct_K
        columns["empirical_accuracy"] = np.where(
            judged_K > 0, correct_K / np.maximum(judged_K, 1), np.nan
        )
    return pd.DataFrame(columns, index=pd.Index(index, name="labeling_function"))


def _checked(
    values: np.ndarray, field: str, dimensions: int, classes: int | Sequence[str] | None
) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != dimensions or array.dtype.kind not in "iu":
        raise md.InputError(
            f"{field}: expected whole numbers in {dimensions} dimension(s), got {array.dtype} "
            f"of shape {array.shape}"
        )
    count = classes if classes is None or isinstance(classes, int) else len(classes)
    wrong = (array < md.data.ABSTAIN) | (array >= count if count is not None else False)
    if wrong.any():
        top = "0 and up" if count is None else f"0 to {count - 1}"
        raise md.InputError(f"{field}: {array[wrong][0]} is not a class number ({top}) or -1")
    return array.astype(np.int64)


def _polarity(votes_N: np.ndarray, classes: int | Sequence[str] | None) -> list[Any]:
    found = [int(vote) for vote in np.unique(votes_N) if vote != md.data.ABSTAIN]
    if classes is None or isinstance(classes, int):
        return found
    return [classes[vote] for vote in found]
