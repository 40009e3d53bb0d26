"""Acquisitions on a problem whose answer is known: where votes are wrong, labels are worth most.

Shapes: N rows, K labeling functions.
"""

import json

import numpy as np
import pandas as pd
import pytest

import modicum as md
from modicum_algorithms.weak.experiments.active import ActiveWeakLearning
from modicum_algorithms.weak.experiments.config import ActiveLearningConfig

HARD = 4.0  # rows above this second feature have wrong votes
LABELS, SEEDS = 10, 4


def hidden_region(seed, path):
    """900 rows of two classes that lie left and right, and a tenth of them between, far above.

    Elsewhere four functions are right in 90% of cases. Of the rows between, all of class 1, two
    functions name the wrong class as often as that: their votes cancel, and only labels can tell.
    """
    rng = np.random.default_rng(seed)
    hard_N = rng.random(900) < 0.1
    labels_N = np.where(hard_N, 1, rng.integers(0, 2, 900))
    features_ND = 0.7 * rng.normal(size=(900, 2))
    features_ND[:, 0] += np.where(hard_N, 0, np.where(labels_N == 1, 2, -2))
    features_ND[:, 1] += np.where(hard_N, 6, 0)
    right_NK = (rng.random((900, 4)) < 0.9) ^ (hard_N[:, None] & (np.arange(4) < 2))
    frame = pd.DataFrame(features_ND, columns=["feature_a", "feature_b"])
    votes_NK = np.where(right_NK, labels_N[:, None], 1 - labels_N[:, None])
    frame[[f"vote_{k}" for k in range(4)]] = votes_NK
    frame["label"] = labels_N
    frame["split"] = ["train"] * 500 + ["valid"] * 200 + ["test"] * 200
    frame.to_csv(path, index=False)
    return features_ND[:500, 1] > HARD


def share_in_region(acquisition, method, folder):
    """The region's share of the first labels, acquired from votes alone, mean over seeds."""
    shares = []
    for seed in range(SEEDS):
        scratch = folder / f"{acquisition}-{seed}"
        scratch.mkdir(parents=True)
        hard_N = hidden_region(seed, scratch / "rows.csv")
        assert 0.05 < hard_N.mean() < 0.15
        config = ActiveLearningConfig(
            dataset=str(scratch / "rows.csv"),
            method=method,
            acquisition=acquisition,
            initial_labels=0,
            labels_per_round=LABELS,
            rounds=1,
            ensemble_size=3,
            end_model_weight=1.0,
            hidden_units=16,
            hidden_layers=1,
            learning_rate=1e-2,
            max_iterations=150,
            save_model=True,
        )
        trial = md.Trial(id="t", seed=seed, scratch=scratch)
        *_, last = ActiveWeakLearning().run(config, trial)
        rows = json.loads((last.checkpoint / "model.json").read_text())["acquired"]
        assert len(rows) == LABELS
        shares.append(hard_N[rows].mean())
    return np.mean(shares)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["iwl", "iwld"])
def test_informed_acquisitions_find_the_region_where_votes_are_wrong(tmp_path, method):
    """Random labels fall there as often as rows do, about one in ten."""
    share = {
        acquisition: share_in_region(acquisition, method, tmp_path)
        for acquisition in ("random", "entropy", "disagreement", "information_gain")
    }
    assert share["random"] < 0.25
    assert share["entropy"] > share["random"] + 0.15
    assert share["disagreement"] > share["random"] + 0.15
    assert share["information_gain"] > share["random"] + 0.4
