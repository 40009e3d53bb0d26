"""The estimators: scikit-learn's own checks, votes beside labels, the numbers of a study."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import modicum as md
from modicum_algorithms.weak.config import TRIED, WeakLearningConfig
from modicum_algorithms.weak.data import datasets
from modicum_algorithms.weak.estimators import (
    DenoiseClassifier,
    IntegratedWeakLearner,
    LabelsOnlyClassifier,
    MajorityVoteClassifier,
    SnorkelClassifier,
    WeaselClassifier,
)
from modicum_algorithms.weak.run import choose_strong
from weak_training import train

SMALL = {"hidden_units": 16, "hidden_layers": 1, "learning_rate": 1e-2, "max_iterations": 30}
METHODS = {
    "majority_vote": MajorityVoteClassifier(),
    "snorkel": SnorkelClassifier(),
    "weasel": WeaselClassifier(),
    "denoise": DenoiseClassifier(),
    "labels_only": LabelsOnlyClassifier(),
    "iwl": IntegratedWeakLearner(),
    "iwld": IntegratedWeakLearner(depends_on_x=True),
}
OF_VOTES = [name for name in METHODS if name != "labels_only"]


def small(method, **parameters):
    return clone(METHODS[method]).set_params(random_state=0, **{**SMALL, **parameters})


@parametrize_with_checks(
    [small(method) for method in METHODS if method != "iwld"],
    expected_failed_checks=lambda estimator: {
        "check_classifiers_classes": "takes -1 for a class; here it marks an unknown label"
    },
)
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def data():
    return datasets.load("breast_cancer", "auto")


@pytest.fixture(scope="module")
def toy():
    """60 rows of two classes 3 apart, four functions right in 80% of cases, 30% abstains."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    features = rng.normal(size=(60, 3)) + 3.0 * labels[:, None]
    votes = np.where(rng.random((60, 4)) < 0.8, labels[:, None], 1 - labels[:, None])
    votes[rng.random((60, 4)) < 0.3] = -1
    return features, np.where(np.arange(60) < 12, labels, -1), votes, labels


@pytest.mark.parametrize("method", METHODS)
def test_an_estimator_gives_the_numbers_of_a_study(method, data, tmp_path):
    config = WeakLearningConfig(method=method, strong_fraction=0.1, max_iterations=40)
    trial = md.Trial(id="t", seed=3, scratch=tmp_path)
    result = train(config, data, trial)
    known = choose_strong(341, 0.1, trial.generator("strong"))
    names = np.array(data.classes)
    y = np.full(341, "-1", dtype=object)
    y[known] = names[data.train.labels_N[known]]
    estimator = clone(METHODS[method]).set_params(max_iterations=40, random_state=3)
    estimator.fit(
        data.train.features_ND,
        y,
        weak_labels=np.where(data.train.votes_NK < 0, "-1", names[data.train.votes_NK]),
        X_valid=data.valid.features_ND,
        y_valid=names[data.valid.labels_N],
    )
    assert result.strong_labels == 34
    assert estimator.score(data.test.features_ND, names[data.test.labels_N]) == result.test.accuracy
    assert estimator.validation_score_ == result.estimator.validation_scores_.accuracy
    assert estimator.n_iter_ == result.estimator.n_iter_
    theirs = result.estimator.predict_proba(data.test.features_ND)
    assert np.array_equal(estimator.predict_proba(data.test.features_ND), theirs)


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_of_a_method_is_a_parameter(method):
    """What `used_by` gives to a method can be set on its estimator."""
    fields = WeakLearningConfig.model_fields
    used = {
        name
        for name, info in fields.items()
        if method in ((info.json_schema_extra["used_by"] or {}).get("method") or ())
    }
    assert used <= set(METHODS[method].names.values())
    assert set(METHODS[method].names) <= set(METHODS[method].get_params())


@pytest.mark.parametrize("method", METHODS)
def test_without_votes_all_methods_learn_from_labels_alone(method, toy):
    features, y, votes, _ = toy
    wanted = small("labels_only").fit(features, y).predict_proba(features)
    silent = np.full_like(votes, -1)
    for weak_labels in (None, np.empty((60, 0), dtype=int), silent):
        estimator = small(method).fit(features, y, weak_labels=weak_labels)
        assert np.array_equal(estimator.predict_proba(features), wanted)
    assert estimator.label_model_.table["coverage"].eq(0).all()
    assert estimator.label_model_.table["accuracy"].isna().all()


@pytest.mark.parametrize("method", OF_VOTES)
def test_votes_alone_are_enough(method, toy):
    features, _, votes, labels = toy
    for y in (None, np.full(60, -1)):
        estimator = small(method, max_iterations=100).fit(features, y, weak_labels=votes)
        assert estimator.score(features, labels) > 0.8
        assert estimator.n_iter_ == 100
        assert estimator.validation_score_ is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mark", [-1, "-1"])
def test_names_of_classes_change_nothing_but_names(method, mark, toy):
    features, y, votes, _ = toy
    names = np.array(["ham", "spam"], dtype=object)
    plain = small(method).fit(features, y, weak_labels=votes)
    named = small(method).fit(
        features,
        np.where(y < 0, mark, names[y]),
        weak_labels=pd.DataFrame(np.where(votes < 0, mark, names[votes]), columns=list("abcd")),
    )
    assert named.classes_.tolist() == ["ham", "spam"]
    assert np.array_equal(named.predict_proba(features), plain.predict_proba(features))
    assert np.array_equal(named.predict(features), names[plain.predict(features)])
    assert named.label_model_.table.index.tolist() == list("abcd")


@pytest.mark.parametrize("method", METHODS)
def test_one_class(method, toy):
    features, _, votes, _ = toy
    given = {"y": np.ones(60, dtype=int)}
    if method != "labels_only":
        given = {"weak_labels": np.where(votes < 0, -1, 1)}
    estimator = small(method).fit(features, **given)
    assert estimator.predict(features).tolist() == [1] * 60
    assert estimator.predict_proba(features).tolist() == [[1.0]] * 60


X, Y, VOTES = np.eye(3), [0, 1, -1], [[0, 1], [1, -1], [-1, -1]]
MISTAKES = {
    "neither": ("iwl", {}, {"y": None}, "y or votes in weak_labels, got none"),
    "all unknown": ("iwl", {}, {"y": [-1] * 3, "weak_labels": [[-1]] * 3}, "got none"),
    "labels only": (
        "labels_only",
        {},
        {"y": None, "weak_labels": VOTES},
        "needs class labels in y",
    ),
    "strange vote": ("iwl", {}, {"weak_labels": [[0], [7], [-1]]}, "weak_labels: 7 is not one of"),
    "strange label": ("iwl", {"classes": ["a", "b"]}, {"y": ["a", "c", "-1"]}, "y: 'c' is not one"),
    "mixed": ("iwl", {}, {"y": np.array([0, "a", -1], dtype=object)}, "y: class labels must be"),
    "rows": ("iwl", {}, {"weak_labels": VOTES[:2]}, "weak_labels: must have 3 rows"),
    "flat votes": ("iwl", {}, {"weak_labels": [0, 1, -1]}, "weak_labels: must have 3 rows"),
    "half valid": ("iwl", {}, {"X_valid": X}, "y_valid: X_valid and y_valid"),
    "unknown valid": ("iwl", {}, {"X_valid": X, "y_valid": Y}, "y_valid: every row"),
    "strange valid": ("iwl", {}, {"X_valid": X, "y_valid": [0, 1, 4]}, "y_valid: 4 is not one of"),
    "width": ("iwl", {}, {"X_valid": X[:, :2], "y_valid": [0, 1, 1]}, "X has 2 features"),
    "infinite": ("iwl", {}, {"X": np.full((3, 3), np.inf)}, "contains NaN|contains infinity"),
    "parameter": ("iwl", {"batch_size": 0}, {}, "batch_size: .* greater than or equal to 1 .got 0"),
    "no vote": (
        "iwl",
        {},
        {"weak_labels": np.array([[0], [None], [1]], dtype=object)},
        "weak_labels: .* -1, not None, marks",
    ),
    "two types": ("iwl", {"lambda_strong": "valid"}, {}, "lambda_strong: .* number.*'validated'"),
    "choice": ("iwl", {"abstain": "maybe"}, {}, "abstain: .*'emission' or 'missing'"),
    "own name": ("weasel", {"temperature": -1.0}, {}, "temperature: must be above 0"),
    "together": ("denoise", {"c1": 0.8}, {}, "denoise_c1 and denoise_c2"),
    "one row": ("weasel", {"batch_size": 1}, {}, "batch_size: weasel .* 2 or more"),
    "diverged": ("labels_only", {"learning_rate": 1e38}, {}, "learning_rate: training diverged"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named(case):
    method, parameters, given, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message):
        small(method, **parameters).fit(**{"X": X, "y": Y, **given})


def test_a_failed_fit_leaves_no_fitted_estimator(toy):
    features, y, *_ = toy
    estimator = small("labels_only")
    with pytest.raises(ValueError, match="y_valid"):
        estimator.fit(features, y, X_valid=features)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        estimator.predict(features)


@pytest.mark.parametrize("method", METHODS)
def test_copies_predict_the_same_and_clones_train_the_same(method, toy, tmp_path):
    features, y, votes, _ = toy
    estimator = small(method).fit(features, y, weak_labels=votes)
    wanted = estimator.predict_proba(features)
    joblib.dump(estimator, tmp_path / "estimator")
    for copied in (pickle.loads(pickle.dumps(estimator)), joblib.load(tmp_path / "estimator")):
        assert np.array_equal(copied.predict_proba(features), wanted)
    state = torch.get_rng_state()
    torch.rand(3)  # torch's own generator has no say
    again = clone(estimator).fit(features, y, weak_labels=votes)
    assert np.array_equal(again.predict_proba(features), wanted)
    torch.set_rng_state(state)
    other = clone(estimator).set_params(random_state=1).fit(features, y, weak_labels=votes)
    assert not np.array_equal(other.predict_proba(features), wanted)
    assert torch.get_rng_state().equal(state)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("routing")
def test_votes_and_validation_travel_through_a_pipeline(toy):
    features, y, votes, labels = toy
    request = {"weak_labels": True, "X_valid": True, "y_valid": True}
    pipeline = make_pipeline(
        StandardScaler(), small("iwl").set_fit_request(**request), transform_input=["X_valid"]
    )
    pipeline.fit(features, y, weak_labels=votes, X_valid=features[:20], y_valid=labels[:20])
    scaler = StandardScaler().fit(features)
    by_hand = small("iwl").fit(
        scaler.transform(features),
        y,
        weak_labels=votes,
        X_valid=scaler.transform(features[:20]),
        y_valid=labels[:20],
    )
    wanted = by_hand.predict_proba(scaler.transform(features))
    assert np.array_equal(pipeline.predict_proba(features), wanted)


@pytest.mark.usefixtures("routing")
def test_a_search_gives_each_fold_its_votes(toy):
    features, _, votes, labels = toy
    estimator = small("majority_vote").set_fit_request(weak_labels=True)
    folds = StratifiedKFold(3)
    grid = {"strong_labels": ["vote", "replace"]}
    search = GridSearchCV(estimator, grid, cv=folds).fit(features, labels, weak_labels=votes)
    for how, score in zip(
        search.cv_results_["param_strong_labels"],
        search.cv_results_["mean_test_score"],
        strict=True,
    ):
        scores = [
            clone(estimator)
            .set_params(strong_labels=how)
            .fit(features[rows], labels[rows], weak_labels=votes[rows])
            .score(features[rest], labels[rest])
            for rows, rest in folds.split(features, labels)
        ]
        assert score == pytest.approx(np.mean(scores))


@pytest.mark.slow
@pytest.mark.usefixtures("routing")
def test_folds_in_processes_of_their_own_score_the_same(toy):
    features, _, votes, labels = toy
    estimator = small("iwl").set_fit_request(weak_labels=True)
    scores = [
        cross_val_score(estimator, features, labels, n_jobs=jobs, params={"weak_labels": votes})
        for jobs in (1, 2)
    ]
    assert np.array_equal(*scores)


def test_the_best_candidate_on_validation_is_kept(data):
    """Each is trained as it would be alone; of equally good ones the first wins."""
    rows = slice(0, 120)
    given = {
        "y": np.where(np.arange(120) < 6, data.train.labels_N[rows], -1),
        "weak_labels": data.train.votes_NK[rows],
        "X_valid": data.valid.features_ND,
        "y_valid": data.valid.labels_N,
    }
    features = data.train.features_ND[rows]
    alone = {
        value: small("weasel", temperature=value).fit(features, **given)
        for value in TRIED["weasel_temperature"]
    }
    scores = {value: estimator.validation_score_ for value, estimator in alone.items()}
    best = max(scores, key=scores.get)  # of equals the first, in the order tried
    together = small("weasel", temperature="validated").fit(features, **given)
    assert together.chosen_ == {"temperature": best}
    assert together.validation_score_ == scores[best]
    wanted = alone[best].predict_proba(features)
    assert np.array_equal(together.predict_proba(features), wanted)
    del given["X_valid"], given["y_valid"]
    assert small("weasel", temperature="validated").fit(features, **given).chosen_ == {
        "temperature": TRIED["weasel_temperature"][0]
    }
