"""Every method on the worst of data: a clear error, or finite and valid probabilities."""

import numpy as np
import pytest

import modicum as md
from modicum_algorithms.weak.config import THESIS, WeakLearningConfig
from modicum_algorithms.weak.data.datasets import Split, WeakData
from modicum_algorithms.weak.estimators import (
    DenoiseClassifier,
    IntegratedWeakLearner,
    LabelsOnlyClassifier,
    MajorityVoteClassifier,
    SnorkelClassifier,
    WeaselClassifier,
)
from weak_training import train

N, K, C = 12, 3, 3
METHODS = {
    "majority_vote": (MajorityVoteClassifier, {}),
    "majority_vote, replaced": (
        MajorityVoteClassifier,
        {"strong_labels": "replace", "uncovered": "uniform"},
    ),
    "snorkel": (SnorkelClassifier, {}),
    "weasel": (WeaselClassifier, {}),
    "denoise": (DenoiseClassifier, {}),
    "labels_only": (LabelsOnlyClassifier, {}),
    "iwl": (IntegratedWeakLearner, {}),
    "iwl, thesis": (IntegratedWeakLearner, THESIS),
    "iwl, missing": (IntegratedWeakLearner, {"abstain": "missing", "lambda_balance": 1.0}),
    "iwl, em": (IntegratedWeakLearner, {"transition_updates": "em", "latent_states": 2}),
    "iwld": (IntegratedWeakLearner, {"depends_on_x": True, "latent_states": 3}),
    # Em is iWL's alone: a grid over methods and updates meets the two together.
    "iwld, em": (IntegratedWeakLearner, {"depends_on_x": True, "transition_updates": "em"}),
}


def ordinary(rows=N, functions=K, classes=C):
    """Random data of which half has labels."""
    rng = np.random.default_rng(0)
    votes = rng.integers(-1, classes, size=(rows, functions))
    votes[0, 0] = 0
    known = np.arange(rows) < (rows + 1) // 2
    labels = np.where(known, np.arange(rows) % classes, -1)
    return {"X": rng.normal(size=(rows, 2)), "y": labels, "votes": votes, "classes": classes}


def changed(**changes):
    data = ordinary()
    return data | {name: change(data[name].copy()) for name, change in changes.items()}


def put(place, value):
    def change(array):
        array[place] = value
        return array

    return change


EVERYWHERE = np.s_[:]
EXTREMES = {
    "ordinary": ordinary(),
    "one row": ordinary(rows=1),
    "two rows": ordinary(rows=2),
    "one function": ordinary(functions=1),
    "more functions than rows": ordinary(functions=200),
    "huge features": changed(X=lambda X: X * 1e30),
    "largest features": changed(X=put(EVERYWHERE, 3e38)),
    "one huge feature": changed(X=put((3, 1), -3e38)),
    "tiny features": changed(X=lambda X: X * 1e-40),
    "constant features": changed(X=put(EVERYWHERE, 0.0)),
    "all abstain": changed(votes=put(EVERYWHERE, -1)),
    "one vote": changed(votes=lambda votes: np.where(np.indices(votes.shape).sum(0) == 0, 1, -1)),
    "a silent function": changed(votes=put(np.s_[:, 1], -1)),
    "a class without votes": changed(votes=lambda votes: np.where(votes == 2, -1, votes)),
    "a class without rows": changed(y=put(EVERYWHERE, -1), votes=lambda v: np.minimum(v, 1)),
    "everyone votes alike": changed(votes=put(EVERYWHERE, 0)),
    "nobody abstains": changed(votes=lambda votes: np.maximum(votes, 0)),
    "all labels": changed(y=lambda y: np.arange(N) % C),
    "no labels": changed(y=put(EVERYWHERE, -1)),
    "one label": changed(y=put(np.s_[1:], -1)),
    "one class": ordinary(classes=1),
}


def fit_or_refusal(estimator, data):
    """What a refusal says; nothing of a fit that went well."""
    try:
        estimator.fit(data["X"], data["y"], weak_labels=data["votes"])
    except md.InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_survives_every_extreme(method, extreme):
    data = EXTREMES[extreme]
    kind, settings = METHODS[method]
    estimator = kind(
        **{"classes": range(data["classes"]), "random_state": 0, "max_iterations": 12}
        | {"hidden_units": 8}
        | settings
    )
    if method == "labels_only" and (data["y"] < 0).all():
        with pytest.raises(md.InputError, match="y: LabelsOnlyClassifier needs class labels"):
            estimator.fit(data["X"], data["y"], weak_labels=data["votes"])
        return
    refused = fit_or_refusal(estimator, data)
    if refused:  # sums of such numbers overflow in some networks
        assert extreme == "largest features"
        assert "or scale X" in refused
        return
    probabilities = estimator.predict_proba(data["X"])
    assert probabilities.shape == (len(data["X"]), data["classes"])
    assert np.isfinite(probabilities).all()
    assert probabilities.sum(1) == pytest.approx(np.ones(len(probabilities)), abs=1e-5)
    found = estimator.label_model_
    assert np.isfinite(found.transitions).all()
    assert found.transitions.sum(1) == pytest.approx(
        np.ones(found.transitions.shape[::2]), abs=1e-4
    )
    assert found.class_balance.sum() == pytest.approx(1, abs=1e-5)
    # Of a function that votes, an accuracy; of one that never does, none.
    assert np.isnan(found.accuracy).tolist() == (data["votes"] < 0).all(0).tolist()
    known = found.accuracy[found.coverage > 0]
    assert ((known >= 0) & (known <= 1 + 1e-6)).all()


WRONG = {
    "votes outside": (changed(votes=put((2, 1), 3)), "weak_labels: 3 is not one of the classes"),
    "votes below": (changed(votes=put((2, 1), -2)), "weak_labels: -2 is not one of the classes"),
    "label outside": (changed(y=put(2, 7)), "y: 7 is not one of the classes"),
    "NaN": (changed(X=put((1, 0), np.nan)), "X contains NaN"),
    "infinite": (changed(X=put((1, 0), -np.inf)), "X contains infinity"),
    "not for float32": (changed(X=put((1, 0), 1e300)), "X contains infinity"),
    "no rows": ({**ordinary(), **{n: ordinary()[n][:0] for n in ("X", "y", "votes")}}, "0 sample"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # 1e300 on its way to an error
def test_every_method_names_what_is_wrong(method, wrong):
    data, message = WRONG[wrong]
    kind, settings = METHODS[method]
    estimator = kind(classes=range(C), max_iterations=2, **settings)
    with pytest.raises(ValueError, match=message):
        estimator.fit(data["X"], data["y"], weak_labels=data["votes"])


def test_values_too_large_for_a_trained_network_are_refused():
    data = ordinary()
    estimator = LabelsOnlyClassifier(classes=range(C), max_iterations=200, learning_rate=0.1)
    estimator.fit(data["X"], data["y"])
    with pytest.raises(md.InputError, match="X: has values too large for the trained network"):
        estimator.predict(np.full((1, 2), 3e38))


TRIALS = {
    "one row": (ordinary(rows=1), {}),
    "one function": (ordinary(functions=1), {}),
    "huge features": (EXTREMES["huge features"], {}),
    "a silent function": (EXTREMES["a silent function"], {}),
    "a class without votes": (EXTREMES["a class without votes"], {}),
    "a batch of everything": (ordinary(), {"batch_size": 10**6}),
    "balance": (EXTREMES["one label"], {"class_balance": "validation", "lambda_balance": 1.0}),
}
STUDIED = ("majority_vote", "snorkel", "weasel", "denoise", "labels_only", "iwl", "iwld")


@pytest.mark.parametrize("case", TRIALS)
@pytest.mark.parametrize("method", STUDIED)
def test_trials_on_extremes_score(method, case, tmp_path):
    data, settings = TRIALS[case]
    labels = np.arange(len(data["X"])) % C
    split = Split(data["X"].astype(np.float32), data["votes"], labels)
    config = WeakLearningConfig(
        method=method, strong_fraction=0.1, max_iterations=12, hidden_units=8, **settings
    )
    result = train(
        config, WeakData(("a", "b", "c"), *[split] * 3), md.Trial(id="t", seed=0, scratch=tmp_path)
    )
    assert result.strong_labels == 1
    scores = (result.test.accuracy, result.test.f1, result.estimator.validation_score_)
    assert all(0 <= score <= 1 for score in scores)
