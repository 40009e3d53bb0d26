"""Parts of the weak-supervision family against loops, hand counts and scikit-learn."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import accuracy_score, f1_score

import modicum as md
from modicum_algorithms.weak.checkpoints import load_model, save_trained
from modicum_algorithms.weak.config import EndModelConfig, WeakLearningConfig
from modicum_algorithms.weak.data import breast_cancer, datasets
from modicum_algorithms.weak.data.supervision import Supervision, ValidationSet
from modicum_algorithms.weak.estimators import (
    IntegratedWeakLearner,
    SnorkelClassifier,
    estimator_of,
)
from modicum_algorithms.weak.evaluation import score
from modicum_algorithms.weak.experiment import WeakLearning
from modicum_algorithms.weak.labeling import majority_vote
from modicum_algorithms.weak.memory import require_memory, step_bytes
from modicum_algorithms.weak.methods.soft_labels import informed_rows, soft_labels
from modicum_algorithms.weak.models.end_model import mlp
from modicum_algorithms.weak.models.label_model import (
    Votes,
    coverage_transitions,
    majority_vote_transitions,
    self_transitions,
)
from modicum_algorithms.weak.models.label_summary import describe_votes
from modicum_algorithms.weak.run import choose_strong
from modicum_algorithms.weak.training import Objective, out_of_patience
from modicum_algorithms.weak.training import train as minimise
from weak_training import train

VOTES = np.array([[0, 1, 1], [-1, -1, 2], [-1, -1, -1], [2, 0, -1]])


def test_majority_vote_against_a_loop():
    rng = np.random.default_rng(0)
    votes = rng.integers(-1, 5, size=(300, 7))
    for row, soft in zip(votes, majority_vote(votes, 5), strict=True):
        counts = [sum(int(v == c) for v in row) for c in range(5)]
        total = sum(counts)
        wanted = [c / total for c in counts] if total else [0.2] * 5
        assert soft == pytest.approx(wanted, abs=1e-6)


def test_strong_labels_vote_or_replace():
    """Row 0 has votes 0, 1, 1 and the strong label 0: as one more vote a tie, else certain."""
    supervision = Supervision(torch.zeros(4, 1), VOTES, np.array([0, -1, 1, -1]), 3)

    def denoise(votes):
        return majority_vote(votes, 3)

    voted = soft_labels(supervision, denoise, "vote")
    assert voted[0] == pytest.approx([0.5, 0.5, 0])
    assert voted[2] == pytest.approx([0, 1, 0])
    replaced = soft_labels(supervision, denoise, "replace")
    assert replaced[0] == pytest.approx([1, 0, 0])
    assert replaced[3] == pytest.approx([0.5, 0, 0.5])


def test_rows_without_vote_and_label_are_dropped_or_kept():
    """Row 2 has no vote; it counts only where its label is known."""
    for label, informed in ((-1, [0, 1, 3]), (1, [0, 1, 2, 3])):
        labels = np.array([0, -1, label, -1])
        supervision = Supervision(torch.zeros(4, 1), VOTES, labels, 3)
        assert informed_rows(supervision, "drop").tolist() == informed
        assert informed_rows(supervision, "uniform").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("abstain", ["emission", "missing"])
def test_initial_transitions_are_smoothed_counts(abstain):
    """The first function over covered rows votes 0, abstains, votes 2.

    The majority vote is (1/3, 2/3, 0), (0, 0, 1), (1/2, 0, 1/2). For class 0 the count of vote
    0 is 1/3, of vote 2 is 1/2, of an abstain 0; with smoothing 1 the three votes weigh 4/3, 1,
    3/2 and the abstain 1.
    """
    got = majority_vote_transitions(VOTES, 3, abstain, 1.0, "uniform").exp()
    weights = [4 / 3, 1, 3 / 2] + ([1] if abstain == "emission" else [])
    assert got[:, 0, 0].tolist() == pytest.approx([w / sum(weights) for w in weights])
    assert got.sum(0).allclose(torch.ones(3, 3))


def test_smoothing_towards_base_rates_is_no_evidence_for_a_class_without_rows():
    """Ten rows: function 0 votes class 0 in the first, function 1 votes class 0 in all.

    So the majority is class 0 throughout, and function 0 votes 0 once and abstains nine times.
    Uniform pseudo-counts make that (2, 1, 10)/13 for class 0 and (1, 1, 1)/3 for class 1: the one
    vote *for* class 0 would be 13/6 to 1 for class 1. Base rates (0.1, 0, 0.9), three counts of
    them, give (1.3, 0, 11.7)/13 and (0.3, 0, 2.7)/3: alike, so the vote says nothing.
    """
    votes = np.array([[0, 0]] + [[-1, 0]] * 9)
    uniform, base_rate = (
        majority_vote_transitions(votes, 2, "emission", 1.0, towards).exp()[:, 0]
        for towards in ("uniform", "base_rate")
    )
    assert uniform[:, 0].tolist() == pytest.approx([2 / 13, 1 / 13, 10 / 13])
    assert uniform[:, 1].tolist() == pytest.approx([1 / 3] * 3)
    assert float(uniform[0, 1] / uniform[0, 0]) == pytest.approx(13 / 6)
    for c in range(2):
        assert base_rate[:, c].tolist() == pytest.approx([0.1, 0, 0.9], abs=1e-4)
    assert (base_rate > 0).all()


def test_a_start_from_no_vote_at_all_knows_nothing():
    for towards in ("uniform", "base_rate"):
        start = majority_vote_transitions(np.full((3, 2), -1), 2, "emission", 1.0, towards)
        assert start.exp().numpy() == pytest.approx(np.full((3, 2, 2), 1 / 3))


def test_starts_of_the_added_functions_by_hand():
    """Coverage 0.8 of three outcomes, whatever the class; a prediction right in 70% of cases."""
    coverage = coverage_transitions(0.8, 3, 2).exp()
    assert coverage.shape == (3, 1, 2)
    for c in range(2):
        assert coverage[:, 0, c].tolist() == pytest.approx([0.8, 0.2, 0], abs=2e-4)
    own = self_transitions(0.7, 4, 3).exp()
    assert own.shape == (4, 1, 3)
    assert own[:, 0, 1].tolist() == pytest.approx([0.15, 0.7, 0.15, 0], abs=2e-4)
    for start in (coverage, own):
        assert start.sum(0).flatten().tolist() == pytest.approx([1.0] * start.shape[2])
        assert (start > 0).all()


def test_votes_as_outcomes():
    emission, missing = (
        Votes.of(VOTES, 3, how, vote_weight=1, abstain_weight=1) for how in ("emission", "missing")
    )
    assert emission.outcomes_NK[1].tolist() == [3, 3, 2]
    assert emission.counted_NK.min() == 1
    assert missing.counted_NK[1].tolist() == [0, 0, 1]
    assert (emission.size, missing.size) == (4, 3)


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_agree_with_scikit_learn(classes):
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels, predicted = rng.integers(0, classes, size=(2, 30))
        ours = score(labels, predicted, classes)
        average = "binary" if classes == 2 else "macro"
        f1 = f1_score(labels, predicted, labels=None, average=average, zero_division=0)
        present = set(labels) | set(predicted)
        assert ours.accuracy == pytest.approx(accuracy_score(labels, predicted))
        if classes == 2 or len(present) == classes:
            assert ours.f1 == pytest.approx(f1)


def test_scores_of_a_constant_prediction():
    assert score(np.array([0, 0, 1]), np.zeros(3, dtype=int), 2).f1 == 0.0


def test_strong_rows_are_nested_and_never_none():
    def chosen(fraction, seed=0):
        return set(choose_strong(341, fraction, np.random.default_rng(seed)).tolist())

    assert chosen(0) == set()
    assert len(chosen(0.001)) == 1
    assert chosen(0.01) < chosen(0.1) < chosen(1.0) == set(range(341))
    assert chosen(0.1) != chosen(0.1, seed=1)


def test_embedded_thresholds_are_quartiles_of_the_measurements():
    """As the module says: no label set them."""
    bunch = load_breast_cancer()
    names = list(bunch.feature_names)
    for rule in breast_cancer.RULES:
        low, high = np.quantile(bunch.data[:, names.index(rule.measurement)], [0.25, 0.75])
        for given, quartile in ((rule.below, low), (rule.above, high)):
            assert given is None or given == pytest.approx(quartile, rel=2e-3), rule


def test_embedded_rules_abstain_and_beat_chance():
    data = datasets.load("breast_cancer", "auto")
    assert data.classes == ("benign", "malignant")
    assert [len(s) for s in (data.train, data.valid, data.test)] == [341, 114, 114]
    for votes in data.train.votes_NK.T:
        voted = votes >= 0
        assert 0.1 < voted.mean() < 0.7
        assert (votes[voted] == data.train.labels_N[voted]).mean() > 0.6
    assert np.abs(data.train.features_ND.mean(0)).max() < 1e-5


def test_early_stopping_counts_what_it_says():
    iterations = EndModelConfig(patience=30)
    assert not out_of_patience(iterations, 120, 100)
    assert out_of_patience(iterations, 130, 100)
    evaluations = EndModelConfig(patience=30, patience_unit="evaluations")
    assert not out_of_patience(evaluations, 390, 100)
    assert out_of_patience(evaluations, 400, 100)


def test_the_best_weights_are_restored():
    """Training towards wrong labels only makes it worse: the first weights must come back."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, 2, generator=generator)
    labels = (features[:, 0] > 0).long()
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        model.bias.zero_()
    before = model.weight.detach().clone()
    wrong = 1 - labels

    def loss(batches):
        return torch.nn.functional.cross_entropy(model(features[batches[0]]), wrong[batches[0]])

    groups = [{"params": list(model.parameters()), "lr": 0.1}]
    objective = Objective([np.arange(64)], loss, groups, denoised=lambda: np.eye(2)[labels])
    schedule = EndModelConfig(batch_size=16, max_iterations=500, patience=50)
    fitted = minimise(model, objective, ValidationSet(features, labels.numpy()), schedule, 0)
    assert (fitted.best_iteration, fitted.iterations) == (0, 50)
    assert fitted.validation.accuracy == 1.0
    assert model.weight.equal(before)


def test_networks_start_alike_under_one_seed():
    def first(seed):
        return mlp(4, 2, [3], torch.Generator().manual_seed(seed))[0].weight

    assert first(1).equal(first(1))
    assert not first(1).equal(first(2))
    assert first(1).abs().max() <= 0.5


@pytest.fixture
def trial(tmp_path):
    return md.Trial(id="t", seed=0, scratch=tmp_path)


METHODS = ("majority_vote", "snorkel", "weasel", "denoise", "labels_only", "iwl", "iwld")
CASES = [(method, "emission") for method in METHODS] + [("iwl", "missing"), ("iwld", "missing")]


@pytest.mark.parametrize(("method", "abstain"), CASES)
def test_every_method_learns_the_embedded_set(trial, method, abstain):
    data = datasets.load("breast_cancer", "auto")
    config = WeakLearningConfig(
        method=method,
        strong_fraction=0.5,
        abstain=abstain,
        hidden_units=32,
        label_network_hidden_units=32,
        learning_rate=3e-3,
        max_iterations=100,
        end_model_weight=1.0,
        lambda_strong=1.0,
    )
    result = train(config, data, trial)
    assert result.strong_labels == 170
    assert result.test.accuracy > 0.85
    again = train(config, data, trial)
    assert again.test == result.test
    assert again.estimator.n_iter_ == result.estimator.n_iter_
    assert again.estimator.validation_scores_ == result.estimator.validation_scores_


def test_a_saved_model_predicts_the_same(tmp_path, trial):
    """Class numbers become names; what it says of the labeling functions comes back too."""
    data = datasets.load("breast_cancer", "auto")
    config = WeakLearningConfig(method="iwl", strong_fraction=0.1, max_iterations=50)
    estimator = train(config, data, trial).estimator
    save_trained(estimator, tmp_path / "model", data.classes, config=config.model_dump())
    loaded = load_model(tmp_path / "model")
    features = data.test.features_ND
    assert np.array_equal(loaded.predict_proba(features), estimator.predict_proba(features))
    names = np.array(data.classes)
    assert loaded.predict(features).tolist() == names[estimator.predict(features)].tolist()
    assert loaded.label_model_.table.equals(estimator.label_model_.table)
    assert loaded.validation_scores_ == estimator.validation_scores_
    assert loaded.get_params() == {**estimator.get_params(), "classes": None}
    tensors = load_file(tmp_path / "model" / "label_model.safetensors")
    matrices = torch.cat([value.flatten() for value in tensors.values()])
    trained = torch.cat([p.detach().flatten() for p in estimator.label_network_.parameters()])
    assert matrices.equal(trained)
    described = json.loads((tmp_path / "model" / "model.json").read_text())
    assert described["config"]["method"] == "iwl"
    save_trained(loaded, tmp_path / "copy")
    copied = load_model(tmp_path / "copy")
    assert np.array_equal(copied.predict(features), loaded.predict(features))


@pytest.mark.parametrize("method", ["weasel", "denoise", "iwl", "iwld"])
def test_a_saved_label_network_comes_back(tmp_path, method):
    """With the settings that were chosen, such as WeaSEL's temperature."""
    rng = np.random.default_rng(0)
    features, votes = rng.normal(size=(20, 2)), rng.integers(-1, 2, (20, 3))
    labels = np.where(np.arange(20) < 4, np.arange(20) % 2, -1)
    config = WeakLearningConfig(
        method=method,
        max_iterations=5,
        hidden_units=4,
        weasel_temperature="validated",
        label_network_hidden_units=3,
    )
    estimator = estimator_of(config, 2, seed=0)
    valid = {"X_valid": features[:5], "y_valid": [0, 1, 0, 1, 1]}
    estimator.fit(features, labels, weak_labels=votes, **valid)
    save_trained(estimator, tmp_path / "model")
    loaded = load_model(tmp_path / "model").label_network_
    trained = estimator.label_network_
    assert type(loaded) is type(trained)
    assert getattr(loaded, "temperature", None) == getattr(trained, "temperature", None)
    for name, tensor in trained.state_dict().items():
        assert loaded.state_dict()[name].equal(tensor), name


@pytest.mark.parametrize("named", [False, True])
def test_a_model_of_ones_own_data_is_saved_with_its_names(tmp_path, named):
    rng = np.random.default_rng(0)
    features = pd.DataFrame(rng.normal(size=(30, 2)), columns=["height", "weight"])
    votes = pd.DataFrame({"tall": rng.integers(-1, 2, 30), "heavy": rng.integers(-1, 2, 30)})
    if named:
        votes = votes.replace({-1: "-1", 0: "no", 1: "yes"})
    estimator = SnorkelClassifier(max_iterations=20, random_state=np.random.RandomState(0))
    estimator.fit(features, weak_labels=votes)
    save_trained(estimator, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.predict(features).tolist() == estimator.predict(features).tolist()
    assert loaded.feature_names_in_.tolist() == ["height", "weight"]
    assert loaded.label_model_.table.index.tolist() == ["tall", "heavy"]
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(features.rename(columns={"height": "length"}))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(md.InputError, match="holds no saved model of weak learning"):
        load_model(tmp_path)


def test_what_is_said_of_labeling_functions_by_hand():
    """Four rows, two functions; soft labels for class 0 are 1, 0.5, 0, 0.5 (in all 2 of 4).

    The first votes 0, 0, 1 and abstains: for class 0 the votes 0, 1, abstain weigh 1.5, 0, 0.5
    of 2, for class 1 they weigh 0.5, 1, 0.5. Right are 1.5 + 1 of its 3 votes. The second votes
    in the first row alone, 1 against the other's 0 where class 0 is certain: never right.
    """
    votes = np.array([[0, 1], [0, -1], [1, -1], [-1, -1]])
    soft = np.array([[1, 0], [0.5, 0.5], [0, 1], [0.5, 0.5]])
    found = describe_votes(votes, soft, None, ["a", "b"])
    assert found.transitions[0].T.tolist() == [[0.75, 0, 0.25], [0.25, 0.5, 0.25]]
    assert found.class_balance.tolist() == [0.5, 0.5]
    assert found.accuracy == pytest.approx([2.5 / 3, 0])
    assert found.coverage.tolist() == [0.75, 0.25]
    assert found.conflict.tolist() == [0.25, 0.25]
    assert found.table.columns.tolist() == ["accuracy", "coverage", "conflict"]


def test_counts_against_loops():
    rng = np.random.default_rng(0)
    votes = rng.integers(-1, 3, size=(50, 4))
    soft = rng.dirichlet(np.ones(3), size=50)
    found = describe_votes(votes, soft, None, range(4))
    for k in range(4):
        for place, outcome in enumerate([0, 1, 2, -1]):
            for c in range(3):
                weight = sum(soft[n, c] for n in range(50) if votes[n, k] == outcome)
                wanted = weight / soft[:, c].sum()
                assert found.transitions[k, place, c] == pytest.approx(wanted)


def test_learned_transitions_decide_over_counted_ones():
    """p(ỹ = y | y) is 0.6 and 0.3 with abstains 0.2 and 0.4; p(y) is 0.75 and 0.25.

    Right: 0.75·0.6 + 0.25·0.3 = 0.525; votes: 0.75·0.8 + 0.25·0.6 = 0.75; accuracy 0.7.
    """
    learned = np.array([[[0.6, 0.3]], [[0.2, 0.3]], [[0.2, 0.4]]])
    soft = np.array([[1, 0], [1, 0], [1, 0], [0, 1.0]])
    found = describe_votes(np.array([[0], [0], [1], [-1]]), soft, learned, range(1))
    assert found.transitions[0].tolist() == learned[:, 0].tolist()
    assert found.accuracy == pytest.approx([0.7])


def memory(method, **settings):
    """Bytes of a step of 2 rows, 3 features, 2 classes and 5 labeling functions."""
    settings = {"hidden_units": 4, "hidden_layers": 1, "coverage_vote": False} | settings
    config = WeakLearningConfig(method=method, self_supervision=False, **settings)
    return step_bytes(config, method, rows=2, features=3, classes=2, labeling_functions=5)


def test_memory_of_a_step_by_hand():
    """2 rows, 3 features, 4 hidden units, 2 classes, 5 labeling functions.

    End model: (3 + 1)·4 + (4 + 1)·2 = 26 weights six times, and 4 + 2 + 2 outputs of 2 rows
    twice: 156 + 32 = 188 numbers. iWLD with 6 hidden units: 3·5·2 = 30 outputs, 24 + 210 weights
    six times, 6 + 30 + 30 outputs of 2 rows twice: 1404 + 264 = 1668. With the coverage vote and
    three states of h there are 3·6·2·3 + 3 = 111 outputs: 24 + 777 weights, 6 + 111 + 111 outputs,
    4806 + 912 = 5718. Where abstains are missing, 2·5·2 = 20: 24 + 140, 6 + 20 + 20, 984 + 184.

    iWL: 30 entries eight times, and 2 rows of 15 indicators and 3·2 sums twice: 240 + 84 = 324.
    With three states 90 entries and 3·2·3 sums: 720 + 132 = 852.
    """
    small = {"label_network_hidden_units": 6, "label_network_hidden_layers": 1}
    more = {"coverage_vote": True, "latent_states": 3}
    assert memory("majority_vote") == 4 * 188
    assert memory("iwld", **small) == 4 * (188 + 1668)
    assert memory("iwld", **small, **more) == 4 * (188 + 5718)
    assert memory("iwld", **small, abstain="missing") == 4 * (188 + 984 + 184)
    assert memory("iwl") == 4 * (188 + 324)
    assert memory("iwl", latent_states=3) == 4 * (188 + 852)


PEAK = """
from pathlib import Path
import numpy as np
from modicum_algorithms.weak.estimators import IntegratedWeakLearner
rng = np.random.default_rng(0)
X, votes = rng.normal(size=(800, 10)), rng.integers(-1, 6, size=(800, 40))
small = {"depends_on_x": True, "classes": range(6), "max_iterations": 2, "random_state": 0}
IntegratedWeakLearner(**small).fit(X[:20], weak_labels=votes[:20, :2])
def memory(name):  # unlike getrusage's peak, this one is of the process since its own start
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(name + ":")[1].split()[0])
before = memory("VmRSS")
IntegratedWeakLearner(
    **small, batch_size=400, coverage_vote=False, latent_states=8, label_network_hidden_units=4
).fit(X, weak_labels=votes)
print(memory("VmHWM") - before)
"""


@pytest.mark.slow
def test_memory_of_a_step_is_what_a_process_takes():
    """Of iWLD with 41 functions and 8 states of h, and nothing else large; a half of leeway."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("the peak is read from /proc")
    config = WeakLearningConfig(
        method="iwld", coverage_vote=False, latent_states=8, label_network_hidden_units=4
    )
    wanted = step_bytes(config, "iwld", rows=400, features=10, classes=6, labeling_functions=40)
    assert wanted > 80 * 2**20
    done = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True)
    assert int(done.stdout) == pytest.approx(wanted, rel=0.5)


def test_a_step_that_does_not_fit_into_memory_is_refused_before_it_starts():
    """100,000 units in each of 20 layers are 19·10^10 weights, 3,800 GB with their moments."""
    large = {"hidden_units": 100_000, "hidden_layers": 20}
    refusal = r"batch_size: one step of iwl at 128 rows .* GiB"
    with pytest.raises(md.InputError, match=refusal):
        WeakLearning().check(WeakLearningConfig(method="iwl", **large))
    with pytest.raises(md.InputError, match=refusal):
        IntegratedWeakLearner(**large).fit(np.eye(2), [0, 1], weak_labels=[[0], [-1]])
    # Nor do 2 million labeling functions of 1,000 classes.
    config = WeakLearningConfig(method="iwld", latent_states=64)
    size = {"rows": 256, "features": 10, "classes": 1000, "labeling_functions": 2_000_000}
    with pytest.raises(md.InputError, match="with 2000000 labeling functions"):
        require_memory(config, "iwld", **size)
