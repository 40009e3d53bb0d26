"""Equations 3.4 to 3.8 and A.2 against enumeration, finite differences and known truths."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import modicum as md
from modicum_algorithms.weak.config import THESIS, IntegratedConfig, WeakLearningConfig
from modicum_algorithms.weak.data import datasets
from modicum_algorithms.weak.data.datasets import Split, WeakData
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.methods.integrated import (
    balance_divergence,
    complete_strong_log_likelihood,
    integrated_objective,
    marginal_strong_log_likelihood,
    votes_log_likelihood,
    weak_lower_bound,
)
from modicum_algorithms.weak.models.end_model import mlp, soft_cross_entropy
from modicum_algorithms.weak.models.joint_model import JointModel, tempered_posterior
from modicum_algorithms.weak.models.label_model import (
    PointwiseTransitions,
    SharedTransitions,
    Votes,
    shared_log_votes,
)
from weak_training import train

B, D, K, C = 5, 2, 3, 3
SMALL = {"label_network_hidden_units": 4, "label_network_hidden_layers": 1}
EXACT = dict(THESIS) | SMALL
TEMPERED = SMALL | {
    "vote_weight": 0.5,
    "abstain_weight": 0.25,
    "end_model_weight": 0.7,
    "coverage_vote": True,
    "self_supervision": True,
    "self_confidence": 0.5,
}
BALANCE = np.array([0.5, 0.3, 0.2])
FULL = {"vote_weight": 1.0, "abstain_weight": 1.0}
UNIFORM = torch.tensor([0.5, 0.5]).log()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def scatter(module, seed=0):
    """Random float64 parameters."""
    noise = generator(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=noise))
    return module


def label_model(pointwise, outcomes, states, seed=0):
    start = torch.zeros(outcomes, K, C)
    if pointwise:
        return scatter(PointwiseTransitions(D, start, [4], states, generator()), seed)
    return scatter(SharedTransitions(start, states, generator()), seed)


def softmax(logits, axis):
    weights = np.exp(logits - logits.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def probabilities(model, features_BD):
    """φ (B, V, K, C, H) and p(h|x) (B, H), from the raw parameters or outputs of the network."""
    shape, rows = model.shape_VKCH, len(features_BD)
    size = math.prod(shape)
    with torch.no_grad():
        if isinstance(model, SharedTransitions):
            outputs = torch.cat([model.logits_VKCH.flatten(), model.state_logits_H])
            outputs = outputs.expand(rows, -1).numpy()
        else:
            outputs = model.network(features_BD).numpy()
    states = outputs[:, size:] if shape[3] > 1 else np.zeros((rows, 1))
    return softmax(outputs[:, :size].reshape(rows, *shape), 1), softmax(states, 1)


def votes_by_loops(matrix_VKCH, states_H, votes_K, abstain, vote_weight=1, abstain_weight=1):
    """Σ_h p(h|x) Π_k p(ỹ_k|y, h)^w for every y, written out."""
    found = []
    for y in range(matrix_VKCH.shape[2]):
        total = 0.0
        for h, share in enumerate(states_H):
            product = float(share)
            for k, vote in enumerate(votes_K):
                if vote >= 0:
                    product *= float(matrix_VKCH[vote, k, y, h]) ** vote_weight
                elif abstain == "emission":
                    product *= float(matrix_VKCH[C, k, y, h]) ** abstain_weight
            total += product
        found.append(total)
    return np.array(found)


def tiny(rows=B, known=(), seed=0):
    """Random features, votes of which the last row has none, and a few labels."""
    rng = np.random.default_rng(seed)
    votes = rng.integers(-1, C, size=(rows, K))
    votes[-1] = -1
    labels = np.full(rows, -1)
    labels[list(known)] = rng.integers(0, C, size=len(known))
    return Supervision(torch.from_numpy(rng.normal(size=(rows, D))), votes, labels, C)


# --- Likelihoods ---


@pytest.mark.parametrize("states", [1, 3])
@pytest.mark.parametrize("abstain", ["emission", "missing"])
@pytest.mark.parametrize("pointwise", [False, True])
def test_likelihood_equals_the_written_out_sum(pointwise, abstain, states):
    """Also with every vote raised to a power, as evidence."""
    data = tiny()
    votes = Votes.of(data.votes_NK, C, abstain, vote_weight=0.5, abstain_weight=0.25)
    model = label_model(pointwise, votes.size, states)
    classes = torch.randn(B, C, generator=generator(1), dtype=torch.float64).softmax(-1)
    log_votes, evidence = model(data.features_ND, votes)
    got = votes_log_likelihood(classes.log() + log_votes).detach()
    matrices, shares = probabilities(model, data.features_ND)
    for n in range(B):
        row = (matrices[n], shares[n], data.votes_NK[n], abstain)
        wanted = float(classes[n].numpy() @ votes_by_loops(*row))
        assert float(got[n]) == pytest.approx(math.log(wanted), abs=1e-12)
        tempered = np.log(votes_by_loops(*row, 0.5, 0.25))
        assert evidence[n].numpy() == pytest.approx(tempered, abs=1e-12)
    assert not evidence.requires_grad


@pytest.mark.parametrize("states", [1, 3])
@pytest.mark.parametrize("pointwise", [False, True])
def test_emission_likelihoods_sum_to_one_over_all_votes(pointwise, states):
    """For every class by itself."""
    every = np.array(list(itertools.product(range(-1, C), repeat=K)))
    votes = Votes.of(every, C, "emission", **FULL)
    model = label_model(pointwise, votes.size, states)
    features = torch.tensor([[0.3, -1.2]], dtype=torch.float64).expand(len(every), D)
    log_votes, _ = model(features, votes)
    assert log_votes.exp().sum(0).tolist() == pytest.approx([1.0] * C, abs=1e-12)


@pytest.mark.parametrize("abstain", ["emission", "missing"])
def test_one_state_of_h_is_the_plain_model_and_so_are_two_equal_ones(abstain):
    """One state: equation 3.4 to the last bit. Two alike: its value, its gradient split by p(h)."""
    data = tiny()
    votes = Votes.of(data.votes_NK, C, abstain, **FULL)
    one, two = (label_model(False, votes.size, states) for states in (1, 2))
    log_matrices = one.logits_VKCH.squeeze(-1).log_softmax(0)
    plain = shared_log_votes(votes.outcomes_NK, votes.counted_NK, log_matrices)
    got = one(data.features_ND, votes)[0]
    assert got.equal(plain)
    with torch.no_grad():
        two.logits_VKCH.copy_(one.logits_VKCH.expand_as(two.logits_VKCH))
        two.state_logits_H.copy_(torch.tensor([0.2, 0.8]).log())
    twice = two(data.features_ND, votes)[0]
    assert torch.allclose(twice, plain, rtol=0, atol=1e-12)
    weights = torch.randn(B, C, generator=generator(2), dtype=torch.float64)
    (plain_gradient,) = torch.autograd.grad((weights * plain).sum(), one.logits_VKCH)
    (gradient,) = torch.autograd.grad((weights * got).sum(), one.logits_VKCH)
    assert gradient.equal(plain_gradient)
    (split,) = torch.autograd.grad((weights * twice).sum(), two.logits_VKCH)
    shares = torch.tensor([0.2, 0.8], dtype=torch.float64)
    assert torch.allclose(split, plain_gradient * shares, atol=1e-7)


def test_strong_and_weak_terms_by_hand():
    """One row, two classes: p(y|x) = (0.8, 0.2), Π p(ỹ|y) = (0.5, 0.1), strong label 1.

    Joint: (0.4, 0.02), together 0.42. L_W = log 0.42, with q = (0.4, 0.02)/0.42. The strong term is
    log 0.2 + log 0.42 as printed, log 0.02 for complete data. With q = (1/2, 1/2) the bound is
    (log 0.4 + log 0.02)/2 + log 2.
    """
    classes = torch.tensor([[0.8, 0.2]], dtype=torch.float64).log()
    evidence = torch.tensor([[0.5, 0.1]], dtype=torch.float64).log()
    joint, label = classes + evidence, torch.tensor([1])
    posterior = tempered_posterior(classes, evidence, 1.0, UNIFORM)
    assert posterior[0].tolist() == pytest.approx([0.4 / 0.42, 0.02 / 0.42])
    assert float(weak_lower_bound(posterior, joint)) == pytest.approx(math.log(0.42))
    half = torch.full((1, 2), 0.5, dtype=torch.float64)
    bound = (math.log(0.4) + math.log(0.02)) / 2 + math.log(2)
    assert float(weak_lower_bound(half, joint)) == pytest.approx(bound)
    marginal = marginal_strong_log_likelihood(classes, joint, label)
    assert float(marginal) == pytest.approx(math.log(0.2) + math.log(0.42))
    assert float(complete_strong_log_likelihood(joint, label)) == pytest.approx(math.log(0.02))


def test_tempered_posterior_by_hand():
    """p(y|x) = (0.64, 0.36) to the power 1/2 is (0.8, 0.6); times (0.3, 0.4) a tie.

    With a class balance of (0.36, 0.64), to the power 1/2, it is (0.6, 0.8) to 1.
    """
    classes = torch.tensor([[0.64, 0.36]]).log()
    evidence = torch.tensor([[0.3, 0.4]]).log()
    found = tempered_posterior(classes, evidence, 0.5, UNIFORM)[0].tolist()
    assert found == pytest.approx([0.5, 0.5])
    balance = torch.tensor([0.36, 0.64]).log()
    found = tempered_posterior(classes, evidence, 0.5, balance)[0].tolist()
    assert found == pytest.approx([0.6 / 1.4, 0.8 / 1.4])
    # A certain end model has no say at power 0, and the class balance none at power 1.
    certain = torch.tensor([[0.0, -1e30]])
    found = tempered_posterior(certain, evidence, 0.0, UNIFORM)[0].tolist()
    assert found == pytest.approx([3 / 7, 4 / 7])
    assert tempered_posterior(certain, evidence, 1.0, balance)[0].tolist() == [1, 0]


def test_the_exact_posterior_makes_the_bound_tight_in_value_and_gradient():
    """Fisher's identity: ∇ log Σ_y p(y) = Σ_y q(y) ∇ log p(y), q the posterior."""
    joint = torch.randn(B, C, generator=generator(), dtype=torch.float64, requires_grad=True)
    exact = votes_log_likelihood(joint).mean()
    bound = weak_lower_bound(joint.softmax(-1).detach(), joint)
    assert bound.item() == pytest.approx(exact.item(), abs=1e-14)
    gradients = [torch.autograd.grad(value, joint)[0] for value in (bound, exact)]
    assert torch.allclose(*gradients, rtol=0, atol=1e-15)
    for seed in range(1, 20):
        other = torch.randn(B, C, generator=generator(seed), dtype=torch.float64).softmax(-1)
        assert weak_lower_bound(other, joint) < exact
    certain = torch.nn.functional.one_hot(torch.zeros(B, dtype=torch.int64), C).double()
    assert weak_lower_bound(certain, joint).item() == pytest.approx(joint[:, 0].mean().item())


def test_likelihood_stays_finite_where_products_underflow():
    """400 votes at probability 1e-3 give 1e-1200, far below what a float holds."""
    joint = torch.tensor([[0.5, 0.5]]).log() + 400 * math.log(1e-3)
    value = votes_log_likelihood(joint)
    assert float(value) == pytest.approx(400 * math.log(1e-3), rel=1e-6)
    bound = weak_lower_bound(joint.softmax(-1), joint)
    assert float(bound) == pytest.approx(float(value), rel=1e-6)


def test_divergence_from_a_class_balance_by_hand_and_by_finite_differences():
    """Predictions (0.9, 0.1) and (0.3, 0.7) have the mean (0.6, 0.4): no divergence from that.

    From (1, 0) it is log(1/0.6), from (1/2, 1/2) half of log(0.5/0.6) + log(0.5/0.4).
    """
    rows = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)

    def divergence(*balance):
        return balance_divergence(rows.log(), torch.tensor(balance, dtype=torch.float64)).item()

    assert divergence(0.6, 0.4) == pytest.approx(0, abs=1e-12)
    assert divergence(1.0, 0.0) == pytest.approx(math.log(1 / 0.6))
    wanted = (math.log(0.5 / 0.6) + math.log(0.5 / 0.4)) / 2
    assert divergence(0.5, 0.5) == pytest.approx(wanted)
    balance = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    logits = torch.randn(B, C, generator=generator(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda z: balance_divergence(z.log_softmax(-1), balance), logits
    )


def test_soft_cross_entropy_of_hard_labels_is_cross_entropy():
    logits = torch.randn(6, 4, generator=generator())
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    hard = torch.nn.functional.one_hot(labels, 4).float()
    assert soft_cross_entropy(logits, hard).item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, labels).item()
    )


# --- The objective as a whole ---


def objective_of(data, config, depends_on_x=False, seed=0):
    """End model, objective and its batches, with random float64 parameters."""
    model = scatter(mlp(D, C, [4], generator()), seed)
    objective = integrated_objective(model, data, config, generator(), depends_on_x=depends_on_x)
    scatter(objective.label_network, seed + 1)
    batches = [torch.from_numpy(pool) if len(pool) else None for pool in objective.pools]
    return model, objective, batches


CASES = [
    (depends_on_x, {"abstain": abstain} | more)
    for depends_on_x in (False, True)
    for abstain, more in (
        ("emission", {}),
        ("missing", {"strong_term": "complete", "lambda_balance": 0.4}),
        ("emission", {"latent_states": 2, "coverage_vote": True}),
    )
]


@pytest.mark.parametrize(("depends_on_x", "more"), CASES)
def test_gradients_of_the_objective_by_finite_differences(depends_on_x, more):
    """Central differences of equation 3.7 in every kind of parameter, the posterior exact."""
    data = tiny(12, known=[0, 5, 7])
    changes = {"lambda_strong": 0.7, "lambda_weak": 1.3} | more
    config = IntegratedConfig(**EXACT | changes)
    model, objective, batches = objective_of(data, config, depends_on_x)
    assert not set(objective.pools[0]) & set(objective.pools[1])
    objective.loss(batches).backward()
    step = 1e-5
    trained = [*model.parameters(), *objective.label_network.parameters()]
    for parameter in [p for p in trained if p.grad is not None]:
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


@pytest.mark.parametrize("depends_on_x", [False, True])
def test_the_thesis_s_objective_equals_equation_3_7_written_out(depends_on_x):
    data = tiny(12, known=[0, 5, 7])
    config = IntegratedConfig(**EXACT | {"lambda_strong": 0.7, "lambda_weak": 1.3})
    model, objective, batches = objective_of(data, config, depends_on_x)
    matrices, states = probabilities(objective.label_network, data.features_ND)
    with torch.no_grad():
        classes = model(data.features_ND).softmax(-1).numpy()
    strong, weak = [], []
    for n in range(12):
        row = (matrices[n], states[n], data.votes_NK[n], "emission")
        likelihood = math.log(classes[n] @ votes_by_loops(*row))
        known = data.labels_N[n]
        if known >= 0:
            strong.append(math.log(classes[n, known]) + likelihood)
        else:
            weak.append(likelihood)
    wanted = -(0.7 * np.mean(strong) + 1.3 * np.mean(weak))
    assert objective.loss(batches).item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("depends_on_x", [False, True])
def test_tempered_gradients_are_those_of_a_loss_with_its_posterior_held_fixed(depends_on_x):
    """The loss written out with q from loops; powers 0.5, 0.25 and 0.7, and both added votes."""
    data = tiny(12, known=[0, 5, 7])
    data = replace(data, class_balance_C=BALANCE)
    model, objective, batches = objective_of(data, IntegratedConfig(**TEMPERED), depends_on_x)
    objective.loss(batches).backward()
    label = objective.label_network
    got = [p.grad.clone() for p in [*model.parameters(), *label.parameters()] if p.grad is not None]
    log_classes = model(data.features_ND).log_softmax(-1)
    log_matrices = label.outputs(data.features_ND)[0].squeeze(-1)  # (N, V, K + 2, C)
    total, sure = torch.zeros(()), 0
    strong, weak = batches
    for n in range(12):
        powers = [0.5 if vote >= 0 else 0.25 for vote in data.votes_NK[n]] + [1.0]
        outcomes = [vote if vote >= 0 else C for vote in data.votes_NK[n].tolist()]
        outcomes.append(0 if data.covered[n] else 1)
        confidence, predicted = log_classes[n].exp().max(-1)
        if confidence > 0.5:
            outcomes, powers, sure = [*outcomes, int(predicted)], [*powers, 0.5], sure + 1
        terms = [log_matrices[n, outcome, k] for k, outcome in enumerate(outcomes)]
        log_joint = log_classes[n] + sum(terms)
        if data.labels_N[n] >= 0:
            total = total - log_joint[data.labels_N[n]] / len(strong)
        elif n in weak:
            evidence = sum(w * term for w, term in zip(powers, terms, strict=True))
            prior = 0.7 * log_classes[n] + 0.3 * torch.tensor([0.5, 0.3, 0.2]).log()
            q = (prior + evidence).softmax(-1).detach()
            total = total - (q * (log_joint - q.log())).sum() / len(weak)
    assert 0 < sure < 12
    # With a power below 1 the end model teaches itself nothing where no function votes.
    covered = set(np.flatnonzero((data.votes_NK >= 0).any(1)).tolist())
    assert set(weak.tolist()) == covered - {0, 5, 7} < set(range(12)) - {0, 5, 7}
    trained = [p for p in [*model.parameters(), *label.parameters()] if p.grad is not None]
    assert objective.loss(batches).item() == pytest.approx(total.item(), abs=1e-12)
    for found, wanted in zip(got, torch.autograd.grad(total, trained), strict=True):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


def test_the_balance_term_adds_a_divergence_of_weak_predictions():
    """With weight 2 and a balance π: 2 KL(π ‖ mean prediction of the weak rows), from zero up."""
    data = replace(tiny(12, known=[0, 5, 7]), class_balance_C=BALANCE)
    values = []
    for weight in (0.0, 2.0):
        settings = IntegratedConfig(**EXACT, lambda_balance=weight)
        model, objective, batches = objective_of(data, settings)
        values.append(objective.loss(batches).item())
    weak = np.delete(np.arange(12), [0, 5, 7])
    with torch.no_grad():
        mean = model(data.features_ND[weak]).softmax(-1).mean(0).numpy()
    divergence = (BALANCE * np.log(BALANCE / mean)).sum()
    assert divergence > 0.01
    assert values[1] - values[0] == pytest.approx(2 * divergence, abs=1e-6)


@pytest.mark.parametrize("states", [1, 2])
def test_label_networks_start_from_the_shared_matrices_at_every_point(states):
    start = torch.randn((C + 1, K, C), generator=generator(5))
    shared = SharedTransitions(start, states, generator())
    pointwise = PointwiseTransitions(D, start, [4], states, generator())
    features = torch.randn(B, D, generator=generator(6))
    # With one state p(h|x) is 1 and needs no output.
    outputs = math.prod(shared.shape_VKCH) + (states if states > 1 else 0)
    assert pointwise.network[-1].out_features == outputs
    log_matrices, log_states = shared.outputs(features)
    for found, wanted in zip(pointwise.outputs(features), (log_matrices, log_states), strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)
    uniform = torch.full((B, states), -math.log(states))
    assert torch.allclose(log_states, uniform, atol=1e-6)
    # With one state it is the start itself; more of them are told apart by noise.
    given = start.log_softmax(0).unsqueeze(-1).expand(B, *shared.shape_VKCH)
    assert torch.allclose(log_matrices, given, atol=1e-6) == (states == 1)


def test_an_empty_set_drops_its_term():
    for known in ([], range(6)):
        data = tiny(6, known)
        _, objective, batches = objective_of(data, IntegratedConfig(**TEMPERED))
        assert [batch is None for batch in batches] == [len(known) == 0, len(known) > 0]
        assert torch.isfinite(objective.loss(batches))


@pytest.mark.parametrize("method", ["iwl", "iwld"])
def test_with_all_labels_the_end_model_is_that_of_labels_only(method, tmp_path):
    """Votes say nothing where the label is known, so every number must be the same."""
    data = datasets.load("breast_cancer", "auto")
    trained = [
        train(
            WeakLearningConfig(method=name, strong_fraction=1.0, max_iterations=150),
            data,
            md.Trial(id="t", seed=0, scratch=tmp_path),
        )
        for name in ("labels_only", method)
    ]
    labels_only, joint = trained
    assert joint.test == labels_only.test
    assert joint.estimator.n_iter_ == labels_only.estimator.n_iter_
    theirs, ours = (t.estimator.predict_proba(data.test.features_ND) for t in trained)
    assert np.array_equal(ours, theirs)


# --- What the joint model adds to the votes, and says of them ---


def joint_model(votes, logits, **changes):
    """A joint model whose end model gives the logits."""
    rows = len(votes)
    data = Supervision(torch.eye(rows), np.array(votes), np.full(rows, -1), len(logits[0]))
    model = torch.nn.Linear(rows, len(logits[0]), bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(logits).T)
    return JointModel(model, data, IntegratedConfig(**changes), generator(), depends_on_x=False)


def test_coverage_vote_and_self_vote_by_hand():
    """Predictions 0.9 for class 0, 0.75 for class 1, 0.6 for class 0; sure above 0.7.

    Two functions vote in rows 0 and 1, none in row 2. The third column is the coverage vote, 0
    where any voted; the fourth the end model's, which counts for nothing in row 2.
    """
    votes = [[0, 1], [-1, 1], [-1, -1]]
    logits = np.log([[0.9, 0.1], [0.25, 0.75], [0.6, 0.4]]).astype(np.float32).tolist()
    added = {"coverage_vote": True, "self_supervision": True, "self_confidence": 0.7}
    powers = {"vote_weight": 0.5, "abstain_weight": 0.25}
    joint = joint_model(votes, logits, abstain="emission", **added, **powers)
    found = joint.all_votes(torch.arange(3), torch.tensor(logits).log_softmax(-1))
    assert found.outcomes_NK.tolist() == [[0, 1, 0, 0], [2, 1, 0, 1], [2, 2, 1, 0]]
    assert found.counted_NK.tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]]
    wanted = [[0.5, 0.5, 1, 0.5], [0.25, 0.5, 1, 0.5], [0.25, 0.25, 1, 0]]
    assert found.evidence_NK.tolist() == wanted
    # Where abstains are missing, they count for nothing either.
    joint = joint_model(votes, logits, abstain="missing", **added, **powers)
    found = joint.all_votes(torch.arange(3), torch.tensor(logits).log_softmax(-1))
    assert found.outcomes_NK[:, 2:].tolist() == [[0, 0], [0, 1], [1, 0]]
    assert found.counted_NK.tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 0]]
    assert found.evidence_NK.tolist() == [[0.5, 0.5, 1, 0.5], [0, 0.5, 1, 0.5], [0, 0, 1, 0]]
    assert joint.label_model.shape_VKCH == (2, 4, 2, 1)


def test_there_is_no_coverage_vote_where_every_row_has_a_vote():
    joint = joint_model([[0, 1], [-1, 1]], [[0.0, 1.0]] * 2, coverage_vote=True)
    assert not joint.says_coverage
    assert joint.votes.outcomes_NK.shape == (2, 2)


SILENT = [[0, 1], [-1, 1], [-1, -1]]


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        (THESIS, [0, 1, 2]),  # silence is an outcome
        (dict(THESIS) | {"abstain": "missing"}, [0, 1]),
        (dict(THESIS) | {"abstain_weight": 0.0}, [0, 1]),
        (dict(THESIS) | {"abstain_weight": 0.0, "coverage_vote": True}, [0, 1, 2]),
        (dict(THESIS) | {"abstain": "missing", "self_supervision": True}, [0, 1, 2]),
        (dict(THESIS) | {"end_model_weight": 0.5}, [0, 1]),
    ],
)
def test_rows_without_a_vote_are_weak_rows_where_they_can_teach(changes, rows):
    joint = joint_model(SILENT, [[0.0, 1.0]] * 3, **changes)
    assert joint.weak_rows().tolist() == rows


@pytest.mark.parametrize("states", [1, 2])
@pytest.mark.parametrize("depends_on_x", [False, True])
@pytest.mark.parametrize("abstain", ["emission", "missing"])
def test_denoised_labels_and_transitions_are_those_of_the_model(depends_on_x, abstain, states):
    """The posterior of each row written out; matrices of iWLD averaged over the rows.

    Where abstains are missing, function k votes v with its coverage times the matrix's entry.
    """
    data = tiny(20, known=[3])
    config = IntegratedConfig(**EXACT | {"abstain": abstain, "latent_states": states})
    model, objective, _ = objective_of(data, config, depends_on_x)
    matrices, shares = probabilities(objective.label_network, data.features_ND)
    with torch.no_grad():
        classes = model(data.features_ND).softmax(-1).numpy()
    denoised = objective.denoised()
    for n in range(20):
        weights = classes[n] * votes_by_loops(matrices[n], shares[n], data.votes_NK[n], abstain)
        wanted = np.eye(C)[data.labels_N[3]] if n == 3 else weights / weights.sum()
        assert denoised[n] == pytest.approx(wanted, abs=1e-6)
    transitions = objective.transitions()
    mean = np.mean([np.tensordot(matrices[n], shares[n], 1) for n in range(20)], 0)
    assert transitions.shape == (C + 1, K, C)
    assert transitions.sum(0) == pytest.approx(np.ones((K, C)), abs=1e-5)
    coverage = 1 if abstain == "emission" else (data.votes_NK >= 0).mean(0)[:, None]
    assert transitions[:C] == pytest.approx(mean[:C] * coverage, abs=1e-5)


# --- Known truths ---


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


def recover(rows, tmp_path, **settings):
    """Learned transitions, votes' accuracies and test accuracy, with half of the labels given."""
    data, truth = synthetic(rows)
    config = WeakLearningConfig(
        method="iwl",
        strong_fraction=0.5,
        max_iterations=600,
        patience=600,
        evaluate_every=100,
        transition_learning_rate=3e-2,
        **{"end_model_weight": 1.0, "lambda_strong": 1.0} | settings,
    )
    result = train(config, data, md.Trial(id="t", seed=0, scratch=tmp_path))
    learned = result.estimator.label_model_.transitions
    right = np.stack([learned[:, c, c] / learned[:, :2, c].sum(1) for c in range(2)])
    return result, learned, right, truth


FORMS = {
    "default": {},
    "thesis": THESIS,
    "missing": {"abstain": "missing"},
    "em": {"transition_updates": "em"},
}


@pytest.mark.parametrize("form", FORMS)
def test_iwl_recovers_known_transitions_and_the_bayes_classifier(form, tmp_path):
    """With half of 8,000 labels given (section 3.2.2) the transition matrices come out.

    The best possible accuracy for two unit Gaussians 2√2 apart is Φ(√2) = 0.921.
    """
    result, learned, right, truth = recover(8000, tmp_path, **FORMS[form])
    assert right == pytest.approx(np.stack([truth, truth]), abs=0.05)
    assert learned[:, 2] == pytest.approx(np.full((4, 2), 0.3), abs=0.04)
    assert result.estimator.label_model_.accuracy == pytest.approx(truth, abs=0.04)
    assert result.test.accuracy > 0.905


@pytest.mark.slow
@pytest.mark.parametrize("form", ["default", "thesis"])
def test_estimates_improve_as_labels_grow(form, tmp_path):
    """Section 3.2.2: strong labels identify the model."""
    errors = []
    for rows in (100, 8000):
        _, _, right, truth = recover(rows, tmp_path, **FORMS[form])
        errors.append(np.abs(right - truth).mean())
    assert errors[1] < errors[0] / 2
