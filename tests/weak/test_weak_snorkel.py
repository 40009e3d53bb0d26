"""Snorkel's label model against the package it follows, loops, enumeration and known truths."""

import itertools
import random

import numpy as np
import pytest
import torch

import modicum as md
from modicum_algorithms.weak.config import SnorkelConfig
from modicum_algorithms.weak.labeling import majority_vote
from modicum_algorithms.weak.methods.snorkel import (
    SnorkelLabelModel,
    fit_snorkel,
    matching_loss,
    most_trusting,
)


@pytest.fixture
def package():
    """The package's models. It seeds every global generator: they are put back."""
    models = pytest.importorskip("snorkel.labeling.model", reason="snorkel is not installed")
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield models
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def synthetic(classes, rows=2000, functions=7, abstain=0.4, seed=0, balance=None):
    """Labels, accuracies, and votes that are independent given the class."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, size=rows, p=balance)
    accuracies = rng.uniform(0.5, 0.9, functions)
    wrong = (labels[:, None] + rng.integers(1, classes, (rows, functions))) % classes
    votes = np.where(rng.random((rows, functions)) < accuracies, labels[:, None], wrong)
    return labels, accuracies, np.where(rng.random(votes.shape) < abstain, -1, votes)


def fit(votes, classes, balance=None, seed=0, **settings):
    """A label model with settings by their short names; the balance is uniform if not given."""
    config = SnorkelConfig(**{f"snorkel_{name}": value for name, value in settings.items()})
    balance = np.full(classes, 1 / classes) if balance is None else balance
    return fit_snorkel(votes, config, balance, seed)


def assert_like_the_package(package, votes, classes, balance=None, seed=3, **settings):
    """Estimates and predictions of covered rows agree."""
    theirs = package.LabelModel(classes, verbose=False)
    names = {"epochs": "n_epochs", "learning_rate": "lr", "l2": "l2", "precision_init": "prec_init"}
    theirs.fit(
        votes,
        class_balance=balance,
        seed=seed,
        progress_bar=False,
        **{names[key]: value for key, value in settings.items()},
    )
    ours = fit(votes, classes, np.array(balance) if balance else None, seed, **settings)
    wanted = theirs.get_conditional_probs()[:, 1:]
    assert ours.conditionals_KVC == pytest.approx(wanted, abs=1e-6)
    covered = (votes >= 0).any(1)
    predicted = ours.predict(votes)
    assert predicted.dtype == np.float32
    assert predicted[covered] == pytest.approx(theirs.predict_proba(votes)[covered], abs=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"l2": 0.3},
        {"epochs": 400, "learning_rate": 0.05, "precision_init": 0.6},
    ],
    ids=["defaults", "l2", "longer"],
)
def test_equals_the_package(package, classes, settings):
    assert_like_the_package(package, synthetic(classes)[2], classes, **settings)


@pytest.mark.parametrize("balance", [[0.2, 0.3, 0.5], [0.25, 0.25, 0.5]])
def test_equals_the_package_with_a_class_balance(package, balance):
    """With all balances different no class may change places, with two equal those two may."""
    votes = synthetic(3, balance=balance)[2]
    assert_like_the_package(package, votes, 3, balance, epochs=300)


def test_equals_the_package_where_estimates_are_clamped(package):
    """Of 60 rows estimates are kept within [0.01, 0.99], of 2,000 within [0.0001, 0.9999]."""
    votes = synthetic(3, rows=60)[2]
    votes[:, 2] = np.where(votes[:, 2] == 1, -1, votes[:, 2])
    assert_like_the_package(package, votes, 3)
    assert fit(votes, 3).conditionals_KVC.min() == np.float32(0.01)


def test_equals_the_package_on_real_votes(package, wrench):
    rows = md.data.read_wrench(wrench / "sms")
    assert_like_the_package(package, rows.splits["train"].votes_NK, len(rows.classes))


def test_known_accuracies_are_recovered():
    """20,000 rows: an accuracy counted with labels has a standard error of at most 0.005."""
    labels, accuracies, votes = synthetic(3, rows=20_000, seed=5)
    ours = fit(votes, 3, epochs=3000, learning_rate=0.05)
    right_K = np.einsum("kcc->k", ours.conditionals_KVC) / 3
    assert right_K / (votes >= 0).mean(0) == pytest.approx(accuracies, abs=0.03)
    # Wrong votes are equally likely, and every function abstains on 0.4 of each class.
    transitions = ours.transitions()
    assert transitions.shape == (4, 7, 3)
    assert transitions.sum(0) == pytest.approx(1, abs=1e-6)
    for k, v, c in itertools.product(range(7), range(3), range(3)):
        wanted = 0.6 * (accuracies[k] if v == c else (1 - accuracies[k]) / 2)
        assert transitions[v, k, c] == pytest.approx(wanted, abs=0.05)
    assert transitions[3] == pytest.approx(0.4, abs=0.05)
    covered = (votes >= 0).any(1)
    right = ours.predict(votes).argmax(1) == labels
    counted = majority_vote(votes, 3).argmax(1) == labels
    assert right[covered].mean() > counted[covered].mean()


def population(functions=3, classes=2, seed=0):
    """Conditionals (K, V, C), a balance, and the exact O that they imply, by enumeration."""
    rng = np.random.default_rng(seed)
    outcomes = rng.dirichlet(np.ones(classes + 1), size=(functions, classes))  # last: abstain
    conditionals = outcomes[..., :classes].transpose(0, 2, 1)
    balance = rng.dirichlet(np.full(classes, 5.0))
    agreement = np.zeros((functions * classes,) * 2)
    for y in range(classes):
        for votes in itertools.product(range(classes + 1), repeat=functions):
            probability = balance[y] * np.prod([outcomes[k, y, v] for k, v in enumerate(votes)])
            held = [k * classes + v for k, v in enumerate(votes) if v < classes]
            for a, b in itertools.product(held, held):
                agreement[a, b] += probability
    between = 1 - np.kron(np.eye(functions), np.ones((classes, classes)))
    arrays = conditionals.reshape(-1, classes), agreement, balance, between
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_truth_has_no_loss(classes):
    truth, agreement, balance, between = population(classes=classes)
    truth.requires_grad_()
    loss = matching_loss(truth, agreement, balance, between)
    assert loss.item() == pytest.approx(0, abs=1e-20)
    loss.backward()
    assert truth.grad.abs().max() < 1e-12
    with torch.no_grad():
        moved = matching_loss(truth + 0.01, agreement, balance, between)
    assert moved > 1e-5


def test_loss_against_loops_and_finite_differences():
    _, agreement, balance, between = population(functions=3, classes=3)
    guess = torch.rand(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = 0.0
    for a, b in itertools.product(range(9), range(9)):
        if a // 3 != b // 3:
            model = sum(guess[a, y] * balance[y] * guess[b, y] for y in range(3))
            wanted += (agreement[a, b] - model) ** 2
    for a in range(9):
        wanted += (agreement[a, a] - sum(guess[a, y] * balance[y] for y in range(3))) ** 2
    assert matching_loss(guess, agreement, balance, between) == pytest.approx(float(wanted))
    guess.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda mu: matching_loss(mu, agreement, balance, between), guess
    )


@pytest.mark.parametrize("balance", [[0.25] * 4, [0.3, 0.2, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]])
def test_most_trusting_order_against_all_orders(balance):
    """Only classes of equal balance change places: 24, 4 and 1 orders."""
    balance = np.array(balance, dtype=np.float32)
    for seed in range(20):
        conditionals = np.random.default_rng(seed).random((5, 4, 4)).astype(np.float32)
        orders = [
            list(order)
            for order in itertools.permutations(range(4))
            if (balance[list(order)] == balance).all()
        ]
        trust = [
            sum(conditionals[:, y, column].sum() * balance[y] for y, column in enumerate(order))
            for order in orders
        ]
        wanted = conditionals[:, :, orders[int(np.argmax(trust))]]
        assert (most_trusting(conditionals, balance) == wanted).all()


def test_predictions_against_bayes_rule_by_loops():
    rng = np.random.default_rng(2)
    model = SnorkelLabelModel(
        rng.uniform(0.1, 0.3, (4, 3, 3)).astype(np.float32), np.array([0.5, 0.2, 0.3])
    )
    votes = rng.integers(-1, 3, size=(50, 4))
    votes[0] = -1
    soft = model.predict(votes)
    assert soft[0] == pytest.approx([1 / 3] * 3)
    for row, probabilities in zip(votes[1:], soft[1:], strict=True):
        joint = [
            model.class_balance_C[y]
            * np.prod([model.conditionals_KVC[k, v, y] for k, v in enumerate(row) if v >= 0])
            for y in range(3)
        ]
        if (row >= 0).any():
            assert probabilities == pytest.approx(np.array(joint) / sum(joint), abs=1e-6)


def test_many_certain_votes_stay_finite():
    """500 functions at 0.0001: a product of probabilities would be 1e-2000, which is 0."""
    conditionals = np.full((500, 2, 2), 1e-4, dtype=np.float32)
    conditionals[:, 0, 0] = conditionals[:, 1, 1] = 2e-4
    model = SnorkelLabelModel(conditionals, np.array([0.5, 0.5]))
    votes = np.zeros((1, 500), dtype=np.int64)
    votes[0, :249] = 1
    # 251 votes for class 0 and 249 for class 1: odds of 2².
    assert model.predict(votes)[0] == pytest.approx([0.8, 0.2], abs=1e-2)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda votes: votes[:, :1], id="one labeling function"),
        pytest.param(lambda votes: votes[:, :0], id="no labeling function"),
        pytest.param(lambda votes: np.full_like(votes, -1), id="no vote at all"),
        pytest.param(lambda votes: np.where(votes == 2, -1, votes), id="a class without votes"),
        pytest.param(lambda votes: np.insert(votes, 1, -1, axis=1), id="a silent function"),
        pytest.param(lambda votes: votes[:1], id="one row"),
    ],
)
def test_extremes_are_finite(change):
    votes = change(synthetic(3, rows=200)[2])
    model = fit(votes, 3)
    soft = model.predict(votes)
    assert soft.shape == (len(votes), 3)
    assert soft.sum(1) == pytest.approx(1, abs=1e-5)
    assert soft[(votes < 0).all(1)] == pytest.approx(1 / 3)
    transitions = model.transitions()
    assert transitions.shape == (4, votes.shape[1], 3)
    assert (transitions >= 0).all()
    assert transitions.sum(0) == pytest.approx(1, abs=1e-5)


def test_seeds_decide_and_leave_global_generators_alone():
    votes = synthetic(2, rows=300)[2]
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    first, again, other = (fit(votes, 2, seed=s, epochs=5).conditionals_KVC for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_descent_that_diverges_is_refused():
    votes = synthetic(2, rows=300)[2]
    with pytest.raises(md.InputError, match=r"^snorkel_learning_rate: Snorkel diverges at 50"):
        fit(votes, 2, learning_rate=50.0)
