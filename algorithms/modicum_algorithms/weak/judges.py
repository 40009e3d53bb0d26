"""Several oracles of different quality as judges, combined like labeling functions.

The winner of a pair is a label with two classes: 0 if the first completion wins, 1 if the second
does. An oracle's judgement is a weak label, its failure an abstain. Agreements and disagreements of
the oracles tell the accuracy of each (thesis, end of section 3.5), with features of the pairs (iWL)
or without.

Swapping the two classes leaves the likelihood of the votes unchanged. The symmetry is broken by
assuming that oracles are right more often than not: fits start from the majority vote, and without
features a prior worth a few judgements favours right ones.

Shapes: N pairs, K oracles, C = 2 classes, V outcomes of a vote, D features.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from sklearn.base import clone

import modicum as md
from modicum_algorithms.weak.config import SnorkelConfig
from modicum_algorithms.weak.estimators import IntegratedWeakLearner
from modicum_algorithms.weak.labeling import majority_vote
from modicum_algorithms.weak.methods.snorkel import fit_snorkel
from modicum_algorithms.weak.models.expectation_maximisation import (
    maximise_expectation,
    responsibilities,
)
from modicum_algorithms.weak.models.label_model import (
    SharedTransitions,
    Votes,
    majority_vote_transitions,
    self_transitions,
    with_abstains,
)
from modicum_algorithms.weak.models.label_summary import LabelModelSummary, describe_votes

Answer = md.oracles.Judgement | md.oracles.Failure
Method = Literal["label_model", "snorkel", "majority_vote"]

_CLASSES = 2
_FIRST, _SECOND = 0, 1
_PRIOR_ACCURACY = 0.7
_PRIOR_VOTES = 6.0  # weight of the prior, in judgements of each class
_MOST_STEPS = 2_000
_SETTLED = 1e-6  # largest change of a probability at which the steps end


@dataclass(frozen=True, eq=False)
class Verdicts:
    """The joint verdicts of several oracles.

    Attributes:
        first_wins: Probability that the first completion wins, (N,); 1/2 where no oracle judged
            and there are no features.
        label_model: Estimates of how each oracle votes: accuracy, coverage, conflict.
    """

    first_wins: np.ndarray
    label_model: LabelModelSummary

    @property
    def accuracy(self) -> np.ndarray:
        """Probability that an oracle's judgement is right, (K,); NaN for an oracle without any."""
        return self.label_model.accuracy


def votes_of(answers: Sequence[Sequence[Answer]]) -> np.ndarray:
    """Judgements as votes.

    Args:
        answers: Answers of each of K oracles to the same N pairs.

    Returns:
        Votes (N, K), int64: 0, the first completion wins; 1, the second; -1, a failure.

    Raises:
        InputError: There is no oracle, or the oracles answered different numbers of pairs.
    """
    if not answers or len({len(column) for column in answers}) > 1:
        raise md.InputError(
            "answers: must come from at least one oracle, all for the same pairs, got lengths "
            f"{[len(column) for column in answers]}"
        )
    columns = [[_vote(answer) for answer in column] for column in answers]
    return np.array(columns, dtype=np.int64).T


def _vote(answer: Answer) -> int:
    if isinstance(answer, md.oracles.Failure):
        return md.data.ABSTAIN
    return _FIRST if answer.winner == "first" else _SECOND


def combine_votes(
    votes_NK: np.ndarray,
    *,
    method: Method = "label_model",
    symmetric: bool = True,
    names: Sequence[str] | None = None,
) -> Verdicts:
    """Combine judgements without features of the pairs.

    Args:
        votes_NK: From `votes_of`.
        method: `label_model`, iWL's label model with the class balance in the place of the end
            model, fitted by expectation-maximisation (appendix A.4); `snorkel`; `majority_vote`.
        symmetric: Assume that both classes are equally frequent and that an oracle errs equally
            often on both, which holds if the order of the completions is random. With False the
            label model learns both, which needs more pairs; the other methods ignore it.
        names: Names of the oracles; None for their numbers.

    Raises:
        InputError: The votes are malformed, or there is no such method.
    """
    md.require_choice("method", method, Method)
    votes_NK = _checked(votes_NK)
    transitions_VKC: np.ndarray | None = None
    if method == "majority_vote":
        soft_NC = majority_vote(votes_NK, _CLASSES)
    elif method == "snorkel":
        balance_C = np.full(_CLASSES, 1 / _CLASSES)
        snorkel = fit_snorkel(votes_NK, SnorkelConfig(), balance_C, seed=0)
        soft_NC, transitions_VKC = snorkel.predict(votes_NK), snorkel.transitions()
    else:
        soft_NC, transitions_VKC = _label_model(votes_NK, symmetric)
    return _verdicts(votes_NK, soft_NC, transitions_VKC, names)


def combine_votes_with_features(
    votes_NK: np.ndarray,
    features_ND: np.ndarray,
    *,
    learner: IntegratedWeakLearner | None = None,
    mirrored: bool = True,
    names: Sequence[str] | None = None,
) -> Verdicts:
    """Combine judgements by integrated weak learning (equations 3.4 and 3.7).

    The end model learns from the features which completion wins, while the label model learns the
    accuracy of each oracle.

    Args:
        votes_NK: From `votes_of`.
        features_ND: Features of the pairs, such as the difference between the embeddings of the
            first and the second completion.
        learner: Unfitted estimator with the settings to use; None for `default_learner()`.
        mirrored: True if swapping the completions changes the sign of the features, as with
            differences; every pair is then used in both orders.
        names: Names of the oracles; None for their numbers.

    Raises:
        InputError: The arguments do not fit together.
    """
    votes_NK = _checked(votes_NK)
    features_ND = np.asarray(features_ND)
    if features_ND.ndim != 2 or len(features_ND) != len(votes_NK):
        raise md.InputError(
            f"features_ND: must have a row for each of the {len(votes_NK)} pairs, got shape "
            f"{features_ND.shape}"
        )
    if learner is None:
        learner = default_learner()
    learner = clone(learner).set_params(classes=[_FIRST, _SECOND])
    X, votes = features_ND, votes_NK
    if mirrored:
        X, votes = np.concatenate([X, -X]), np.concatenate([votes, _mirror(votes)])
    learner.fit(X, weak_labels=votes)
    soft_NC = learner.predict_proba_with_votes(X, votes)
    if mirrored:
        # Networks are not exactly odd functions, so the two orders of a pair are averaged.
        here_NC, there_NC = np.split(soft_NC, 2)
        soft_NC = (here_NC + there_NC[:, ::-1]) / 2
    transitions_VKC = learner.label_model_.transitions.transpose(1, 0, 2)
    return _verdicts(votes_NK, soft_NC, transitions_VKC, names)


def default_learner(random_state: int = 0) -> IntegratedWeakLearner:
    """The plain model of equation 3.4, suitable for oracles that err independently.

    Judgements have their full power, and there are no labeling functions beside the oracles.
    """
    return IntegratedWeakLearner(
        vote_weight=1.0, coverage_vote=False, self_supervision=False, random_state=random_state
    )


def _verdicts(
    votes_NK: np.ndarray,
    soft_NC: np.ndarray,
    transitions_VKC: np.ndarray | None,
    names: Sequence[str] | None,
) -> Verdicts:
    listed = list(range(votes_NK.shape[1])) if names is None else list(names)
    if len(listed) != votes_NK.shape[1]:
        raise md.InputError(f"names: {len(listed)} names for {votes_NK.shape[1]} oracles")
    label_model = describe_votes(votes_NK, soft_NC, transitions_VKC, listed)
    return Verdicts(soft_NC[:, _FIRST], label_model)


def _label_model(votes_NK: np.ndarray, symmetric: bool) -> tuple[np.ndarray, np.ndarray]:
    """Posteriors (N, C), and transitions (V, K, C) with abstain as the last outcome."""
    pairs = len(votes_NK)
    seen_NK = np.concatenate([votes_NK, _mirror(votes_NK)]) if symmetric else votes_NK
    votes = Votes.of(seen_NK, _CLASSES, "missing", vote_weight=1.0, abstain_weight=1.0)
    start_VKC = majority_vote_transitions(seen_NK, _CLASSES, "missing", 1.0, "uniform")
    model = SharedTransitions(start_VKC, 1, torch.Generator()).double()
    prior_VKCH = self_transitions(_PRIOR_ACCURACY, _CLASSES, _CLASSES).exp().unsqueeze(-1)
    prior_VKCH = prior_VKCH * _PRIOR_VOTES * (len(seen_NK) / pairs)
    labels_N = torch.full((len(seen_NK),), md.data.UNKNOWN)
    balance_C = torch.full((_CLASSES,), 1 / _CLASSES, dtype=torch.float64)
    before_NC = torch.zeros(len(seen_NK), _CLASSES, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(_MOST_STEPS):
            log_balance_NC = balance_C.log().expand(len(seen_NK), -1)
            expected_NCH, _ = responsibilities(
                model, votes.outcomes_NK, votes.counted_NK, log_balance_NC, labels_N
            )
            expected_NC = expected_NCH.squeeze(-1)
            if (expected_NC - before_NC).abs().max() < _SETTLED:
                break
            before_NC = expected_NC
            maximise_expectation(model, votes, expected_NCH, prior_VKCH)
            # An additional pair of each class keeps both classes possible.
            balance_C = (expected_NC.sum(0) + 1) / (len(seen_NK) + _CLASSES)
        votes_VKC = model.logits_VKCH.softmax(0).squeeze(-1).numpy()
    return expected_NC[:pairs].numpy(), with_abstains(votes_VKC, votes_NK)


def _mirror(votes_NK: np.ndarray) -> np.ndarray:
    """The votes of the same judgements with the completions swapped."""
    return np.where(votes_NK == md.data.ABSTAIN, md.data.ABSTAIN, _SECOND - votes_NK)


def _checked(votes_NK: np.ndarray) -> np.ndarray:
    votes_NK = np.asarray(votes_NK)
    if votes_NK.ndim != 2 or not votes_NK.size or votes_NK.dtype.kind not in "iu":
        raise md.InputError(
            "votes_NK: must be whole numbers, a row for each pair and a column for each oracle, "
            f"got {votes_NK.dtype} of shape {votes_NK.shape}"
        )
    if not np.isin(votes_NK, [md.data.ABSTAIN, _FIRST, _SECOND]).all():
        raise md.InputError("votes_NK: must be 0 (first wins), 1 (second wins) or -1 (none)")
    return votes_NK.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class JudgesOracle:
    """Several oracles combined into one.

    The accuracy of each oracle is estimated on the batch of pairs that `judge` is given, so an
    answer depends on the rest of the batch: give it many pairs at once, hundreds rather than tens.
    A batch of a few pairs is close to a majority vote. A pair that no oracle could judge is a
    failure; a pair with equally probable winners is a tie. Cost, tokens and latency are sums over
    the oracles; a failed oracle counts with what it reports.

    Attributes:
        oracles: The judges, at least one.
        method: Method of `combine_votes`, used if there are no features.
        symmetric: Argument of `combine_votes`.
        features: Function from pairs to the features of `combine_votes_with_features`, which are
            differences of the first and the second completion; None for no features.
        learner: Argument of `combine_votes_with_features`.
        name: Name shown in results.

    Raises:
        InputError: There is no oracle, two oracles are the same, or there is no such method.
    """

    oracles: Sequence[md.oracles.Oracle]
    method: Method = "label_model"
    symmetric: bool = True
    features: Callable[[Sequence[md.oracles.Pair]], np.ndarray] | None = None
    learner: IntegratedWeakLearner | None = None
    name: str = "judges"

    def __post_init__(self) -> None:
        if not self.oracles:
            raise md.InputError("oracles: at least one is needed")
        twice = [who for who, n in Counter(self._identities).items() if n > 1]
        if twice:
            raise md.InputError(f"oracles: {twice[0][0]!r} is there twice")
        md.require_choice("method", self.method, Method)

    @property
    def version(self) -> str:
        """Digest of the oracles' names and versions, and of the way they are combined.

        The function that makes the features enters by its name.
        """
        features = getattr(self.features, "__qualname__", repr(type(self.features)))
        how = (self.method, str(self.symmetric), str(self.learner), features)
        identities = [text for identity in self._identities for text in identity]
        return md.oracles.digest(*how, *identities)[:16]

    def judge(self, pairs: Sequence[md.oracles.Pair], *, repeat: int = 0) -> list[Answer]:
        """One answer for each pair. See `md.oracles.Oracle`."""
        if not pairs:
            return []
        answers, verdicts = self.examine(pairs, repeat=repeat)
        columns = zip(*answers, strict=True)
        return [
            self._answer(pair, list(column), float(probability))
            for pair, column, probability in zip(pairs, columns, verdicts.first_wins, strict=True)
        ]

    def examine(
        self, pairs: Sequence[md.oracles.Pair], *, repeat: int = 0
    ) -> tuple[list[list[Answer]], Verdicts]:
        """The answers of each oracle, and their joint verdicts with the estimated accuracies.

        Args:
            pairs: Pairs to judge, at least one.
            repeat: Argument of `md.oracles.Oracle.judge`.
        """
        answers = [oracle.judge(pairs, repeat=repeat) for oracle in self.oracles]
        votes_NK = votes_of(answers)
        names = [name for name, _ in self._identities]
        if self.features is None:
            verdicts = combine_votes(
                votes_NK, method=self.method, symmetric=self.symmetric, names=names
            )
        else:
            verdicts = combine_votes_with_features(
                votes_NK,
                self.features(pairs),
                learner=self.learner,
                mirrored=self.symmetric,
                names=names,
            )
        return answers, verdicts

    @property
    def _identities(self) -> list[tuple[str, str]]:
        return [(oracle.name, oracle.version) for oracle in self.oracles]

    def _answer(self, pair: md.oracles.Pair, column: Sequence[Answer], first_wins: float) -> Answer:
        cost = math.fsum(answer.cost for answer in column)
        failure = partial(md.oracles.Failure, oracle=self.name, version=self.version, cost=cost)
        judgements = [a for a in column if isinstance(a, md.oracles.Judgement)]
        if not judgements:
            failures = [a for a in column if isinstance(a, md.oracles.Failure)]
            reasons = {failed.reason for failed in failures}
            told = "; ".join(f"{failed.oracle}: {failed.message}" for failed in failures)
            return failure(
                reason=failures[0].reason if len(reasons) == 1 else "unreadable",
                message=f"no oracle judged: {told}",
            )
        if first_wins == 1 / 2:
            return failure(
                reason="tie", message=f"{len(judgements)} oracles judged, to an even verdict"
            )
        winner: Literal["first", "second"] = "first" if first_wins > 1 / 2 else "second"
        agree = sum(judgement.winner == winner for judgement in judgements)
        return md.oracles.Judgement(
            winner=winner,
            rationale=(
                f"{agree} of {len(judgements)} oracles prefer it; its probability is "
                f"{max(first_wins, 1 - first_wins):.3f}."
            ),
            oracle=self.name,
            version=self.version,
            order_shown=pair.order,
            prompt_tokens=sum(judgement.prompt_tokens for judgement in judgements),
            completion_tokens=sum(judgement.completion_tokens for judgement in judgements),
            cost=cost,
            latency=math.fsum(judgement.latency for judgement in judgements),
            cached=all(judgement.cached for judgement in judgements),
        )
