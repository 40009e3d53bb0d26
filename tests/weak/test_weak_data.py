"""Attributes of data sets, by hand and by loops."""

import numpy as np
import pytest

import modicum as md
from modicum_algorithms.weak.data import breast_cancer
from modicum_algorithms.weak.experiments.data_attributes import (
    WeakDataAttributes,
    weak_label_attributes,
)


def test_attributes_by_hand():
    """Five rows: votes 0 1 1 (1 wins), only 2, none, 2 and 0 (a tie), 1 1 1; labels 1, 0, 2, 2,
    unknown.

    Four of five are covered, with 3 + 1 + 2 + 3 = 9 votes; rows 0 and 3 are in conflict. Of the
    covered rows with a label, row 0 is right, row 1 wrong, row 3 right in half of the draws.
    """
    votes = np.array([[0, 1, 1], [-1, -1, 2], [-1, -1, -1], [2, 0, -1], [1, 1, 1]])
    got = weak_label_attributes(votes, np.array([1, 0, 2, 2, -1]), 3)
    assert got == {
        "train/coverage": 0.8,
        "train/votes_per_covered_row": 9 / 4,
        "train/conflict": 0.4,
        "train/majority_vote_accuracy": 0.5,
    }


def test_attributes_against_loops():
    rng = np.random.default_rng(3)
    votes, labels = rng.integers(-1, 4, size=(200, 3)), rng.integers(-1, 4, size=200)
    covered, given, conflicts, right = 0, 0, 0, []
    for row, label in zip(votes.tolist(), labels.tolist(), strict=True):
        voted = [v for v in row if v >= 0]
        covered += bool(voted)
        given += len(voted)
        conflicts += len(set(voted)) > 1
        if voted and label >= 0:
            most = max(voted.count(v) for v in voted)
            ahead = {v for v in voted if voted.count(v) == most}
            right.append(label in ahead and 1 / len(ahead))
    assert weak_label_attributes(votes, labels, 4) == pytest.approx(
        {
            "train/coverage": covered / 200,
            "train/votes_per_covered_row": given / covered,
            "train/conflict": conflicts / 200,
            "train/majority_vote_accuracy": sum(right) / len(right),
        }
    )


def test_nothing_covered_and_nothing_labeled():
    silent = weak_label_attributes(np.full((3, 2), -1), np.array([0, 1, 0]), 2)
    names = ("train/coverage", "train/votes_per_covered_row", "train/conflict")
    assert silent == dict.fromkeys(names, 0)
    unlabeled = weak_label_attributes(np.zeros((3, 2), int), np.full(3, -1), 2)
    assert unlabeled == dict(zip(names, (1, 2, 0), strict=True))


def test_the_embedded_set_as_a_study(tmp_path):
    study = md.Study(WeakDataAttributes, {}, seeds=1)
    frame = study.run(tmp_path / "run", runner="local", quiet=True).frame
    record = frame.iloc[0]
    arrays = breast_cancer.load_arrays()
    assert record["budget"] == 0
    assert record["classes"] == 2
    assert record["labeling_functions"] == len(breast_cancer.RULES)
    sizes = [record[f"{split}/rows"] for split in ("train", "valid", "test")]
    assert sizes == [len(arrays[f"{split}_labels"]) for split in ("train", "valid", "test")]
    assert sum(sizes) == 569
    assert record["train/coverage"] == (arrays["train_votes"] >= 0).any(1).mean()


def test_real_sets_have_the_sizes_of_the_benchmark(wrench, tmp_path):
    """Labeling functions and rows of WRENCH's SMS and TREC."""
    study = md.Study(WeakDataAttributes, {"dataset": md.grid("sms", "trec")}, seeds=1)
    results = study.run(tmp_path / "run", runner="local", quiet=True)
    wanted = {
        "labeling_functions": [73, 68],
        "classes": [2, 6],
        "train/rows": [4571, 4965],
        "test/rows": [500, 500],
    }
    for metric, values in wanted.items():
        assert [value for _, value in results.values(metric)] == values
    # 59% of the SMS rows have no vote.
    assert results.values("train/coverage")[0][1] == pytest.approx(0.41, abs=0.005)
