"""WeaSEL and Denoise against loops over rows and functions, closed forms and hand counts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from modicum_algorithms.weak.config import DenoiseConfig, WeaselConfig
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.methods.denoise import (
    Attention,
    Ensemble,
    denoise_objective,
    reliabilities,
    vote_weights,
)
from modicum_algorithms.weak.methods.weasel import (
    Encoder,
    agreement_loss,
    weasel_objective,
    weighted_votes,
)
from modicum_algorithms.weak.models.end_model import mlp

B, K, C, D = 6, 4, 3, 5
BALANCE = np.array([0.5, 0.3, 0.2])
OBJECTIVES = {
    "weasel": (weasel_objective, WeaselConfig()),
    "denoise": (denoise_objective, DenoiseConfig().model_copy(update={"denoise_ramp_step": -1})),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def toy(rows=40, functions=K, classes=C, strong=0, seed=0):
    """Random features, votes and labels; the first two rows have no vote."""
    rng = np.random.default_rng(seed)
    votes = rng.integers(-1, classes, size=(rows, functions))
    votes[:2] = -1
    labels = np.full(rows, -1)
    labels[rows - strong :] = rng.integers(0, classes, strong)
    features = torch.randn(rows, D, generator=generator(seed))
    return Supervision(features, votes, labels, classes)


def denoise(**settings):
    """Settings by their short names; they may lie outside what a user may set."""
    return DenoiseConfig().model_copy(update={f"denoise_{n}": v for n, v in settings.items()})


def build(method, supervision, seed=0, settings=None):
    """A new end model and the method's objective for it."""
    make, usual = OBJECTIVES[method]
    model = mlp(supervision.features_ND.shape[1], supervision.classes, [8], generator(seed))
    return model, make(model, supervision, settings or usual, generator(seed))


def one_step(objective, rows=None):
    """The loss of a mini-batch, its gradients left in the parameters."""
    batches = [torch.from_numpy(pool) if rows is None else rows for pool in objective.pools]
    loss = objective.loss(batches)
    loss.backward()
    return loss.item()


def gradients(module):
    return [p.grad for p in module.parameters() if p.grad is not None and p.grad.any()]


# --- WeaSEL ---


def test_weasels_weighted_votes_against_loops():
    scores = torch.randn(B, C, K, generator=generator(), dtype=torch.float64)
    votes = torch.from_numpy(np.random.default_rng(0).integers(-1, C, (B, K)))
    logits = weighted_votes(scores, votes.float())
    for b in range(B):
        for c in range(C):
            total = 0.0
            for k in range(K):
                if votes[b, k] == c:
                    share = scores[b, c, k].exp() / sum(scores[b, c, j].exp() for j in range(K))
                    total += 2 * C * float(share)  # √K = 2
            assert float(logits[b, c]) == pytest.approx(total)


def test_weasels_temperature_and_class_balance():
    """Equal scores: each vote counts √K · C / K = 2·3/4 = 1.5, whatever the temperature."""
    votes = torch.tensor([[0.0, 0.0, 1.0, -1.0], [-1.0, -1.0, -1.0, -1.0]])
    settings = WeaselConfig(weasel_temperature=0.5)
    encoder = Encoder(D, K, BALANCE, settings, generator()).eval()
    features = torch.randn(2, D, generator=generator())
    scores = encoder.network(torch.cat([votes, features], 1)).unflatten(1, (C, K))
    log_balance = torch.tensor([0.5, 0.3, 0.2]).log()
    wanted = weighted_votes(2 * scores, votes) + log_balance
    assert torch.allclose(encoder(features, votes), wanted, atol=1e-6)
    with torch.no_grad():
        for parameter in encoder.network[-1].parameters():
            parameter.zero_()
    wanted = torch.tensor([[3.0, 1.5, 0.0], [0.0, 0.0, 0.0]]) + log_balance
    assert torch.allclose(encoder(features, votes), wanted, atol=1e-6)


def test_each_side_of_the_agreement_learns_from_a_fixed_target():
    """The gradient of H(q, softmax(z)) in z is (softmax(z) − q)/B while q is held fixed.

    Were the targets not held fixed, each side's gradient would have a second term.
    """
    end, encoder = (
        torch.randn(B, C, generator=generator(s), dtype=torch.float64, requires_grad=True)
        for s in (0, 1)
    )
    agreement_loss(end, encoder).backward()
    p, q = end.detach().softmax(-1), encoder.detach().softmax(-1)
    assert torch.allclose(end.grad, (p - q) / B)
    assert torch.allclose(encoder.grad, (q - p) / B)
    cross = -(q * p.log()).sum(-1).mean() - (p * q.log()).sum(-1).mean()
    assert agreement_loss(end, encoder).item() == pytest.approx(cross.item())


def test_weasels_dropout_leaves_out_the_fraction_and_keeps_the_mean():
    """Of 10,000 units 0.3 ± 0.014 (three standard errors) are 0, the others 1/0.7."""
    wide = WeaselConfig(hidden_units=10_000, hidden_layers=1)
    dropout = Encoder(D, K, BALANCE, wide, generator()).network[3]
    units = dropout(torch.ones(1, 10_000))
    assert (units == 0).float().mean() == pytest.approx(0.3, abs=0.014)
    assert units[units != 0] == pytest.approx(1 / 0.7)
    assert torch.equal(dropout.eval()(units), units)


def test_weasel_trains_on_rows_with_a_vote_strong_ones_included():
    supervision = toy(strong=5)
    supervision.votes_NK[-1] = -1  # a row that only the strong label covers
    _, objective = build("weasel", supervision)
    assert [pool.tolist() for pool in objective.pools] == [list(range(2, 40))]
    # The strong labels are one more labeling function, so the encoder reads K + 1 votes.
    assert objective.label_network.network[0].in_features == D + K + 1


# --- Denoise ---


def test_denoises_votes_against_loops():
    rng = np.random.default_rng(0)
    votes = torch.from_numpy(rng.integers(-1, C, (B, K)))
    weights = torch.rand(B, K, generator=generator())
    weighted = vote_weights(weights, votes, C)
    shared = vote_weights(weights[0], votes, C)
    for b in range(B):
        for c in range(C):
            own = sum(float(weights[b, k]) for k in range(K) if votes[b, k] == c)
            same = sum(float(weights[0, k]) for k in range(K) if votes[b, k] == c)
            assert float(weighted[b, c]) == pytest.approx(own)
            assert float(shared[b, c]) == pytest.approx(same)
    means = [sum(float(weights[b, k]) for b in range(B) if votes[b, k] >= 0) / B for k in range(K)]
    wanted = np.exp(means) / np.exp(means).sum()
    assert reliabilities(weights.requires_grad_(), votes).numpy() == pytest.approx(wanted)
    assert not reliabilities(weights, votes).requires_grad


def test_denoises_attention_is_one_over_all_functions():
    attention = Attention(D, K, 7, generator())
    features, votes = torch.randn(B, D, generator=generator()), torch.zeros(B, K)
    first, tanh, last = attention.network
    hidden = torch.tanh(torch.cat([votes, features], 1) @ first.weight.T + first.bias)
    wanted = (hidden @ last.weight.T + last.bias).softmax(-1)
    assert isinstance(tanh, torch.nn.Tanh)
    assert torch.allclose(attention(features, votes), wanted, atol=1e-6)


def test_the_ensemble_by_hand():
    """α = 0.6, row 1 predicted 1, then 2.

    Means 0.4 · 1 = 0.4 and 0.6 · 0.4 + 0.4 · 2 = 1.04; corrected 0.4/(1 − 0.6) = 1 and
    1.04/(1 − 0.36) = 1.625. Row 0 has no prediction, so it has no loss.
    """
    ensemble = Ensemble(3, 1, alpha=0.6)
    rows = torch.tensor([0, 1])
    prediction = torch.tensor([[5.0], [3.0]])
    assert ensemble.loss(rows, prediction).item() == 0
    ensemble.add(torch.tensor([1]), torch.tensor([[1.0]]))
    assert ensemble.loss(rows, prediction).item() == pytest.approx((3 - 1) ** 2 / 2)
    ensemble.add(torch.tensor([1]), torch.tensor([[2.0]]))
    assert ensemble.loss(rows, prediction).item() == pytest.approx((3 - 1.625) ** 2 / 2)
    assert ensemble.means_NC.squeeze().numpy() == pytest.approx([0, 1.04, 0])


def test_denoises_loss_written_out():
    """Two steps with self-supervision from the first: the second compares with the first's logits.

    A single prediction corrected for its start is that prediction.
    """
    supervision = toy()
    settings = denoise(c1=0.3, c2=0.5, ramp_step=-1)
    model, objective = build("denoise", supervision, settings=settings)
    attention, features = objective.label_network, supervision.features_ND
    votes = torch.from_numpy(supervision.votes_NK).float()
    voted, free = torch.arange(2, 12), torch.tensor([0, 1])

    def written_out(labels):
        weights = attention(features[voted], votes[voted])
        rows = []
        for b, row in enumerate(votes[voted]):
            rows.append([sum(weights[b, k] for k in range(K) if row[k] == c) for c in range(C)])
        first = functional.cross_entropy(torch.tensor(rows), labels)
        return 0.3 * first + 0.5 * functional.cross_entropy(model(features[voted]), labels)

    # The first labels are those of the majority vote: read them where there is no tie.
    counts = vote_weights(torch.ones(K), votes[voted], C)
    clear = (counts == counts.max(-1, keepdim=True).values).sum(-1) == 1
    voted, labels = voted[clear], counts.argmax(-1)[clear]
    before = model(features[free]).detach()
    with torch.no_grad():
        loss = objective.loss([voted, free]).item()
        assert loss == pytest.approx(float(written_out(labels)), rel=1e-5)
        share = reliabilities(attention(features[voted], votes[voted]), votes[voted])
        labels = vote_weights(share, votes[voted], C).argmax(-1)
        for parameter in model.parameters():
            parameter += 0.05
        distance = float((model(features[free]) - before).square().mean())
        loss = objective.loss([voted, free]).item()
        assert loss == pytest.approx(float(written_out(labels)) + 0.2 * distance, rel=1e-5)


def test_denoises_labels_follow_the_reliable_function():
    """Two functions tie on 30 rows; on 10 more only the second votes, so its weight is larger.

    The first labels of the tied rows are drawn, those after a step are the second function's.
    """
    votes = np.tile([0, 1], (40, 1))
    votes[30:, 0] = -1
    supervision = Supervision(torch.zeros(40, D), votes, np.full(40, -1), 2)
    settings = denoise(c1=0.0, c2=1.0)
    model, objective = build("denoise", supervision, settings=settings)
    with torch.no_grad():
        for parameter in objective.label_network.parameters():
            parameter.zero_()  # every function has the attention 1/2
        model[-1].bias += torch.tensor([0.0, 1.0])
        tied = torch.arange(30)
        # Features are all alike, so the first loss tells how many of the labels are 0.
        nought, one = -model(supervision.features_ND[0]).log_softmax(-1)
        first = objective.loss([torch.arange(40), tied]).item()
        share = (first - float(one)) / float(nought - one)
        assert 5 / 40 < share < 25 / 40
        assert objective.loss([tied, tied]).item() == pytest.approx(float(one))


def test_denoises_gradients_stop():
    """The attention learns from its own loss alone, the end model from the other two."""
    supervision = toy()
    model, objective = build("denoise", supervision, settings=denoise(c1=1.0, c2=0.0))
    one_step(objective)
    assert gradients(objective.label_network)
    assert not gradients(model)
    model, objective = build("denoise", supervision, settings=denoise(c1=0.0, c2=1.0))
    one_step(objective)
    assert gradients(model)
    assert not gradients(objective.label_network)


def test_denoises_self_supervision_starts_after_its_step():
    """With c1 = c2 = 0 only self-supervision is left. Steps count from 0; it starts at step 3.

    Its first step has nothing to compare with, so step 4 is the first with a loss.
    """
    settings = denoise(c1=0.0, c2=0.0, ramp_step=2)
    model, objective = build("denoise", toy(), settings=settings)
    batches = [torch.from_numpy(pool) for pool in objective.pools]
    losses = []
    for _ in range(6):
        with torch.no_grad():
            losses.append(objective.loss(batches).item())
            for parameter in model.parameters():
                parameter += 0.1
    assert losses[:4] == [0, 0, 0, 0]
    assert min(losses[4:]) > 0


def test_denoises_pools():
    """Rows with a vote, and those without; all rows if every row has one."""
    _, objective = build("denoise", toy())
    assert [pool.tolist() for pool in objective.pools] == [list(range(2, 40)), [0, 1]]
    _, objective = build("denoise", toy(strong=40))
    assert [pool.tolist() for pool in objective.pools] == [list(range(40)), list(range(40))]


# --- Both ---


@pytest.mark.parametrize("method", OBJECTIVES)
def test_soft_labels_of_all_rows(method):
    supervision = toy(strong=5)
    _, objective = build(method, supervision)
    soft = objective.denoised()
    assert soft.shape == (40, C)
    assert soft.dtype == np.float32
    assert soft.sum(1) == pytest.approx(1, abs=1e-5)
    assert soft[:2] == pytest.approx(1 / C)
    assert (abs(soft[2:] - 1 / C) > 0.01).any(1).mean() > 0.5
    assert objective.transitions is None


def test_weasels_class_balance_says_nothing_of_a_row_without_votes():
    _, objective = build("weasel", replace(toy(), class_balance_C=BALANCE))
    assert objective.denoised()[:2] == pytest.approx(1 / C)


def test_denoises_soft_labels_are_the_weighted_votes():
    """One function and a strong label that agree leave nothing to the other classes."""
    supervision = toy(functions=1, strong=5)
    _, objective = build("denoise", supervision)
    voted = supervision.votes_NK[2:35, 0] >= 0
    wanted = np.eye(C)[supervision.votes_NK[2:35, 0][voted]]
    assert objective.denoised()[2:35][voted] == pytest.approx(wanted)
