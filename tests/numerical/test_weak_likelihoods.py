"""Equations 3.4 to 3.8 against enumeration, finite differences and known truths."""

import itertools
import math

import numpy as np
import pytest
import torch

import modicum as md
from modicum_algorithms.weak.datasets import Split, WeakData
from modicum_algorithms.weak.end_model import mlp
from modicum_algorithms.weak.experiment import WeakLearningConfig
from modicum_algorithms.weak.integrated import IntegratedSettings, integrated_objective
from modicum_algorithms.weak.label_model import Votes
from modicum_algorithms.weak.losses import (
    pointwise_log_votes,
    shared_log_votes,
    soft_cross_entropy,
    strong_log_likelihood,
    votes_log_likelihood,
    weak_log_likelihood,
)
from modicum_algorithms.weak.supervision import Supervision
from modicum_algorithms.weak.training import train

B, K, C = 5, 3, 3


def tiny(abstain, seed=0):
    """Random probabilities for a case small enough to enumerate."""
    generator = torch.Generator().manual_seed(seed)
    outcomes = C + 1 if abstain == "emission" else C
    classes = torch.randn(B, C, generator=generator, dtype=torch.float64).softmax(-1)
    shared = torch.randn(outcomes, K, C, generator=generator, dtype=torch.float64).softmax(0)
    own = torch.randn(B, outcomes, K, C, generator=generator, dtype=torch.float64).softmax(1)
    votes = np.random.default_rng(seed).integers(-1, C, size=(B, K))
    return classes, shared, own, votes


def likelihood_by_loops(classes_C, transition, votes_K, abstain):
    """Σ_y p(y|x) Π_k p(ỹ_k|y), written out; `transition(v, k, y)` is a probability."""
    total = 0.0
    for y in range(C):
        product = float(classes_C[y])
        for k, vote in enumerate(votes_K):
            if vote >= 0:
                product *= float(transition(int(vote), k, y))
            elif abstain == "emission":
                product *= float(transition(C, k, y))
        total += product
    return total


@pytest.mark.parametrize("abstain", ["emission", "missing"])
@pytest.mark.parametrize("pointwise", [False, True])
def test_likelihood_equals_the_written_out_sum(abstain, pointwise):
    classes, shared, own, votes_BK = tiny(abstain)
    votes = Votes.of(votes_BK, C, abstain)
    log_votes = (
        pointwise_log_votes(votes.outcomes_NK, votes.counted_NK, own.log())
        if pointwise
        else shared_log_votes(votes.outcomes_NK, votes.counted_NK, shared.log())
    )
    got = votes_log_likelihood(classes.log(), log_votes)
    for row in range(B):
        matrices = own[row] if pointwise else shared
        wanted = likelihood_by_loops(
            classes[row], lambda v, k, y, m=matrices: m[v, k, y], votes_BK[row], abstain
        )
        assert float(got[row]) == pytest.approx(math.log(wanted), abs=1e-12)


def test_emission_likelihoods_sum_to_one_over_all_votes():
    classes, shared, _, _ = tiny("emission")
    every = np.array(list(itertools.product(range(-1, C), repeat=K)))
    votes = Votes.of(every, C, "emission")
    log_votes = shared_log_votes(votes.outcomes_NK, votes.counted_NK, shared.log())
    row = classes[:1].log().expand(len(every), C)
    assert float(votes_log_likelihood(row, log_votes).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_strong_and_weak_terms_by_hand():
    """One row, two classes: p(y|x) = (0.8, 0.2), Π p(ỹ|y) = (0.5, 0.1), strong label 0.

    Σ_y = 0.8·0.5 + 0.2·0.1 = 0.42. L_W = log 0.42; L_S = log 0.8 + log 0.42.
    """
    log_classes = torch.tensor([[0.8, 0.2]]).log()
    log_votes = torch.tensor([[0.5, 0.1]]).log()
    weak = float(weak_log_likelihood(log_classes, log_votes))
    strong = float(strong_log_likelihood(log_classes, log_votes, torch.tensor([0])))
    assert weak == pytest.approx(math.log(0.42))
    assert strong == pytest.approx(math.log(0.8) + math.log(0.42))


def test_likelihood_stays_finite_where_products_underflow():
    """400 votes at probability 1e-3 give 1e-1200, far below what a float holds."""
    log_votes = torch.full((1, 2), 400 * math.log(1e-3))
    value = votes_log_likelihood(torch.tensor([[0.5, 0.5]]).log(), log_votes)
    assert float(value) == pytest.approx(400 * math.log(1e-3), rel=1e-6)


def test_soft_cross_entropy_of_hard_labels_is_cross_entropy():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    hard = torch.nn.functional.one_hot(labels, 4).float()
    assert soft_cross_entropy(logits, hard).item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, labels).item()
    )


@pytest.mark.parametrize("depends_on_x", [False, True])
@pytest.mark.parametrize("abstain", ["emission", "missing"])
def test_gradients_of_the_objective_by_finite_differences(depends_on_x, abstain):
    """Central differences of equation 3.7 in every kind of parameter."""
    rng = np.random.default_rng(0)
    rows, inputs = 12, 3
    features = torch.from_numpy(rng.normal(size=(rows, inputs)))
    votes, truth = rng.integers(-1, C, size=(rows, K)), rng.integers(0, C, size=rows)
    labels = np.where(np.isin(np.arange(rows), [0, 5, 7]), truth, -1)
    generator = torch.Generator().manual_seed(0)
    model = mlp(inputs, C, [4], generator).double()
    settings = IntegratedSettings(
        depends_on_x=depends_on_x, abstain=abstain, lambda_strong=0.7, lambda_weak=1.3, hidden=[4]
    )
    objective = integrated_objective(
        model, Supervision(features, votes, labels, C), settings, generator
    )
    label_model = objective.label_model.double()
    batches = [torch.from_numpy(pool) for pool in objective.pools]
    assert not set(objective.pools[0]) & set(objective.pools[1])
    objective.loss(batches).backward()
    step = 1e-5
    for parameter in [*model.parameters(), *label_model.parameters()]:
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for place in range(0, len(flat), max(1, len(flat) // 4)):
            before = float(flat[place])
            values = []
            for sign in (1, -1):
                flat[place] = before + sign * step
                values.append(objective.loss(batches).item())
            flat[place] = before
            difference = (values[0] - values[1]) / (2 * step)
            assert float(gradient[place]) == pytest.approx(difference, abs=1e-7)


def test_an_empty_set_drops_its_term():
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(6, 2)).astype(np.float32))
    votes = rng.integers(0, C, size=(6, K))
    settings = IntegratedSettings(abstain="missing", hidden=[4])
    for labels in (np.full(6, -1), rng.integers(0, C, size=6)):
        generator = torch.Generator().manual_seed(0)
        objective = integrated_objective(
            mlp(2, C, [4], generator), Supervision(features, votes, labels, C), settings, generator
        )
        batches = [torch.from_numpy(p) if len(p) else None for p in objective.pools]
        assert [batch is None for batch in batches] == [labels[0] < 0, labels[0] >= 0]
        assert torch.isfinite(objective.loss(batches))


@pytest.mark.parametrize("depends_on_x", [False, True])
@pytest.mark.parametrize("abstain", ["emission", "missing"])
def test_denoised_labels_and_transitions_are_those_of_the_model(depends_on_x, abstain):
    """The posterior of each row written out; matrices of iWLD averaged over the rows.

    Where abstains are missing, function k votes v with its coverage times the matrix's entry.
    """
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(20, 2)).astype(np.float32))
    votes, labels = rng.integers(-1, C, size=(20, K)), np.full(20, -1)
    labels[3] = 2
    model = mlp(2, C, [4], torch.Generator().manual_seed(0))
    objective = integrated_objective(
        model,
        Supervision(features, votes, labels, C),
        IntegratedSettings(depends_on_x=depends_on_x, abstain=abstain, hidden=[4]),
        torch.Generator().manual_seed(1),
    )
    with torch.no_grad():
        for parameter in objective.label_model.parameters():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
        matrices = (
            objective.label_model.log_transitions(features)
            if depends_on_x
            else objective.label_model.log_transitions().expand(20, -1, -1, -1)
        ).exp()
        classes = model(features).softmax(-1)
    denoised = objective.denoised()
    for n in range(20):
        weights = [
            likelihood_by_loops(
                classes[n] * torch.eye(C)[c],
                lambda v, k, y, m=matrices[n]: m[v, k, y],
                votes[n],
                abstain,
            )
            for c in range(C)
        ]
        wanted = np.eye(C)[2] if n == 3 else np.array(weights) / sum(weights)
        assert denoised[n] == pytest.approx(wanted, abs=1e-5)
    transitions, mean = objective.transitions(), matrices.mean(0).numpy()
    assert transitions.shape == (C + 1, K, C)
    assert transitions.sum(0) == pytest.approx(np.ones((K, C)), abs=1e-5)
    coverage = 1 if abstain == "emission" else (votes >= 0).mean(0)[:, None]
    assert transitions[:C] == pytest.approx(mean[:C] * coverage, abs=1e-5)


def synthetic(rows, seed=0):
    """Two Gaussian classes and four labeling functions with a known transition matrix.

    Function k votes the true class with probability 0.9, 0.8, 0.7, 0.6 when it speaks, and
    speaks in 70% of the rows whatever the class.
    """
    rng = np.random.default_rng(seed)
    truth = np.array([0.9, 0.8, 0.7, 0.6])

    def split(n):
        labels = rng.integers(0, 2, n)
        features = rng.normal(size=(n, 2)) + 2.0 * labels[:, None]
        right = rng.random((n, 4)) < truth
        votes = np.where(right, labels[:, None], 1 - labels[:, None])
        votes[rng.random((n, 4)) < 0.3] = -1
        return Split(features.astype(np.float32), votes, labels)

    return WeakData(("a", "b"), split(rows), split(1000), split(4000)), truth


@pytest.mark.parametrize("abstain", ["emission", "missing"])
def test_iwl_recovers_known_transitions_and_the_bayes_classifier(tmp_path, abstain):
    """With half of 8,000 labels given (section 3.2.2) the transition matrices come out.

    The best possible accuracy for two unit Gaussians 2√2 apart is Φ(√2) = 0.921.
    """
    data, truth = synthetic(8000)
    config = WeakLearningConfig(
        method="iwl",
        strong_fraction=0.5,
        abstain=abstain,
        max_iterations=3000,
        patience=3000,
        transition_learning_rate=1e-2,
    )
    result = train(config, data, md.Trial(id="t", seed=0, scratch=tmp_path))
    learned = result.estimator.label_model_.transitions
    accuracy = np.stack([learned[:, c, c] / learned[:, :2, c].sum(1) for c in range(2)])
    assert accuracy == pytest.approx(np.stack([truth, truth]), abs=0.04)
    assert learned[:, 2] == pytest.approx(np.full((4, 2), 0.3), abs=0.04)
    assert result.estimator.label_model_.accuracy == pytest.approx(truth, abs=0.04)
    assert result.test.accuracy > 0.905


def test_estimates_improve_as_labels_grow(tmp_path):
    """Section 3.2.2: strong labels identify the model."""
    errors = []
    for rows in (100, 8000):
        data, truth = synthetic(rows)
        config = WeakLearningConfig(
            method="iwl",
            strong_fraction=0.5,
            abstain="missing",
            max_iterations=1500,
            patience=1500,
            transition_learning_rate=1e-2,
        )
        result = train(config, data, md.Trial(id="t", seed=0, scratch=tmp_path))
        learned = result.estimator.label_model_.transitions
        found = np.stack([learned[:, c, c] / learned[:, :2, c].sum(1) for c in range(2)])
        errors.append(np.abs(found - truth).mean())
    assert errors[1] < errors[0] / 2
