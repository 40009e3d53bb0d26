"""Active labels: scores of rows, the joint posterior they come from, rounds of acquisition."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

import modicum as md
from modicum_algorithms.weak.acquisition import best_rows, entropy, information_gain, jensen_shannon
from modicum_algorithms.weak.checkpoints import load_model, save_trained
from modicum_algorithms.weak.config import IntegratedConfig, WeakLearningConfig
from modicum_algorithms.weak.data import datasets
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.estimators import IntegratedWeakLearner, LabelsOnlyClassifier
from modicum_algorithms.weak.experiment import WeakLearning
from modicum_algorithms.weak.experiments.active import ActiveWeakLearning
from modicum_algorithms.weak.experiments.active_run import label_model_disagreement, label_order
from modicum_algorithms.weak.experiments.config import ActiveLearningConfig
from modicum_algorithms.weak.methods.integrated import integrated_objective
from modicum_algorithms.weak.models.end_model import mlp
from modicum_algorithms.weak.models.joint_model import JointModel

SMALL = {"hidden_units": 16, "hidden_layers": 1, "learning_rate": 1e-2, "max_iterations": 30}
QUICK = SMALL | {"end_model_weight": 1.0, "lambda_strong": 1.0}  # nothing is validated
ROUNDS = {"initial_labels": 4, "labels_per_round": 3, "rounds": 2}
TIMES = {name for name, metric in ActiveWeakLearning.metrics.items() if metric.timing}
# Every method, every acquisition, and both label models with those that need one.
EVERY = [
    ("majority_vote", "random"),
    ("snorkel", "entropy"),
    ("weasel", "entropy"),
    ("denoise", "entropy"),
    ("labels_only", "random"),
    ("iwl", "entropy"),
    ("iwl", "disagreement"),
    ("iwl", "information_gain"),
    ("iwld", "disagreement"),
    ("iwld", "information_gain"),
]


def distributions(*shape, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])


def naive_entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


# Scores


def test_entropy_by_hand():
    """(1/2, 1/2, 0): log 2. (1, 0, 0): 0. (1/2, 1/4, 1/4): log 2 / 2 + log 4 / 2 = 3/2 log 2."""
    p = np.array([[0.5, 0.5, 0], [1, 0, 0], [0.5, 0.25, 0.25], [1 / 3] * 3])
    wanted = [math.log(2), 0, 1.5 * math.log(2), math.log(3)]
    assert entropy(p) == pytest.approx(wanted)
    assert entropy(p.astype(np.float32)) == pytest.approx(wanted, abs=1e-6)


def test_jensen_shannon_by_hand():
    """(1, 0) and (1/2, 1/2) have the mean (3/4, 1/4): log(4/3)/2 + (log(2/3) + log 2)/4."""
    p = np.array([[1.0, 0.0], [1.0, 0.0], [0.3, 0.7]])
    r = np.array([[0.5, 0.5], [0.0, 1.0], [0.3, 0.7]])
    wanted = [math.log(4 / 3) / 2 + (math.log(2 / 3) + math.log(2)) / 4, math.log(2), 0]
    assert jensen_shannon(p, r) == pytest.approx(wanted)
    assert jensen_shannon(r, p) == pytest.approx(wanted)


def test_jensen_shannon_is_the_entropy_of_the_mean_less_the_mean_entropy():
    p, r = distributions(40, 5), distributions(40, 5, seed=1)
    wanted = [
        naive_entropy((a + b) / 2) - (naive_entropy(a) + naive_entropy(b)) / 2
        for a, b in zip(p, r, strict=True)
    ]
    assert jensen_shannon(p, r) == pytest.approx(wanted)


def test_information_gain_where_members_agree_and_where_each_is_certain():
    """Agreeing members tell nothing; C certain ones that name a class each tell log C nats.

    Two of four certain members for each of two classes: log 2. Members that are all unsure in the
    same way have entropy, but nothing to learn.
    """
    agree = np.broadcast_to(distributions(7, 4), (3, 7, 4))
    assert information_gain(agree) == pytest.approx(np.zeros(7), abs=1e-12)
    assert information_gain(np.eye(5)[:, None]) == pytest.approx([math.log(5)])
    assert information_gain(np.eye(2)[[0, 0, 1, 1]][:, None]) == pytest.approx([math.log(2)])
    unsure = np.full((3, 1, 2), 0.5)
    assert information_gain(unsure) == pytest.approx([0])


def test_information_gain_against_a_loop():
    q = distributions(4, 20, 3)
    wanted = [
        naive_entropy(q[:, n].mean(0)) - sum(naive_entropy(q[m, n]) for m in range(4)) / 4
        for n in range(20)
    ]
    assert information_gain(q) == pytest.approx(wanted)
    assert information_gain(q.astype(np.float32)) == pytest.approx(wanted, abs=1e-5)


def test_the_best_rows_come_first_and_ties_keep_their_order():
    rows, scores = np.array([8, 3, 5, 1, 9]), np.array([0.2, 0.7, 0.2, 0.7, 0.1])
    assert best_rows(rows, scores, 3).tolist() == [3, 1, 8]
    assert best_rows(rows, scores, 9).tolist() == [3, 1, 8, 5, 9]
    assert best_rows(rows, np.zeros(5), 2).tolist() == [8, 3]


# The joint posterior of any rows


def joint(pointwise, **settings):
    """A joint model of 30 rows, 3 functions and 3 classes whose matrices are not symmetric."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    features = torch.from_numpy(rng.normal(size=(30, 4)).astype(np.float32))
    votes = rng.integers(-1, 3, size=(30, 3))
    votes[:5] = -1
    labels = np.where(np.arange(30) % 10 == 7, rng.integers(0, 3, 30), -1)
    supervision = Supervision(features, votes, labels, 3, BALANCE)
    model = mlp(4, 3, [8], generator)
    objective = integrated_objective(
        model, supervision, IntegratedConfig(**settings), generator, depends_on_x=pointwise
    )
    with torch.no_grad():
        for parameter in (*model.parameters(), *objective.label_network.parameters()):
            parameter += torch.randn(parameter.shape, generator=generator) / 2
    return model, supervision, objective


BALANCE = np.array([0.5, 0.2, 0.3])
TEMPERED = {
    "vote_weight": 0.7,
    "abstain_weight": 0.3,
    "end_model_weight": 0.6,
}
SETTINGS = [
    {"coverage_vote": False, "self_supervision": False} | TEMPERED,
    {"coverage_vote": True, "self_supervision": True, "self_confidence": 0.6} | TEMPERED,
    {"coverage_vote": True, "self_supervision": False, "abstain": "missing"} | TEMPERED,
    {"coverage_vote": False, "self_supervision": True, "self_confidence": 0.6} | TEMPERED,
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("pointwise", [False, True])
def test_the_posterior_against_a_loop_over_votes(pointwise, settings):
    model, supervision, objective = joint(pointwise, **settings)
    q = objective.joint_posterior(supervision.features_ND, supervision.votes_NK)
    prior = np.array([0.2, 0.5, 0.3])
    of_votes = objective.joint_posterior.of_votes(
        supervision.features_ND, supervision.votes_NK, prior
    )
    with torch.no_grad():
        log_p = model(supervision.features_ND).log_softmax(-1)
        log_phi = objective.label_network.outputs(supervision.features_ND)[0][..., 0]
    emitted = settings.get("abstain") != "missing"
    for n, votes in enumerate(supervision.votes_NK):
        evidence, own = np.zeros(3), np.zeros(3)
        for k, vote in enumerate(votes):
            if vote >= 0:
                evidence += 0.7 * log_phi[n, vote, k].numpy()
            elif emitted:
                evidence += 0.3 * log_phi[n, 3, k].numpy()
        if settings["coverage_vote"]:
            evidence += log_phi[n, int((votes < 0).all()), 3].numpy()
        if settings["self_supervision"] and log_p[n].exp().max() > 0.6:
            own = 0.7 * log_phi[n, int(log_p[n].argmax()), -1].numpy()
        wanted = BALANCE**0.4 * np.exp(0.6 * log_p[n].numpy() + evidence + own)
        assert q[n] == pytest.approx(wanted / wanted.sum(), abs=1e-5)
        alone = prior * np.exp(evidence)
        assert of_votes[n] == pytest.approx(alone / alone.sum(), abs=1e-5)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("pointwise", [False, True])
def test_the_posterior_of_training_rows_is_what_training_made_of_them(pointwise, settings):
    model, supervision, objective = joint(pointwise, **settings)
    trained = JointModel(
        model,
        supervision,
        IntegratedConfig(**settings),
        torch.Generator().manual_seed(1),
        depends_on_x=pointwise,
    )
    weak = np.flatnonzero(supervision.labels_N < 0)
    some = np.random.default_rng(1).permutation(weak)[:9]
    log_classes, _, evidence = trained(torch.from_numpy(some))
    wanted = trained.posterior(log_classes, evidence).numpy()
    q = trained.on_any_rows()(supervision.features_ND[some], supervision.votes_NK[some])
    assert q == pytest.approx(wanted, abs=1e-6)
    objective.label_network.load_state_dict(trained.label_model.state_dict())
    assert objective.denoised()[some] == pytest.approx(wanted, abs=1e-6)


@pytest.fixture(scope="module")
def toy():
    """50 rows of two classes 2 apart, three functions right in 75%, 40% abstains, 4 uncovered."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 50)
    features = (rng.normal(size=(50, 3)) + 2.0 * labels[:, None]).astype(np.float32)
    votes = np.where(rng.random((50, 3)) < 0.75, labels[:, None], 1 - labels[:, None])
    votes[rng.random((50, 3)) < 0.4] = -1
    votes[10:14] = -1
    return features, np.where(np.arange(50) < 6, labels, -1), votes


@pytest.mark.parametrize("depends_on_x", [False, True])
def test_estimators_predict_with_votes_under_any_names(toy, depends_on_x):
    features, y, votes = toy
    estimator = IntegratedWeakLearner(depends_on_x=depends_on_x, random_state=0, **QUICK)
    plain = estimator.fit(features, y, weak_labels=votes).predict_proba_with_votes(features, votes)
    assert plain.sum(1) == pytest.approx(np.ones(50), abs=1e-5)
    assert not np.allclose(plain, estimator.predict_proba(features))
    names = np.array(["ham", "spam"])
    frame = pd.DataFrame(np.where(votes < 0, "-1", names[votes]), columns=list("abc"))
    estimator.fit(features, np.where(y < 0, "-1", names[y]), weak_labels=frame)
    assert np.array_equal(estimator.predict_proba_with_votes(features, frame), plain)
    assert np.array_equal(estimator.predict_proba_with_votes(features, frame.to_numpy()), plain)
    swapped = features[::-1], frame[::-1]
    assert estimator.predict_proba_with_votes(*swapped) == pytest.approx(plain[::-1], abs=1e-6)


def test_without_votes_in_training_there_is_only_the_end_model(toy):
    features, y, _ = toy
    nothing = np.empty((50, 0), dtype=int)
    estimator = IntegratedWeakLearner(random_state=0, **QUICK).fit(features, y)
    wanted = estimator.predict_proba(features)
    assert np.array_equal(estimator.predict_proba_with_votes(features, nothing), wanted)


def test_wrong_votes_and_read_models_are_refused(toy, tmp_path):
    features, y, votes = toy
    frame = pd.DataFrame(votes, columns=list("abc"))
    estimator = IntegratedWeakLearner(random_state=0, **QUICK).fit(features, y, weak_labels=frame)
    wrong = {
        "labeling functions of fit": votes[:, :2],
        "'a', 'b', 'c'], got": frame[["b", "a", "c"]],
        "must have 50 rows": votes[:9],
        "7 is not one of": np.where(votes < 0, 7, votes),
    }
    for message, weak_labels in wrong.items():
        with pytest.raises(md.InputError, match=message):
            estimator.predict_proba_with_votes(features, weak_labels)
    save_trained(estimator, tmp_path / "model")
    with pytest.raises(md.InputError, match="read from a folder"):
        load_model(tmp_path / "model").predict_proba_with_votes(features, frame)
    assert LabelsOnlyClassifier(**SMALL).fit(features, y).joint_posterior_ is None


def test_there_is_no_disagreement_where_no_function_votes(toy):
    features, y, votes = toy
    estimator = IntegratedWeakLearner(random_state=0, **QUICK).fit(features, y, weak_labels=votes)
    prior = np.array([0.3, 0.7])
    scores = label_model_disagreement(estimator, features, votes, prior)
    voted = (votes >= 0).any(1)
    assert (~voted).sum() >= 4
    assert (scores[~voted] == 0).all()
    of_votes = estimator.joint_posterior_.of_votes(torch.from_numpy(features), votes, prior)
    wanted = jensen_shannon(estimator.predict_proba(features), of_votes)
    assert scores[voted] == pytest.approx(wanted[voted])


# Rounds


def records(tmp_path, method, acquisition, seed=0, trial=None, **settings):
    config = ActiveLearningConfig(
        method=method, acquisition=acquisition, **{**QUICK, **ROUNDS, **settings}
    )
    experiment = ActiveWeakLearning()
    experiment.check(config)
    scratch = tmp_path / f"{method}-{acquisition}-{seed}-{len(list(tmp_path.iterdir()))}"
    scratch.mkdir()
    return list(experiment.run(config, trial or md.Trial(id="t", seed=seed, scratch=scratch)))


def acquired(record):
    """Rows whose labels were known, in the order in which they became so."""
    return json.loads((record.checkpoint / "model.json").read_text())["acquired"]


def numbers(records):
    return [{n: v for n, v in r.metrics.items() if n not in TIMES} for r in records]


@pytest.mark.parametrize(("method", "acquisition"), EVERY)
def test_every_round_acquires_rows_that_it_did_not_have(tmp_path, method, acquisition):
    found = records(tmp_path, method, acquisition, save_model=True)
    assert [record.budget for record in found] == [4, 7, 10]
    rows = [acquired(record) for record in found]
    assert len(set(rows[-1])) == 10
    assert rows[1][:4] == rows[0]
    assert rows[2][:7] == rows[1]
    assert [record.metrics.get("acquisition/pool") for record in found] == [None, 337, 334]
    for record in found[1:]:
        assert record.metrics["acquisition/score"] >= record.metrics["acquisition/pool_score"]
        assert record.metrics["acquisition/errors"] in (0, 1 / 3, 2 / 3, 1)
    for name in found[1].metrics:
        ActiveWeakLearning().metric(name)


def test_the_record_tells_what_the_end_model_had_wrong(tmp_path):
    """Of the rows acquired in round 1, those that the model saved in round 0 predicts otherwise."""
    data = datasets.load("breast_cancer", "auto")
    first, second, _ = records(
        tmp_path, "iwl", "entropy", save_model=True, labels_per_round=20, max_iterations=3
    )
    rows = acquired(second)[4:]
    model = load_model(first.checkpoint)
    probabilities = model.predict_proba(data.train.features_ND)
    wrong = probabilities[rows].argmax(1) != data.train.labels_N[rows]
    assert 0 < wrong.mean() < 1
    assert second.metrics["acquisition/errors"] == pytest.approx(wrong.mean())
    left = np.setdiff1d(np.arange(341), acquired(first))
    scores = {row: naive_entropy(probabilities[row]) for row in left}
    assert set(rows) == set(sorted(left, key=scores.get)[-20:])
    assert second.metrics["acquisition/score"] == pytest.approx(
        np.mean([scores[row] for row in rows]), abs=1e-5
    )
    assert second.metrics["acquisition/pool_score"] == pytest.approx(
        np.mean(list(scores.values())), abs=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("acquisition", ["disagreement", "information_gain"])
def test_the_same_seed_gives_the_same_records(tmp_path, acquisition):
    once = records(tmp_path, "iwl", acquisition)
    assert numbers(records(tmp_path, "iwl", acquisition)) == numbers(once)
    assert numbers(records(tmp_path, "iwl", acquisition, seed=1)) != numbers(once)


@pytest.mark.slow
def test_both_runners_give_the_same_records(tmp_path, ray_cluster):
    def run(runner):
        study = md.Study(
            experiment=ActiveWeakLearning,
            space={"method": "iwl", "acquisition": md.grid("random", "entropy"), **QUICK, **ROUNDS},
            seeds=1,
        )
        frame = study.run(tmp_path / runner, runner=runner, quiet=True).frame
        timed = [name for name in frame if name in TIMES or name == "seconds"]
        return frame.drop(columns=timed).sort_values(["trial_id", "record"], ignore_index=True)

    local = run("local")
    assert local["budget"].tolist() == [4, 7, 10] * 2
    assert local.equals(run("ray"))


def test_random_rows_are_those_of_weak_whatever_the_method(tmp_path):
    """Round r of `random` is a trial of `weak` with as many labels: 4, 7 and 10 of 341."""
    rows = {}
    for method in ("iwl", "labels_only", "majority_vote"):
        found = records(tmp_path, method, "random", seed=3, save_model=True)
        rows[method] = [acquired(record) for record in found]
        for record in found:
            config = WeakLearningConfig(method=method, strong_fraction=record.budget / 341, **QUICK)
            trial = md.Trial(id="t", seed=3, scratch=tmp_path)
            (alone,) = WeakLearning().run(config, trial)
            assert alone.budget == record.budget
            for name in ("test/accuracy", "test/f1", "validation/f1", "train/best_iteration"):
                assert alone.metrics[name] == record.metrics[name]
            right = record.outcomes["test/accuracy"]
            assert right == alone.outcomes["test/accuracy"].tolist()
    assert rows["iwl"] == rows["labels_only"] == rows["majority_vote"]


def test_all_acquisitions_start_from_the_same_labels(tmp_path):
    starts = [
        acquired(records(tmp_path, "iwl", acquisition, save_model=True, rounds=1)[0])
        for acquisition in ("random", "entropy", "disagreement", "information_gain")
    ]
    assert starts == [starts[0]] * 4


@pytest.mark.slow
@pytest.mark.parametrize("acquisition", ["random", "entropy", "information_gain"])
def test_a_resumed_trial_goes_on_as_if_it_had_not_stopped(tmp_path, acquisition):
    whole = records(tmp_path, "iwl", acquisition, save_model=True, rounds=3)
    for done in (1, 2, 4):
        scratch = tmp_path / f"resumed-{done}"
        scratch.mkdir()
        trial = md.Trial(
            id="t",
            seed=0,
            scratch=scratch,
            checkpoint=whole[done - 1].checkpoint,
            records_done=done,
        )
        rest = records(tmp_path, "iwl", acquisition, trial=trial, save_model=True, rounds=3)
        assert [record.budget for record in rest] == [4, 7, 10, 13][done:]
        assert numbers(rest) == numbers(whole[done:])
        assert [acquired(record) for record in rest] == [acquired(r) for r in whole[done:]]


def test_a_trial_that_starts_again_repeats_no_finished_round(tmp_path, monkeypatch):
    """Without saved models: it ended after its second record, before the acquisition that follows.

    So of three fits the first is not repeated, and the second is, to acquire with.
    """
    fits = []
    fit = LabelsOnlyClassifier.fit
    monkeypatch.setattr(
        LabelsOnlyClassifier, "fit", lambda *a, **k: (fits.append(1), fit(*a, **k))[1]
    )
    config = ActiveLearningConfig(
        method="labels_only", acquisition="entropy", **{**QUICK, **ROUNDS}
    )

    def start():
        trial = md.Trial(id="t", seed=0, scratch=tmp_path, storage=str(tmp_path / "storage"))
        return ActiveWeakLearning().run(config, trial)

    stopped = start()
    begun = [next(stopped), next(stopped)]
    stopped.close()
    assert len(fits) == 2
    again = list(start())
    assert len(fits) == 4
    assert [record.budget for record in again] == [4, 7, 10]
    assert [record.metrics for record in again[:2]] == [record.metrics for record in begun]
    assert [record.outcomes for record in again[:2]] == [record.outcomes for record in begun]
    assert numbers(again) == numbers(records(tmp_path, "labels_only", "entropy"))


def test_a_pool_that_runs_out_ends_the_trial(tmp_path):
    found = records(tmp_path, "iwl", "entropy", initial_labels=300, labels_per_round=30, rounds=9)
    assert [record.budget for record in found] == [300, 330, 341]
    everything = records(tmp_path, "iwl", "entropy", initial_labels=341)
    assert [record.budget for record in everything] == [341]


def test_votes_alone_may_be_the_start(tmp_path):
    found = records(tmp_path, "iwl", "disagreement", initial_labels=0)
    assert [record.budget for record in found] == [0, 3, 6]


def test_candidates_are_fewer_rows_drawn_anew_in_every_round(tmp_path):
    """With as many candidates as labels a round, a choice among them is no choice."""
    few = records(tmp_path, "iwl", "entropy", candidate_rows=3, save_model=True)
    assert [record.metrics.get("acquisition/pool") for record in few] == [None, 3, 3]
    assert few[1].metrics["acquisition/score"] == pytest.approx(
        few[1].metrics["acquisition/pool_score"]
    )
    by_disagreement = records(tmp_path, "iwl", "disagreement", candidate_rows=3, save_model=True)
    assert set(acquired(few[-1])) == set(acquired(by_disagreement[-1]))
    assert len(set(acquired(few[-1]))) == 10


def small_table(tmp_path, known):
    """30 rows, of which the first `known` of the training split have a label."""
    rng = np.random.default_rng(0)
    split = ["train"] * 12 + ["valid"] * 9 + ["test"] * 9
    labels = rng.integers(0, 2, 30)
    frame = pd.DataFrame(rng.normal(size=(30, 2)), columns=["feature_a", "feature_b"])
    frame["vote_a"], frame["vote_b"] = labels, rng.integers(0, 2, 30)
    frame["label"] = [str(c) if i < known or i >= 12 else "" for i, c in enumerate(labels)]
    frame["split"] = split
    frame.to_csv(tmp_path / "rows.csv", index=False)
    return str(tmp_path / "rows.csv")


def test_only_rows_with_a_label_are_asked_about(tmp_path):
    path = small_table(tmp_path, known=5)
    found = records(
        tmp_path, "iwl", "entropy", dataset=path, initial_labels=1, labels_per_round=2, rounds=9
    )
    assert [record.budget for record in found] == [1, 3, 5]
    data = datasets.load(path, "auto")
    order = label_order(data, md.Trial(id="t", seed=0, scratch=tmp_path))
    assert sorted(order) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "majority_vote", "acquisition": "disagreement"}, "acquisition: .*iwl or iwld"),
        ({"method": "labels_only", "acquisition": "information_gain"}, "acquisition: "),
        ({"method": "labels_only", "initial_labels": 0}, "initial_labels: labels_only"),
        ({"initial_labels": 342}, "initial_labels: 'breast_cancer' has 341 training rows"),
        ({"hidden_units": 100_000, "hidden_layers": 20}, "batch_size: .* GiB"),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    config = ActiveLearningConfig(**{"method": "iwl", "acquisition": "random", **settings})
    with pytest.raises(md.InputError, match=message):
        ActiveWeakLearning().check(config)


def test_without_any_label_there_is_nothing_to_ask(tmp_path):
    config = ActiveLearningConfig(
        dataset=small_table(tmp_path, known=0),
        method="iwl",
        acquisition="entropy",
        initial_labels=0,
    )
    with pytest.raises(
        md.InputError, match=r"dataset: .* has no training row whose label is known"
    ):
        ActiveWeakLearning().check(config)


@pytest.mark.parametrize(
    "wrong",
    [
        {"acquisition": "magic"},
        {"labels_per_round": 0},
        {"rounds": 0},
        {"initial_labels": -1},
        {"ensemble_size": 1},
        {"candidate_rows": 0},
        {"strong_fraction": 0.1},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ActiveLearningConfig(**{"method": "iwl", "acquisition": "entropy", **wrong})
