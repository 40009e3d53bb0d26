"""What vectorising weak learning saves, and how it stands beside the package snorkel.

Prints medians, ratios and differences; one thread. Run: python tests/benchmarks/weak.py
[--repeats 5]

Shapes: N rows, B mini-batch, D features, K labeling functions, C classes, V outcomes of a vote.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.config import SnorkelConfig
from modicum_algorithms.weak.labeling import majority_vote
from modicum_algorithms.weak.methods.integrated import votes_log_likelihood
from modicum_algorithms.weak.methods.snorkel import fit_snorkel
from modicum_algorithms.weak.models.end_model import mlp
from modicum_algorithms.weak.models.label_model import pointwise_log_votes, shared_log_votes

STEPS = 20  # training steps in one timing


def seconds(repeats: int, *works: Callable[[], object]) -> list[float]:
    """Median time of each work, taken in turns so that a busy moment meets them all."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(repeats + 1):
        for work, values in zip(works, times, strict=True):
            started = time.perf_counter()
            work()
            values.append(time.perf_counter() - started)
    # The first turn warms up.
    return [statistics.median(values[1:]) for values in times]


def synthetic_votes(
    rows: int, functions: int, classes: int, coverage: float, seed: int = 0
) -> np.ndarray:
    """Votes of functions with accuracies between 0.5 and 0.9, independent given the class."""
    rng = np.random.default_rng(seed)
    labels_N1 = rng.integers(0, classes, (rows, 1))
    wrong_NK = (labels_N1 + rng.integers(1, classes, (rows, functions))) % classes
    right_NK = rng.random((rows, functions)) < rng.uniform(0.5, 0.9, functions)
    votes_NK = np.where(right_NK, labels_N1, wrong_NK)
    return np.where(rng.random((rows, functions)) < coverage, votes_NK, -1)


def majority_vote_by_loop(votes_NK: np.ndarray, classes: int) -> np.ndarray:
    """Normalised vote counts, a row at a time."""
    soft_NC = np.empty((len(votes_NK), classes), dtype=np.float32)
    for n, row in enumerate(votes_NK.tolist()):
        counts = Counter(vote for vote in row if vote >= 0)
        total = sum(counts.values())
        soft_NC[n] = [counts[c] / total if total else 1 / classes for c in range(classes)]
    return soft_NC


def majority_votes(repeats: int) -> None:
    """96,000 rows of 9 functions, as many as AGNews has."""
    votes_NK, classes = synthetic_votes(96_000, 9, 4, coverage=0.2), 4
    difference = abs(majority_vote(votes_NK, classes) - majority_vote_by_loop(votes_NK, classes))
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: majority_vote(votes_NK, classes),
        "loop over rows": lambda: majority_vote_by_loop(votes_NK, classes),
    }
    try:
        from snorkel.labeling.model import MajorityLabelVoter

        voter = MajorityLabelVoter(cardinality=classes)
        works["snorkel's voter"] = lambda: voter.predict_proba(votes_NK)
    except ImportError:
        print("snorkel is not installed")
    ours, *others = seconds(repeats, *works.values())
    print(f"majority vote, 96,000 x 9: {ours * 1e3:.1f} ms")
    print(f"  largest difference from the loop: {difference.max()}")
    for name, other in zip(list(works)[1:], others, strict=True):
        print(f"  {name}: {other * 1e3:.0f} ms, {name} / ours: {other / ours:.0f}")


def snorkel_models(repeats: int) -> None:
    """Fit and prediction of Snorkel's label model, at the sizes of TREC and of AGNews."""
    try:
        from snorkel.labeling.model import LabelModel
    except ImportError:
        print("Snorkel's label model: snorkel is not installed")
        return
    for rows, functions, classes in ((5_000, 68, 6), (96_000, 9, 4)):
        votes_NK = synthetic_votes(rows, functions, classes, coverage=0.2)
        theirs = LabelModel(cardinality=classes, verbose=False)

        def fit_theirs(model=theirs, votes_NK=votes_NK):
            model.fit(votes_NK, seed=0, progress_bar=False)

        def fit_ours(votes_NK=votes_NK, classes=classes):
            balance_C = np.full(classes, 1 / classes)
            return fit_snorkel(votes_NK, SnorkelConfig(), balance_C, seed=0)

        ours = fit_ours()
        times = seconds(repeats, fit_ours, fit_theirs)
        soft_times = seconds(
            repeats,
            lambda model=ours, v=votes_NK: model.predict(v),
            lambda model=theirs, v=votes_NK: model.predict_proba(v),
        )
        estimates = abs(ours.conditionals_KVC - theirs.get_conditional_probs()[:, 1:]).max()
        soft = abs(ours.predict(votes_NK) - theirs.predict_proba(votes_NK)).max()
        print(f"Snorkel's label model, {rows:,} x {functions}, {classes} classes")
        for what, (mine, other) in (("fit", times), ("prediction", soft_times)):
            print(
                f"  {what}: {mine * 1e3:.0f} ms, the package {other * 1e3:.0f} ms,"
                f" package / ours: {other / mine:.1f}"
            )
        print(f"  largest difference: {estimates:.1e} in estimates, {soft:.1e} in soft labels")


def shared_by_loop(outcomes_BK: Tensor, logits_VKC: Tensor) -> Tensor:
    """Σ_k log φ_k(ỹ_k|y), a labeling function at a time."""
    log_votes_BC = torch.zeros(len(outcomes_BK), logits_VKC.shape[2])
    for k in range(logits_VKC.shape[1]):
        log_votes_BC = log_votes_BC + logits_VKC[:, k].log_softmax(0)[outcomes_BK[:, k]]
    return log_votes_BC


def pointwise_by_loop(outcomes_BK: Tensor, logits_BVKC: Tensor) -> Tensor:
    """Σ_k log p(ỹ_k|y, x), a labeling function at a time."""
    rows_B = torch.arange(len(outcomes_BK))
    log_votes_BC = torch.zeros(len(outcomes_BK), logits_BVKC.shape[3])
    for k in range(logits_BVKC.shape[2]):
        log_transitions_BVC = logits_BVKC[:, :, k].log_softmax(1)
        log_votes_BC = log_votes_BC + log_transitions_BVC[rows_B, outcomes_BK[:, k]]
    return log_votes_BC


def integrated_steps(repeats: int) -> None:
    """Steps of iWL and iWLD at TREC's size, 128 strong and 128 weak rows, against a loop over k."""
    B, K, C, D = 256, 68, 6, 384
    generator = torch.Generator().manual_seed(0)
    features_BD = torch.randn(B, D, generator=generator)
    outcomes_BK = torch.randint(C + 1, (B, K), generator=generator)
    counted_BK = torch.ones(B, K)
    labels_B = torch.randint(C, (B // 2,), generator=generator)

    def parts(pointwise: bool) -> tuple[nn.Module, nn.Module | None, Tensor]:
        start = torch.Generator().manual_seed(1)
        end_model = mlp(D, C, [100, 100], start)
        logits_VKC = torch.randn(C + 1, K, C, generator=start, requires_grad=True)
        network = mlp(D, logits_VKC.numel(), [100, 100], start) if pointwise else None
        return end_model, network, logits_VKC

    def trained(pointwise: bool, loop: bool) -> tuple[Callable[[], None], Callable[[], Tensor]]:
        end_model, network, logits_VKC = parts(pointwise)
        parameters = [*end_model.parameters()]
        parameters += [logits_VKC] if network is None else [*network.parameters()]
        optimiser = torch.optim.Adam(parameters, lr=1e-3, fused=True)

        def log_votes() -> Tensor:
            if network is None:
                if loop:
                    return shared_by_loop(outcomes_BK, logits_VKC)
                return shared_log_votes(outcomes_BK, counted_BK, logits_VKC.log_softmax(0))
            logits_BVKC = network(features_BD).unflatten(1, logits_VKC.shape)
            if loop:
                return pointwise_by_loop(outcomes_BK, logits_BVKC)
            # Normalising one long dimension is cheaper than several short ones.
            flat_BVL = logits_BVKC.flatten(2).log_softmax(1)
            return pointwise_log_votes(outcomes_BK, counted_BK, flat_BVL.view_as(logits_BVKC))

        def loss() -> Tensor:
            log_classes_BC = end_model(features_BD).log_softmax(-1)
            likelihoods_B = votes_log_likelihood(log_classes_BC + log_votes())
            strong_B = log_classes_BC[: B // 2].gather(1, labels_B[:, None])
            return -strong_B.mean() - 2 * likelihoods_B.mean()

        def steps() -> None:
            for _ in range(STEPS):
                optimiser.zero_grad(set_to_none=True)
                loss().backward()
                optimiser.step()

        return steps, loss

    for name, pointwise in (("iWL", False), ("iWLD", True)):
        ours, our_loss = trained(pointwise, loop=False)
        loop, loop_loss = trained(pointwise, loop=True)
        difference = abs(our_loss().item() - loop_loss().item())
        mine, theirs = (value / STEPS for value in seconds(repeats, ours, loop))
        after = abs(our_loss().item() - loop_loss().item())
        print(
            f"{name}'s step: {mine * 1e3:.2f} ms, loop over functions {theirs * 1e3:.2f} ms,"
            f" loop / ours: {theirs / mine:.1f}"
        )
        print(f"  losses differ by {difference:.1e} before training, {after:.1e} after")


def main() -> None:
    """Run every benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    majority_votes(repeats)
    snorkel_models(repeats)
    integrated_steps(repeats)


if __name__ == "__main__":
    main()
