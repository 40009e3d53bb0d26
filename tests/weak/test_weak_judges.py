"""Oracles as judges: how good each is, and whether together they beat a majority vote."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

import modicum as md
from modicum.oracles import Failure, Judgement, NoisyOracle, Oracle, Pair
from modicum_algorithms.weak.estimators import IntegratedWeakLearner
from modicum_algorithms.weak.judges import (
    JudgesOracle,
    combine_votes,
    combine_votes_with_features,
    votes_of,
)

ACCURACIES = np.array([0.9, 0.7, 0.6, 0.55, 0.55])


@dataclass(frozen=True)
class Truth:
    """Knows that the completion "1" is better than "0"; fails, at a cost, on prompts with a "?"."""

    name: str = "truth"
    version: str = "1"
    reason: str = "unavailable"

    def judge(self, pairs, *, repeat=0):
        return [
            Failure(reason=self.reason, message="no", oracle=self.name, version="1", cost=0.5)
            if "?" in pair.prompt
            else Judgement(
                winner="first" if pair.first == "1" else "second",
                oracle=self.name,
                version=self.version,
                order_shown=pair.order,
                prompt_tokens=3,
                completion_tokens=2,
                cost=0.25,
                latency=1.0,
                cached=self.name == "cached",
            )
            for pair in pairs
        ]


def draw(pairs, first_wins=0.5, accuracies=ACCURACIES, seed=0):
    """Pairs, their truth (0: first wins), and judges of given accuracies."""
    truth = (np.random.default_rng(seed).random(pairs) >= first_wins).astype(int)
    listed = [Pair(str(n), "10"[y], "01"[y]) for n, y in enumerate(truth)]
    judges = [
        NoisyOracle(Truth(), 1 - accuracy, 1 - accuracy, seed=100 * seed + k)
        for k, accuracy in enumerate(accuracies)
    ]
    return listed, truth, judges


def votes(pairs, judges):
    return votes_of([judge.judge(pairs) for judge in judges])


def right(verdicts, truth):
    return (verdicts.first_wins > 0.5) == (truth == 0)


def standard_errors_apart(better, worse):
    """McNemar: how far two paired rates of being right are apart."""
    only_better, only_worse = (better & ~worse).sum(), (worse & ~better).sum()
    return (only_better - only_worse) / math.sqrt(only_better + only_worse)


@pytest.fixture(scope="module")
def drawn():
    pairs, truth, judges = draw(3000)
    return votes(pairs, judges), truth


class TestWithoutFeatures:
    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("first_wins", [0.5, 0.75])
    def test_it_beats_majority_vote_and_knows_how_good_each_judge_is(self, symmetric, first_wins):
        pairs, truth, judges = draw(3000, first_wins)
        votes_NK = votes(pairs, judges)
        together = combine_votes(votes_NK, symmetric=symmetric)
        majority = combine_votes(votes_NK, method="majority_vote")
        assert right(together, truth).mean() > 0.85
        assert standard_errors_apart(right(together, truth), right(majority, truth)) > 8
        assert together.accuracy == pytest.approx(ACCURACIES, abs=0.06)
        # Counted against the majority vote, the best judge looks worse than it is.
        assert majority.accuracy[0] < 0.85

    def test_so_does_snorkel(self, drawn):
        votes_NK, truth = drawn
        together = combine_votes(votes_NK, method="snorkel")
        majority = combine_votes(votes_NK, method="majority_vote")
        assert standard_errors_apart(right(together, truth), right(majority, truth)) > 6
        assert together.accuracy == pytest.approx(ACCURACIES, abs=0.1)

    def test_probabilities_are_calibrated(self, drawn):
        """Mean probability of the preferred completion is how often it is the better one."""
        votes_NK, truth = drawn
        verdicts = combine_votes(votes_NK)
        sure = np.maximum(verdicts.first_wins, 1 - verdicts.first_wins)
        assert sure.mean() == pytest.approx(right(verdicts, truth).mean(), abs=0.04)

    def test_errors_that_depend_on_the_class_are_learned_if_asked(self):
        pairs, _, _ = draw(3000)
        judges = [
            NoisyOracle(Truth(), first, second, seed=k)
            for k, (first, second) in enumerate([(0.05, 0.4), (0.3, 0.1), (0.2, 0.2), (0.3, 0.3)])
        ]
        transitions = combine_votes(votes(pairs, judges), symmetric=False).label_model.transitions
        assert 1 - transitions[:, 0, 0] == pytest.approx([0.05, 0.3, 0.2, 0.3], abs=0.07)
        assert 1 - transitions[:, 1, 1] == pytest.approx([0.4, 0.1, 0.2, 0.3], abs=0.07)

    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("pairs", [1, 2, 8, 40, 400])
    def test_classes_do_not_change_places(self, pairs, symmetric):
        """Three good judges and two near chance: their word is never turned round."""
        accuracies = [0.85, 0.85, 0.85, 0.5, 0.5]
        for seed in range(10):
            listed, _, judges = draw(pairs, 0.7, accuracies, seed)
            votes_NK = votes(listed, judges)
            verdicts = combine_votes(votes_NK, symmetric=symmetric)
            assert verdicts.accuracy[:3].mean() > 0.6
            unanimous = (votes_NK == votes_NK[:, :1]).all(1)
            assert ((verdicts.first_wins > 0.5) == (votes_NK[:, 0] == 0))[unanimous].all()

    @pytest.mark.parametrize("method", ["label_model", "snorkel", "majority_vote"])
    def test_completions_that_change_places_change_the_verdict_alone(self, drawn, method):
        votes_NK = drawn[0][:500].copy()
        votes_NK[::7, 1] = -1
        mirrored = np.where(votes_NK < 0, -1, 1 - votes_NK)
        here, there = (combine_votes(v, method=method) for v in (votes_NK, mirrored))
        assert here.first_wins == pytest.approx(1 - there.first_wins, abs=1e-5)
        assert here.accuracy == pytest.approx(there.accuracy, abs=1e-5)

    def test_failures_abstain_and_say_nothing(self, drawn):
        votes_NK, truth = drawn
        with_failures = votes_NK.copy()
        with_failures[np.random.default_rng(1).random(votes_NK.shape) < 0.2] = -1
        with_failures[:3] = -1
        silent = np.concatenate([with_failures, np.full((len(truth), 1), -1)], 1)
        verdicts = combine_votes(silent)
        assert verdicts.accuracy[:5] == pytest.approx(ACCURACIES, abs=0.08)
        assert np.isnan(verdicts.accuracy[5])
        assert verdicts.first_wins[:3] == pytest.approx([0.5] * 3)
        without = combine_votes(with_failures)
        assert verdicts.first_wins == pytest.approx(without.first_wins, abs=1e-6)
        coverage = (with_failures >= 0).mean(0)
        assert verdicts.label_model.coverage == pytest.approx([*coverage, 0.0])

    def test_one_judge_is_followed(self):
        votes_N1 = np.array([[0], [1], [1], [-1]])
        assert (combine_votes(votes_N1).first_wins > 0.5).tolist() == [True, False, False, False]


def features_of(truth, strength=(1.0, 0.7), seed=0):
    """Differences of two completions: two numbers that tell, fourteen that do not."""
    features = np.random.default_rng(seed).normal(size=(len(truth), 16))
    features[:, : len(strength)] += np.array(strength) * (1 - 2 * truth)[:, None]
    return features.astype(np.float32)


class TestWithFeatures:
    @pytest.mark.slow
    def test_features_add_to_what_judges_say(self, drawn):
        votes_NK, truth = drawn
        with_features = combine_votes_with_features(votes_NK, features_of(truth))
        without = combine_votes(votes_NK)
        assert standard_errors_apart(right(with_features, truth), right(without, truth)) > 5
        assert with_features.accuracy == pytest.approx(ACCURACIES, abs=0.06)

    def test_completions_that_change_places_change_the_verdict_alone(self, drawn):
        votes_NK, truth = drawn[0][:200], drawn[1][:200]
        features, mirrored = features_of(truth), 1 - votes_NK
        learner = IntegratedWeakLearner(max_iterations=60, batch_size=400, random_state=0)
        here = combine_votes_with_features(votes_NK, features, learner=learner)
        there = combine_votes_with_features(mirrored, -features, learner=learner)
        agree = (here.first_wins > 0.5) == (there.first_wins < 0.5)
        assert agree.mean() > 0.97
        assert not hasattr(learner, "end_model_")  # a clone is fitted

    def test_features_of_no_direction_are_taken_as_they_are(self, drawn):
        """Length of both together says nothing of the winner, nor does its negative."""
        votes_NK = drawn[0][:200]
        learner = IntegratedWeakLearner(max_iterations=20, random_state=0)
        verdicts = combine_votes_with_features(
            votes_NK, np.ones((200, 1)), learner=learner, mirrored=False, names=list("abcde")
        )
        assert verdicts.first_wins.shape == (200,)
        assert list(verdicts.label_model.table.index) == list("abcde")


class TestBadInput:
    @pytest.mark.parametrize(
        ("votes_NK", "message"),
        [
            (np.empty((0, 2), int), "votes_NK: must be whole numbers, a row for each pair"),
            (np.zeros(3, int), "votes_NK: must be whole numbers"),
            (np.zeros((3, 2)), "votes_NK: must be whole numbers.* got float64"),
            (np.array([[0, 2]]), "votes_NK: must be 0 .* 1 .* or -1"),
        ],
    )
    def test_votes(self, votes_NK, message):
        with pytest.raises(md.InputError, match=message):
            combine_votes(votes_NK)
        with pytest.raises(md.InputError, match=message):
            combine_votes_with_features(votes_NK, np.zeros((len(votes_NK), 1)))

    def test_the_rest(self):
        votes_NK = np.array([[0, 1], [1, 1]])
        with pytest.raises(md.InputError, match="method: must be one of label_model, snorkel"):
            combine_votes(votes_NK, method="mean")
        with pytest.raises(md.InputError, match="names: 1 names for 2 oracles"):
            combine_votes(votes_NK, names=["a"])
        with pytest.raises(md.InputError, match="features_ND: must have a row for each of the 2"):
            combine_votes_with_features(votes_NK, np.zeros((3, 1)))
        with pytest.raises(md.InputError, match="answers: must come from at least one oracle"):
            votes_of([])
        with pytest.raises(md.InputError, match=r"answers: .* got lengths \[1, 2\]"):
            votes_of([Truth().judge([Pair("", "1", "0")] * n) for n in (1, 2)])
        with pytest.raises(md.InputError, match="oracles: at least one is needed"):
            JudgesOracle(oracles=[])
        with pytest.raises(md.InputError, match="oracles: 'truth' is there twice"):
            JudgesOracle(oracles=[Truth(), Truth()])
        with pytest.raises(md.InputError, match="method: must be one of"):
            JudgesOracle(oracles=[Truth()], method="mean")


class TestJudgesOracle:
    def test_it_answers_as_votes_combined(self):
        pairs, _, judges = draw(400)
        oracle = JudgesOracle(oracles=judges)
        assert isinstance(oracle, Oracle)
        answers = oracle.judge(pairs)
        verdicts = combine_votes(votes(pairs, judges))
        assert [a.winner == "first" for a in answers] == list(verdicts.first_wins > 0.5)
        assert [a.order_shown for a in answers] == [p.order for p in pairs]
        assert {(a.oracle, a.version) for a in answers} == {("judges", oracle.version)}
        each, examined = oracle.examine(pairs)
        assert [len(column) for column in each] == [400] * 5
        assert list(examined.label_model.names) == [judge.name for judge in judges]
        assert examined.accuracy == pytest.approx(verdicts.accuracy)
        assert oracle.judge([]) == []

    def test_the_repeat_reaches_the_oracles(self):
        pairs, _, judges = draw(100)
        oracle = JudgesOracle(oracles=judges)
        winners = [[a.winner for a in oracle.judge(pairs, repeat=n)] for n in (0, 1, 0)]
        assert winners[0] == winners[2] != winners[1]

    def test_costs_and_tokens_are_sums(self):
        oracle = JudgesOracle(oracles=[Truth("a"), Truth("cached"), NoisyOracle(Truth(), 1, 1)])
        answer, failure = oracle.judge([Pair("", "1", "0"), Pair("?", "1", "0")])
        assert answer.winner == "first"
        assert answer.rationale.startswith("2 of 3 oracles prefer it; its probability is 0.")
        assert (answer.prompt_tokens, answer.completion_tokens) == (9, 6)
        assert (answer.cost, answer.latency, answer.cached) == (0.75, 3.0, False)
        assert (failure.reason, failure.cost) == ("unavailable", 1.5)
        assert failure.message == "no oracle judged: a: no; cached: no; truth: no"

    def test_a_failed_oracles_cost_counts_where_others_judged(self):
        oracle = JudgesOracle(oracles=[Truth("a"), PickyTruth()])
        (answer,) = oracle.judge([Pair("", "1", "0")])
        assert answer.cost == pytest.approx(0.25 + 0.01)
        assert answer.rationale.startswith("1 of 1 oracles")

    def test_reasons_that_differ(self):
        oracle = JudgesOracle(oracles=[Truth("a"), Truth("b", reason="budget")])
        (failure,) = oracle.judge([Pair("?", "1", "0")])
        assert failure.reason == "unreadable"

    def test_an_even_verdict_is_a_tie(self):
        opposed = [Truth("a"), NoisyOracle(Truth("b"), 1.0, 1.0)]
        (tie,) = JudgesOracle(oracles=opposed, method="majority_vote").judge([Pair("", "1", "0")])
        assert (tie.reason, tie.cost) == ("tie", 0.5)

    def test_with_features(self):
        pairs, truth, judges = draw(150)
        learner = IntegratedWeakLearner(max_iterations=40, random_state=0)
        oracle = JudgesOracle(
            oracles=judges, features=lambda asked: features_of(truth[: len(asked)]), learner=learner
        )
        expected = combine_votes_with_features(
            votes(pairs, judges), features_of(truth), learner=learner
        )
        winners = [a.winner == "first" for a in oracle.judge(pairs)]
        assert winners == list(expected.first_wins > 0.5)

    def test_the_version_tells_what_answers_depend_on(self):
        base = JudgesOracle(oracles=[Truth("a"), Truth("b")])
        versions = {
            base.version,
            replace(base, method="snorkel").version,
            replace(base, symmetric=False).version,
            replace(base, oracles=[Truth("a"), Truth("b", version="2")]).version,
            replace(base, features=len).version,
            replace(base, features=sum).version,
            replace(base, learner=IntegratedWeakLearner(vote_weight=0.7)).version,
        }
        assert len(versions) == 7
        assert replace(base, name="other").version == base.version


class PickyTruth(Truth):
    def judge(self, pairs, *, repeat=0):
        return [
            Failure(reason="rejected", message="no", oracle="picky", version="1", cost=0.01)
            for _ in pairs
        ]
