"""The embedded data set: scikit-learn's breast-cancer data with ten labeling functions.

The data are 569 fine-needle aspirates with 30 measurements of cell nuclei (Street, Wolberg and
Mangasarian 1993), 212 of them malignant. The rules use what a cytologist looks at, size,
texture and irregular outline; higher values point to malignant. No label was used to set a
threshold: each is the lower or upper quartile of its measurement over all 569 rows, and a rule
abstains between its quartiles. Four rules have one threshold only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

import modicum as md

BENIGN, MALIGNANT = 0, 1
CLASSES = ("benign", "malignant")

# The split is fixed, as in benchmarks: trial seeds choose strong labels and initialisation only.
_SPLIT_SEED = 569
_TRAIN, _VALID = 341, 114


@dataclass(frozen=True)
class ThresholdRule:
    """A labeling function: benign below one threshold, malignant above another, else an abstain.

    Attributes:
        measurement: Name of the measurement in scikit-learn's data.
        below: Lower quartile, or None if the rule never votes benign.
        above: Upper quartile, or None if the rule never votes malignant.
    """

    measurement: str
    below: float | None
    above: float | None

    def votes(self, values_N: np.ndarray) -> np.ndarray:
        """Votes for values of the measurement, int64 (N,)."""
        votes_N = np.full(len(values_N), md.data.ABSTAIN, dtype=np.int64)
        if self.below is not None:
            votes_N[values_N < self.below] = BENIGN
        if self.above is not None:
            votes_N[values_N > self.above] = MALIGNANT
        return votes_N


RULES = (
    ThresholdRule("mean texture", 16.17, 21.80),
    ThresholdRule("worst texture", 21.08, 29.72),
    ThresholdRule("worst smoothness", 0.1166, 0.1460),
    ThresholdRule("worst symmetry", 0.2504, 0.3179),
    ThresholdRule("worst fractal dimension", 0.07146, 0.09208),
    ThresholdRule("mean compactness", 0.06492, 0.1304),
    ThresholdRule("worst compactness", 0.1472, None),
    ThresholdRule("worst concavity", None, 0.3829),
    ThresholdRule("area error", None, 45.19),
    ThresholdRule("worst radius", 13.01, None),
)
LABELING_FUNCTIONS = tuple(rule.measurement for rule in RULES)


@cache
def load_arrays() -> dict[str, np.ndarray]:
    """Features, votes and labels of every split, as `<split>_features` and so on.

    Features are standardised with the mean and deviation of the training split.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    names = list(bunch.feature_names)
    # scikit-learn has malignant as 0.
    labels_N = (1 - bunch.target).astype(np.int64)
    votes_NK = np.stack(
        [rule.votes(bunch.data[:, names.index(rule.measurement)]) for rule in RULES], axis=1
    )
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels_N))
    train = order[:_TRAIN]
    centre, scale = bunch.data[train].mean(0), bunch.data[train].std(0)
    features_ND = ((bunch.data - centre) / scale).astype(np.float32)
    rows = {
        "train": train,
        "valid": order[_TRAIN : _TRAIN + _VALID],
        "test": order[_TRAIN + _VALID :],
    }
    arrays = {}
    for split, chosen in rows.items():
        arrays[f"{split}_features"] = features_ND[chosen]
        arrays[f"{split}_votes"] = votes_NK[chosen]
        arrays[f"{split}_labels"] = labels_N[chosen]
    return arrays
