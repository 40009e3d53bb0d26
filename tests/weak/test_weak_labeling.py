"""Labeling functions in this process, and the table of how they behave."""

import functools
import re

import numpy as np
import pandas as pd
import pytest

import modicum as md
from conftest import ROOT
from modicum_algorithms.weak.data import datasets
from modicum_algorithms.weak.labeling import (
    apply_labeling_functions,
    labeling_function_names,
    labeling_function_table,
)

HAM, SPAM = 0, 1


def has_free(text):
    return SPAM if "free" in text else None


def is_long(text):
    return HAM if len(text) > 12 else -1


def test_votes_keep_the_order_of_rows_and_functions():
    """'free' is in rows 0 and 2; rows 1 and 2 are longer than 12 characters."""
    texts = ["free", "see you at noon", "it is free of charge", "hello"]
    votes_NK = apply_labeling_functions([has_free, is_long], texts)
    assert votes_NK.dtype == np.int64
    assert votes_NK.tolist() == [[1, -1], [-1, 0], [1, 0], [-1, -1]]
    assert (
        apply_labeling_functions([is_long, has_free], texts).tolist() == votes_NK[:, ::-1].tolist()
    )
    assert apply_labeling_functions([has_free, is_long], []).shape == (0, 2)


def test_rows_of_a_data_frame_come_as_dicts_that_keep_their_types():
    """A row as a Series would make 2**53 + 1 beside 0.5 the float 2**53."""
    frame = pd.DataFrame({"count": [2**53 + 1, 3], "share": [0.5, 0.25], "text": ["a", "b"]})
    seen = []

    def keep(row):
        seen.append(dict(row))

    apply_labeling_functions([keep], frame)
    assert seen == [
        {"count": 2**53 + 1, "share": 0.5, "text": "a"},
        {"count": 3, "share": 0.25, "text": "b"},
    ]
    assert all(isinstance(row["count"], int) for row in seen)


def test_rows_may_be_dicts_and_functions_closures_and_callable_objects():
    def longer_than(limit):
        return lambda row: np.int64(1) if row["length"] > limit else None

    functions = [*(longer_than(limit) for limit in (1, 2)), functools.partial(has_free)]
    rows = [{"length": 2}, {"length": 3}]
    assert apply_labeling_functions(functions[:2], rows).tolist() == [[1, -1], [1, 1]]
    assert labeling_function_names(functions) == ("<lambda>", "<lambda> (2)", "partial")
    assert apply_labeling_functions(functions[2:], ["free", "not"]).tolist() == [[1], [-1]]


@pytest.mark.parametrize(
    ("vote", "shown"),
    [
        (0.5, "0.5"),
        (1.0, "1.0"),
        (True, "True"),
        (np.True_, "True"),
        ("spam", "'spam'"),
        (-2, "-2"),
        (2, "2"),
        (2**70, str(2**70)),
        ([1], r"\[1\]"),
    ],
)
def test_what_is_not_a_class_number_is_refused_by_function_and_row(vote, shown):
    def odd(text):
        return vote if text == "b" else 0

    with pytest.raises(
        md.InputError, match=rf"functions: 'odd', row 1: returned .*{shown}.*\(0 to 1\)"
    ):
        apply_labeling_functions([has_free, odd], ["a", "b"], classes=["ham", "spam"])


def test_without_classes_any_number_from_minus_one_will_do():
    assert apply_labeling_functions([len], ["", "a" * 7]).tolist() == [[0], [7]]
    with pytest.raises(md.InputError, match=r"row 0: returned -2; .*0 and up"):
        apply_labeling_functions([lambda text: -2], ["a"])


def test_a_function_that_fails_is_named_and_its_exception_kept():
    def broken(row):
        return row["txt"]

    with pytest.raises(
        md.InputError, match=r"functions: 'broken', row 0: raised KeyError"
    ) as raised:
        apply_labeling_functions([broken], [{"text": "a"}])
    assert isinstance(raised.value.__cause__, KeyError)
    assert raised.value.__cause__.__traceback__ is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], ["a"]), "functions: at least one"),
        (([has_free], "a text"), "rows: expected a list of rows"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(md.InputError, match=message):
        apply_labeling_functions(*arguments)
    with pytest.raises(md.InputError, match="workers: must be 0"):
        apply_labeling_functions([has_free], ["a"], workers=-1)


def test_the_table_of_a_worked_example():
    """Five rows, three functions.

    Votes:     row 0: 0 0 -    row 1: 1 0 -    row 2: - 1 -    row 3: 1 - -    row 4: - - -
    Coverage:  0 votes on rows 0, 1, 3; 1 on rows 0, 1, 2; 2 never.
    Overlap:   0 and 1 both vote on rows 0 and 1, so 2/5 for each; they differ on row 1, so 1/5.
    Labels:    0, 0, 1, unknown, 1. Function 0 is right on row 0 and wrong on row 1 (row 3 is not
               counted): 1 of 2. Function 1 is right on rows 0, 1 and 2.
    """
    votes_NK = np.array([[0, 0, -1], [1, 0, -1], [-1, 1, -1], [1, -1, -1], [-1, -1, -1]])
    labels_N = np.array([0, 0, 1, -1, 1])
    table = labeling_function_table(votes_NK, labels_N, ["a", "b", "c"], ["ham", "spam"])
    assert table.index.tolist() == ["a", "b", "c"]
    assert table["polarity"].tolist() == [["ham", "spam"], ["ham", "spam"], []]
    assert table["coverage"].tolist() == [0.6, 0.6, 0.0]
    assert table["overlap"].tolist() == [0.4, 0.4, 0.0]
    assert table["conflict"].tolist() == [0.2, 0.2, 0.0]
    assert table["correct"].tolist() == [1, 3, 0]
    assert table["incorrect"].tolist() == [1, 0, 0]
    assert table["empirical_accuracy"].tolist()[:2] == [0.5, 1.0]
    assert np.isnan(table["empirical_accuracy"]["c"])
    plain = labeling_function_table(votes_NK)
    assert plain.index.tolist() == ["0", "1", "2"]
    assert plain["polarity"].tolist() == [[0, 1], [0, 1], []]
    assert list(plain) == ["polarity", "coverage", "overlap", "conflict"]


def random_votes(seed, rows=200, functions=6, classes=4):
    generator = np.random.default_rng(seed)
    votes_NK = generator.integers(0, classes, (rows, functions))
    votes_NK[generator.random(votes_NK.shape) < 0.7] = -1
    return votes_NK, generator.integers(-1, classes, rows)


@pytest.mark.parametrize("seed", range(4))
def test_the_table_against_its_definition_row_by_row(seed):
    votes_NK, labels_N = random_votes(seed, functions=1 + 2 * seed)
    table = labeling_function_table(votes_NK, labels_N)
    rows, functions = votes_NK.shape
    for k in range(functions):
        covered = overlapped = conflicted = correct = incorrect = 0
        for n in range(rows):
            if votes_NK[n, k] == -1:
                continue
            others = [v for j, v in enumerate(votes_NK[n]) if j != k and v != -1]
            covered += 1
            overlapped += len(others) > 0
            conflicted += any(other != votes_NK[n, k] for other in others)
            if labels_N[n] != -1:
                correct += votes_NK[n, k] == labels_N[n]
                incorrect += votes_NK[n, k] != labels_N[n]
        row = table.iloc[k]
        assert row["coverage"] == pytest.approx(covered / rows)
        assert row["overlap"] == pytest.approx(overlapped / rows)
        assert row["conflict"] == pytest.approx(conflicted / rows)
        assert (row["correct"], row["incorrect"]) == (correct, incorrect)
        assert row["empirical_accuracy"] == pytest.approx(correct / (correct + incorrect))


def test_the_table_against_snorkel():
    analysis = pytest.importorskip("snorkel.labeling", reason="snorkel is not installed")
    votes_NK, labels_N = random_votes(9)
    labels_N = np.maximum(labels_N, 0)  # Snorkel knows no unknown labels
    theirs = analysis.LFAnalysis(votes_NK).lf_summary(labels_N)
    ours = labeling_function_table(votes_NK, labels_N)
    assert ours["polarity"].tolist() == theirs["Polarity"].tolist()
    for mine, its in {
        "coverage": "Coverage",
        "overlap": "Overlaps",
        "conflict": "Conflicts",
        "correct": "Correct",
        "incorrect": "Incorrect",
        "empirical_accuracy": "Emp. Acc.",
    }.items():
        np.testing.assert_allclose(ours[mine].to_numpy(), theirs[its].to_numpy(), err_msg=mine)


VOTES = np.array([[0, 1], [-1, 1]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"votes_NK": np.array([0, 1])}, "votes_NK: expected whole numbers in 2 dim"),
        ({"votes_NK": VOTES * 1.0}, "votes_NK: expected whole numbers"),
        ({"votes_NK": VOTES - 1}, "votes_NK: -2 is not a class number"),
        ({"votes_NK": VOTES + 1, "classes": 2}, r"votes_NK: 2 is not a class number \(0 to 1\)"),
        ({"votes_NK": VOTES[:0]}, "votes_NK: at least one row"),
        ({"votes_NK": VOTES, "names": ["a"]}, "names: 1 names for votes of 2"),
        ({"votes_NK": VOTES, "labels_N": np.array([0])}, "labels_N: 1 labels for 2 rows"),
        (
            {"votes_NK": VOTES, "labels_N": np.array([0, 5]), "classes": ["a", "b"]},
            "labels_N: 5 is not a class number",
        ),
    ],
)
def test_wrong_arguments_of_the_table(arguments, message):
    with pytest.raises(md.InputError, match=message):
        labeling_function_table(**arguments)


def test_the_example_of_the_documentation(tmp_path, monkeypatch, capsys):
    """Row 0 of messages.csv has 'FREE' in capitals only, so the first function abstains."""
    page = (ROOT / "docs" / "weak.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    [block] = [block for block in blocks if "apply_labeling_functions(" in block]
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert "mentions_a_prize" in capsys.readouterr().out
    data = datasets.load("./messages.csv", "auto")
    assert data.labeling_functions == ("mentions_a_prize", "asks_back", "shouts")
    assert data.train.votes_NK[:4].tolist() == [[-1, -1, 1], [1, -1, -1], [1, 0, -1], [-1, -1, -1]]
    assert data.train.labels_N.tolist() == [1, -1, -1, 0, -1, -1]
