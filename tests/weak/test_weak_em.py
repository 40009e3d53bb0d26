"""Expectation-maximisation of shared transitions, plain and with a latent h (appendix A.4)."""

import itertools
import math

import numpy as np
import pytest
import torch

from modicum_algorithms.weak.config import THESIS, IntegratedConfig
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.methods.integrated import integrated_objective
from modicum_algorithms.weak.models.end_model import mlp
from modicum_algorithms.weak.models.expectation_maximisation import (
    maximise_expectation,
    responsibilities,
)
from modicum_algorithms.weak.models.joint_model import JointModel
from modicum_algorithms.weak.models.label_model import SharedTransitions, Votes

N, K, C = 60, 4, 3
CASES = list(itertools.product([1, 3], ["emission", "missing"], [0, 15]))


def outcomes(votes, classes, abstain):
    """Votes that count in full."""
    return Votes.of(votes, classes, abstain, vote_weight=1.0, abstain_weight=1.0)


def problem(abstain, known=0, rows=N, seed=0):
    """Random votes that lean towards a class, log p(y|x) in float64, and a few labels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, C, rows)
    votes = np.where(rng.random((rows, K)) < 0.5, truth[:, None], rng.integers(-1, C, (rows, K)))
    classes = rng.dirichlet(np.ones(C), rows)
    labels = np.where(np.arange(rows) < known, truth, -1)
    return outcomes(votes, C, abstain), torch.from_numpy(np.log(classes)), torch.from_numpy(labels)


def random_start(outcomes, states, seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = SharedTransitions(torch.zeros(outcomes, K, C), states, generator).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def step(model, votes, log_classes, labels, pseudo_counts=0.0):
    """One round; the log-likelihood before it."""
    with torch.no_grad():
        expected, log_likelihood = responsibilities(
            model, votes.outcomes_NK, votes.counted_NK, log_classes, labels
        )
    maximise_expectation(model, votes, expected, pseudo_counts)
    return float(log_likelihood.sum())


@pytest.mark.parametrize(("states", "abstain", "known"), CASES)
def test_no_step_lowers_the_log_likelihood(states, abstain, known):
    votes, log_classes, labels = problem(abstain, known)
    for seed in range(3):
        model = random_start(votes.size, states, seed)
        values = [step(model, votes, log_classes, labels) for _ in range(30)]
        assert np.diff(values).min() > -1e-9
        assert values[-1] > values[0] + 1
        assert model.logits_VKCH.detach().exp().sum(0).numpy() == pytest.approx(
            np.ones((K, C, states))
        )
        assert model.state_logits_H.exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize(("states", "abstain", "known"), CASES)
def test_the_gradient_of_the_log_likelihood_vanishes_where_steps_end(states, abstain, known):
    """By the model's own forward pass, which gradient descent would use."""
    votes, log_classes, labels = problem(abstain, known)
    model = random_start(votes.size, states)

    def steepness():
        log_votes, _ = model(log_classes, votes)
        log_joint = log_classes + log_votes
        marginal = torch.logsumexp(log_joint, 1)
        complete = log_joint.gather(1, labels.clamp(min=0)[:, None])[:, 0]
        total = torch.where(labels >= 0, complete, marginal).sum()
        used = [model.logits_VKCH] + [model.state_logits_H] * (states > 1)
        return max(float(g.abs().max()) for g in torch.autograd.grad(total, used))

    before = steepness()
    for _ in range(1500):
        step(model, votes, log_classes, labels)
    assert before > 0.5
    assert steepness() < 1e-4


@pytest.mark.parametrize(("states", "abstain", "known"), CASES)
def test_responsibilities_against_enumeration(states, abstain, known):
    """r(y, h) and its sum written out; a known label has all the weight."""
    votes, log_classes, labels = problem(abstain, known, rows=20)
    model = random_start(votes.size, states)
    with torch.no_grad():
        found, log_likelihood = responsibilities(
            model, votes.outcomes_NK, votes.counted_NK, log_classes, labels
        )
    matrices = model.logits_VKCH.detach().softmax(0).numpy()
    shares = model.state_logits_H.detach().softmax(0).numpy()
    for n in range(20):
        weights = np.zeros((C, states))
        for y, h in itertools.product(range(C), range(states)):
            if labels[n] >= 0 and labels[n] != y:
                continue
            weights[y, h] = math.exp(log_classes[n, y]) * shares[h]
            for k in range(K):
                if votes.counted_NK[n, k]:
                    weights[y, h] *= matrices[votes.outcomes_NK[n, k], k, y, h]
        assert float(log_likelihood[n]) == pytest.approx(math.log(weights.sum()), abs=1e-10)
        assert found[n].numpy() == pytest.approx(weights / weights.sum(), abs=1e-10)
    assert found.sum((1, 2)).tolist() == pytest.approx([1.0] * 20)


def test_a_step_by_hand():
    """Three rows, one function, two classes; the third row abstains.

    Votes 0, 1, abstain with r(y = 0) = 0.8, 0.5, 0.4. Emission: for class 0 the outcomes weigh
    0.8, 0.5, 0.4 of 1.7, for class 1 0.2, 0.5, 0.6 of 1.3. Missing: 0.8, 0.5 of 1.3 and 0.2, 0.5
    of 0.7. One pseudo-count of each outcome: 1.8, 1.5 of 3.3.
    """
    expected = torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.4, 0.6]]).unsqueeze(-1).double()

    def matrix(abstain, pseudo_counts=0.0):
        votes = outcomes(np.array([[0], [1], [-1]]), 2, abstain)
        model = SharedTransitions(torch.zeros(votes.size, 1, 2), 1, torch.Generator()).double()
        maximise_expectation(model, votes, expected, pseudo_counts)
        return model.logits_VKCH.softmax(0)[:, 0, :, 0].T.tolist()

    first, second = matrix("emission")
    assert first == pytest.approx([0.8 / 1.7, 0.5 / 1.7, 0.4 / 1.7])
    assert second == pytest.approx([0.2 / 1.3, 0.5 / 1.3, 0.6 / 1.3])
    first, second = matrix("missing")
    assert first == pytest.approx([0.8 / 1.3, 0.5 / 1.3])
    assert second == pytest.approx([0.2 / 0.7, 0.5 / 0.7])
    assert matrix("missing", 1.0)[0] == pytest.approx([1.8 / 3.3, 1.5 / 3.3])


def test_states_by_hand():
    """Two rows with r(h) = (0.9, 0.1) and (0.3, 0.7): p(h) is (0.6, 0.4)."""
    expected = torch.tensor([[[0.5, 0.1], [0.4, 0.0]], [[0.1, 0.2], [0.2, 0.5]]])
    votes = outcomes(np.array([[0], [1]]), 2, "missing")
    model = SharedTransitions(torch.zeros(2, 1, 2), 2, torch.Generator())
    maximise_expectation(model, votes, expected)
    assert model.state_logits_H.softmax(0).tolist() == pytest.approx([0.6, 0.4])
    # p(vote 0 | y = 0, h = 0) = 0.5 of 0.5 + 0.1.
    assert model.logits_VKCH.softmax(0)[0, 0, 0, 0].item() == pytest.approx(0.5 / 0.6)


def test_what_nobody_shows_keeps_a_finite_logarithm():
    """A state without any weight and an outcome that never occurs."""
    votes = outcomes(np.array([[0], [0]]), 2, "emission")
    model = SharedTransitions(torch.zeros(3, 1, 2), 2, torch.Generator())
    expected = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]] * 2)
    maximise_expectation(model, votes, expected)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert model.logits_VKCH.softmax(0)[:, 0, 0, 0].tolist() == pytest.approx([1, 0, 0])
    assert model.state_logits_H.softmax(0).tolist() == pytest.approx([1, 0])


@pytest.mark.parametrize("states", [1, 3])
def test_pseudo_counts_make_it_maximum_a_posteriori(states):
    """No step lowers Σ log-likelihood + Σ a log φ, the log density under a Dirichlet prior."""
    votes, log_classes, labels = problem("emission", 15)
    generator = torch.Generator().manual_seed(3)
    counts = torch.rand((votes.size, K, C, states), generator=generator).double() * 5
    model = random_start(votes.size, states)
    values = []
    for _ in range(30):
        prior = (counts * model.logits_VKCH.log_softmax(0)).sum().item()
        values.append(prior + step(model, votes, log_classes, labels, counts))
    assert np.diff(values).min() > -1e-9


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_a_step_of_the_joint_model_is_one_over_its_rows_with_its_prior(power):
    """All rows, labels held to; a prior of `smoothing` counts an outcome, around the start.

    With powers below 1 responsibilities are those of p(y|x)^w π(y)^(1 − w) Π p(ỹ_k|y)^w.
    """
    rng = np.random.default_rng(0)
    numbers, truth = rng.integers(0, C, size=(N, K)), rng.integers(0, C, N)
    numbers[:, 1:][rng.random((N, K - 1)) < 0.3] = -1
    labels = np.where(np.arange(N) < 20, truth, -1)
    features = torch.randn(N, 2, generator=torch.Generator().manual_seed(0))
    balance = np.array([0.5, 0.3, 0.2])
    data = Supervision(features, numbers, labels, C, balance)
    model = mlp(2, C, [4], torch.Generator().manual_seed(1))
    changes = {"transition_updates": "em", "transition_smoothing": 2.0}
    powers = {"vote_weight": power, "abstain_weight": power, "end_model_weight": power}
    settings = IntegratedConfig(**dict(THESIS) | changes | powers)
    joint = JointModel(model, data, settings, torch.Generator(), depends_on_x=False)
    twin = JointModel(model, data, settings, torch.Generator(), depends_on_x=False).label_model
    counts = 2.0 * (C + 1) * twin.logits_VKCH.detach().exp()
    votes = outcomes(numbers, C, "emission")
    with torch.no_grad():
        classes = model(features).softmax(-1)
        log_prior = (classes**power * torch.from_numpy(balance).float() ** (1 - power)).log()
        for _ in range(3):
            joint.maximise()
            expected, _ = responsibilities(
                twin, votes.outcomes_NK, power * votes.counted_NK, log_prior, torch.tensor(labels)
            )
            maximise_expectation(twin, votes, expected, counts)
            assert torch.allclose(joint.label_model.logits_VKCH, twin.logits_VKCH, atol=1e-5)
    objective = integrated_objective(model, data, settings, torch.Generator(), depends_on_x=False)
    assert not any(parameter.requires_grad for parameter in objective.label_network.parameters())
    assert len(objective.groups) == 1


def dependent(rows, seed):
    """Votes on two classes with a real h: half of the time all functions vote class 0, mostly.

    In the first state a function is right in 85% of the rows; in the second it votes class 0 in
    95%, whatever the class. The end model knows the class with 0.8.
    """
    rng = np.random.default_rng(seed)
    truth, state = rng.integers(0, 2, rows), rng.integers(0, 2, rows)
    right = np.where(rng.random((rows, 6)) < 0.85, truth[:, None], 1 - truth[:, None])
    stuck = (rng.random((rows, 6)) > 0.95).astype(np.int64)
    votes = np.where(state[:, None] == 0, right, stuck)
    seen = np.where(rng.random(rows) < 0.8, truth, 1 - truth)
    log_classes = torch.from_numpy(np.log(np.where(np.eye(2)[seen] == 1, 0.8, 0.2)))
    return outcomes(votes, 2, "missing"), log_classes, truth, votes


def test_two_states_explain_votes_that_depend_on_each_other():
    """Held out, two states are likelier, tell the class better, and are the true ones.

    Agreement of functions 0 and 1 in class 1: 0.5·(0.85² + 0.15²) + 0.5·(0.95² + 0.05²) = 0.825; if
    they were independent with their true rates 0.5·(0.85 + 0.05) = 0.45 it would be 0.505.
    """
    votes, log_classes, _, _ = dependent(3000, 0)
    held_out, log_classes_out, truth, numbers = dependent(3000, 1)
    unknown = torch.full((3000,), -1)
    scores, agreement = {}, {}
    for states in (1, 2):
        generator = torch.Generator().manual_seed(0)
        start = torch.tensor([[0.7, 0.3], [0.3, 0.7]]).log()[:, None].expand(2, 6, 2)
        model = SharedTransitions(start, states, generator).double()
        for _ in range(150):
            step(model, votes, log_classes, unknown)
        with torch.no_grad():
            expected, log_likelihood = responsibilities(
                model, held_out.outcomes_NK, held_out.counted_NK, log_classes_out, unknown
            )
        right = (expected.sum(2).argmax(1).numpy() == truth).mean()
        scores[states] = (float(log_likelihood.mean()), right)
        matrices, shares = model.logits_VKCH.detach().exp(), model.state_logits_H.detach().exp()
        both = (matrices[:, 0, 1] * matrices[:, 1, 1]).sum(0)
        agreement[states] = float(both @ shares)
    assert scores[2][0] > scores[1][0] + 0.1
    assert scores[2][1] > scores[1][1] + 0.02
    of_class_1 = numbers[truth == 1]
    assert (of_class_1[:, 0] == of_class_1[:, 1]).mean() == pytest.approx(0.825, abs=0.03)
    assert agreement[2] == pytest.approx(0.825, abs=0.03)
    assert agreement[1] < 0.825 - 0.08
    rates = sorted(matrices[1, :, 1].mean(0).tolist())  # of voting class 1 in class 1, by state
    assert rates == pytest.approx([0.05, 0.85], abs=0.05)
