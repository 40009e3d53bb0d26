"""Labeling functions through real Ray Data: the votes of this process, in the same order."""

import numpy as np
import pandas as pd
import pytest

import modicum as md
from modicum_algorithms.weak.labeling import apply_labeling_functions

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_texts_with_closures_give_the_same_votes():
    words = ["free", "you", "0"]
    functions = [lambda text, w=word: len(w) % 3 if w in text else None for word in words]
    texts = [f"{word} {number}" for number in range(400) for word in ("free", "you", "no")]
    here = apply_labeling_functions(functions, texts)
    there = apply_labeling_functions(functions, texts, workers=2, classes=3)
    assert there.dtype == here.dtype
    np.testing.assert_array_equal(there, here)
    assert set(np.unique(here)) == {-1, 0, 1}


def test_rows_reach_the_workers_unchanged():
    """A columnar format would fill in missing keys and make whole numbers with gaps floats."""
    rows = [{"number": 3}, {"number": None, "extra": [1, "x"]}, {"number": 2**60 + 1}]

    def is_bare(row):
        return int("extra" not in row)

    def is_odd(row):
        return row["number"] % 2 if isinstance(row["number"], int) else None

    functions = [is_bare, is_odd]
    expected = [[1, 1], [0, -1], [1, 1]]
    assert apply_labeling_functions(functions, rows).tolist() == expected
    assert apply_labeling_functions(functions, rows, workers=2).tolist() == expected
    frame = pd.DataFrame({"number": [2**53 + 1, 4], "share": [0.5, 1.0]})
    assert apply_labeling_functions([is_odd], frame, workers=1).tolist() == [[1], [0]]


def test_the_first_failure_is_named_with_its_exception():
    def late(text):
        if int(text) >= 30:
            raise ZeroDivisionError(f"no {text}")

    texts = [str(number) for number in range(60)]
    with pytest.raises(md.InputError, match="'late', row 30: raised ZeroDivisionError") as raised:
        apply_labeling_functions([late], texts, workers=2)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert "in late" in raised.value.__cause__.__notes__[0]

    class OwnError(Exception):
        """Known here only, and takes two arguments: it cannot travel as it is."""

        def __init__(self, code, text):
            super().__init__(f"{code}: {text}")

    def own(text):
        raise OwnError(7, text)

    with pytest.raises(md.InputError, match="'own', row 0: raised OwnError: 7: a") as raised:
        apply_labeling_functions([own], ["a"], workers=1)
    assert "OwnError: 7: a" in str(raised.value.__cause__)
    with pytest.raises(md.InputError, match="row 1: returned 5"):
        apply_labeling_functions([lambda text: int(text)], ["1", "5"], workers=2, classes=2)
