"""The estimators against scikit-learn's own checks."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from modicum_algorithms.weak.estimators import (
    DenoiseClassifier,
    IntegratedWeakLearner,
    LabelsOnlyClassifier,
    MajorityVoteClassifier,
    SnorkelClassifier,
    WeaselClassifier,
)

SMALL = {"hidden_units": 16, "hidden_layers": 1, "learning_rate": 1e-2, "max_iterations": 100}
KINDS = [
    MajorityVoteClassifier,
    SnorkelClassifier,
    WeaselClassifier,
    DenoiseClassifier,
    LabelsOnlyClassifier,
    IntegratedWeakLearner,
]


@parametrize_with_checks([kind(random_state=0, **SMALL) for kind in KINDS])
def test_scikit_learn(estimator, check):
    check(estimator)
